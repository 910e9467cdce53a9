/* ---- one combination ---- */

function open(index) {
  const row = D.rows[index];
  const trials = row[3].map((number) => D.trials[number]);
  const title = row[0].map((place, at) => [D.axes[at].name, D.axes[at].names[place]])
    .filter(([name, text]) => text !== "none" || name === "defense")
    .map(([, text]) => text).join(" · ");
  const close = el("button", { type: "button", click: () => $("cell").close() }, "Close");
  const published = row[1]
    ? el("p", {}, `Published: ${row[1][0]}${row[1][3]} (${row[1][2]})`) : null;
  $("cell").replaceChildren(
    el("header", {}, el("h2", { id: "cell-heading" }, title), close), ...[published].filter(Boolean),
    trialTable(trials), ...curves(trials), ...pictures(trials),
    ...trials.filter((trial) => trial.error).map((trial) => el("div", {},
      el("h3", {}, `Error of ${nameOf(trial)}`), el("pre", {}, trial.error))));
  $("cell").showModal();
}

const seedOf = (trial) => trial.spec.slice(trial.spec.lastIndexOf("/") + 1);
const nameOf = (trial) => prefix(trial.folder) + "seed " + seedOf(trial);
const percent = (value) => (value == null ? "–" : value.toFixed(2));
const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function trialTable(trials) {
  const heads = [several ? "folder" : null, "seed", "status", "final", "peak", "seconds", "device",
    "commit", "spec"].filter(Boolean);
  return el("div", { class: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...trials.map((trial) => el("tr", {},
      several ? el("td", {}, D.folders[trial.folder]) : null,
      el("td", {}, seedOf(trial)),
      el("td", {}, trial.status, trial.why ? el("div", { class: "dim" }, trial.why) : null,
        trial.winner ? el("div", { class: "dim" }, "won: " + trial.winner) : null),
      el("td", { class: "number" }, percent(trial.final)),
      el("td", { class: "number" }, trial.knn == null ? percent(trial.peak)
        : "kNN " + percent(trial.knn)),
      el("td", { class: "number" }, String(trial.seconds ?? "–")),
      el("td", {}, trial.device || ""), el("td", {}, trial.commit || ""),
      el("td", {}, el("code", {}, trial.spec), el("br"),
        copy("Copy spec", trial.spec), " ",
        copy("Copy command", `raygrid run ${quoted(trial.spec)} --out again`)))))));
}

function copy(label, text) {
  const button = el("button", { type: "button", class: "copy", title: text, click: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      window.prompt("Copy this:", text); // where a browser gives no clipboard to files
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  } }, label);
  return button;
}

function pictures(trials) {
  const keys = [...new Set(trials.map((trial) => trial.poison).filter(Boolean))];
  const seeds = (key) => trials.filter((trial) => trial.poison === key).map(nameOf).join(", ");
  return [...keys.filter((key) => D.poisons[key]).map((key) => el("figure", {},
    el("figcaption", {}, `Clean, change and poisoned (${seeds(key)})`),
    el("img", { src: D.poisons[key], alt: "Images before and after the attack" }))),
  ...keys.filter((key) => D.absent.includes(key)).map((key) => el("p", { class: "dim" },
    `The picture of this poison is not in this page: pictures/${key}/poison.png`))];
}
