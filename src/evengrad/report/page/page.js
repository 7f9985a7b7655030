/* A report on a page -> its tabs, pictures and curves answer. */
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

const words = (lines) => lines.flatMap((l, n) => {
  const text = (v) => (v === null ? "not finite" : number(v));
  return [node("i", { class: n ? "swatch second" : "swatch" }), `${l.name} ${text(l.values[0])} → ${text(l.values[l.values.length - 1])}`];
});

/* One layer over the steps of a level, or one step over its layers. */
const lineOf = (level, plane, name, count, index, where) => {
  const tell = (v) => (Number.isNaN(v) ? undefined : Number.isFinite(v) ? v : null), steps = [], high = [], low = [];
  for (let i = 0; i < count; i++) { steps.push(where(i)); high.push(tell(plane.greatest[index(i)])); low.push(tell(plane.least[index(i)])); }
  return { name, steps, values: high, low: plane.least === plane.greatest ? null : low };
};
const historyOf = (level, plane, layer, name = level.layers[layer]) => lineOf(level, plane, name, level.S, (s) => s * level.L + layer, (s) => level.steps[s][0]);
const depthOf = (level, plane, step, name = stepName(level, step)) => lineOf(level, plane, name, level.L, (l) => step * level.L + l, (l) => begins(level.box.l0, level.box.l1, level.L, l));
const unseen = (line) => line.values.every((v) => v === undefined);

/**
 * Brings one report to life; where it has pictures, `ready` is kept once they are drawn.
 * exact(plane, part): asks for the exact numbers of a part of the run. state: what `state()` told of an earlier version.
 */
