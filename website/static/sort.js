// A click on the head of a column sorts the table by it: by numbers where all cells have one, else by words.
document.addEventListener("DOMContentLoaded", () => {
  const number = (cell) => {
    const found = cell.textContent.replace(/−/g, "-").replace(/,(?=\d{3})/g, "").match(/^[^\d-+.]*([-+]?\d*\.?\d+(e[-+]?\d+)?)/i);
    return found ? parseFloat(found[1]) : NaN;
  };
  document.querySelectorAll("article table").forEach((table) => {
    const heads = table.querySelectorAll("thead th");
    const body = table.querySelector("tbody");
    if (!body || body.rows.length < 3) return;
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.title = "sort by this column";
      const sort = () => {
        const order = head.dataset.order === "1" ? -1 : 1;
        heads.forEach((other) => delete other.dataset.order);
        head.dataset.order = order;
        const rows = [...body.rows];
        const keys = new Map(rows.map((row) => [row, row.cells[column] || row]));
        const numbers = rows.every((row) => !Number.isNaN(number(keys.get(row))));
        rows.sort((a, b) => {
          const [x, y] = [keys.get(a), keys.get(b)];
          return order * (numbers ? number(x) - number(y) : x.textContent.localeCompare(y.textContent));
        });
        rows.forEach((row) => body.append(row));
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  });
});
