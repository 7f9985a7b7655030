/* The list of runs: filtered, sorted, renewed while something runs; a run goes to the trash after a second press. */

import { find, node, post } from "/static/talk.js";

const body = find("#rows"), said = find("#said"), picked = new Set(), elements = new Map();
const asked = new URLSearchParams(location.search);
let rows = [], sort = { key: asked.get("sort") || "created", down: asked.get("up") === null };
find("#filter").value = asked.get("q") || "";
find("#running").checked = asked.has("running");
find("#troubled").checked = asked.has("findings");

const total = (row) => (row.findings ? row.findings[0] * 1e6 + row.findings[1] * 1e3 + row.findings[2] : row.trouble ? 1e12 : -1);
const KEYS = { name: (r) => r.name.toLowerCase(), created: (r) => r.created, steps: (r) => r.steps, loss: (r) => { const v = parseFloat(r.loss); return r.loss === "not finite" ? Infinity : Number.isNaN(v) ? -Infinity : v; }, findings: total };

const moment = (seconds) => {
  const day = new Date(seconds * 1000), two = (n) => String(n).padStart(2, "0");
  return `${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())} ${two(day.getHours())}:${two(day.getMinutes())}`;
};

const spark = (values) => {
  if (!values.length) return null;
  const width = 96, height = 22, step = values.length > 1 ? (width - 4) / (values.length - 1) : 0;
  let path = "", pen = false;
  const svg = node("+svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "spark", role: "img", "aria-label": "loss, first to last" });
  values.forEach((v, i) => {
    const x = 2 + i * step;
    if (v === null) { pen = false; svg.append(node("+rect", { x: x - 1.5, y: 0, width: 3, height: 4, class: "nan" })); return; }
    path += `${pen ? "L" : "M"}${x.toFixed(1)} ${(2 + (1 - v) * (height - 4)).toFixed(1)}`;
    pen = true;
  });
  svg.append(node("+path", { d: path || "M0 0" }));
  return svg;
};

const findings = (row) => {
  if (row.trouble) return node("span", { class: "mark bad", title: row.trouble }, "cannot be read");
  if (!row.findings) return node("span", { class: "soft" }, "…");
  const words = ["error", "warning", "note"], tones = ["bad", "warn", "note"];
  const marks = row.findings.flatMap((n, i) => (n ? [node("span", { class: `mark ${tones[i]}` }, `${n} ${words[i]}${n > 1 ? "s" : ""}`)] : []));
  return marks.length ? node("span", { title: row.codes.join(", ") }, ...marks) : node("span", { class: "mark good" }, "none");
};

const line = (row) => {
  const pick = node("input", { type: "checkbox", "aria-label": `pick ${row.name} for comparison` });
  pick.checked = picked.has(row.id);
  pick.addEventListener("change", () => { pick.checked ? picked.add(row.id) : picked.delete(row.id); compared(); });
  const away = node("button", { type: "button", class: "quiet", "aria-label": `delete ${row.name}`, disabled: row.live }, "Delete");
  away.addEventListener("click", () => discard(row, away));
  away.addEventListener("blur", () => { away.textContent = "Delete"; away.classList.remove("sure"); });
  const live = row.live ? node("span", { class: "mark live" }, node("i", { class: "pulse" }), "running") : null;
  const loss = node("span", { class: "loss" }, spark(row.spark), node("span", {}, row.loss));
  return node("tr", {}, node("td", {}, pick), node("th", { scope: "row", class: "col-name" }, node("a", { href: `/runs/${row.id}` }, row.name), live, row.file.replace(/\.evengrad$/, "") === row.name ? null : node("div", { class: "soft file" }, row.file), row.model ? node("div", { class: "soft" }, row.model) : null),
    node("td", { class: "whole soft" }, moment(row.created)), node("td", { class: "n" }, row.steps ? row.steps.toLocaleString("en") : ""), node("td", {}, loss), node("td", {}, findings(row)), node("td", { class: "n" }, away));
};

const discard = async (row, button) => {
  if (!button.classList.contains("sure")) { button.classList.add("sure"); button.textContent = "To the trash?"; return; }
  try {
    const moved = await post(`/runs/${row.id}/delete`), back = node("button", { type: "button", class: "quiet" }, "Restore it");
    back.addEventListener("click", async () => { try { said.textContent = (await post(`/trash/${moved.id}/restore`)).said; } catch (error) { said.textContent = error.message; } await renew(); });
    said.replaceChildren(`${moved.said} `, back);
    picked.delete(row.id);
  } catch (error) { said.textContent = error.message; }
  await renew();
};

const compared = () => {
  const link = find("#compare"), known = [...picked].filter((id) => rows.some((r) => r.id === id));
  link.hidden = known.length !== 2;
  if (known.length === 2) link.href = `/compare?a=${known[0]}&b=${known[1]}`;
};

const wanted = (row) => {
  const text = `${row.name} ${row.file} ${row.model} ${row.codes.join(" ")} ${row.trouble ? "damaged" : ""}`.toLowerCase();
  const words = find("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((w) => text.includes(w)) && (!find("#running").checked || row.live) && (!find("#troubled").checked || total(row) > 0);
};

const show = () => {
  const key = KEYS[sort.key] || KEYS.created;
  const shown = rows.filter(wanted).sort((a, b) => { const [x, y] = [key(a), key(b)]; return (x < y ? -1 : x > y ? 1 : 0) * (sort.down ? -1 : 1); });
  const made = shown.map((row) => {
    const text = JSON.stringify(row), held = elements.get(row.id);
    if (held?.text === text) return held.element;
    const element = line(row);
    elements.set(row.id, { text, element });
    return element;
  });
  if (made.length !== body.children.length || made.some((element, i) => body.children[i] !== element)) {
    const focus = document.activeElement;
    body.replaceChildren(...made);
    if (focus && body.contains(focus)) focus.focus();
  }
  find("#count").textContent = rows.length === shown.length ? `${rows.length.toLocaleString("en")} run${rows.length === 1 ? "" : "s"}` : `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} runs`;
  find("#empty").hidden = rows.length > 0;
  find("table.runs").hidden = rows.length === 0;
  document.querySelectorAll("[data-sort]").forEach((button) => button.closest("th").setAttribute("aria-sort", button.dataset.sort === sort.key ? (sort.down ? "descending" : "ascending") : "none"));
  const state = new URLSearchParams();
  if (find("#filter").value) state.set("q", find("#filter").value);
  if (find("#running").checked) state.set("running", "");
  if (find("#troubled").checked) state.set("findings", "");
  if (sort.key !== "created") state.set("sort", sort.key);
  if (!sort.down) state.set("up", "");
  history.replaceState(null, "", `/${state.size ? `?${state}` : ""}`);
  compared();
};

let failing = false;
const renew = async () => {
  try {
    const answer = await fetch("/api/runs");
    if (!answer.ok) throw new Error(answer.statusText);
    rows = await answer.json();
    const away = Number(answer.headers.get("x-evengrad-trash")), link = find("#trash");
    link.hidden = !away; link.textContent = `Trash (${away})`;
    if (failing) said.textContent = "";
    failing = false;
    show();
  } catch { failing = true; said.textContent = "The server does not answer; trying again."; }
};

const later = () => setTimeout(async () => {
  if (!document.hidden) await renew();
  later();
}, rows.some((r) => r.live || !r.fresh) ? 1000 : 3000);

for (const id of ["#filter", "#running", "#troubled"]) find(id).addEventListener("input", show);
document.querySelectorAll("[data-sort]").forEach((button) => button.addEventListener("click", () => {
  sort = { key: button.dataset.sort, down: sort.key === button.dataset.sort ? !sort.down : button.dataset.sort !== "name" };
  show();
}));
addEventListener("keydown", (e) => { if (e.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) { e.preventDefault(); find("#filter").focus(); } });
await renew();
later();
