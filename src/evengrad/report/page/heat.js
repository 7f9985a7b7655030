/* Layers by steps on a canvas. A level is a grid of cells with their numbers: that of the page, or a finer one of the part in view. */

/* Cell i of so many that share [from, to) begins here; and back: the cell that holds a place. */
const begins = (from, to, cells, i) => from + Math.floor((i * (to - from)) / cells);
const holds = (from, to, cells, at) => clamp(Math.ceil(((at - from + 1) * cells) / (to - from)) - 1, 0, cells - 1);

/** Gives a level its size; `box` is the part of the run that it shows, in sampled steps and layers. */
const leveled = (data) => {
  const S = data.steps.length, L = data.layers.length, { box } = data;
  const fine = box.s1 - box.s0 === S && box.l1 - box.l0 === L;
  return { ...data, S, L, fine, all: { s0: 0, s1: S, l0: 0, l1: L } };
};
const stepName = (level, s) => { const [a, b] = level.steps[s]; return a === b ? `step ${a.toLocaleString("en")}` : `steps ${a.toLocaleString("en")} to ${b.toLocaleString("en")}`; };
/* Cells of a level -> the part of the run, and back. */
const boxOf = ({ box, S, L }, { s0, s1, l0, l1 }) => ({
  s0: begins(box.s0, box.s1, S, s0), s1: begins(box.s0, box.s1, S, s1), l0: begins(box.l0, box.l1, L, l0), l1: begins(box.l0, box.l1, L, l1),
});
const cellsOf = ({ box, S, L }, part) => ({
  s0: holds(box.s0, box.s1, S, part.s0), s1: holds(box.s0, box.s1, S, part.s1 - 1) + 1,
  l0: holds(box.l0, box.l1, L, part.l0), l1: holds(box.l0, box.l1, L, part.l1 - 1) + 1,
});

/**
 * Draws one picture, and answers pointer and keys.
 * host: {exact, signal, plane(level), moved(map), pinned(map), looked(map)}; `exact` asks for the numbers of a part of the run, or is null.
 */
