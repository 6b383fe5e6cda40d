/* The list of runs in `gsi view`: renewed every five seconds; what was ticked stays ticked. */
"use strict";
setInterval(async () => {
  if (document.hidden) return;
  const answer = await fetch("/").catch(() => null);
  if (!answer || !answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("tbody");
  const old = document.querySelector("tbody");
  if (!fresh || old.contains(document.activeElement)) return;
  const ticked = new Set([...old.querySelectorAll("input:checked")].map((i) => i.value));
  for (const input of fresh.querySelectorAll("input")) input.checked = ticked.has(input.value);
  old.replaceWith(document.adoptNode(fresh));
}, 5000);
