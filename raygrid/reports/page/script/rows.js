/* ---- the main table ---- */

/** Columns: name, text of a row, value to sort by, whether it is a number. */
function columns() {
  const made = [];
  const order = ["attack", "budget", "poison_ratio", "defense", "architecture", "learner",
    "dataset", "protocol"];
  for (const name of order) {
    const at = D.axes.findIndex((axis) => axis.name === name);
    const axis = D.axes[at];
    made.push({ name: words(name), hidden: axis.values.length < 2 && name !== "attack",
      text: (row) => axis.names[row[0][at]], title: (row) => axis.values[row[0][at]],
      value: (row) => row[0][at] });
  }
  D.folders.forEach((folder, f) => D.measures.forEach(([, shown], m) => {
    made.push({ name: prefix(f) + shown, number: true,
      text: (row) => (row[2][f][m] ? row[2][f][m][0] : "–"),
      value: (row) => (row[2][f][m] ? row[2][f][m][1] : null) });
  }));
  if (D.rows.some((row) => row[1])) {
    made.push({ name: "published", number: true, title: (row) => (row[1] ? row[1][2] : ""),
      text: (row) => (row[1] ? row[1][0] + row[1][3] : ""),
      value: (row) => (row[1] ? row[1][1] : null) });
    D.folders.forEach((folder, f) => {
      const value = (row) => {
        const own = row[2][f][0];
        return row[1] && own && own[1] != null ? own[1] - row[1][1] : null;
      };
      made.push({ name: prefix(f) + "final − published", number: true, value, text: (row) => {
        const apart = value(row);
        return apart == null ? "" : signed(apart);
      } });
    });
  }
  return made;
}

const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(1);

const COLUMNS = columns();
const state = { sort: 0, up: true, filters: D.axes.map(() => ""), search: "", shown: PAGE };
let found = [];

function compare(a, b) {
  const { value } = COLUMNS[state.sort];
  const [x, y] = [value(D.rows[a]), value(D.rows[b])];
  if (x == null || y == null) return (x == null) - (y == null) || a - b; // absent ones last
  return (state.up ? x - y : y - x) || a - b;
}

/** What search looks in: every axis, status, spec and reason of a row. */
const haystack = D.rows.map((row) => [
  ...row[0].map((place, at) => D.axes[at].values[place] + " " + D.axes[at].names[place]),
  ...row[3].map((t) => [D.trials[t].spec, D.trials[t].status, D.trials[t].why,
    D.trials[t].error].filter(Boolean).join(" ")),
].join(" ").toLowerCase());

function update() {
  const wanted = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  found = D.rows.map((_, index) => index).filter((index) =>
    state.filters.every((place, at) => place === "" || D.rows[index][0][at] === +place)
    && wanted.every((word) => haystack[index].includes(word)));
  found.sort(compare);
  draw();
}

function draw() {
  const shown = COLUMNS.filter((column) => !column.hidden);
  $("rows").tHead.replaceChildren(el("tr", {}, ...shown.map((column) => {
    const at = COLUMNS.indexOf(column);
    const sorted = at === state.sort ? (state.up ? "ascending" : "descending") : null;
    return el("th", { scope: "col", "aria-sort": sorted, class: column.number ? "number" : null },
      el("button", { type: "button", click: () => sortBy(at) }, column.name));
  })));
  const some = found.slice(0, state.shown);
  $("rows").tBodies[0].replaceChildren(...some.map((index) => rowOf(index, shown)));
  $("count").textContent = `${found.length} of ${D.rows.length} combinations`;
  const left = found.length - some.length;
  const marks = new Set(found.flatMap((index) => (D.rows[index][1] ? [...D.rows[index][1][3]] : [])));
  $("marks").replaceChildren(...Object.entries(D.marks).filter(([mark]) => marks.has(mark))
    .map(([mark, meaning]) => el("li", {}, `${mark} ${meaning}`)));
  $("more").replaceChildren(...(left > 0 ? [
    el("button", { type: "button", click: () => showMore(PAGE) }, `Show ${Math.min(left, PAGE)} more`),
    " ", el("button", { type: "button", click: () => showMore(left) }, `Show all ${found.length}`),
  ] : []));
}

function rowOf(index, shown) {
  const row = D.rows[index];
  return el("tr", {}, ...shown.map((column, at) => {
    const title = column.title ? column.title(row) : null;
    const text = column.text(row);
    if (at === 0) {
      return el("th", { scope: "row", title },
        el("button", { type: "button", click: () => open(index) }, text));
    }
    return el("td", { title, class: column.number ? "number" : null }, text);
  }));
}

function sortBy(at) {
  // Of numbers the largest ones first; a second click turns the order around.
  state.up = state.sort === at ? !state.up : !COLUMNS[at].number;
  state.sort = at;
  state.shown = PAGE;
  update();
  const shown = COLUMNS.filter((column) => !column.hidden).indexOf(COLUMNS[at]);
  $("rows").tHead.rows[0].cells[shown].firstChild.focus();
}

function showMore(count) {
  state.shown += count;
  draw();
}

function filters() {
  D.axes.forEach((axis, at) => {
    if (axis.values.length < 2) return;
    const change = (event) => { state.filters[at] = event.target.value; again(); };
    const id = "filter-" + axis.name;
    $("filters").append(el("div", {}, el("label", { for: id }, words(axis.name)),
      el("select", { id, change }, el("option", { value: "" }, "all"),
        ...axis.names.map((name, place) => el("option",
          { value: place, title: axis.values[place] }, name)))));
  });
  const search = (event) => { state.search = event.target.value; again(); };
  $("filters").append(el("div", {}, el("label", { for: "search" }, "search"),
    el("input", { id: "search", type: "search", placeholder: "words of axes, errors",
      input: search })));
  $("filters").append(el("details", {}, el("summary", {}, "columns"), el("div", {},
    ...COLUMNS.map((column) => el("label", {}, el("input", { type: "checkbox",
      checked: !column.hidden, change: (event) => {
        column.hidden = !event.target.checked;
        draw();
      } }), column.name)))));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
}

function again() {
  state.shown = PAGE;
  update();
}
