/* The playground: every state is a link; networks run in a process of the server's own. */

import { plot, shares } from "/static/charts.js";
import { find, node, number, post } from "/static/talk.js";

const { defaults, presets } = JSON.parse(find("script.data").textContent);
const session = [...crypto.getRandomValues(new Uint8Array(12))].map((b) => b.toString(16).padStart(2, "0")).join("");
const FIELDS = ["data", "samples", "depth", "width", "activation", "initialiser", "norm", "residual", "optimizer", "rate", "clip", "batch", "seed"];
const WORDS = { healthy: "good", vanishing: "bad", exploding: "bad", "exactly zero": "bad", "not finite": "bad" };

let state = { ...defaults }, looked = null, before = null, points = null, losses = { steps: [], values: [] }, past = null;
let run = null, over = null, training = false, plane = null, drawn = "";

/* --- the state: controls, address, presets --- */

const read = (query) => {
  const found = { ...defaults, ...(presets[query.get("preset")]?.state || {}) };
  for (const [key, value] of query) {
    if (!(key in defaults)) continue;
    const kind = typeof defaults[key];
    found[key] = kind === "number" ? Number(value) : kind === "boolean" ? value === "true" : value;
  }
  return found;
};

const link = () => {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) if (value !== defaults[key]) query.set(key, value);
  return `/play${query.size ? `?${query}` : ""}`;
};

const key = () => Object.keys(presets).find((name) => JSON.stringify({ ...defaults, ...presets[name].state }) === JSON.stringify({ ...state, fix: "" })) ?? "own";

const into = () => {
  for (const name of FIELDS) {
    const control = find(`#${name}`);
    if (control.type === "checkbox") control.checked = state[name];
    else {
      const value = String(state[name]);
      if (control.tagName === "SELECT") {
        const same = [...control.options].find((o) => o.value === value || (Number(o.value) === state[name] && o.value !== ""));
        if (!same) control.append(node("option", { value }, value));
        control.value = same ? same.value : value;
      } else control.value = value;
    }
  }
  find("#depth-said").value = state.depth;
  find("#scale").value = Math.log10(state.scale);
  find("#scale-said").value = `× ${number(state.scale)}`;
  const chosen = key();
  find("#preset").value = chosen;
  find("#note").textContent = presets[chosen]?.note ?? "A state of your own; its address is a link to it.";
  find("#undo").hidden = !state.fix;
  find("#applied").textContent = state.fix ? `Applied: ${state.fix.replaceAll("->", "→").replace(/^swap_activation /, "").replaceAll("_", " ")}.` : "";
};

/* --- pictures --- */

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const colours = () => [rgb(css("--accent")), rgb(css("--warm")), rgb(css("--play"))];

const paint = () => {
  const canvas = find("#plane"), g = canvas.getContext("2d"), size = canvas.width, shades = colours(), paper = rgb(css("--card"));
  g.clearRect(0, 0, size, size);
  if (plane) {
    const kind = bytes(plane.kind), sure = bytes(plane.sure), side = Math.sqrt(kind.length), image = new ImageData(side, side);
    for (let i = 0; i < kind.length; i++) {
      const c = shades[kind[i]] || shades[0], t = 0.08 + 0.47 * (sure[i] / 255);
      image.data.set([...paper.map((p, k) => p + (c[k] - p) * t), 255], 4 * i);
    }
    const small = new OffscreenCanvas(side, side);
    small.getContext("2d").putImageData(image, 0, 0);
    g.imageSmoothingEnabled = true;
    g.drawImage(small, 0, 0, size, size);
  }
  if (!points) return;
  const [left, right, bottom, top] = points.box;
  points.x.forEach(([x, y], i) => {
    g.beginPath();
    g.arc(((x - left) / (right - left)) * size, (1 - (y - bottom) / (top - bottom)) * size, 2.6, 0, 7);
    g.fillStyle = `rgb(${(shades[points.y[i]] || shades[0]).join(",")})`;
    g.fill();
    g.strokeStyle = css("--card");
    g.lineWidth = 0.7;
    g.stroke();
  });
};

const counted = (values) => values.map((_, i) => i + 1);
const profile = (name, now) => {
  const lines = [];
  if (before) lines.push({ name: "before the fix", kind: "second", steps: counted(before[name]), values: before[name] });
  if (looked && now !== looked) lines.push({ name: "before its first step", kind: "ghost", steps: counted(looked[name]), values: looked[name] });
  if (now) lines.push({ name: "now", kind: "first", steps: counted(now[name]), values: now[name], dots: now[name].length <= 40 });
  plot(find(`#${name}`), lines, { log: true, unit: "layer", height: 180, label: `${name} by layer, input first` });
};

