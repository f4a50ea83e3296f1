// Sorts a table by a column and hides rows and columns; without it the page says the same, in its first order.
for (const table of document.querySelectorAll(".wide > table")) {
  if (!table.tHead) continue;
  const rows = [...table.tBodies[0].rows], heads = [...table.tHead.rows[0].cells];
  const fixed = rows.filter((row) => row.classList.contains("baseline"));
  const number = (text) => {
    const found = text.replace(/\u2212/g, "-").match(/[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?/i);
    return found ? parseFloat(found[0]) : NaN;
  };
  const tools = document.createElement("details");
  tools.className = "tools";
  const summary = tools.appendChild(document.createElement("summary"));
  const count = () => {
    const away = tools.querySelectorAll("input:not(:checked)").length;
    summary.textContent = "Rows and columns" + (away ? `: ${away} hidden` : "");
  };
  const box = (name, toggle) => {
    const label = tools.appendChild(document.createElement("label")), input = document.createElement("input");
    input.type = "checkbox";
    input.checked = true;
    input.onchange = () => { toggle(!input.checked); count(); };
    label.append(input, name);
  };
  rows.forEach((row) => box(row.cells[0].textContent, (away) => { row.hidden = away; }));
  tools.appendChild(document.createElement("hr"));
  heads.forEach((head, place) => {
    if (place) box(head.textContent, (away) => [head, ...rows.map((row) => row.cells[place])].forEach((cell) => { cell.hidden = away; }));
    const sort = () => {
      const up = head.ariaSort !== "ascending";
      heads.forEach((other) => { other.ariaSort = null; });
      head.ariaSort = up ? "ascending" : "descending";
      const numeric = place > 0 && rows.some((row) => !isNaN(number(row.cells[place].textContent)));
      const key = (row) => (numeric ? number(row.cells[place].textContent) : row.cells[place].textContent);
      const order = rows.filter((row) => !fixed.includes(row)).sort((one, two) => {
        const a = key(one), b = key(two);
        if (numeric && (isNaN(a) || isNaN(b))) return isNaN(a) - isNaN(b);
        return (up ? 1 : -1) * (numeric ? a - b : a.localeCompare(b));
      });
      table.tBodies[0].append(...fixed, ...order);
    };
    head.tabIndex = 0;
    head.title = "Sort";
    head.onclick = sort;
    head.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } };
  });
  count();
  table.parentElement.before(tools);
}
