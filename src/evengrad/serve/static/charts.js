/* Numbers -> SVG: curves over steps, profiles over layers. null is a value that is not finite. */

import { node, number } from "/static/talk.js";

const LEFT = 48, RIGHT = 8, TOP = 10, BOTTOM = 24;

const nice = (low, high) => {
  const raw = (high - low) / 3, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const out = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) out.push(Math.abs(t) < step * 1e-9 ? 0 : Number(t.toPrecision(6)));
  return out;
};

const decades = (low, high) => {
  const step = Math.max(1, Math.ceil((high - low) / 5)), out = [];
  for (let t = Math.ceil(low); t <= high; t += step) out.push(t);
  return out;
};

const range = (values, log, fixed) => {
  if (fixed) return fixed;
  const seen = values.filter((v) => v !== null && (!log || v > 0)).map((v) => (log ? Math.log10(v) : v));
  let low = Math.min(...seen), high = Math.max(...seen);
  if (!seen.length) return [0, 1];
  if (log) return [Math.floor(low), Math.max(Math.floor(low) + 1, Math.ceil(high))];
  const pad = high - low < 1e-12 * Math.max(1, Math.abs(high)) ? Math.abs(high) * 0.1 || 1 : 0.06 * (high - low);
  return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
};

/**
 * Draws lines into a holder.
 * lines: [{name, kind, steps, values}], kind is a class such as "first", "second", "ghost".
 */
export const plot = (holder, lines, { log = false, fixed = null, height = 170, unit = "step", whole = true, label = "" } = {}) => {
  const width = Math.max(220, holder.clientWidth), floor = height - BOTTOM;
  const shown = lines.filter((line) => line.steps.length);
  const [low, high] = range(shown.flatMap((line) => line.values), log, fixed);
  const first = Math.min(...shown.map((l) => l.steps[0]), Infinity), last = Math.max(...shown.map((l) => l.steps[l.steps.length - 1]), -Infinity);
  const from = Number.isFinite(first) ? first : 0, to = Math.max(Number.isFinite(last) ? last : 1, from + 1);
  const x = (s) => LEFT + ((s - from) / (to - from)) * (width - LEFT - RIGHT);
  const y = (v) => TOP + (1 - ((log ? Math.log10(v) : v) - low) / (high - low)) * (floor - TOP);
  const svg = node("+svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label || shown.map((l) => `${l.name}: ${number(l.values[l.values.length - 1])} at last`).join("; ") });
  for (const t of log ? decades(low, high) : nice(low, high)) {
    const at = TOP + (1 - (t - low) / (high - low)) * (floor - TOP);
    svg.append(node("+line", { x1: LEFT, x2: width - RIGHT, y1: at, y2: at, class: "grid" }));
    svg.append(node("+text", { x: LEFT - 7, y: at + 4, "text-anchor": "end" }, number(log ? 10 ** t : t)));
  }
  svg.append(node("+text", { x: LEFT, y: height - 6 }, `${unit} ${from.toLocaleString("en")}`));
  svg.append(node("+text", { x: width - RIGHT, y: height - 6, "text-anchor": "end" }, (whole ? Math.round(to) : to).toLocaleString("en")));
  for (const line of shown) {
    let path = "", pen = false;
    line.steps.forEach((s, i) => {
      const v = line.values[i];
      if (v === null || (log && v <= 0)) {
        pen = false;
        svg.append(node("+rect", { x: x(s) - 2, y: v === null ? TOP - 5 : floor - 5, width: 4, height: 5, class: v === null ? "mark-nan" : "mark-zero" }));
        return;
      }
      path += `${pen ? "L" : "M"}${x(s).toFixed(1)} ${y(v).toFixed(1)}`;
      pen = true;
    });
    svg.append(node("+path", { d: path || "M0 0", class: `path ${line.kind}` }));
    if (line.dots) line.steps.forEach((s, i) => { const v = line.values[i]; if (v !== null && (!log || v > 0)) svg.append(node("+circle", { cx: x(s), cy: y(v), r: 2.4, class: `dot ${line.kind}` })); });
  }
  holder.replaceChildren(svg);
};

/** Draws shares in [0, 1] by layer as bars; several rows share the space of a layer. */
export const shares = (holder, rows, { height = 110, label = "" } = {}) => {
  const width = Math.max(220, holder.clientWidth), floor = height - BOTTOM, count = Math.max(1, ...rows.map((r) => r.values.length));
  const svg = node("+svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  for (const t of [0, 0.5, 1]) {
    const at = TOP + (1 - t) * (floor - TOP);
    svg.append(node("+line", { x1: LEFT, x2: width - RIGHT, y1: at, y2: at, class: "grid" }), node("+text", { x: LEFT - 7, y: at + 4, "text-anchor": "end" }, `${100 * t}%`));
  }
  const room = (width - LEFT - RIGHT) / count, bar = (0.8 * room) / rows.length;
  rows.forEach((row, n) => row.values.forEach((v, i) => {
    if (v === null) return;
    const tall = Math.max(v > 0 ? 1.5 : 0, v * (floor - TOP));
    svg.append(node("+rect", { x: LEFT + i * room + 0.1 * room + n * bar, y: floor - tall, width: Math.max(1, bar), height: tall, class: row.kind }, node("+title", {}, `layer ${i + 1}: ${row.name} ${Math.round(100 * v)}%`)));
  }));
  svg.append(node("+text", { x: LEFT, y: height - 6 }, "layer 1"), node("+text", { x: width - RIGHT, y: height - 6, "text-anchor": "end" }, String(count)));
  holder.replaceChildren(svg);
};
