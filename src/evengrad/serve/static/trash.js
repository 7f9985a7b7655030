/* The trash: a press brings a run back. */

import { find, node, post } from "/static/talk.js";

const said = find("#said");
for (const button of document.querySelectorAll("button[data-id]")) button.addEventListener("click", async () => {
  button.disabled = true;
  try {
    const found = await post(`/trash/${button.dataset.id}/restore`);
    said.replaceChildren(`${found.said} `, node("a", { href: `/runs/${found.id}` }, "Open it"));
    button.closest("tr").remove();
  } catch (error) { said.textContent = error.message; button.disabled = false; }
});
