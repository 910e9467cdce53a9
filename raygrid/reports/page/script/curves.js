/* ---- curves by epoch: accuracy and loss of a few trials ---- */

function curves(trials) {
  const drawn = trials.filter((trial) => trial.curve);
  if (!drawn.length) return [];
  const losses = drawn.flatMap((trial) => trial.curve.loss).filter((loss) => loss != null);
  const thinned = drawn.some((trial) => trial.curve.step > 1);
  const legend = drawn.map((trial, n) => {
    const line = svg("svg", { viewBox: "0 0 28 10", width: 28, height: 10, "aria-hidden": "true" });
    line.append(svg("line", { x1: 0, x2: 28, y1: 5, y2: 5, ...stroke(n) }));
    return el("span", {}, line, " " + nameOf(trial));
  });
  return [el("h3", {}, "By epoch"), el("p", { class: "legend" }, ...legend),
    el("div", { class: "side" }, curve(drawn, "acc", "Test accuracy (%)", 0, 100),
      losses.length ? curve(drawn, "loss", "Training loss", Math.min(0, ...losses),
        Math.max(0, ...losses)) : null),
    thinned ? el("p", { class: "dim" },
      `At most ${D.points} epochs of a trial are drawn; results.jsonl has all of them.`) : null,
  ].filter(Boolean);
}

function stroke(n) {
  return { stroke: COLORS[n % COLORS.length], "stroke-width": 2,
    "stroke-dasharray": DASHES[Math.floor(n / COLORS.length) % DASHES.length] };
}

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text != null) made.textContent = text;
  return made;
}

function curve(trials, field, label, low, top) {
  const [width, height, left, bottom] = [480, 230, 44, 34];
  const last = Math.max(...trials.flatMap((trial) => trial.curve.epochs), 2);
  const x = (epoch) => left + (epoch - 1) / (last - 1) * (width - left - 12);
  const y = (value) => height - bottom - (value - low) / (top - low || 1) * (height - bottom - 24);
  const image = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `${label} by epoch: ` + trials.map((trial) =>
      `${nameOf(trial)} ends at ${trial.curve[field].at(-1) ?? "no number"}`).join(", ") });
  image.append(svg("text", { x: left, y: 14 }, label));
  for (let step = 0; step <= 4; step++) {
    const value = low + (top - low) * step / 4;
    image.append(svg("line", { x1: left, x2: width - 12, y1: y(value), y2: y(value),
      stroke: "#d5d9de" }));
    image.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" },
      top === 100 ? value : +value.toPrecision(2)));
  }
  for (const epoch of new Set([1, Math.ceil(last / 2), last])) {
    image.append(svg("text", { x: x(epoch), y: height - bottom + 18, "text-anchor": "middle" },
      epoch));
  }
  trials.forEach((trial, n) => {
    const points = trial.curve.epochs.map((epoch, i) => [epoch, trial.curve[field][i]])
      .filter(([, value]) => value != null);
    image.append(svg("polyline", { fill: "none", ...stroke(n),
      points: points.map(([epoch, value]) => `${x(epoch)},${y(value)}`).join(" ") }));
  });
  return image;
}
