"""What a reader has to know about a table: heads, measure, seeds, marks, contradictions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from raygrid.core.text import first_line
from raygrid.reports.statistics import TWO_SEED_WIDTH
from raygrid.reports.tables.cell_text import marks, number
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.layout import (
    MEASURE_NAMES,
    QUESTION_MEASURES,
    SELECTIONS,
    UNITS,
    Panel,
    Table,
    order,
)

Spot = tuple[str, str]
"""Row and column of a cell."""
MARK_MEANINGS = {
    "*": "further from the published number than noise explains (6 points, 12 for a peak, 1 dB, "
    "or 3 sigma)",
    "†": "other papers print a number at least 5 points away from this published one",
    "‡": "the published number looks wrong in the paper",
}
METRIC_HEADS = {
    "final_acc": "final",
    "peak_acc": "peak",
    "gap": "peak − final",
    "peak_epoch": "peak epoch",
    "epochs_to_half": "epochs to loss 0.5",
    "detection_acc": "accuracy",
    "detection_recall": "recall",
    "detection_precision": "precision",
    "detection_f1": "F1",
    "detection_fpr": "false positives",
    "psnr": "PSNR (dB)",
    "psnr_pooled": "PSNR of the mean error (dB)",
    "base_l2": "l2 of the base",
    "l2": "l2",
    "linf": "linf",
    "linf_max": "largest linf",
    "clean_train_acc": "clean training set",
    "poisoned_train_acc": "original poison",
    "minutes_dvae_training": "fits",
    "minutes_inference": "passes",
    "minutes_classifier_training": "training",
    "minutes": "total",
    "mean_of_max": "mean of max",
}


def head(panel: Panel, label: str) -> str:
    """A column's or row's label as it is printed."""
    return METRIC_HEADS.get(label, panel.short.get(label, label))


def _data(cells: list[Cell]) -> list[str]:
    """How many trials are left out, and where the files only are copies of the official ones."""
    lines = []
    out = {tuple(c.axes.items()): c.facts["left_out"] for c in cells if "left_out" in c.facts}
    if count := sum(out.values()):  # a trial is in several cells of a table of measures
        rows = "1 row is" if count == 1 else f"{count} rows are"
        lines.append(
            f"{rows} left out: of another version of a method, or on other data, than the newest "
            "row of the cell."
        )
    named = [str(cell.facts["other_files"]) for cell in cells if cell.facts.get("other_files")]
    if not named:
        return lines
    some = f" in {len(named)} of {len(cells)} cells" * (len(named) < len(cells))
    said = "; ".join(sorted(set(named)))
    why = "these give other numbers, and no difference to a printed one is marked"
    return [*lines, f"Not the official files{some}: {said}; {why}."]


def _leaders(panel: Panel, marked: tuple[str, str]) -> list[str]:
    """What bold and underlined numbers are, of those that the panel has."""
    said = []
    if any(panel.best(row) for row in panel.rows):
        said.append(f"{marked[0]}: best defense of an attack")
    if any(panel.strongest(column) for column in panel.columns):
        said.append(f"{marked[1]}: strongest attack of a defense")
    if not said:
        return []
    text = f"{'; '.join(said)}; with all that lie within one standard deviation."
    return [text[0].upper() + text[1:]]


INTERVAL_NAMES = {
    "t": "Student's t over seeds",
    "wilson": "Wilson over test images for a single seed",
    "bootstrap": "seeds drawn anew within each learner for worst cases",
    "bootstrap over set-ups": "set-ups drawn anew for means over victims",
}


def _spread(panel: Panel, cells: list[Cell]) -> list[str]:
    """What varies with the seed, and which intervals there are."""
    success = panel.metric == "target_success"
    lines = []
    if not success and any(cell.std is not None for cell in cells):
        lines.append("A seed of the grid makes poison and purified set anew, not just the victim.")
    used = {cell.interval for cell in cells if cell.low is not None}
    if panel.intervals and used:
        how = dict(INTERVAL_NAMES, wilson="Wilson over set-ups") if success else INTERVAL_NAMES
        said = "; ".join(text for name, text in how.items() if name in used)
        cut = "; an accuracy's ends at 0 and 100 %" * any(map(_ends, cells))
        lines.append(f"In round brackets: 95 % interval ({said}{cut}).")
        if any(cell.interval == "t" and cell.n == 2 for cell in cells):
            lines.append(f"Of two seeds it is the mean ± {TWO_SEED_WIDTH} standard deviations.")
    return lines


def _ends(cell: Cell) -> bool:
    """Whether the interval was cut off where accuracies end."""
    return cell.interval == "t" and cell.std != 0 and (cell.low == 0 or cell.high == 1)


def selected(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Sentences that say what defenses select on, from pairs of a label and `selection`."""
    groups: dict[str, set[str]] = {}
    for label, selection in pairs:
        if selection:
            groups.setdefault(selection, set()).add(label)
    return [
        f"{', '.join(sorted(labels, key=order))}: selected on {SELECTIONS.get(images, images)}."
        for images, labels in sorted(groups.items())
    ]


