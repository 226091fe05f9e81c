// j and k open the next and the previous example; everything else works without a script.
const examples = [...document.querySelectorAll("details.example")];
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || !["j", "k"].includes(event.key) || !examples.length) return;
  const current = examples.findIndex((example) => example.open);
  const next = Math.min(examples.length - 1, Math.max(0, current + (event.key === "j" ? 1 : -1)));
  examples[next].open = true;
  examples[next].querySelector("summary").focus();
  examples[next].scrollIntoView({ block: "nearest" });
});
