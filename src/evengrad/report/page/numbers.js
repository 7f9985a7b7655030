/* Packed numbers -> arrays; a number -> the words that tell it. */
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
