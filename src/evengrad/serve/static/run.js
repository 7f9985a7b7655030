/* One run: its report, renewed whenever the run was written to; tabs, tables and place on the page stay as they were. */

import { find } from "/static/talk.js";

const follow = find("#follow"), state = find("#state"), bar = find(".bar");
let shown = follow.dataset.stamp, latest = shown, busy = true, touched = -1e9, unpacking = null, release = new AbortController();

/** Waits until the picture's key is written: the script unpacks the picture meanwhile, and must find it in its place. */
const painted = () => new Promise((done) => {
  const key = follow.querySelector(".legend.key");
  if (!key) { done(); return; }
  const watch = new MutationObserver(() => { watch.disconnect(); done(); });
  watch.observe(key, { childList: true });
  setTimeout(() => { watch.disconnect(); done(); }, 8000);
});

/** Runs the report's own script on what is there now; its listeners on the window end with the next one. */
const enliven = () => new Promise((done) => {
  release.abort();
  release = new AbortController();
  const { signal } = release, add = window.addEventListener, match = window.matchMedia;
  const canvas = follow.querySelector("canvas.heat");
  const visible = (call) => (event) => { if (!canvas || canvas.clientWidth) call(event); }; /* what is not laid out cannot be drawn */
  window.addEventListener = (type, call, options) => add.call(window, type, visible(call), { ...options, signal });
  window.matchMedia = (query) => {
    const found = match.call(window, query), own = found.addEventListener.bind(found);
    found.addEventListener = (type, call) => own(type, call, { signal });
    return found;
  };
  const script = document.createElement("script");
  script.src = "/static/report.js";
  const over = () => { window.addEventListener = add; window.matchMedia = match; script.remove(); done(); };
  const ready = painted();
  script.onload = () => ready.then(over);
  script.onerror = over;
  document.body.append(script);
});

const kept = () => ({
  tabs: [...follow.querySelectorAll('[role="tab"][aria-selected="true"]')].map((tab) => [tab.parentElement.className, tab.dataset.key]),
  open: [...follow.querySelectorAll("details")].map((one) => one.open),
  focus: document.activeElement?.dataset?.key,
  at: scrollY,
});

const restore = async (was) => {
  follow.querySelectorAll("details").forEach((one, i) => { one.open = was.open[i] ?? false; });
  for (const [list, key] of was.tabs) {
    const tab = [...follow.querySelectorAll('[role="tab"]')].find((one) => one.parentElement.className === list && one.dataset.key === key);
    if (!tab || tab.getAttribute("aria-selected") === "true") continue;
    const after = list.includes("planes") ? painted() : null;
    tab.click();
    await after;
  }
  if (was.focus) [...follow.querySelectorAll("[data-key]")].find((one) => one.dataset.key === was.focus)?.focus({ preventScroll: true });
  scrollTo({ top: was.at, behavior: "instant" });
};

const renew = async () => {
  if (busy) return;
  busy = true;
  while (shown !== latest) {
    const wanted = latest;
    const answer = await fetch(`/runs/${follow.dataset.id}/article`).catch(() => null);
    if (!answer?.ok) { if (answer) say(await answer.text(), ""); break; }
    await unpacking;
    while (performance.now() - touched < 400) await new Promise((done) => setTimeout(done, 100)); /* a hand is on it */
    const page = new DOMParser().parseFromString(await answer.text(), "text/html"), was = kept();
    const held = follow.offsetHeight;
    follow.style.minHeight = `${held}px`;
    follow.replaceChildren(...page.body.children);
    await enliven();
    await restore(was);
    follow.style.minHeight = "";
    shown = wanted;
    follow.dataset.stamp = shown;
    follow.dataset.renewed = String(Number(follow.dataset.renewed || 0) + 1);
  }
  busy = false;
};

for (const kind of ["click", "keydown", "pointerdown"]) follow.addEventListener(kind, (e) => {
  if (!e.isTrusted) return;
  touched = performance.now();
  if (e.target.closest(".planes button") && (kind === "click" || /^Arrow(Left|Right)$/.test(e.key))) unpacking = painted();
}, true);

const say = (text, kind) => { if (state.textContent !== text) state.textContent = text; bar.dataset.state = kind; };

const events = new EventSource(`/runs/${follow.dataset.id}/events`);
events.addEventListener("version", (e) => {
  const { stamp, live } = JSON.parse(e.data);
  latest = stamp;
  say(live ? "running, followed live" : "not running", live ? "live" : "still");
  renew();
});
events.addEventListener("gone", () => { say("this run was moved or deleted", "gone"); events.close(); });
events.addEventListener("error", () => { if (events.readyState !== EventSource.CLOSED) say("the server does not answer; trying again", "lost"); });
say(follow.dataset.live === "yes" ? "running, followed live" : "not running", follow.dataset.live === "yes" ? "live" : "still");
await enliven();
busy = false;
renew();
