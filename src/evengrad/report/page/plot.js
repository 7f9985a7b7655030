/* Curves over steps, profiles over layers -> SVG. */
const node = (name, attributes, ...children) => {
  const made = name[0] === "+" ? document.createElementNS(SVG, name.slice(1)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
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