def _chosen(panel: Panel) -> dict[str, str]:
    """What each defense that selects selects on."""
    cells = (cell for cell in panel.cells.values() if cell.facts.get("selection"))
    return {str(cell.axes["defense"]): str(cell.facts["selection"]) for cell in cells}


def _privileged(panel: Panel) -> list[str]:
    """What rows and columns know more than others may, for which they are unmarked.

    Of a defense that selects, what it selects on says that too.
    """
    chosen = _chosen(panel)
    pairs = [(d, (head(panel, d), images)) for d, images in chosen.items()]
    lines = selected(pair for defense, pair in pairs if defense not in panel.privileged)
    known = selected(pair for defense, pair in pairs if defense in panel.privileged)
    lines += [f"{line.removesuffix('.')}, so unmarked." for line in known]
    if any("winners" in cell.facts for cell in panel.cells.values()):
        lines.append("In brackets: the defense that won, with its seeds where several did.")
    others = {one: why for one, why in panel.privileged.items() if one not in chosen}
    return lines + [f"{head(panel, one)} {why}: unmarked." for one, why in others.items()]


def notes(
    table: Table, panel: Panel, marked: tuple[str, str] = ("bold", "underlined")
) -> list[str]:
    """What a reader has to know about a panel: measure, seeds, intervals, marks, contradictions.

    marked: how the format at hand shows the best defense of an attack and the strongest attack of
    a defense.
    """
    cells = list(panel.cells.values())
    of = max((cell.of for cell in cells), default=0)
    name = (
        "accuracies"
        if table.kind == "peak"
        else {**MEASURE_NAMES, **QUESTION_MEASURES}[panel.metric]
    )
    spread, unit = "sample standard deviation", "seed"
    if panel.metric == "target_success":
        spread, unit = "the benchmark's standard error", "set-up"
    share = UNITS.get(panel.metric, "percent")
    over = f"mean ± {spread} over {of} {unit}s" if of != 1 else f"of one {unit}"
    lines = [f"{name[0].upper()}{name[1:]} in {share}; {over}."]
    lines += _spread(panel, cells)
    if panel.screening:
        lines.append("Screening: a victim of minutes; compare its numbers with each other alone.")
    lines += _data(cells)
    if panel.apart:
        lines.append(f"In brackets: published ({panel.apart}).")
    elif any(cell.printed for cell in cells):
        lines.append(
            "In brackets: the published number. A paper's name beside it means another protocol; "
            "a method's name means that the paper ran another variant under the same name."
        )
    lines += _remarks(panel)
    if any(cell.facts.get("never") for cell in cells):
        lines.append("Never: counted as one epoch past the planned ones.")
    lines += _privileged(panel)
    lines += _leaders(panel, marked)
    lines += [f"{name}: {label}." for label, name in panel.short.items() if name != label]
    used = "".join(marks(cell.printed) for cell in cells if cell.printed)
    lines += [f"{mark} {text}." for mark, text in MARK_MEANINGS.items() if mark in used]
    lines += _contradictions(panel)
    lines += sorted(
        {
            f"{_place(panel, spot)}: {first_line(cell.why)}"
            for spot, cell in panel.cells.items()
            if cell.why
        }
    )
    return lines


def _contradictions(panel: Panel) -> Iterator[str]:
    for spot, cell in panel.cells.items():
        if (printed := cell.printed) and printed.contradicting:
            value, others = number(printed.value, cell.metric, 2), "; ".join(printed.contradicting)
            yield f"† {_place(panel, spot)}: {printed.source}: {value} against {others}"


def _remarks(panel: Panel) -> Iterator[str]:
    """What has to be known of printed numbers, those of the same cells in one line."""
    spots = itertools.product(panel.rows, panel.columns)
    numbers = {s: c.printed for s in spots if (c := panel.cells.get(s)) and c.printed}
    remarks = dict.fromkeys(note for printed in numbers.values() for note in printed.notes)
    groups: dict[tuple[Spot, ...], list[str]] = {}
    for remark in remarks:
        of = tuple(spot for spot, printed in numbers.items() if remark in printed.notes)
        groups.setdefault(of, []).append(remark)
    for of, said in groups.items():
        yield f"{_places(panel, of, tuple(numbers))}: {'; '.join(said)}."


def _places(panel: Panel, of: tuple[Spot, ...], all_: tuple[Spot, ...]) -> str:
    """Where printed numbers stand: everywhere, in a row or a column, else the first of them."""
    if of == all_:
        return "In brackets"
    for side in (0, 1):
        label = of[0][side]
        if len(of) > 1 and of == tuple(spot for spot in all_ if spot[side] == label):
            return f"In brackets of {head(panel, label)}"
    others = f" and {len(of) - 1} other{'s' * (len(of) > 2)}" * (len(of) > 1)
    return f"In brackets of {_place(panel, of[0])}{others}"


def _place(panel: Panel, spot: Spot) -> str:
    return " / ".join(head(panel, label) for label in spot)
