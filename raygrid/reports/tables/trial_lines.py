"""Rows of the result log as one flat line a trial, its axes in fields of their own.

Tables and commands read these; `frame` makes a pandas frame of them for figures and notebooks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from raygrid.attacks import ATTACKS
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.registry import cached
from raygrid.core.spec import Part, TrialSpec, parse_chain
from raygrid.datasets import DATASETS
from raygrid.defenses.chain import Chain
from raygrid.protocols import PROTOCOLS
from raygrid.reports.tables.made_with import made_with
from raygrid.trials.contest import PLAIN_DEFENSES
from raygrid.trials.result import DATA_MARKS, HALF_LOSS, data_facts, own_marks

SCREENING = "screening"
"""Tier of protocols that are so short that their numbers only hint at a paper's."""
VICTIM_AXES = ["dataset", "protocol", "architecture", "learner"]
AXES = [*VICTIM_AXES, "poison_ratio", "defense", "attack"]
MEASURED_FIELDS = (
    *("final_acc", "peak_acc", "peak_epoch", "knn_peak", "probe_peak", "probe_final"),
    *("last_acc", "selected_epoch"),
)
PLAIN_FIELDS = [
    *("spec", "key", "status", *MEASURED_FIELDS, "stopped_early", "epochs_run", "epochs_planned"),
    *("epochs_to_half", "seconds", "derived_from", "winner", "finished"),
]
VALUE_FIELDS = [*MEASURED_FIELDS, "epochs_to_half", "n_test"]
TARGET_FIELDS = {
    "target_success": "target",
    "target_hflip_success": "target_hflip",
    "target_clbd_success": "target_clbd",
    "target_htbd_success": "target_htbd",
}
"""Success on the target, by the probe that it is asked with."""
DETECTION_FIELDS = tuple(
    f"detection_{rate}" for rate in ("acc", "recall", "precision", "f1", "fpr")
)
"""How well a defense finds the poisoned images; positive means poisoned."""
PROBES = ("clean_test", "unlearnable", "original", "clean_train")
PROBE_FIELDS = tuple(f"{probe}_{what}" for probe in PROBES for what in ("acc", "loss"))

NUMBER_FIELDS = (
    *VALUE_FIELDS,
    "size",
    *TARGET_FIELDS,
    "target_logodds",
    *DETECTION_FIELDS,
    *PROBE_FIELDS,
)
LINE_FIELDS = (
    *(*AXES, "seed", "method", "budget", "norm", "size", "tier", "selection", *PLAIN_FIELDS),
    *("n_test", "why", "diffusion_data", "never", "made_with", *DATA_MARKS),
    *(*TARGET_FIELDS, "target_logodds", *DETECTION_FIELDS),
    *PROBE_FIELDS,
)
"""The fields of a line, in the order of a frame's columns."""

ResultRow = Mapping[str, Any]
TrialLine = dict[str, Any]
"""A trial as `trial_lines` says it."""


