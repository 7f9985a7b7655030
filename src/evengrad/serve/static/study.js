/* The answer of a study in words: worked out by a process of its own while the page is read already. */

import { find, node } from "/static/talk.js";

const card = find("#answer");
const tell = (found) => {
  const asked = found.question ? [node("p", { class: "headline" }, found.question)] : [];
  const lines = (found.answer ?? found.trouble).split("\n").filter(Boolean);
  card.querySelector("div").replaceChildren(...asked, ...lines.map((line, i) => node("p", { class: found.answer && !i ? "lead" : "detail" }, line)));
  card.removeAttribute("aria-busy");
};
const answer = await fetch(`/studies/${card.dataset.number}/answer`).catch(() => null);
tell(answer?.ok ? await answer.json() : { trouble: answer ? await answer.text() : "The server does not answer; reload the page." });