const layers = (now) => {
  if (!now) return;
  profile("spread", now);
  profile("gradient", now);
  shares(find("#units"), [{ name: "dead", kind: "dead", values: now.dead }, { name: "saturated", kind: "saturated", values: now.saturated }], { label: "dead and saturated units by layer" });
  const word = find("#word");
  word.textContent = now.word;
  word.className = WORDS[now.word] || "";
  find("#gain").textContent = now.gain === null ? "" : ` the gradient is multiplied by ${number(now.gain)} from layer to layer, on its way to the input`;
  find("#legend-before").hidden = !before;
};

const curve = () => {
  const lines = [];
  if (past?.steps.length) lines.push({ name: "before the fix", kind: "second", ...past });
  if (losses.steps.length) lines.push({ name: "loss", kind: "first", ...losses });
  if (lines.length) plot(find("#loss"), lines, { height: 300 });
  else find("#loss").replaceChildren(node("p", { class: "soft empty" }, "Press Train to see it fall, or not."));
};

let now = null;
const redraw = () => { paint(); layers(now); curve(); };

/* --- asking the server --- */

const say = (text, bad = false) => { const status = find("#status"); status.textContent = text; status.classList.toggle("failed", bad); };
const ask = (what, more = {}) => post("/play/do", { session, do: what, state, ...more });

let asking = false, again = false;
const look = async () => {
  if (asking) { again = true; return; }
  asking = true;
  do {
    again = false;
    const began = performance.now(), wanted = `${state.data} ${state.samples}`;
    try {
      const answer = await ask("look", { points: wanted !== drawn });
      if (answer.points) { points = answer.points; drawn = wanted; }
      looked = now = answer.layers;
      document.body.dataset.look = Math.round(performance.now() - began);
      document.body.dataset.looks = Number(document.body.dataset.looks || 0) + 1;
      say(`${answer.parameters.toLocaleString("en")} weights`);
      redraw();
    } catch (error) { say(error.message, true); }
  } while (again);
  asking = false;
};

const idle = () => { training = false; find("#train").textContent = "Train"; };

/** Takes a new state: what was trained is over; the network is drawn anew. */
const change = (changes, { keep = false } = {}) => {
  state = { ...state, ...changes };
  if (!keep) { state.fix = ""; before = past = null; find("#answers").hidden = true; }
  losses = { steps: [], values: [] };
  over = run ?? over;
  run = plane = null;
  idle();
  find("#accuracy").textContent = "";
  history.replaceState(null, "", link());
  into();
  return look();
};

const train = async () => {
  if (training) { over = run ?? over; run = null; idle(); say("stopped"); await ask("stop").catch((e) => say(e.message, true)); return; }
  losses = { steps: [], values: [] };
  over = run ?? over;
  run = null;
  training = true;
  find("#train").textContent = "Stop";
  say("training");
  try { run = (await ask("train")).run; } catch (error) { idle(); say(error.message, true); }
};

const frame = (message) => {
  if (message.run !== undefined && (run === null ? message.run === over : message.run !== run)) return;
  if (message.ended !== undefined) {
    if (message.run === undefined || message.run === run) { idle(); if (message.ended !== "stopped") say(message.ended === "done" ? `trained ${losses.steps.length ? losses.steps[losses.steps.length - 1] + 1 : 0} steps` : message.ended, message.ended !== "done"); }
    return;
  }
  if (!training) return;
  losses.steps.push(...message.steps);
  losses.values.push(...message.loss);
  now = message.layers;
  plane = message.boundary;
  find("#accuracy").replaceChildren(`step ${message.step.toLocaleString("en")} · `, node("b", {}, message.accuracy === null ? "not finite" : `${(100 * message.accuracy).toFixed(1)}% right`), " on other points");
  document.body.dataset.step = message.step;
  redraw();
};

const busy = async (button, text, work) => {
  button.disabled = true;
  say(text);
  try { await work(); } catch (error) { say(error.message, true); }
  button.disabled = false;
};

/* --- what is wrong, and what helps --- */

const answer = (title, ...children) => { find("#answers").hidden = false; find("#answer-head").textContent = title; find("#answer").replaceChildren(...children); };

