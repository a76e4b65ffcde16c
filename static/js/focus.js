// [data-focus]: takes the focus when the page arrives, e.g. the error summary.
(() => {
  const target = document.querySelector("[data-focus]");
  if (target) target.focus();
})();
