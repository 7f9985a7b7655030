/* The curves of two runs on one axis. */

import { plot } from "/static/charts.js";
import { find } from "/static/talk.js";

const card = find("#curves"), block = card?.querySelector("script.data");
if (block) {
  const { curves } = JSON.parse(block.textContent);
  const names = ["before", "after"], kinds = ["first", "second"];
  const draw = () => curves.forEach((curve) => {
    const holder = [...card.querySelectorAll("[data-curve]")].find((one) => one.dataset.curve === curve.name);
    plot(holder, curve.lines.map((line, n) => ({ ...line, name: names[n], kind: kinds[n] })), { log: curve.name === "grad norm", height: 200 });
  });
  draw();
  addEventListener("resize", draw);
}