const told = (f) => node("div", { class: `finding ${f.severity}` },
  node("div", {}, node("div", { class: "sev" }, f.severity.toUpperCase()), node("div", { class: "code" }, node("a", { href: `/rules/${encodeURIComponent(f.code)}.html` }, f.code))),
  node("div", {}, node("div", {}, f.message), f.cause ? node("p", { class: "why" }, node("b", {}, "Cause: "), `${f.cause}.`) : null, f.effect_of ? node("p", { class: "why" }, `It follows from ${f.effect_of}.`) : null,
    f.links.length ? node("p", { class: "read-on" }, "Read on: ", ...f.links.map((l) => node("a", { href: l.address }, l.words))) : null));

const offer = (p) => {
  const button = node("button", { type: "button", class: "button" }, "Try it");
  button.addEventListener("click", () => fix(p.summary));
  return node("div", { class: "idea offer" }, button, node("b", {}, p.label), node("span", { class: "note" }, [p.cause && `against ${p.cause}`, p.risk && `cost: ${p.risk}`].filter(Boolean).join("; ")));
};

const wrong = () => busy(find("#wrong"), "asking the rules", async () => {
  const found = await ask("judge");
  const parts = found.findings.length ? found.findings.map(told) : [node("p", {}, node("b", { class: "good" }, "Nothing wrong was found. "), "Train it, then ask again: some faults show only then.")];
  if (found.proposals.length) parts.push(node("h3", { class: "head" }, "Worth trying"), ...found.proposals.slice(0, 8).map(offer));
  answer("What is wrong", ...parts, node("p", { class: "meta after" }, `Looked by ${found.looked}.`));
  say("");
});

const percent = (x) => (x === null ? "not finite" : `${(100 * x).toFixed(1)}%`);

const fix = (named = "") => busy(find("#fix"), "trying changes by short trainings", async () => {
  const was = looked, curveWas = losses.steps.length ? losses : null, ran = training;
  if (state.fix) { state.fix = ""; }
  const found = await ask("fix", { named });
  const rows = [node("tr", {}, node("th", { scope: "row" }, "nothing changed"), node("td", { class: "n" }, percent(found.before)))];
  for (const t of found.tried) rows.push(node("tr", { class: t.summary === found.fix ? "chosen" : null }, node("th", { scope: "row" }, `${t.summary === found.fix ? "✓ " : ""}${t.label}`), node("td", { class: "n" }, percent(t.metric))));
  const head = node("tr", {}, node("th", { scope: "col" }, "change"), node("th", { scope: "col", class: "n" }, "right after a short training"));
  const chosen = found.tried.find((t) => t.summary === found.fix);
  const code = chosen?.code ? [node("h3", { class: "head" }, "In your code"), node("pre", { tabindex: "0", "aria-label": "code to change" }, ...chosen.code.split("\n").map((l) => node("span", { class: { "+": "add", "-": "del" }[l[0]] }, `${l}\n`)))] : [];
  answer(found.better ? `Fixed: ${percent(found.before)} → ${percent(chosen.metric)}` : "Tried, and no better", node("div", { class: "scroll" }, node("table", {}, node("thead", {}, head), node("tbody", {}, ...rows))), ...code);
  before = was;
  past = curveWas;
  await change({ fix: found.fix }, { keep: true });
  say(`applied: ${found.label}`);
  if (ran || curveWas) await train();
});

/* --- events --- */

for (const name of FIELDS) {
  const control = find(`#${name}`), kind = typeof defaults[name];
  control.addEventListener("input", () => {
    const value = control.type === "checkbox" ? control.checked : kind === "number" ? Number(control.value) : control.value;
    if (kind === "number" && (control.value === "" || !Number.isFinite(value))) return;
    change({ [name]: value });
  });
}
find("#scale").addEventListener("input", (e) => change({ scale: Number((10 ** Number(e.target.value)).toPrecision(3)) }));
find("#preset").addEventListener("input", (e) => { drawn = ""; change({ ...defaults, ...presets[e.target.value].state }); });
find("#train").addEventListener("click", train);
find("#wrong").addEventListener("click", wrong);
find("#fix").addEventListener("click", () => fix());
find("#undo").addEventListener("click", () => { change({ fix: "" }); say("without the fix"); });
find("form.controls").addEventListener("submit", (e) => e.preventDefault());
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

state = read(new URLSearchParams(location.search));
into();
curve();
say("starting the process that networks run in");
const frames = new EventSource(`/play/frames?session=${session}`);
frames.addEventListener("frame", (e) => frame(JSON.parse(e.data)));
await look();
