// Comforts: the page is complete without a script. Colours on request, examples by user and outcome, trials by arrow keys.
const root = document.documentElement;
const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.hidden = false;
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
dark.addEventListener("change", nameTheme);
nameTheme();

const examples = [...document.querySelectorAll("details.example")];
const shown = () => examples.filter((example) => !example.hidden);
const openExample = (example) => {
  example.open = true;
  example.querySelector("summary").focus();
  example.scrollIntoView({ block: "nearest" });
};
const stepExample = (step) => {
  const list = shown();
  if (!list.length) return;
  const current = list.findIndex((example) => example.open);
  openExample(list[Math.min(list.length - 1, Math.max(0, current + step))]);
};

const choose = document.getElementById("choose");
if (choose) {
  choose.hidden = false;
  const selects = ["user", "outcome"].map((key) => [key, document.getElementById(`choose-${key}`)]).filter((pair) => pair[1]);
  choose.addEventListener("change", () => {
    for (const example of examples) {
      example.hidden = selects.some(([key, select]) => select.value && example.dataset[key] !== select.value);
    }
    const list = shown();
    if (list.length && !list.some((example) => example.open)) list[0].open = true;
    document.getElementById("chosen").textContent = `${list.length} of ${examples.length} shown`;
  });
}

const rows = [...document.querySelectorAll("table.trials tbody tr")];
const markTrial = (number) => {
  for (const element of document.querySelectorAll("[data-trial]")) element.classList.toggle("on", element.dataset.trial === number);
};
const stepTrial = (row, step) => {
  const next = rows[Math.min(rows.length - 1, Math.max(0, rows.indexOf(row) + step))];
  for (const each of rows) each.tabIndex = each === next ? 0 : -1;
  next.focus();
};
rows.forEach((row, place) => {
  row.tabIndex = place ? -1 : 0;
  row.addEventListener("focus", () => markTrial(row.dataset.trial));
  row.addEventListener("click", () => stepTrial(row, 0));
});

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("select, input, textarea, button")) return;
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const row = event.target.closest("table.trials tbody tr");
  const heading = event.target.closest("details.example > summary");
  if (row) stepTrial(row, step);
  else if (heading || event.key.length === 1) stepExample(step);
  else return;
  event.preventDefault();
});