const start = (root, { exact = null, signal, state = null } = {}) => {
  const block = root.querySelector("script.data");
  if (!block) return { ready: Promise.resolve(), state: () => null };
  const data = JSON.parse(block.textContent), side = root.querySelector(".side"), HERE = "layer and step", figures = [...root.querySelectorAll(".map")];
  const pictures = data.pictures || [], planes = pictures.length ? pictures[0].planes : [], names = data.curves.map((c) => c.name);
  let plane = (planes.find((p) => p.key === state?.plane) || planes[0])?.key, curve = names[0] || HERE, closer = null, wide = 0;
  if (state && [...names, ...(planes.length ? [HERE] : [])].includes(state.curve)) curve = state.curve;

  const host = {
    exact: exact && ((part) => exact(plane, part).then(async (found) => { await Promise.all(found.planes.map(read)); return found; })),
    signal,
    plane: (level) => { const found = level.planes.find((p) => p.key === plane); return found && found.greatest instanceof Float32Array ? found : null; },
    moved: (map) => {
      const { level, at, label } = map, twin = others(map);
      const told = [[label, map.told(at.step, at.layer)], ...twin.map(({ map: other, cell }) => [other.label, other.told(cell.step, cell.layer)])];
      const parts = told.flatMap(([name, value]) => [` · ${name ? `${name} ` : ""}`, node("b", {}, value)]);
      find(".read").replaceChildren(`${stepName(level, at.step)} · ${level.layers[at.layer]}`, ...parts);
    },
    pinned: (map) => pin(map, map.here()),
    looked: () => key(),
  };
  const find = (selector) => root.querySelector(selector);
  const maps = figures.map((figure, n) => heat(figure, pictures[n], host));
  let held = maps.length ? { map: maps[0], part: maps[0].here() } : null;

  /* The same place in the other picture: the layer of that name, the sampled step nearest to it. */
  const others = (map) => maps.flatMap((other) => {
    if (other.canvas === map.canvas || !host.plane(other.level)) return [];
    const layer = other.level.layers.indexOf(map.level.layers[map.at.layer]), wanted = map.level.steps[map.at.step][0];
    if (layer < 0) return [];
    const step = other.level.steps.reduce((best, [first], i) => (Math.abs(first - wanted) < Math.abs(other.level.steps[best][0] - wanted) ? i : best), 0);
    return [{ map: other, cell: { step, layer } }];
  });

  const onBase = ({ map, part }) => { const cell = cellsOf(map.base, part); return { ...map, level: map.base, at: { step: cell.s0, layer: cell.l0 } }; };

  const showCurve = tablist(side && side.querySelector(".curves"), (name) => { curve = name; show(); });
  const show = () => {
    showCurve(curve);
    for (const map of maps) map.pin = null;
    if (curve === HERE && held) {
      held.map.pin = held.part;
      for (const { map, cell } of others(onBase(held))) map.pin = map.here(cell);
    }
    drawSide();
    maps.forEach((m) => m.draw());
  };

  const drawSide = () => {
    if (!side) return;
    const time = side.querySelector(".plot.time"), said = side.querySelector(".said:not(.along)"), depth = side.querySelector(".plot.along");
    const under = side.querySelector(".said.along"), cells = side.querySelector(".exact");
    for (const one of [depth, under]) if (one) one.hidden = curve !== HERE;
    if (cells) cells.hidden = curve !== HERE || !closer;
    if (curve !== HERE) {
      const found = data.curves.find((c) => c.name === curve);
      plot(time, found.lines, { log: curve === "grad norm" });
      said.replaceChildren(...words(found.lines));
      return;
    }
    if (!held || !host.plane(held.map.level)) return;
    const { map } = held, own = host.plane(map.base), place = onBase(held), here = place.at;
    if (!own) return;
    const options = { log: own.scale === "log", fraction: own.scale === "fraction", height: maps.length > 1 ? 170 : 150 };
    const twin = others(place);
    const row = closer?.row || { level: map.base, plane: own, layer: here.layer }, column = closer?.column || { level: map.base, plane: own, step: here.step };
    const sources = [{ name: map.label, row, column }, ...twin.map(({ map: other, cell: c }) => {
      const found = host.plane(other.base);
      return { name: other.label, row: { level: other.base, plane: found, layer: c.layer }, column: { level: other.base, plane: found, step: c.step } };
    })];
    const chart = (holder, caption, title, lines, extra, edges) => {
      caption.replaceChildren(node("b", {}, title), `: ${own.key}${extra.along ? " along depth" : ""}`);
      const seen = lines.filter(({ line }) => !unseen(line));
      if (!seen.length) { holder.replaceChildren(); caption.append(", not seen"); return; }
      plot(holder, seen.map(({ line }) => line), { ...options, ...extra.plot });
      const mark = (n) => (seen.length > 1 ? [node("i", { class: n ? "swatch second" : "swatch" }), `${seen[n].name} `] : []);
      seen.forEach((one, n) => caption.append(n ? " " : ", ", ...mark(n), edges(one)));
    };
    const value = (source, s, l) => between(source.plane, source.plane.least[s * source.level.L + l], source.plane.greatest[s * source.level.L + l]);
    chart(time, said, row.level.layers[row.layer], sources.map(({ name, row: r }) => ({ name, line: historyOf(r.level, r.plane, r.layer, name || undefined), source: r })), { plot: { mark: closer ? closer.step : map.base.steps[here.step][0] } }, ({ line, source }) => {
      const known = line.values.map((v, i) => (v === undefined ? -1 : i)).filter((i) => i >= 0);
      return `${value(source, known[0], source.layer)} at first, ${value(source, known[known.length - 1], source.layer)} at last`;
    });
    chart(depth, under, stepName(column.level, column.step), sources.map(({ name, column: c }) => ({ name, line: depthOf(c.level, c.plane, c.step, name || undefined), source: c })), {
      along: true, plot: { mark: closer ? closer.layer : map.base.box.l0 + begins(0, map.base.box.l1, map.base.L, here.layer), over: "the layers", ends: [`input · ${map.base.short[0]}`, `${map.base.short[map.base.L - 1]} · output`] },
    }, ({ source }) => `${value(source, source.step, 0)} at the input, ${value(source, source.step, source.level.L - 1)} at the output`);
    if (cells && closer) cells.replaceChildren(...closer.cells);
  };

  /* A cell that stands for several numbers, opened: each of them, the history of the worst one's layer, the profile of its step. */
  const worstIn = (level, own) => {
    const rank = (v) => (Number.isNaN(v) ? -1 : !Number.isFinite(v) ? 1e9 : own.scale === "fraction" ? v : v === 0 ? 1e8 : Math.abs(Math.log10(v) - own.centre));
    let best = 0;
    for (let i = 1; i < level.S * level.L; i++) if (rank(own.greatest[i]) > rank(own.greatest[best])) best = i;
    return { step: Math.floor(best / level.L), layer: best % level.L };
  };
  const open = async (map, part) => {
    const cell = leveled(await host.exact(part)), own = host.plane(cell);
    if (!own) return null;
    const at = worstIn(cell, own), step = cell.box.s0 + at.step, layer = cell.box.l0 + at.layer, run = map.base.box;
    const [along, over] = await Promise.all([host.exact({ s0: step, s1: step + 1, l0: 0, l1: run.l1 }), host.exact({ s0: 0, s1: run.s1, l0: layer, l1: layer + 1 })]);
    const row = leveled(over), column = leveled(along), bare = { ...own, unit: "" };
    const head = node("tr", {}, node("th", { scope: "col" }, "layer"), ...cell.steps.map(([s]) => node("th", { scope: "col", class: "n" }, `step ${s.toLocaleString("en")}`)));
    const lines = cell.layers.map((name, l) => node("tr", {}, node("th", { scope: "row" }, name), ...cell.steps.map((_, s) => node("td", { class: s === at.step && l === at.layer ? "n worst" : "n" }, say(bare, own.greatest[s * cell.L + l]))))).reverse();
    const title = `The ${(cell.S * cell.L).toLocaleString("en")} exact numbers of this cell: ${own.key}${own.unit ? `,${own.unit.replace(/^ of/, " as a share of")}` : ""}; the worst is marked.`;
    const table = node("div", { class: "scroll cellful", tabindex: "0", role: "region", "aria-label": "exact numbers of the cell" }, node("table", {}, node("thead", {}, head), node("tbody", {}, ...lines)));
    return {
      row: { level: row, plane: host.plane(row), layer: 0 }, column: { level: column, plane: host.plane(column), step: 0 },
      step: cell.steps[at.step][0], layer, cells: [node("p", { class: "said" }, title), table],
    };
  };
  let pins = 0;
  const pin = async (map, part) => {
    const mine = ++pins;
    held = { map, part };
    closer = null;
    curve = HERE;
    show();
    if (!host.exact || map.base.fine) return;
    const found = await open(map, part).catch(() => null);
    if (found && mine === pins && !signal?.aborted) { closer = found; drawSide(); }
  };

  const key = () => {
    const holder = find(".key"), shown = maps.map((m) => host.plane(m.base)).filter(Boolean), own = shown[0];
    if (!holder || !own) return;
    const item = (name, text) => node("span", {}, node("i", { class: name }), text);
    const bar = node("i", { class: `ramp ${own.scale}` });
    const [low, high] = own.scale === "log" ? [number(10 ** (own.centre - own.reach)), number(10 ** (own.centre + own.reach))] : ["0%", "100%"];
    const parts = [node("span", {}, `${low} ${own.low}`, bar, `${high} ${own.high}`)];
    if (own.scale === "log" && shown.some((p) => p.zero)) parts.push(item("zero", "exactly zero"));
    if (shown.some((p) => p.infinite)) parts.push(item("nan", "not finite"));
    if (maps.some((m) => !m.whole())) { const button = node("button", { type: "button" }, "show all"); button.addEventListener("click", () => maps.forEach((m) => m.all())); parts.push(button); }
    holder.replaceChildren(...parts);
  };
  const pick = async (name) => {
    plane = name;
    try { await Promise.all(pictures.flatMap((p) => p.planes.filter((one) => one.key === name).map(read))); }
    catch { find(".read").textContent = "this browser cannot unpack the picture; its numbers are in the table"; return; }
    if (plane !== name) return;
    closer = null;
    for (const map of maps) if (map.level !== map.base) map.show(map.box());
    key(); drawSide(); maps.forEach((m) => m.draw());
    if (curve === HERE && held && host.exact && !held.map.base.fine) pin(held.map, held.part);
  };
  const refit = () => { if (root.clientWidth && root.clientWidth !== wide) { wide = root.clientWidth; drawSide(); maps.forEach((m) => m.draw()); } };
  addEventListener("resize", refit, { signal });

  const begin = async () => {
    if (maps.length) {
      const choose = tablist(find(".planes"), pick);
      choose(plane);
      for (const look of ["(prefers-color-scheme: dark)", "print"]) matchMedia(look).addEventListener("change", () => maps.forEach((m) => m.draw()), { signal });
      await pick(plane);
      state?.maps?.forEach((was, n) => { if (was && maps[n]) maps[n].show(was); });
      if (state?.held && maps[state.held.n]) {
        const map = maps[state.held.n], { box } = map.base;
        held = { map, part: { ...state.held.part, l1: Math.min(state.held.part.l1, box.l1), s1: Math.min(state.held.part.s1, box.s1) } };
      }
    }
    show(); refit();
    const was = state?.hover, over = was && maps[was.n];
    if (!over) return;
    const cell = cellsOf(over.level, { ...was.part, s1: Math.min(was.part.s1, over.level.box.s1), l1: Math.min(was.part.l1, over.level.box.l1) });
    over.at = { step: cell.s0, layer: cell.l0 };
    over.hovering = true;
    host.moved(over); over.draw();
  };
  return {
    ready: begin(),
    state: () => ({
      plane, curve,
      held: pins || state?.held ? { n: maps.indexOf(held?.map), part: held?.part } : null,
      maps: maps.map((m) => (m.whole() ? null : m.box())),
      hover: maps.flatMap((m, n) => (m.hovering ? [{ n, part: m.here() }] : []))[0] || null,
    }),
  };
};
