// Pairs of visible things that overlap, and whatever is wider than the window: what a person would see as broken.
() => {
  const isSeen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const hasText = (element) => Array.from(element.childNodes).some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const isControl = (element) => element.matches("button, input, select, textarea, meter");

  function clipped(box, element) {
    let { left, top, right, bottom } = box;
    for (let at = isControl(element) ? element.parentElement : element; at; at = at.parentElement) {
      if (getComputedStyle(at).overflow === "visible") continue;
      const around = at.getBoundingClientRect();
      [left, top, right, bottom] = [Math.max(left, around.left), Math.max(top, around.top), Math.min(right, around.right), Math.min(bottom, around.bottom)];
    }
    return { left, top, right, bottom };
  }

  function boxes(element) {
    if (isControl(element)) return [element.getBoundingClientRect()];
    return Array.from(element.childNodes).filter((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()).flatMap((node) => {
      const range = document.createRange();
      range.selectNodeContents(node);
      return Array.from(range.getClientRects());
    });
  }

  const things = Array.from(document.querySelectorAll("body *"))
    .filter((element) => isSeen(element) && (isControl(element) || (hasText(element) && !element.closest("button, select, textarea"))))
    .flatMap((element) => boxes(element).map((box) => ({ element, ...clipped(box, element) })))
    .filter((box) => box.right - box.left > 1 && box.bottom - box.top > 1);
  const named = ({ element }) => `${element.tagName.toLowerCase()}#${element.closest("[id]")?.id}: ${element.textContent.trim().slice(0, 30)}`;
  const meet = (one, two) =>
    Math.min(one.right, two.right) - Math.max(one.left, two.left) > 1 && Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top) > 2;
  const pairs = things.flatMap((one, at) => things.slice(at + 1).filter((two) => one.element !== two.element && meet(one, two)).map((two) => [named(one), named(two)]));
  const wide = things.filter((box) => box.right > innerWidth + 1 || box.left < -1).map((box) => ["wider than the window", named(box)]);
  const scrolls = document.documentElement.scrollWidth > innerWidth ? [["the window scrolls sideways", String(document.documentElement.scrollWidth)]] : [];
  return { count: things.length, problems: [...pairs, ...wide, ...scrolls] };
}
