// The architectures of a page: a table that sorts by any column, and the drawing of the one that is picked.
const FIRST = 50;  // rows of the table at first; a browser takes seconds to lay out thousands

const architectures = (() => {
  const element = document.getElementById("architectures");
  if (!element) return null;
  const data = JSON.parse(element.textContent), count = data.count;
  const columns = data.columns.map(column => ({...column,
    of: column.numbers ? numbersOf(column.numbers) : textsOf(column.texts)}));
  const label = columns[1].of, edgesOf = data.edges ? textsOf(data.edges) : () => "";
  const body = document.querySelector("#all tbody"), more = document.getElementById("more");
  const found = document.getElementById("found"), find = document.getElementById("find");
  const heads = [...document.querySelectorAll("#all th")], panel = document.getElementById("picked");
  let order = Array.from({length: count}, (_, row) => row), kept = order, rows = FIRST, by = 0, sign = 1, back = null;

  function fill() {
    const made = kept.slice(0, rows).map(row => {
      const line = document.createElement("tr");
      line.tabIndex = 0;
      line.dataset.row = row;
      columns.forEach(column => {
        const cell = document.createElement("td");
        if (column.texts) {
          cell.className = "text";  // a line may end after a plus, a bar or a comma
          column.of(row).split(/(?<=[+|,])(?=.)/).forEach((part, k) =>
            cell.append(...(k ? [document.createElement("wbr")] : []), part));
        } else cell.textContent = shown(column.of(row));
        line.append(cell);
      });
      return line;
    });
    body.replaceChildren(...made);
    more.hidden = rows >= kept.length;
    found.textContent = `${Math.min(rows, kept.length).toLocaleString("en")} of ${kept.length.toLocaleString("en")}`;
  }

  function sort(k) {
    sign = by === k ? -sign : columns[k].texts || k === 0 ? 1 : -1;  // large numbers first
    by = k;
    const keys = order.map(row => columns[k].of(row));
    const compare = (a, b) => {
      const x = keys[a], y = keys[b];
      if (x === null || y === null) return (x === null) - (y === null);
      return (sign * (typeof x === "number" ? x - y : x < y ? -1 : x > y ? 1 : 0)) || a - b;
    };
    const sorted = order.map((_, i) => i).sort(compare);
    order = sorted.map(i => order[i]);
    heads.forEach((head, i) =>
      head.setAttribute("aria-sort", i !== k ? "none" : sign > 0 ? "ascending" : "descending"));
    filter();
  }

  function filter() {
    const wanted = find.value.trim().toLowerCase(), texts = columns.filter(column => column.texts);
    kept = !wanted ? order
      : order.filter(row => texts.some(column => column.of(row).toLowerCase().includes(wanted)));
    rows = FIRST;
    fill();
  }

  function show(row) {
    if (panel.hidden) back = document.activeElement;
    panel.hidden = false;
    panel.querySelector("h2").textContent = `${data.kind} ${shown(columns[0].of(row))}`;
    panel.querySelector("code").textContent = label(row);
    const text = edgesOf(row), ends = text ? text.split(" ").map(Number) : [], edges = [];
    for (let k = 0; k < ends.length; k += 3)
      edges.push({source: ends[k], target: ends[k + 1], label: data.operations[ends[k + 2]]});
    panel.querySelector(".drawing").replaceChildren(
      ...(edges.length ? [drawnCell(edges, data.nodes, data.colours)] : []));
    panel.querySelector("dl").replaceChildren(...columns.slice(2).flatMap(column => {
      const name = document.createElement("dt"), value = document.createElement("dd");
      name.textContent = column.name;
      value.textContent = shown(column.of(row));
      return [name, value];
    }));
    copy(label(row));
    panel.focus();
  }

  function copy(text) {
    const said = panel.querySelector(".note");
    const say = done => said.textContent = done ? "The architecture's text is in the clipboard." : "";
    say(false);
    const select = () => {  // where a page may not write to the clipboard by itself
      getSelection().selectAllChildren(panel.querySelector("code"));
      say(document.execCommand("copy"));
      getSelection().removeAllRanges();
    };
    navigator.clipboard ? navigator.clipboard.writeText(text).then(() => say(true), select) : select();
  }

  function close() {
    panel.hidden = true;
    back?.focus();
  }

  const descriptions = [];
  function described(row) {  // of a point, as HTML; made once for all plots
    return descriptions[row] ??= description(row);
  }

  function description(row) {
    const lines = [`${data.kind} ${shown(columns[0].of(row))}`, label(row).replaceAll("+", "+\n")];
    columns.slice(2).filter(column => column.hover).forEach(column => {
      const value = column.of(row);
      if (value !== null) lines.push(`${column.name} ${shown(value)}`);
    });
    return escaped(lines.join("\n")).replaceAll("\n", "<br>");
  }

  heads.forEach((head, k) => head.querySelector("button").onclick = () => sort(k));
  more.onclick = () => { rows *= 10; fill(); };
  find.oninput = filter;
  const rowOf = event => event.target.closest("tr[data-row]");
  body.onclick = event => { const line = rowOf(event); if (line) show(Number(line.dataset.row)); };
  body.onkeydown = event => { if (event.key === "Enter" && rowOf(event)) show(Number(rowOf(event).dataset.row)); };
  document.getElementById("close").onclick = close;
  addEventListener("keydown", event => { if (event.key === "Escape" && !panel.hidden) close(); });
  fill();
  return {show, described};
})();
