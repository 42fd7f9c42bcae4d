// Draws a cell as draw_cell of pynas/report/_cell.py does: nodes on a line, edges as arcs above and below it.
const SPACING = 230, RADIUS = 24, LIFT = 62, CHARACTER = 7.6, FAINT = "#9ca3af";

function made(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The height of each arc, negative below the line: the lowest level that overlaps no other, short edges first.
function levelsOf(edges) {
  const levels = edges.map(() => 0), taken = [];
  const order = edges.map((_, i) => i).sort((a, b) =>
    (edges[a].target - edges[a].source) - (edges[b].target - edges[b].source)
    || edges[a].source - edges[b].source || a - b);
  for (const i of order) {
    const {source, target} = edges[i], span = target - source, candidates = span === 1 ? [0] : [];
    for (let k = Math.max(span - 1, 1); k < edges.length + 2; k++) candidates.push(k, -k);
    levels[i] = candidates.find(level =>
      !taken.some(([other, s, t]) => level === other && source < t && s < target));
    taken.push([levels[i], source, target]);
  }
  return levels;
}

function drawnCell(edges, labels, colours) {
  const count = 1 + Math.max(...edges.map(edge => Math.max(edge.source, edge.target)));
  const names = labels.length ? labels : Array.from({length: count}, (_, i) =>
    i === 0 ? "in" : i === count - 1 ? "out" : String(i));
  const levels = levelsOf(edges), middle = LIFT * Math.max(...levels) + 34;
  const height = middle + LIFT * Math.max(-Math.min(...levels), 0) + 34;
  const width = SPACING * (count - 1) + 2 * RADIUS + 60, centre = node => 30 + RADIUS + SPACING * node;
  const svg = made("svg", {class: "cell", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "cell",
    "font-size": 14, "text-anchor": "middle"});
  const colourOf = label => label === "none" ? FAINT : colours[label] ?? FAINT;
  for (const colour of new Set([...edges.map(edge => colourOf(edge.label)), FAINT])) {
    const marker = made("marker", {id: `picked-${colour.slice(1)}`, viewBox: "0 0 8 8", refX: 6, refY: 4,
      markerWidth: 5, markerHeight: 5, orient: "auto"});
    marker.append(made("path", {d: "M 0 0 L 8 4 L 0 8 z", fill: colour}));
    svg.append(marker);
  }
  const above = [];
  const order = edges.map((_, i) => i).sort((a, b) =>
    (edges[a].label !== "none") - (edges[b].label !== "none") || a - b);
  for (const i of order) {
    const {source, target, label} = edges[i], level = levels[i], faint = label === "none";
    const colour = colourOf(label), x0 = centre(source), x1 = centre(target);
    let apex = middle, d = `M ${x0 + RADIUS} ${middle} L ${x1 - RADIUS - 4} ${middle}`;
    if (level !== 0) {  // from the upper or lower side of one circle to the other's
      const side = level > 0 ? -1 : 1, start = x0 + 0.6 * RADIUS, end = x1 - 0.6 * RADIUS;
      const edgeY = middle + side * 0.8 * RADIUS, bend = 0.22 * (end - start);
      apex = middle + side * LIFT * Math.abs(level);
      const handle = edgeY + (apex - edgeY) * 4 / 3;
      d = `M ${start} ${edgeY} C ${start + bend} ${handle}, ${end - bend} ${handle}, ${end} ${edgeY + side * 4}`;
    }
    svg.append(made("path", {d, fill: "none", stroke: colour, "marker-end": `url(#picked-${colour.slice(1)})`,
      ...(faint ? {"stroke-dasharray": "4 5", "stroke-width": 1.5} : {"stroke-width": 2.5})}));
    const x = (x0 + x1) / 2, half = 0.5 * CHARACTER * label.length + 8;
    above.push(
      made("rect", {x: x - half, y: apex - 13, width: 2 * half, height: 26, rx: 13, fill: "var(--card)",
        stroke: colour, "stroke-width": faint ? 1 : 1.5}),
      made("text", {x, y: apex + 5, fill: faint ? "var(--muted)" : "var(--ink)"}, label));
  }
  svg.append(...above);
  for (let node = 0; node < count; node++) {
    svg.append(
      made("circle", {cx: centre(node), cy: middle, r: RADIUS, fill: "var(--card)", stroke: "var(--ink)",
        "stroke-width": 2}),
      made("text", {x: centre(node), y: middle + 5, fill: "var(--ink)", "font-weight": 600}, names[node]));
  }
  return svg;
}
