/* ---- what did not work, and the way out ---- */

function troubles() {
  const lost = D.trials.filter((trial) => trial.status !== "done");
  if (!lost.length) return;
  $("troubles").hidden = false;
  $("contents").append(el("a", { href: "#troubles" }, `Failed and diverged (${lost.length})`));
  const table = $("troubles").querySelector("table");
  const heads = [several ? "folder" : null, "status", "trial", "why"].filter(Boolean);
  table.tHead.append(el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text))));
  table.tBodies[0].append(...lost.map((trial) => el("tr", {},
    several ? el("td", {}, D.folders[trial.folder]) : null,
    el("td", {}, trial.status), el("td", {}, el("code", {}, trial.spec)), el("td", {}, why(trial)))));
}

function why(trial) {
  const [first, ...rest] = (trial.error || trial.why || "").split("\n");
  return rest.length
    ? el("details", {}, el("summary", {}, first), el("pre", {}, trial.error || trial.why)) : first;
}

/** One line a combination and folder, numbers in percent, quotes doubled as RFC 4180 has it. */
function csv() {
  const axes = D.axes.map((axis) => axis.name);
  const lines = [["folder", ...axes, ...D.measures.map(([name]) => name), "seeds", "published", "minus_published",
    "source"]];
  for (const index of found) {
    const row = D.rows[index];
    D.folders.forEach((folder, f) => {
      const own = row[2][f];
      if (!own.some(Boolean)) return;
      const final = own[0] ? own[0][1] : null;
      const apart = row[1] && final != null ? +(final - row[1][1]).toFixed(4) : null;
      lines.push([folder, ...row[0].map((place, at) => D.axes[at].values[place]),
        ...own.map((cell) => (cell ? cell[1] : null)), own[0] ? own[0][2] : null,
        row[1] ? row[1][1] : null, apart, row[1] ? row[1][2] : null]);
    });
  }
  const plain = (value) => (value == null ? "" : /[",\n\r]/.test(String(value))
    ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return lines.map((line) => line.map(plain).join(",")).join("\r\n") + "\r\n";
}

$("csv").addEventListener("click", () => {
  const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  el("a", { href: address, download: "raygrid.csv" }).click();
  URL.revokeObjectURL(address);
});
$("cell").addEventListener("click", (event) => { if (event.target === $("cell")) $("cell").close(); });
$("sections").append(...D.sections.map(section));
if (D.undrawn) {
  $("sections").append(el("p", { class: "dim" },
    `${D.undrawn} more pictures are not in this page; raygrid table draws them.`));
}
$("contents").append(el("a", { href: "#all" }, "All combinations"));
filters();
update();
troubles();
