// [data-print]: opens the print dialog; the button stays hidden without JavaScript.
(() => {
  for (const button of document.querySelectorAll("[data-print]")) {
    button.hidden = false;
    button.addEventListener("click", () => window.print());
  }
})();