const heat = (figure, data, host) => {
  const canvas = figure.querySelector("canvas.heat"), ends = figure.querySelectorAll(".ends.run span"), base = leveled(data);
  const at = { step: base.S - 1, layer: 0 };
  const map = { figure, canvas, base, level: base, view: base.all, at, pin: null, hovering: false, label: data.label || "" };
  let drag = null, skip = false, pressed = null, painted = { key: "", image: null }, asked = 0, timer = 0;

  /* The cells in view, taken together to the points of the screen; kept until the signal, the view, the size or the colours change. */
  const paint = (plane, width, height) => {
    const { s0, s1, l0, l1 } = map.view, { L } = map.level, W = Math.min(s1 - s0, width), H = Math.min(l1 - l0, height);
    const key = [plane.key, s0, s1, l0, l1, W, H, css("--bg")].join();
    if (painted.key === key && painted.level === map.level) return painted.image;
    const least = new Float32Array(W * H).fill(NaN), greatest = new Float32Array(W * H).fill(NaN), colours = palette(plane);
    const column = Int32Array.from({ length: s1 - s0 }, (_, s) => Math.floor((s * W) / (s1 - s0)));
    const line = Int32Array.from({ length: l1 - l0 }, (_, l) => H - 1 - Math.floor((l * H) / (l1 - l0)));
    for (let s = s0; s < s1; s++) for (let l = l0; l < l1; l++) {
      const from = s * L + l, to = line[l - l0] * W + column[s - s0];
      if (!(plane.least[from] >= least[to])) least[to] = plane.least[from] === plane.least[from] ? plane.least[from] : least[to];
      if (!(plane.greatest[from] <= greatest[to])) greatest[to] = plane.greatest[from] === plane.greatest[from] ? plane.greatest[from] : greatest[to];
    }
    const image = new ImageData(W, H), pixels = new Uint32Array(image.data.buffer), small = document.createElement("canvas");
    for (let i = 0; i < pixels.length; i++) pixels[i] = colours[shade(plane, least[i], greatest[i])];
    small.width = W; small.height = H;
    small.getContext("2d").putImageData(image, 0, 0);
    painted = { key, level: map.level, image: small };
    return small;
  };

  map.draw = () => {
    const plane = host.plane(map.level);
    if (!canvas.clientWidth || !plane) return; /* a frame may have no width yet */
    const { s0, s1, l0, l1 } = map.view, many = base.L > 100;
    const ratio = Math.max(1, window.devicePixelRatio || 1), height = clamp(base.L * 16, 160, many ? 420 : 320);
    const size = [Math.round(canvas.clientWidth * ratio), Math.round(height * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) { [canvas.width, canvas.height] = size; canvas.style.height = `${height}px`; }
    const g = canvas.getContext("2d"), w = canvas.width / (s1 - s0), h = canvas.height / (l1 - l0);
    g.imageSmoothingEnabled = false;
    g.drawImage(paint(plane, ...size), 0, 0, ...size);
    const frame = (x, y, dx, dy) => {
      g.strokeStyle = css("--card"); g.lineWidth = 4 * ratio; g.strokeRect(x, y, dx, dy);
      g.strokeStyle = css("--ink"); g.lineWidth = 1.5 * ratio; g.strokeRect(x, y, dx, dy);
    };
    const band = (x, y, dx, dy) => { /* round a row or a column; one that is thin is a line */
      const thin = Math.min(dx, dy) < 6 * ratio, room = ratio * 1.5;
      if (!thin) { frame(x, y, dx, dy); return; }
      const [cx, cy, wide, tall] = dx < dy ? [x + dx / 2, y, 0, dy] : [x, y + dy / 2, dx, 0];
      g.fillStyle = css("--card"); g.fillRect(cx - room, cy - room, wide + 2 * room, tall + 2 * room);
      g.fillStyle = css("--ink"); g.fillRect(cx - room / 2, cy - room / 2, wide + room, tall + room);
    };
    const x = (s) => (s - s0) * w, y = (l) => canvas.height - (l - l0) * h;
    if (map.pin) {
      const cell = cellsOf(map.level, map.pin);
      band(1.5 * ratio, y(cell.l1), canvas.width - 3 * ratio, h);
      band(x(cell.s0), 1.5 * ratio, w, canvas.height - 3 * ratio);
    }
    if (map.hovering) {
      const cw = Math.max(w, 5 * ratio), ch = Math.max(h, 5 * ratio);
      frame(x(map.at.step + 0.5) - cw / 2, y(map.at.layer + 0.5) - ch / 2, cw, ch);
    }
    if (drag && drag.moved) frame(Math.min(drag.x, drag.toX) * ratio, Math.min(drag.y, drag.toY) * ratio, Math.abs(drag.toX - drag.x) * ratio, Math.abs(drag.toY - drag.y) * ratio);
  };

  /** What is known of a cell in words. */
  map.told = (step, layer) => {
    const plane = host.plane(map.level), k = step * map.level.L + layer;
    return plane ? between(plane, plane.least[k], plane.greatest[k]) : "";
  };
  map.here = (cell = map.at) => boxOf(map.level, { s0: cell.step, s1: cell.step + 1, l0: cell.layer, l1: cell.layer + 1 });
  const goTo = (level, part) => {
    const cell = cellsOf(level, { ...map.here(), ...part });
    map.level = level;
    map.at = { step: cell.s0, layer: cell.l0 };
  };

  const look = (next) => {
    const { level } = map;
    map.view = next.s1 - next.s0 >= level.S && next.l1 - next.l0 >= level.L ? level.all : next;
    map.at = { step: clamp(map.at.step, map.view.s0, map.view.s1 - 1), layer: clamp(map.at.layer, map.view.l0, map.view.l1 - 1) };
    const { s0, s1, l0, l1 } = map.view;
    ends[0].textContent = stepName(level, s0); ends[2].textContent = stepName(level, s1 - 1);
    ends[1].textContent = map.whole() ? "input at the bottom, output at the top" : `${level.short[l0]} at the bottom, ${level.short[l1 - 1]} at the top`;
    host.looked(map); map.draw(); refine();
  };
  map.whole = () => map.level === base && map.view === base.all;
  map.all = () => { if (map.level !== base) goTo(base, {}); look(base.all); };
  map.box = () => boxOf(map.level, map.view);
  /** Shows a part of the run, in the page's own cells first. */
  map.show = (part) => { const cells = cellsOf(base, part); if (map.level !== base) goTo(base, {}); look(cells); };

  /* Where a cell in view stands for several numbers and the server has them, a finer level takes its place. */
  const refine = () => {
    const mine = ++asked, part = map.box(), cells = map.view;
    const pooled = part.s1 - part.s0 > cells.s1 - cells.s0 || part.l1 - part.l0 > cells.l1 - cells.l0;
    clearTimeout(timer);
    if (!host.exact || map.whole() || !pooled || (map.level !== base && map.view === map.level.all)) return;
    timer = setTimeout(async () => {
      const found = await host.exact(part).catch(() => null);
      if (!found || mine !== asked || host.signal?.aborted) return;
      const finer = leveled(found);
      goTo(finer, { s0: clamp(map.here().s0, part.s0, part.s1 - 1), l0: clamp(map.here().l0, part.l0, part.l1 - 1) });
      look(finer.all);
    }, 120);
  };

  const zoom = (factor) => {
    if (factor < 1 && map.level !== base) {
      const part = map.box(), cells = cellsOf(base, part);
      goTo(base, {});
      map.view = cells;
    }
    const { view, at, level } = map, range = (a, b, centre, most) => {
      const size = Math.round(clamp((b - a) / factor, Math.min(8, most), most)), from = Math.round(clamp(centre - size / 2, 0, most - size));
      return [from, from + size];
    };
    const [s0, s1] = range(view.s0, view.s1, at.step, level.S), [l0, l1] = range(view.l0, view.l1, at.layer, level.L);
    look({ s0, s1, l0, l1 });
  };
  const cellAt = (e) => {
    const box = canvas.getBoundingClientRect(), { s0, s1, l0, l1 } = map.view;
    const step = s0 + Math.floor(((e.clientX - box.left) / box.width) * (s1 - s0)), layer = l1 - 1 - Math.floor(((e.clientY - box.top) / box.height) * (l1 - l0));
    return { step: clamp(step, s0, s1 - 1), layer: clamp(layer, l0, l1 - 1) };
  };
  /* The cell that the keys reach stays in sight; past the end of a finer level the page's own cells take over. */
  const go = (ds, dl) => {
    let { level } = map, step = map.at.step + ds, layer = map.at.layer + dl;
    if (level !== base && (step < 0 || layer < 0 || step >= level.S || layer >= level.L)) {
      const part = map.box();
      goTo(base, {});
      map.view = cellsOf(base, part);
      level = base; step = map.at.step + Math.sign(ds); layer = map.at.layer + Math.sign(dl);
    }
    map.at = { step: clamp(step, 0, level.S - 1), layer: clamp(layer, 0, level.L - 1) };
    const { s0, s1, l0, l1 } = map.view, shift = (a, b, x) => (x < a ? x - a : x >= b ? x - b + 1 : 0);
    const right = shift(s0, s1, map.at.step), up = shift(l0, l1, map.at.layer);
    if (right || up) look({ s0: s0 + right, s1: s1 + right, l0: l0 + up, l1: l1 + up });
  };

  canvas.addEventListener("pointerdown", (e) => {
    skip = false;
    pressed = cellAt(e);
    if (e.pointerType === "touch" || e.button) return;
    drag = { x: e.offsetX, y: e.offsetY, toX: e.offsetX, toY: e.offsetY, from: cellAt(e), moved: false };
  });
  canvas.addEventListener("pointermove", (e) => {
    map.at = cellAt(e); map.hovering = true;
    if (drag) Object.assign(drag, { toX: e.offsetX, toY: e.offsetY, moved: drag.moved || Math.hypot(e.offsetX - drag.x, e.offsetY - drag.y) > 8 });
    host.moved(map); map.draw();
  });
  canvas.addEventListener("pointerleave", () => { drag = null; map.hovering = document.activeElement === canvas && canvas.matches(":focus-visible"); map.draw(); });
  canvas.addEventListener("pointerup", (e) => {
    const done = drag, to = cellAt(e);
    drag = null;
    if (!done || !done.moved) return;
    const span = (a, b) => [Math.min(a, b), Math.max(a, b) + 1], [s0, s1] = span(done.from.step, to.step), [l0, l1] = span(done.from.layer, to.layer);
    look({ s0, s1, l0, l1 });
    skip = true;
  });
  canvas.addEventListener("click", (e) => {
    if (skip) { skip = false; return; }
    map.at = pressed || cellAt(e); /* a click's own place is rounded to whole points of the screen */
    pressed = null; map.hovering = true; host.moved(map); host.pinned(map);
  });
  canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) { map.hovering = true; host.moved(map); map.draw(); } });
  canvas.addEventListener("blur", () => { map.hovering = false; map.draw(); });
  canvas.addEventListener("keydown", (e) => {
    const { S, L } = map.level;
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1], PageUp: [0, Math.min(10, L - 1 - map.at.layer)], PageDown: [0, -Math.min(10, map.at.layer)], Home: [-map.at.step, 0], End: [S - 1 - map.at.step, 0] }[e.key];
    if (move) { go(...move); map.hovering = true; host.moved(map); map.draw(); }
    else if (e.key === "Enter" || e.key === " ") host.pinned(map);
    else if (e.key === "+" || e.key === "=") zoom(2);
    else if (e.key === "-") zoom(0.5);
    else if (e.key === "Escape") map.all();
    else return;
    e.preventDefault();
  });
  return map;
};
