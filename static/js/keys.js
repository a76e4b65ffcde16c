// [data-keys] group with [data-key="k"] controls: that key presses the control, only while the focus is inside the group.
(() => {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=text], textarea, select")) return;
    const group = event.target.closest?.("[data-keys]");
    const control = group && group.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!control) return;
    event.preventDefault();
    control.click();
  });
})();
