/* Elements from text alone, and changes that bring the page's token. */

const SVG = "http://www.w3.org/2000/svg";

/** Builds an element; "+name" is one of SVG. Children are text or elements, never markup. */
export const node = (name, attributes, ...children) => {
  const made = name[0] === "+" ? document.createElementNS(SVG, name.slice(1)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};

export const find = (selector) => document.querySelector(selector);

const token = () => find('meta[name="evengrad-token"]')?.content ?? "";

/** Sends a change; an answer that is an error throws what the server says. */
export const post = async (path, data = {}, signal) => {
  const headers = { "content-type": "application/json", "x-evengrad-token": token() };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(data), signal });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text);
  return JSON.parse(text);
};

/** Writes a number as the reports do: three digits, a real minus. */
export const number = (x) => {
  if (x === null || Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return "not finite";
  if (x === 0) return "0";
  const size = Math.abs(x);
  const text = size >= 1e-3 && size < 1e5 ? String(Number(x.toPrecision(3))) : x.toExponential(1).replace(".0e", "e").replace("e+", "e");
  return text.replace(/^-/, "−");
};
