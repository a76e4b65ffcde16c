// [data-copy="id"]: copies the text of that element; the button stays hidden where this cannot work.
(() => {
  if (!navigator.clipboard) return;
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      await navigator.clipboard.writeText("value" in source ? source.value : source.textContent.trim());
      document.getElementById("announcer").textContent = button.dataset.done;
      button.lastElementChild.textContent = button.dataset.done;
    });
  }
})();
