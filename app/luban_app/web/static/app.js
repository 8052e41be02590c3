// Comforts only: every page works without this file.
"use strict";

const language = document.documentElement.lang;

// Errors come first: go to what has to be corrected.
document.querySelector("[data-focus]")?.focus();

// Times are sent in UTC; show them as the visitor's clock has them.
for (const time of document.querySelectorAll("time[data-local]")) {
  const moment = new Date(time.dateTime);
  time.title = time.textContent;
  time.textContent = moment.toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
}

for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
}

// What is folded away is printed too.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details.part:not([open])")];
  for (const details of folded) details.open = true;
});
window.addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});

// The form counts answers as they are given, and asks before they are lost.
const step = document.getElementById("step");
if (step) {
  // The page was sent and not taken: what it shows is kept nowhere.
  const refused = step.hasAttribute("data-refused");
  let changed = refused;
  const shown = document.querySelector("[data-answered]");
  const count = () => {
    if (shown) shown.textContent = step.querySelectorAll("input[type=radio]:checked:not([value=''])").length;
  };
  step.addEventListener("input", () => { changed = true; count(); });
  document.addEventListener("submit", () => { changed = false; });
  window.addEventListener("beforeunload", (event) => { if (changed) event.preventDefault(); });
  const hidden = () => [...step.querySelectorAll("[name=draft], [name=was], [name=new]")];
  const differs = (one) => (one.type === "radio" ? one.checked !== one.defaultChecked : one.value !== one.defaultValue);
  // Whoever goes back finds what was filled in and not saved: browsers bring it back after this script has begun. It
  // belongs to what the page showed then; else it would pass for changes of what another window has saved since.
  window.addEventListener("pageshow", () => {
    const back = [...step.querySelectorAll("input:not([type=hidden]), textarea")].some(differs);
    const then = history.state?.form;
    if (back && then) {
      for (const one of hidden()) {
        if (one.name in then) one.value = then[one.name];
        else one.remove();
      }
    } else {
      history.replaceState({ form: Object.fromEntries(hidden().map((one) => [one.name, one.value])) }, "");
    }
    changed = refused || back;
    count();
  });
  count();
}

// An entry that an address points to is opened.
const opened = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
};
window.addEventListener("hashchange", opened);
opened();

// Comparison: say at once whether enough is chosen, and not too much.
const records = document.querySelector("form.records");
if (records) {
  const button = records.querySelector("[data-compare]");
  const label = button.textContent;
  const { least, most } = records.dataset;
  const update = () => {
    const chosen = records.querySelectorAll("input[name=id]:checked").length;
    button.textContent = chosen ? `${label} (${chosen})` : label;
    for (const box of records.querySelectorAll("input[name=id]:not(:checked)")) box.disabled = chosen >= most;
    button.toggleAttribute("data-ready", chosen >= least);
  };
  records.addEventListener("change", update);
  update();
}
