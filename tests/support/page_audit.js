// What is wrong with a page, as sentences: overflow, structure, names, contrast; the value of this script is the list.
(() => {
  const faults = [], all = query => [...document.querySelectorAll(query)];
  const named = element => `${element.tagName.toLowerCase()} ${(element.textContent || element.id).trim().slice(0, 40)}`;
  const seen = element => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });

  if (document.documentElement.scrollWidth > innerWidth) faults.push("the page is wider than the screen");
  all("main *").filter(element => seen(element) && !element.closest(".wide, nav, svg, summary")).forEach(element => {
    const box = element.getBoundingClientRect();
    if (box.width && (box.right > innerWidth + 1 || box.left < -1)) faults.push(`beyond the screen: ${named(element)}`);
  });

  const ids = all("[id]").map(element => element.id);
  ids.filter((id, at) => ids.indexOf(id) < at).forEach(id => faults.push(`id twice: ${id}`));
  if (all("h1").length !== 1) faults.push(`${all("h1").length} h1`);
  all("h1, h2, h3, h4").filter(seen).reduce((before, head) => {
    const level = Number(head.tagName[1]);
    if (level > before + 1) faults.push(`h${level} after h${before}: ${named(head)}`);
    return level;
  }, 0);
  if (!document.documentElement.lang) faults.push("no language");

  all("button, a[href], input, summary, [role=group], [role=img], figure > svg").filter(seen).forEach(element => {
    const label = element.getAttribute("aria-label") || element.textContent.trim() || element.title;
    if (!label) faults.push(`without a name: ${element.outerHTML.slice(0, 80)}`);
  });
  all("[aria-describedby]").forEach(element => {
    if (!document.getElementById(element.getAttribute("aria-describedby"))) faults.push(`describes nothing: ${named(element)}`);
  });
  all("main *").filter(seen).forEach(element => {
    const style = getComputedStyle(element);
    const scrolls = (element.scrollWidth > element.clientWidth + 1 && /auto|scroll/.test(style.overflowX))
      || (element.scrollHeight > element.clientHeight + 1 && /auto|scroll/.test(style.overflowY));
    const reached = element.tabIndex >= 0 || element.querySelector("a[href], button, input, [tabindex]");
    if (scrolls && !reached) faults.push(`scrolls, but not by keyboard: ${named(element)}`);
  });

  // contrast of text, WCAG 2: 4.5, or 3 for large letters; .on stands on a cell of a drawing, whose colour it fits
  const parts = colour => {
    const numbers = (colour.match(/[\d.]+(?:e-?\d+)?/g) || []).map(Number);
    const scale = colour.startsWith("color(") ? 1 : 255;
    return [numbers.slice(0, 3).map(value => value / scale), numbers.length > 3 ? numbers[3] : 1];
  };
  const bright = rgb => rgb.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const [rgb, alpha] = parts(getComputedStyle(one).backgroundColor);
      if (alpha === 1) return rgb;
    }
    return [1, 1, 1];
  };
  const told = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, text = texts.currentNode.textContent.trim();
    if (!text || !seen(element) || element.closest("script, style, title, .off, .on")) continue;
    const style = getComputedStyle(element), svg = element.closest("svg");
    const [ink] = parts(svg ? style.fill : style.color), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const [high, low] = [bright(ink), bright(behind(element))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05), kind = `${element.tagName}.${element.getAttribute("class")}`;
    if (ratio < (large ? 3 : 4.5) && !told.has(kind)) {
      told.add(kind);
      faults.push(`contrast ${ratio.toFixed(2)} of ${kind}: ${text.slice(0, 40)}`);
    }
  }
  return faults;
})()
