/** What the widgets of a static page lack: MathJax 2's way to set formulas, and names for their sliders. */

window.addEventListener("load", () => {
  if (window.MathJax?.typesetPromise) {
    window.MathJax.Hub ??= { Queue: ([, , element]) => window.MathJax.typesetPromise([element]) };
  }
});

new MutationObserver(() => {
  for (const handle of document.querySelectorAll(".widget-slider [role=slider]:not([aria-label])")) {
    const label = handle.closest(".widget-slider").querySelector(".widget-label");
    handle.setAttribute("aria-label", label.textContent);
  }
}).observe(document.documentElement, { childList: true, subtree: true });
