// [data-choose] boxes and the [data-choice-bar] of their form: says how many are ticked.
(() => {
  for (const bar of document.querySelectorAll("[data-choice-bar]")) {
    const form = bar.closest("form");
    if (!form) continue;
    const line = bar.querySelector("[data-count]");
    const shown = bar.querySelector("[data-count-number]");
    const count = () => {
      shown.textContent = form.querySelectorAll("[data-choose]:checked").length;
      line.hidden = false;
    };
    form.addEventListener("change", count);
    count();
  }
})();
