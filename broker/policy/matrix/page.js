// Shows the rows that hold every word chosen. With a word chosen everywhere they are one decision.
"use strict";
const form = document.getElementById("filters");
const answer = document.getElementById("answer");
const rows = [...document.querySelectorAll("tr[data-roles]")];
const selects = [...form.querySelectorAll("select")];
const facts = selects.filter((select) => select.name !== "level");

function show() {
  const chosen = selects.filter((select) => select.value);
  const shown = rows.filter((row) => {
    row.hidden = !chosen.every(({ name, value }) => row.dataset[name].split(" ").includes(value));
    return !row.hidden;
  });
  for (const body of document.querySelectorAll("tbody")) {
    body.hidden = !body.querySelector("tr[data-roles]:not([hidden])");
  }
  const point = facts.every((select) => select.value);
  const level = selects.find((select) => select.name === "level").value;
  if (!chosen.length) answer.textContent = `${rows.length} rows`;
  else if (!point || level) answer.textContent = `${shown.length} of ${rows.length} rows`;
  else if (shown.length) answer.textContent = `The answer is: ${shown[0].dataset.level}.`;
  else answer.textContent = "The answer is: withheld, because no rule allows it.";
}

form.addEventListener("input", show);
form.addEventListener("reset", () => setTimeout(show));
show();
