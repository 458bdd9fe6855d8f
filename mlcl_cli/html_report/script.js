// Without this script, all panels are visible, one below the other.
for (const tabs of document.querySelectorAll("[data-tabs]")) {
  const list = tabs.querySelector("[role=tablist]");
  const buttons = [...list.children];
  const panels = buttons.map((button) => document.getElementById(button.getAttribute("aria-controls")));
  const choose = (chosen) => {
    buttons.forEach((button, number) => {
      const on = number === chosen;
      button.setAttribute("aria-selected", on);
      button.tabIndex = on ? 0 : -1;
      panels[number].hidden = !on;
    });
  };
  buttons.forEach((button, number) => {
    button.addEventListener("click", () => choose(number));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (number + step + buttons.length) % buttons.length;
      choose(next);
      buttons[next].focus();
    });
  });
  list.hidden = false;
  choose(0);
}
// A link to a run opens it.
const open = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", open);
open();