def in_order(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """Rows by their specs, so that files made of equal rows are equal; of one spec as they came."""
    return sorted(rows, key=lambda row: _place(str(row["spec"])))


def _place(spec: str) -> tuple[str, int, str]:
    """A spec without its seed, and the seed such that 10 comes after 9."""
    rest, slash, seed = spec.rpartition("/")
    return rest + slash, len(seed), seed


def trial_lines(rows: Iterable[ResultRow]) -> list[TrialLine]:
    """One line a trial. Accuracies are fractions, None where there is none.

    attack: the part as in the spec; method: the same without its budget; budget: its text;
    norm, size: what it comes to. poison_ratio is 0 for `clean`. tier: of the protocol.
    selection: images by which a derived defense selects, else "" (`Defense.selection`); winner:
    what it chose of several; selected_epoch: from 1. epochs_to_half: one past the planned epochs
    where plain training (PLAIN_DEFENSES) was done and never got there (`never`), also where it
    stopped early; None where smoothed labels keep any loss above it, and of a contrastive learner,
    whose loss is another one and whose `knn_peak` is not among accuracies: it has no peak_epoch.
    other_data: the dataset with its size where it is not the official one; other_files: the dataset
    where it is all there, in lossy copies of the official files. made_with: names data, versions
    and recipe, which a cell's rows share; finished: when it was over, in seconds since 1970.
    diffusion_data: what a defense's noise predictor has seen. n_test: images of the test set. why:
    the error, else the marks. `<probe>_acc`, `<probe>_loss`: of each of PROBES, see
    `evaluate.probes_for`.
    target_*: success on the target (TARGET_FIELDS), and its log-odds.
    detection_*: see DETECTION_FIELDS.
    """
    return [trial_line(row) for row in rows]


def trial_line(row: ResultRow) -> TrialLine:
    """The line of one row; see `trial_lines`."""
    spec = TrialSpec.parse(row["spec"])
    clean = spec.attack.name == "clean" or spec.poison_ratio == 0
    resolved, marks = row.get("resolved") or {}, row.get("marks") or ()
    kept = (resolved.get("attack") or {}).get("budget")
    method, budget, norm, size = _budget(spec.attack, _side(spec.dataset), kept)
    line: TrialLine = {name: row.get(name) for name in PLAIN_FIELDS}
    line |= {
        "dataset": str(spec.dataset),
        "protocol": str(spec.protocol),
        "architecture": str(spec.architecture),
        "learner": str(spec.learner),
        "poison_ratio": 0.0 if clean else spec.poison_ratio,
        "defense": spec.chain,
        "attack": "clean" if clean else str(spec.attack),
        "seed": spec.seed,
        "method": "clean" if clean else method,
        "budget": "" if clean else budget,
        "norm": "" if clean else norm,
        "size": 0.0 if clean else size,
        "tier": tier(spec.protocol),
        "selection": selection(spec.chain),
        "why": row.get("error") or "; ".join(own_marks(marks)) or None,
    }
    line["made_with"] = made_with(resolved)
    line |= dict.fromkeys(DATA_MARKS, "") | data_facts(marks)
    links = resolved.get("defense") or ()
    seen = (link["diffusion_data"] for link in links if "diffusion_data" in link)
    line["diffusion_data"] = next(seen, None)
    contrastive = row.get("knn_peak") is not None
    if contrastive:
        line["peak_epoch"] = None
    smoothing = (resolved.get("recipe") or {}).get("smoothing", 0.0)
    falls = not contrastive and _least_loss(smoothing, _classes(spec.dataset)) < HALF_LOSS
    line["epochs_to_half"] = line["epochs_to_half"] if falls else None
    line["never"] = falls and _never(row, spec)
    if line["never"]:
        line["epochs_to_half"] = row["epochs_planned"] + 1
    probes = row.get("probes") or {}
    line["n_test"] = probes.get("clean_test", {}).get("n")
    line |= {name: probes.get(probe, {}).get("acc") for name, probe in TARGET_FIELDS.items()}
    line["target_logodds"] = probes.get("target", {}).get("logodds")
    detected = row.get("detection") or {}
    line |= {name: detected.get(name.removeprefix("detection_")) for name in DETECTION_FIELDS}
    for probe in PROBES:
        line[f"{probe}_acc"] = probes.get(probe, {}).get("acc")
        line[f"{probe}_loss"] = probes.get(probe, {}).get("loss")
    return line


def _never(row: ResultRow, spec: TrialSpec) -> bool:
    """Whether plain training came to its end with a loss below HALF_LOSS in no epoch."""
    plain = spec.chain in PLAIN_DEFENSES and row.get("status") == "done"
    return plain and bool(row.get("epochs_planned")) and row.get("epochs_to_half") is None


def _least_loss(smoothing: float, classes: int) -> float:
    """The cross-entropy that nobody gets below: the entropy of a label, of which a share is spread.

    smoothing: the share that all classes have alike, below 1.
    """
    other = smoothing / classes
    own = 1 - (classes - 1) * other
    return -sum(n * p * math.log(p) for n, p in ((1, own), (classes - 1, other)) if p > 0)


@cached
def _classes(dataset: Part) -> int:
    """The classes of a dataset, as they are stated; 10 of one that nobody knows."""
    try:
        return DATASETS.make(dataset).classes
    except SpecError:
        return 10


@cached
def _side(dataset: Part) -> int:
    """The pixels of a side of a dataset's images, as it is stated; 32 of one that nobody knows."""
    try:
        return DATASETS.make(dataset).image_size
    except SpecError:
        return 32


@cached
def _budget(attack: Part, side: int, kept: str | None = None) -> tuple[str, str, str, float | None]:
    """Method without budget, text, norm and value of the budget; the attack's own if not set.

    side: of the images, with which the own budget of some attacks grows. kept: the budget that the
    row was made with, for an attack that is not installed here.
    """
    params = dict(attack.params)
    text = params.pop("budget", None)
    method = str(Part.of(attack.name, **params))
    try:
        made = ATTACKS.make(attack)
        budget = None if made.limit is None else made.limit_at(side)
    except SpecError:  # an attack that is not installed here: what its row says, else its spec
        text = kept or text
        budget = None if text is None else Budget.parse(str(text), Budget("linf", 8 / 255))
    if budget is None:
        return method, "" if text is None else str(text), "", None
    return method, str(budget), budget.norm, budget.value


@cached
def tier(protocol: Part) -> str:
    """`quick`, `screening`, `grid` or `paper`; protocols not known here count as `paper`."""
    return PROTOCOLS[protocol.name].tier if protocol.name in PROTOCOLS else "paper"


@cached
def selection(chain: str) -> str:
    """The images by which a chain selects; none for one that is not installed here."""
    try:
        return Chain.make(parse_chain(chain)).selection
    except SpecError:
        return ""
