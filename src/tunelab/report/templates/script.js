"use strict";
// Sorting, filtering, words under the pointer, copying.  Without this script the page shows the same.
const words = JSON.parse(document.body.dataset.words || "{}"); // in the language of the page, English ones as they are
const say = (text, values = {}) => (words[text] || text).replace(/\{(\w+)\}/g, (_, name) => values[name]);
const all = (query, from = document) => [...from.querySelectorAll(query)];
const valueOf = cell => cell === undefined ? null : cell.dataset.v !== undefined ? Number(cell.dataset.v)
  : cell.classList.contains("number") ? null : cell.textContent.toLowerCase();

function compare(one, other) {
  if (one === null || other === null) return (one === null) - (other === null); // gaps last
  return typeof one === "string" ? one.localeCompare(other, undefined, { numeric: true }) : one - other;
}

function sort(head) {
  const table = head.closest("table"), body = table.tBodies[0], at = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  all("th", table).forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].map(row => [valueOf(row.cells[at]), row]);
  rows.sort(([a], [b]) => (down && a !== null && b !== null ? -1 : 1) * compare(a, b));
  body.append(...rows.map(([, row]) => row));
  show(table);
}

// which rows stand open: those that pass the filter, of a long table the first ones until its button is clicked
function show(table) {
  const rows = [...table.tBodies[0].rows], most = Number(table.dataset.open || rows.length);
  const left = rows.filter(row => row.dataset.out === undefined);
  rows.forEach(row => { row.hidden = true; });
  left.slice(0, most).forEach(row => { row.hidden = false; });
  const note = table.noteBelow;
  if (note) {
    note.firstChild.textContent = say("{shown} of {all} rows", { shown: Math.min(most, left.length), all: rows.length }) + " ";
    note.lastChild.hidden = left.length <= most;
  }
  return [left, rows];
}

function condition(word, names) {
  const parts = word.match(/^(.+?)(<=|>=|=|<|>)(.+)$/);
  const at = parts ? names.indexOf(parts[1]) : -1;
  if (at < 0) return row => row.textContent.toLowerCase().includes(word);
  const bound = Number(parts[3]);
  return row => {
    const value = valueOf(row.cells[at]);
    if (parts[2] === "=") return value === bound || String(value) === parts[3];
    if (value === null || typeof value === "string") return false;
    return { "<": value < bound, ">": value > bound, "<=": value <= bound, ">=": value >= bound }[parts[2]];
  };
}

function filter(field) {
  const table = document.getElementById(field.dataset.for), rows = [...table.tBodies[0].rows];
  // a column with spaces in its name is filtered by underscores
  const names = all("thead th", table).map(head => head.textContent.toLowerCase().replace(/\s+/g, "_"));
  const tests = field.value.toLowerCase().split(/\s+/).filter(Boolean).map(word => condition(word, names));
  rows.forEach(row => {
    if (tests.every(test => test(row))) delete row.dataset.out; else row.dataset.out = "";
  });
  const [left] = show(table);
  field.parentElement.querySelector("output").value = tests.length ? say("{left} of {all} match", { left: left.length, all: rows.length }) : "";
  const keys = new Set(left.map(row => row.dataset.key));
  if (rows.some(row => row.dataset.key)) {
    all("svg [data-key]").forEach(mark => mark.classList.toggle("off", !keys.has(mark.dataset.key)));
  }
}

const tip = Object.assign(document.createElement("div"), { id: "tip", hidden: true });
document.body.append(tip);

function point(event) {
  const mark = event.target.closest("svg [aria-label]:not(svg)"), line = event.target.closest("[data-key]");
  all(".lit").forEach(lit => lit.classList.remove("lit"));
  if (line) all(`[data-key="${CSS.escape(line.dataset.key)}"]`).forEach(same => same.classList.add("lit"));
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.getAttribute("aria-label");
  const wide = tip.offsetWidth, x = Math.min(event.clientX + 12, innerWidth - wide - 8);
  tip.style.left = `${Math.max(8, x)}px`;
  tip.style.top = `${event.clientY > 60 ? event.clientY - tip.offsetHeight - 12 : event.clientY + 18}px`;
}

function copy(code, button) {
  const range = document.createRange();
  range.selectNodeContents(code);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  const done = words => { button.textContent = words; setTimeout(() => { button.textContent = say("copy"); }, 1500); };
  if (!navigator.clipboard) { done(say("selected")); return; }
  navigator.clipboard.writeText(code.textContent).then(() => done(say("copied")), () => done(say("selected")));
}

// the browser's own tip comes late and not at all on a phone: ours takes over its words
function names() {
  all("svg.tl").forEach(svg => all("title", svg).forEach(title => {
    const mark = title.parentElement;
    if (mark !== svg) { mark.setAttribute("role", "img"); mark.setAttribute("aria-label", title.textContent); }
    title.remove();
  }));
}

names();
all("table[data-open]").forEach(table => {
  const note = Object.assign(document.createElement("p"), { className: "more soft" });
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: say("show all") });
  button.addEventListener("click", () => {
    delete table.dataset.open;
    table.parentElement.classList.add("tall");
    show(table);
  });
  note.append("", button);
  table.parentElement.after(note);
  table.noteBelow = note;
  show(table);
});
all("th button").forEach(button => button.addEventListener("click", () => sort(button.parentElement)));
all(".filter input").forEach(field => field.addEventListener("input", () => filter(field)));
document.addEventListener("pointermove", point);
document.addEventListener("pointerdown", point);
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
all(".command pre").forEach(pre => {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: say("copy") });
  button.addEventListener("click", () => copy(pre, button));
  pre.after(button);
});
