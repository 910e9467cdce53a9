/* ---- heatmaps ---- */

function heatmap(panel) {
  const head = el("tr", {}, el("th", { scope: "col" }, panel.down + " \\ " + panel.across),
    ...panel.columns.map(([full, shown]) => el("th", { scope: "col", title: full }, shown)));
  const body = panel.rows.map(([full, shown], r) => el("tr", {},
    el("th", { scope: "row", title: full }, shown),
    ...panel.columns.map((_, c) => heatCell(panel.cells[r * panel.columns.length + c]))));
  return el("div", { class: "wide" },
    el("table", { class: "heat" }, el("thead", {}, head), el("tbody", {}, ...body)));
}

function heatCell(cell) {
  if (!cell) return el("td", {}, el("span", {}, "–"));
  const [text, heat, published, place, mark] = cell;
  const td = el("td", { class: (mark & 1 ? "best " : "") + (mark & 2 ? "strongest" : "") });
  if (heat != null) {
    const [back, front] = D.shades[Math.round(heat / 100 * (D.shades.length - 1))];
    td.style.background = back;
    td.style.color = front;
  }
  const [main, aside] = split(text);
  const parts = [el("span", { class: "number" }, main), aside && el("small", {}, aside),
    published && el("small", {}, published)];
  td.append(place < 0 ? el("span", {}, ...parts)
    : el("button", { type: "button", click: () => open(place) }, ...parts));
  return td;
}

/** The number, and what stands in brackets behind it. */
function split(text) {
  const at = text.indexOf(" (");
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 2, -1)];
}

function scale(chance) {
  const stops = D.shades.map(([back]) => back).join(", ");
  const ramp = el("span", { class: "ramp" });
  ramp.style.background = `linear-gradient(to right, ${stops})`;
  if (chance != null) {
    const mark = el("i");
    mark.style.left = `calc(${100 * chance}% - 1px)`;
    ramp.append(mark);
  }
  const said = chance == null ? "" : ` (red: chance, ${+(100 * chance).toFixed(1)} %)`;
  return el("span", { class: "scale" }, "0 %", ramp, "100 %" + said);
}

function section(part, number) {
  const place = el("div");
  const show = (index) => place.replaceChildren(...panelOf(part.panels[index]));
  const first = part.fullest; // what compares most is seen first
  const select = el("select", { change: (event) => show(+event.target.value) },
    ...part.panels.map((panel, index) => el("option",
      { value: index, selected: index === first }, panel.title)));
  show(first);
  const id = "section-" + part.kind;
  $("contents").append(el("a", { href: "#" + id }, part.heading));
  return el("section", { id, "aria-labelledby": id + "-heading" },
    el("h2", { id: id + "-heading" }, part.heading),
    part.caption === part.heading + "." ? null : el("p", { class: "dim" }, part.caption),
    part.panels.length > 1
      ? el("label", { class: "choose" }, `One of ${part.panels.length} comparable sets: `, select)
      : null,
    place);
}

function panelOf(panel) {
  const first = panel.folders[0];
  const colored = panel.folders.some((each) => each.cells.some((cell) => cell && cell[1] != null));
  return [
    el("h3", {}, panel.title), colored ? scale(first.chance) : "",
    el("div", { class: "side" }, ...panel.folders.map((each) => el("div", {},
      several ? el("h3", {}, D.folders[each.folder]) : null,
      heatmap(each),
      each.picture ? el("img", { src: each.picture,
        alt: `The table above as a picture: ${panel.title}` }) : null))),
    el("ul", { class: "notes" }, ...notesOf(panel.folders).map((note) => el("li", {}, note))),
  ];
}

/** What has to be known of a panel: once what holds for all folders, then what for one alone. */
function notesOf(panels) {
  const inAll = (note) => panels.every((each) => each.notes.includes(note));
  const own = panels.flatMap((each) => each.notes.filter((note) => !inAll(note))
    .map((note) => D.folders[each.folder] + ": " + note));
  return [...panels[0].notes.filter(inAll), ...own];
}
