
// The board asks its own server again and again, and puts in place what changed; filter, order and ticks stay.
const live = document.getElementById("live"), age = document.getElementById("age"), rows = document.getElementById("rows");
let last = "";

function chips() {
  all("[data-filter]").forEach(chip => chip.addEventListener("click", () => {
    const field = document.querySelector("[data-for=t-runs]");
    field.value = chip.dataset.filter;
    filter(field);
  }));
}

function restore(ticked) {
  all("input[name=path]", rows).forEach(box => { box.checked = ticked.has(box.value); });
  const head = document.querySelector("#t-runs th[aria-sort]");
  if (head) {
    head.setAttribute("aria-sort", head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
    sort(head);
  }
  filter(document.querySelector("[data-for=t-runs]"));
}

async function refresh() {
  const start = performance.now();
  if (!document.hidden) await update();
  // a folder of thousands of runs is asked less often
  setTimeout(refresh, Math.max(1000 * Number(live.dataset.refresh), 10 * (performance.now() - start)));
}

async function update() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const text = await answer.text();
    age.textContent = "";
    if (text === last) return;
    last = text;
    const page = new DOMParser().parseFromString(text, "text/html");
    const ticked = new Set(all("input[name=path]:checked", rows).map(box => box.value));
    const focused = document.activeElement.closest && document.activeElement.closest("#rows, #live");
    if (focused && document.activeElement.matches("a, button")) { last = ""; return; } // not under the reader's hand
    live.replaceChildren(...page.getElementById("live").childNodes);
    rows.replaceChildren(...page.getElementById("rows").childNodes);
    names();
    chips();
    restore(ticked);
  } catch (fault) {
    age.textContent = say("Not refreshed: the board does not answer ({reason}).", { reason: fault.message });
  }
}

chips();
setTimeout(refresh, 1000 * Number(live.dataset.refresh));
