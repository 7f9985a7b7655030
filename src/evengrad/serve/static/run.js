/* One run: its report, renewed whenever the run was written to. Only what changed is put in its place; what was chosen stays chosen. */

import { start } from "/static/report.js";
import { find } from "/static/talk.js";

const follow = find("#follow"), state = find("#state"), bar = find(".bar"), base = `/runs/${follow.dataset.id}`;
const article = () => follow.querySelector(".report");
let shown = follow.dataset.stamp, latest = shown, busy = true, touched = -1e9, release = null, report = null;

/** Asks for the exact numbers of a part of the run. */
const exact = async (signal, { s0, s1, l0, l1 }) => {
  const asked = new URLSearchParams({ signal, steps: `${s0}-${s1}`, layers: `${l0}-${l1}` });
  const answer = await fetch(`${base}/part?${asked}`);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
};

/** Lets the report on the page answer; what an earlier version listened to ends. */
const enliven = async (was = null) => {
  release?.abort();
  release = new AbortController();
  report = start(article(), { exact, signal: release.signal, state: was });
  await report.ready;
};

/* Parts of the report by their headings; the two above them by their place. */
const parts = (root) => new Map([...root.children].map((part, i) => [part.querySelector(":scope > .head")?.textContent ?? String(i), part]));
const sources = (root) => new Map([...parts(root)].map(([key, part]) => [key, part.outerHTML]));
let known = new Map();

/** Puts the parts that changed in their places; true if one of them has the pictures. */
const put = (made) => {
  const fresh = parts(made), written = sources(made), old = parts(article());
  let pictures = false;
  const next = [...fresh].map(([key, part]) => {
    const held = old.get(key);
    if (held && known.get(key) === written.get(key)) return held;
    if (held) part.querySelectorAll("details").forEach((one, i) => { one.open = held.querySelectorAll("details")[i]?.open ?? false; });
    pictures ||= Boolean(part.querySelector("script.data") || held?.querySelector("script.data"));
    return part;
  });
  const focus = document.activeElement, [kind, name] = [focus?.closest(".tabs")?.className, focus?.dataset?.key], onMap = focus?.matches?.("canvas.heat");
  next.forEach((part, i) => { if (article().children[i] !== part) article().insertBefore(part, article().children[i] ?? null); });
  [...article().children].slice(next.length).forEach((part) => part.remove());
  known = written;
  return { pictures, refocus: () => {
    const tab = name && [...follow.querySelectorAll("[data-key]")].find((one) => one.dataset.key === name && one.closest(".tabs").className === kind);
    (tab || (onMap ? follow.querySelector("canvas.heat") : null))?.focus({ preventScroll: true });
  } };
};

const renew = async () => {
  if (busy) return;
  busy = true;
  while (shown !== latest) {
    const wanted = latest;
    const answer = await fetch(`${base}/article`).catch(() => null);
    if (!answer?.ok) { if (answer) say(await answer.text(), ""); break; }
    const made = new DOMParser().parseFromString(await answer.text(), "text/html").body.firstElementChild;
    while (performance.now() - touched < 400) await new Promise((done) => setTimeout(done, 100)); /* a hand is on it */
    const held = follow.offsetHeight;
    follow.style.minHeight = `${held}px`;
    const was = report?.state(), { pictures, refocus } = put(made);
    if (pictures) { await enliven(was); refocus(); }
    follow.style.minHeight = "";
    shown = wanted;
    follow.dataset.stamp = shown;
    follow.dataset.renewed = String(Number(follow.dataset.renewed || 0) + 1);
  }
  busy = false;
};

for (const kind of ["click", "keydown", "pointerdown"]) follow.addEventListener(kind, (e) => { if (e.isTrusted) touched = performance.now(); }, true);

const say = (text, kind) => { if (state.textContent !== text) state.textContent = text; bar.dataset.state = kind; };

const events = new EventSource(`${base}/events`);
events.addEventListener("version", (e) => {
  const { stamp, live } = JSON.parse(e.data);
  latest = stamp;
  say(live ? "running, followed live" : "not running", live ? "live" : "still");
  renew();
});
events.addEventListener("gone", () => { say("this run was moved or deleted", "gone"); events.close(); });
events.addEventListener("error", () => { if (events.readyState !== EventSource.CLOSED) say("the server does not answer; trying again", "lost"); });
say(follow.dataset.live === "yes" ? "running, followed live" : "not running", follow.dataset.live === "yes" ? "live" : "still");
if (!article()) {
  const answer = await fetch(`${base}/article`).catch(() => null), text = answer ? await answer.text() : "The server does not answer; reload the page.";
  if (answer?.ok) follow.innerHTML = text; /* the server's own markup, in which every name is escaped */
  else find("#follow [role=status]").textContent = text;
}
if (article()) {
  known = sources(article());
  await enliven();
  busy = false;
  renew();
}
