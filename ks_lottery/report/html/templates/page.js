"use strict";
(() => {
  const note = document.getElementById("note");
  const said = document.getElementById("said");
  const UNITS = { "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9 };
  const MISSING = "—";
  const FILTER_FROM = 8;

  /* A cell as what it sorts by: a number with its unit, else its text; what is missing comes last. */
  function key(cell) {
    const text = cell.textContent.trim();
    if (text === "" || text === MISSING) return null;
    const found = /^[<>≤≥]?\s*([+\-−]?[\d,]*\.?\d+(?:e[+\-]?\d+)?)\s*([A-Za-z%]*)/.exec(text);
    if (!cell.classList.contains("number") || !found) return text.toLowerCase();
    return Number(found[1].replaceAll(",", "").replace("−", "-")) * (UNITS[found[2]] || 1);
  }

  function compared(one, other) {
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other), undefined, { numeric: true });
  }

  function sort(table, column, head) {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const one of head.parentElement.children) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [key(row.cells[column]), row]);
    const known = rows.filter((entry) => entry[0] !== null);
    known.sort((one, other) => compared(one[0], other[0]) * (down ? -1 : 1));
    for (const entry of [...known, ...rows.filter((one) => one[0] === null)]) body.append(entry[1]);
    said.textContent = `Sorted by ${head.textContent}, ${down ? "descending" : "ascending"}.`;
  }

  function filter(input, items, count) {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const item of items) {
      item.hidden = !item.textContent.toLowerCase().includes(wanted);
      shown += !item.hidden;
    }
    count.textContent = `${shown} of ${items.length}`;
    said.textContent = `${shown} of ${items.length} shown.`;
  }

  function filterBox(label) {
    const box = document.createElement("p");
    box.className = "filter";
    const words = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("span");
    input.type = "search";
    count.className = "count";
    words.append(`${label} `, input);
    box.append(words, " ", count);
    return [box, input, count];
  }

  for (const table of document.querySelectorAll("main .table table:not([role=grid])")) {
    const body = table.tBodies[0];
    if (!body || !table.tHead) continue;
    Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, column, head));
    });
    if (body.rows.length < FILTER_FROM) continue;
    const [box, input, count] = filterBox("Find in the table");
    const rows = Array.from(body.rows);
    table.parentElement.before(box);
    input.addEventListener("input", () => filter(input, rows, count));
  }

  for (const input of document.querySelectorAll("input[data-filter]")) {
    const box = input.closest(".filter");
    const items = Array.from(box.parentElement.querySelectorAll(input.dataset.filter));
    box.hidden = false;
    input.addEventListener("input", () => filter(input, items, box.querySelector(".count")));
  }

  /* Notes: beside what is pointed at or focused. */
  function show(target) {
    note.textContent = target.dataset.note;
    note.hidden = false;
    const at = target.getBoundingClientRect();
    const size = note.getBoundingClientRect();
    const left = Math.min(at.right + 8, window.innerWidth - size.width - 8);
    const above = at.top - size.height - 8;
    note.style.left = `${Math.max(8, left)}px`;
    note.style.top = `${above > 8 ? above : Math.min(at.bottom + 8, window.innerHeight - size.height - 8)}px`;
  }
  const noted = (event) => (event.target instanceof Element ? event.target.closest("[data-note]") : null);
  const hide = () => { note.hidden = true; };
  document.addEventListener("mouseover", (event) => { noted(event) ? show(noted(event)) : hide(); });
  document.addEventListener("focusin", (event) => { noted(event) ? show(noted(event)) : hide(); });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });

  /* Arrow keys walk over the marks of a picture and the cells of a heat map; Escape hides the note. */
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const place = event.target instanceof Element ? event.target.closest("[data-walk]") : null;
    if (!place || !event.target.matches("[tabindex]")) return;
    const items = Array.from(place.querySelectorAll("[tabindex][data-note]"));
    const here = items.indexOf(event.target);
    const width = Number(place.dataset.columns) || 1;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: width, ArrowUp: -width, Home: -here, End: items.length - 1 - here };
    if (!(event.key in moves) || here < 0) return;
    event.preventDefault();
    const next = items[Math.min(items.length - 1, Math.max(0, here + moves[event.key]))];
    event.target.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });

  /* Copying: by the clipboard, or where a browser forbids that to files, by a selection. */
  async function copy(button) {
    const code = button.parentElement.querySelector("code");
    let done = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      const chosen = window.getSelection();
      chosen.removeAllRanges();
      chosen.addRange(range);
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    said.textContent = done ? "Copied." : "The command is selected: press Ctrl+C.";
    window.setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }

  const theme = document.getElementById("theme");
  const themes = [["", "as the system"], ["light", "light"], ["dark", "dark"]];
  let current = 0;
  theme.hidden = false;
  theme.addEventListener("click", () => {
    current = (current + 1) % themes.length;
    document.documentElement.style.colorScheme = themes[current][0];
    theme.textContent = `Colours: ${themes[current][1]}`;
  });
})();
