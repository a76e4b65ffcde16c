// [data-announce]: when htmx brings a fragment whose sentence differs, screen readers hear the new one, once.
(() => {
  const announcer = document.getElementById("announcer");
  const sentence = () => document.querySelector("[data-announce]")?.textContent.trim() ?? "";
  let last = sentence();
  document.body.addEventListener("htmx:afterSettle", () => {
    const now = sentence();
    if (now && now !== last) announcer.textContent = now;
    last = now;
  });
})();
