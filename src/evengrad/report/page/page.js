"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const mix = (a, b, t) => a.map((v, i) => Math.round(v + (b[i] - v) * t));
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

  const bytes = (text) => {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  };
  const floats = (text) => {
    const view = new DataView(bytes(text).buffer), out = new Float32Array(view.byteLength / 4);
    for (let i = 0; i < out.length; i++) out[i] = view.getFloat32(4 * i, true);
    return out;
  };
  /* What is large comes deflated, all first bytes before all second ones. */
  const unpack = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const raw = new Uint8Array(await new Response(stream).arrayBuffer()), n = raw.length / 4, whole = new Uint32Array(n);
    for (let i = 0; i < n; i++) whole[i] = raw[i] | (raw[n + i] << 8) | (raw[2 * n + i] << 16) | (raw[3 * n + i] << 24);
    return new Float32Array(whole.buffer);
  };
  const read = async (plane) => {
    if (plane.greatest instanceof Float32Array) return plane;
    const greatest = plane.values ? floats(plane.values) : await unpack(plane.greatest);
    const least = plane.least ? await unpack(plane.least) : greatest;
    return Object.assign(plane, { least, greatest, values: null });
  };
  const number = (x) => {
    if (x === 0) return "0";
    const size = Math.abs(x);
    const text = size >= 1e-3 && size < 1e5 ? String(Number(x.toPrecision(3))) : x.toExponential(1).replace(".0e", "e").replace("e+", "e");
    return text.replace(/^-/, "−");
  };
  const percent = (x) => (x > 0 && x < 0.005 ? "<1%" : x < 1 && x >= 0.995 ? ">99%" : `${(100 * x).toFixed(0)}%`);
  const say = (plane, x) => {
    if (Number.isNaN(x)) return "not seen";
    if (!Number.isFinite(x)) return "not finite";
    if (plane.scale === "fraction") return percent(x) + plane.unit;
    return x === 0 ? "exactly zero" : number(x) + plane.unit;
  };

  const between = (plane, low, high) => {
    if (low === high || Number.isNaN(low)) return say(plane, high);
    const bare = { ...plane, unit: "" };
    return `${say(bare, low)} to ${Number.isFinite(high) ? say(bare, high) + plane.unit : "not finite"}`;
  };

  /* 2 × 512 colours from the cold end to the warm one, then those of what is no value. */
  const HALF = 512, ZERO = 2 * HALF + 1, NAN = ZERO + 1, UNSEEN = NAN + 1;
  const palette = (plane) => {
    const ends = ["--cold2", "--cold", "--mid", "--warm", "--warm2"].map((n) => rgb(css(n))), out = new Uint32Array(UNSEEN + 1);
    const put = (i, [r, g, b]) => { out[i] = (255 << 24) | (b << 16) | (g << 8) | r; };
    const ramp = (a, b, c, t) => (t < 0.5 ? mix(a, b, 2 * t) : mix(b, c, 2 * t - 1));
    const bend = plane.scale === "log" ? Math.sqrt : (t) => t;
    for (let i = 0; i <= HALF; i++) {
      put(HALF + i, ramp(ends[2], ends[3], ends[4], bend(i / HALF)));
      if (i) put(HALF - i, ramp(ends[2], ends[1], ends[0], bend(i / HALF)));
    }
    put(ZERO, rgb(css("--zero"))); put(NAN, rgb(css("--nan"))); put(UNSEEN, rgb(css("--card")));
    return out;
  };
  /* Which of those a cell gets: not finite before exactly zero before what lies furthest from the centre. */
  const shade = (plane, low, high) => {
    if (high !== high) return UNSEEN;
    if (high === Infinity) return NAN;
    if (plane.scale === "fraction") return HALF + Math.round(HALF * clamp(high, 0, 1));
    if (low === 0) return ZERO;
    const up = Math.log10(high) - plane.centre, down = low === high ? up : Math.log10(low) - plane.centre;
    return HALF + Math.round(HALF * clamp((-down > up ? down : up) / plane.reach, -1, 1));
  };

  const node = (name, attributes, ...children) => {
    const made = name[0] === "+" ? document.createElementNS(SVG, name.slice(1)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  const tablist = (root, pick) => {
    if (!root) return () => {};
    const buttons = [...root.querySelectorAll("button")];
    const select = (key, focus) => buttons.forEach((b) => {
      const on = b.dataset.key === key;
      b.setAttribute("aria-selected", on);
      b.tabIndex = on ? 0 : -1;
      if (on && focus) b.focus();
    });
    const choose = (button, focus) => { select(button.dataset.key, focus); pick(button.dataset.key); };
    buttons.forEach((b, i) => {
      b.addEventListener("click", () => choose(b, false));
      b.addEventListener("keydown", (e) => {
        const move = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
        if (move) { e.preventDefault(); choose(buttons[(i + move + buttons.length) % buttons.length], true); }
      });
    });
    return select;
  };

  const ticks = (low, high) => {
    const raw = (high - low) / 3, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const out = [];
    for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) out.push(Math.abs(t) < step * 1e-9 ? 0 : t);
    return out;
  };
  const decadeTicks = (low, high) => {
    const step = Math.max(1, Math.ceil((high - low) / 5)), out = [];
    for (let t = Math.ceil(low); t <= high; t += step) out.push(t);
    return out;
  };

  /* lines: [{name, steps, values, low}]; null where a value is not finite, undefined where none was seen; `low` makes it a band. On a log axis 0 is a mark at the floor. */
  const plot = (root, lines, { log = false, fraction = false, height = 230, ends = null, mark = null, over = "the steps" } = {}) => {
    const width = Math.max(240, root.clientWidth), left = 46, right = 6, top = 10, bottom = 24;
    const f = log ? Math.log10 : (x) => x, usable = (v) => v !== null && v !== undefined && (!log || v > 0);
    let low = Infinity, high = -Infinity;
    for (const l of lines) for (const side of [l.values, l.low || []]) for (const v of side) if (usable(v)) { low = Math.min(low, f(v)); high = Math.max(high, f(v)); }
    if (low > high) [low, high] = [0, 1];
    if (fraction) [low, high] = [0, 1];
    else if (log) { low = Math.floor(low); high = Math.max(low + 1, Math.ceil(high)); }
    else if (high - low < 1e-12 * Math.max(1, Math.abs(high))) { const pad = Math.abs(high) * 0.1 || 1; low -= pad; high += pad; }
    else { const pad = 0.06 * (high - low); high += pad; low = low >= 0 && low - pad < 0 ? 0 : low - pad; }
    const first = Math.min(...lines.map((l) => l.steps[0])), last = Math.max(...lines.map((l) => l.steps[l.steps.length - 1]), first + 1);
    const x = (s) => left + ((s - first) / (last - first)) * (width - left - right);
    const y = (v) => top + (1 - (f(v) - low) / (high - low)) * (height - top - bottom);
    const floor = height - bottom, svg = node("+svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${lines.map((l) => l.name).join(", ")} over ${over}` });
    for (const t of log ? decadeTicks(low, high) : ticks(low, high)) {
      const at = top + (1 - (t - low) / (high - low)) * (floor - top);
      svg.append(node("+line", { x1: left, x2: width - right, y1: at, y2: at, class: "grid" }));
      svg.append(node("+text", { x: left - 7, y: at + 4, "text-anchor": "end" }, fraction ? percent(t) : log ? number(10 ** t) : number(Number(t.toPrecision(6)))));
    }
    const [start, end] = ends || [`step ${first.toLocaleString("en")}`, last.toLocaleString("en")];
    svg.append(node("+text", { x: left, y: height - 6 }, start));
    svg.append(node("+text", { x: width - right, y: height - 6, "text-anchor": "end" }, end));
    if (mark !== null) svg.append(node("+line", { x1: x(mark), x2: x(mark), y1: top, y2: floor, class: "cursor" }));
    lines.forEach((line, n) => {
      const edge = (values, paint) => {
        let path = "", pen = false;
        line.steps.forEach((s, i) => {
          const v = values[i];
          if (!usable(v)) { pen = false; if (v !== undefined) paint(s, v); return; }
          path += `${pen ? "L" : "M"}${x(s).toFixed(1)} ${y(v).toFixed(1)}${pen ? "" : "h.1"}`;
          pen = true;
        });
        return path || "M0 0";
      };
      const marks = { null: "", 0: "" }; /* one path a kind: a thousand marks are two elements */
      const paint = (s, v) => { marks[v] += `M${(x(s) - 2).toFixed(1)} ${v === null ? top - 4 : floor - 5}h4v5h-4z`; };
      const upper = edge(line.values, paint), name = n ? "path second" : "path";
      if (line.low) {
        const lower = edge(line.low, paint), both = line.steps.map((s, i) => [s, line.values[i], line.low[i]]).filter(([, a, b]) => usable(a) && usable(b));
        const area = [...both.map(([s, a]) => `${x(s).toFixed(1)} ${y(a).toFixed(1)}`), ...both.reverse().map(([s, , b]) => `${x(s).toFixed(1)} ${y(b).toFixed(1)}`)];
        if (area.length) svg.append(node("+path", { d: `M${area.join("L")}z`, class: "band" }));
        svg.append(node("+path", { d: lower, class: `${name} thin` }));
      }
      svg.append(node("+path", { d: upper, class: line.low ? `${name} thin` : name }));
      if (marks.null) svg.append(node("+path", { d: marks.null, class: "mark-nan" }));
      if (marks[0]) svg.append(node("+path", { d: marks[0], class: "mark-zero" }));
    });
    root.replaceChildren(svg);
  };

  const words = (lines) => lines.flatMap((l, n) => {
    const text = (v) => (v === null ? "not finite" : number(v));
    return [node("i", { class: n ? "swatch second" : "swatch" }), `${l.name} ${text(l.values[0])} → ${text(l.values[l.values.length - 1])}`];
  });

  const start = async (root) => {
    const block = root.querySelector("script.data");
    if (!block) return;
    const data = JSON.parse(block.textContent), side = root.querySelector(".side"), canvas = root.querySelector("canvas.heat");
    const planes = data.planes || [], L = (data.layers || []).length, S = (data.steps || []).length, HERE = "layer and step";
    const all = { s0: 0, s1: S, l0: 0, l1: L };
    let plane = planes[0], at = { step: S - 1, layer: 0 }, pinned = at, curve = data.curves.length ? data.curves[0].name : HERE, hovering = false;
    let view = all, drag = null, skip = false, painted = { key: "", image: null };

    const stepName = (s) => { const [a, b] = data.steps[s]; return a === b ? `step ${a.toLocaleString("en")}` : `steps ${a.toLocaleString("en")} to ${b.toLocaleString("en")}`; };
    const showCurve = side && tablist(side.querySelector(".curves"), (key) => { curve = key; drawSide(); drawHeat(); });
    const lineOf = (name, count, index, where) => {
      const at = Array.from({ length: count }, (_, i) => index(i)), tell = (v) => (Number.isNaN(v) ? undefined : Number.isFinite(v) ? v : null);
      const steps = [], high = [], low = [];
      at.forEach((k, i) => { steps.push(where(i)); high.push(tell(plane.greatest[k])); low.push(tell(plane.least[k])); });
      return { name, steps, values: high, low: plane.least === plane.greatest ? null : low };
    };
    const drawSide = () => {
      if (!side) return;
      const time = side.querySelector(".plot.time"), said = side.querySelector(".said:not(.along)");
      const depth = side.querySelector(".plot.along"), under = side.querySelector(".said.along");
      if (depth) depth.hidden = under.hidden = curve !== HERE;
      if (curve !== HERE) {
        const found = data.curves.find((c) => c.name === curve);
        plot(time, found.lines, { log: curve === "grad norm" });
        said.replaceChildren(...words(found.lines));
        return;
      }
      if (!(plane.greatest instanceof Float32Array)) return;
      const { layer, step } = pinned, options = { log: plane.scale === "log", fraction: plane.scale === "fraction", height: 150 };
      const cell = (s, l) => between(plane, plane.least[s * L + l], plane.greatest[s * L + l]);
      const history = lineOf(data.layers[layer], S, (s) => s * L + layer, (s) => data.steps[s][0]);
      said.replaceChildren(node("b", {}, data.layers[layer]), `: ${plane.key}`);
      if (history.values.every((v) => v === undefined)) { time.replaceChildren(); said.append(", not seen"); }
      else {
        plot(time, [history], { ...options, mark: data.steps[step][0] });
        const seen = history.values.map((v, i) => (v === undefined ? -1 : i)).filter((i) => i >= 0);
        said.append(`, ${cell(seen[0], layer)} at first, ${cell(seen[seen.length - 1], layer)} at last`);
      }
      const profile = lineOf(stepName(step), L, (l) => step * L + l, (l) => l);
      under.replaceChildren(node("b", {}, stepName(step)), `: ${plane.key} along depth`);
      if (profile.values.every((v) => v === undefined)) { depth.replaceChildren(); under.append(", not seen"); return; }
      plot(depth, [profile], { ...options, mark: layer, over: "the layers", ends: [`input · ${data.short[0]}`, `${data.short[L - 1]} · output`] });
      under.append(`, ${cell(step, 0)} at the input, ${cell(step, L - 1)} at the output`);
    };
    let wide = 0;
    const refit = () => { if (root.clientWidth && root.clientWidth !== wide) { wide = root.clientWidth; drawSide(); drawHeat(); } };
    addEventListener("resize", refit);

    /* The cells in view, taken together to the points of the screen; kept until the signal, the view, the size or the colours change. */
    const paint = (width, height) => {
      const { s0, s1, l0, l1 } = view, W = Math.min(s1 - s0, width), H = Math.min(l1 - l0, height);
      const key = [plane.key, s0, s1, l0, l1, W, H, css("--bg")].join();
      if (painted.key === key) return painted.image;
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
      painted = { key, image: small };
      return small;
    };
    const drawHeat = () => {
      if (!canvas || !canvas.clientWidth || !(plane.greatest instanceof Float32Array)) return; /* a frame may have no width yet */
      const ratio = Math.max(1, window.devicePixelRatio || 1), height = clamp(L * 16, 160, L > 100 ? 420 : 320), { s0, s1, l0, l1 } = view;
      const size = [Math.round(canvas.clientWidth * ratio), Math.round(height * ratio)];
      if (canvas.width !== size[0] || canvas.height !== size[1]) { [canvas.width, canvas.height] = size; canvas.style.height = `${height}px`; }
      const g = canvas.getContext("2d"), w = canvas.width / (s1 - s0), h = canvas.height / (l1 - l0);
      g.imageSmoothingEnabled = false;
      g.drawImage(paint(...size), 0, 0, ...size);
      const frame = (x, y, dx, dy) => {
        g.strokeStyle = css("--card"); g.lineWidth = 4 * ratio; g.strokeRect(x, y, dx, dy);
        g.strokeStyle = css("--ink"); g.lineWidth = 1.5 * ratio; g.strokeRect(x, y, dx, dy);
      };
      const x = (s) => (s - s0) * w, y = (l) => canvas.height - (l - l0) * h;
      if (curve === HERE) {
        g.lineWidth = 1.5 * ratio; g.strokeStyle = css("--ink");
        g.strokeRect(0.75 * ratio, y(pinned.layer + 1), canvas.width - 1.5 * ratio, Math.max(h, 2 * ratio));
        g.strokeRect(x(pinned.step), 0.75 * ratio, Math.max(w, 2 * ratio), canvas.height - 1.5 * ratio);
      }
      if (hovering) {
        const cw = Math.max(w, 5 * ratio), ch = Math.max(h, 5 * ratio);
        frame(x(at.step + 0.5) - cw / 2, y(at.layer + 0.5) - ch / 2, cw, ch);
      }
      if (drag && drag.moved) frame(Math.min(drag.x, drag.toX) * ratio, Math.min(drag.y, drag.toY) * ratio, Math.abs(drag.toX - drag.x) * ratio, Math.abs(drag.toY - drag.y) * ratio);
    };
    const key = () => {
      const holder = root.querySelector(".key");
      if (!holder) return;
      const item = (name, text) => node("span", {}, node("i", { class: name }), text);
      const bar = node("i", { class: `ramp ${plane.scale}` });
      const [low, high] = plane.scale === "log" ? [number(10 ** (plane.centre - plane.reach)), number(10 ** (plane.centre + plane.reach))] : ["0%", "100%"];
      const parts = [node("span", {}, `${low} ${plane.low}`, bar, `${high} ${plane.high}`)];
      if (plane.scale === "log" && plane.zero) parts.push(item("zero", "exactly zero"));
      if (plane.infinite) parts.push(item("nan", "not finite"));
      if (view !== all) { const button = node("button", { type: "button" }, "show all"); button.addEventListener("click", () => look(all)); parts.push(button); }
      holder.replaceChildren(...parts);
    };
    const look = (next) => {
      view = next.s1 - next.s0 >= S && next.l1 - next.l0 >= L ? all : next;
      const ends = root.querySelectorAll(".ends.run span");
      ends[0].textContent = stepName(view.s0); ends[2].textContent = stepName(view.s1 - 1);
      ends[1].textContent = view === all ? "input at the bottom, output at the top" : `${data.short[view.l0]} at the bottom, ${data.short[view.l1 - 1]} at the top`;
      key(); drawHeat();
    };
    const zoom = (factor) => {
      const range = (a, b, centre, most) => {
        const size = Math.round(clamp((b - a) / factor, Math.min(8, most), most)), from = Math.round(clamp(centre - size / 2, 0, most - size));
        return [from, from + size];
      };
      const [s0, s1] = range(view.s0, view.s1, at.step, S), [l0, l1] = range(view.l0, view.l1, at.layer, L);
      look({ s0, s1, l0, l1 });
    };
    const readout = () => {
      if (!(plane.greatest instanceof Float32Array)) return;
      const k = at.step * L + at.layer, said = between(plane, plane.least[k], plane.greatest[k]);
      root.querySelector(".read").replaceChildren(`${stepName(at.step)} · ${data.layers[at.layer]} · `, node("b", {}, said));
    };
    const pin = () => { pinned = at; curve = HERE; showCurve(HERE); drawSide(); drawHeat(); };
    const pick = async (name) => {
      plane = planes.find((p) => p.key === name);
      try { await read(plane); }
      catch { root.querySelector(".read").textContent = "this browser cannot unpack the picture; its numbers are in the table"; return; }
      key(); drawHeat(); drawSide();
    };

    if (canvas) {
      tablist(root.querySelector(".planes"), pick);
      const cellAt = (e) => {
        const box = canvas.getBoundingClientRect(), { s0, s1, l0, l1 } = view;
        const step = s0 + Math.floor(((e.clientX - box.left) / box.width) * (s1 - s0)), layer = l1 - 1 - Math.floor(((e.clientY - box.top) / box.height) * (l1 - l0));
        return { step: clamp(step, s0, s1 - 1), layer: clamp(layer, l0, l1 - 1) };
      };
      const follow = () => { /* the cell that the keys reach stays in sight */
        const { s0, s1, l0, l1 } = view, shift = (a, b, x) => (x < a ? x - a : x >= b ? x - b + 1 : 0), ds = shift(s0, s1, at.step), dl = shift(l0, l1, at.layer);
        if (ds || dl) look({ s0: s0 + ds, s1: s1 + ds, l0: l0 + dl, l1: l1 + dl });
      };
      canvas.addEventListener("pointerdown", (e) => {
        skip = false;
        if (e.pointerType === "touch" || e.button) return;
        drag = { x: e.offsetX, y: e.offsetY, toX: e.offsetX, toY: e.offsetY, from: cellAt(e), moved: false };
      });
      canvas.addEventListener("pointermove", (e) => {
        at = cellAt(e); hovering = true;
        if (drag) Object.assign(drag, { toX: e.offsetX, toY: e.offsetY, moved: drag.moved || Math.hypot(e.offsetX - drag.x, e.offsetY - drag.y) > 8 });
        readout(); drawHeat();
      });
      canvas.addEventListener("pointerleave", () => { drag = null; hovering = document.activeElement === canvas && canvas.matches(":focus-visible"); drawHeat(); });
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
        at = cellAt(e); hovering = true; readout(); pin();
      });
      canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) { hovering = true; readout(); drawHeat(); } });
      canvas.addEventListener("blur", () => { hovering = false; drawHeat(); });
      canvas.addEventListener("keydown", (e) => {
        const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1], PageUp: [0, 10], PageDown: [0, -10], Home: [-S, 0], End: [S, 0] }[e.key];
        if (move) { at = { step: clamp(at.step + move[0], 0, S - 1), layer: clamp(at.layer + move[1], 0, L - 1) }; hovering = true; follow(); readout(); drawHeat(); }
        else if (e.key === "Enter" || e.key === " ") pin();
        else if (e.key === "+" || e.key === "=") zoom(2);
        else if (e.key === "-") zoom(0.5);
        else if (e.key === "Escape") look(all);
        else return;
        e.preventDefault();
      });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawHeat);
      await pick(planes[0].key);
    }
    refit();
  };
  document.querySelectorAll(".report").forEach(start);
})();
