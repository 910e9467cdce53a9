"""What the papers printed: every number, the spec of the trial that it belongs to, and lookup.

The files of `raygrid/reference/` are kept as they are; here their ids become raygrid's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from raygrid.attacks import ATTACKS
from raygrid.budget import Budget
from raygrid.defenses import DEFENSES
from raygrid.errors import SpecError, unknown
from raygrid.registry import Registry
from raygrid.spec import Part, TrialSpec, parse_chain

PAPERS = ("apbench", "learned_faster", "dvae", "just_how_toxic", "transferable")
PROTOCOL = {paper: paper for paper in PAPERS} | {"transferable": "tp"}
CONTRADICTION = 0.05  # papers contradict each other from this difference on, as a fraction

SIX = ("supervised", "supcl", "simclr", "byol", "moco", "simsiam")  # what `worst` runs over
ISS = ("bdr", "grayscale", "jpeg")  # what `iss` is the best of

MEASURES = {
    "test_acc": "final_acc",
    "final_acc": "final_acc",
    "peak_acc": "peak_acc",
    "success_rate": "target_success",
    "success_rate_whitebox": "target_success",
    "success_rate_blackbox": "target_success",
}
"""The metrics that a trial's row holds, by the name that raygrid gives them."""

_NO_TRIAL = {
    "attack_transfer_rate": "share of poison images that a clean-trained victim gets wrong",
    "clean_train_acc": "accuracy on the clean training set of a poison that D-VAE predicted",
    "poisoned_train_acc": "accuracy on the training set of a poison that D-VAE predicted",
    "pgd_whitebox_acc": "accuracy under white-box PGD-20, no clean accuracy",
    "pgd_blackbox_acc": "accuracy under black-box PGD-20, no clean accuracy",
    "success_rate_flipped_target": "success on a mirrored target, a variant of the probe",
    "detection": "how well poisoned images are found, no accuracy",
    "psnr": "fidelity of images in dB, no accuracy",
    "gpu_hours": "cost in hours, no accuracy",
    "minutes": "cost in minutes, no accuracy",
}

_ATTACK = {
    "em_class": "em(mode=class)",
    "pgd250": "tap",  # the paper's own making of TAP
    "functional_c": "functional(parts=c)",
    "functional_cs": "functional(parts=cs)",
    "functional_csd": "functional(parts=csd)",
    "cp_simclr": "cp(framework=simclr)",
    "cp_byol": "cp(framework=byol)",
    "cp_moco": "cp(framework=moco)",
    "t_aap": "aap(targeted=true)",
    "ut_aap": "aap(targeted=false)",
    "hf": "tp(variant=hf)",
    "cc": "tp(variant=cc)",
    "two_models": "tp(variant=two_models)",
    "tap_based": "tp(variant=tap_based)",
}
_ATTACK_FAMILY = {
    r"pgd(\d+)": "pgd(steps={})",
    r"mifgsm(\d+)": "mifgsm(steps={})",
    r"regions(\d+)": "regions(n={})",
    r"lf(\d+)": "low_frequency(n={})",
    r"tp_weight_(\d)_(\d)": "tp(align={}.0, uniform={}.0)",
    r"tp_steps_(\d)_(\d)": "tp(cl_steps={}, sl_steps={})",
    r"(em|rem)_adapt_(\w+)": "{}(through={})",
}
_DEFENSE = {
    "jpeg10": "jpeg",
    "jpeg30": "jpeg(quality=30)",
    "jpeg50": "jpeg(quality=50)",
    "jpeg70": "jpeg(quality=70)",
    "aa": "ueraser_max",  # the UEraser authors' two-stage code
    "dvae_no_stage1": "dvae(stage1=false)",
    "dvae_no_subtract": "dvae(subtract=false)",
}
_LEARNER = {
    "sl": "supervised",
    "sl_scratch": "supervised",
    "sl_transfer": "transfer",
    "sl_e2e": "finetune",
}
_USUAL = {"lsp": ("l2", (1.3, 1.0)), "ar": ("l2", (1.0,)), "ops": ("l0", (1.0,))}
"""Budgets that the papers call the attack's own; D-VAE prints 1.0 for LSP and ran 1.304."""


@dataclass(frozen=True)
class Figure:
    """One published number of a paper, with every table that prints it. Fractions."""

    paper: str
    tables: tuple[str, ...]
    value: float
    std: float | None
    suspect: bool
    note: str

    def cite(self) -> str:
        """Paper and tables, as in `apbench T3, T16`."""
        return f"{self.paper} {', '.join('T' + t if t[0].isdigit() else t for t in self.tables)}"


@dataclass(frozen=True)
class Finding:
    """What is published for one cell. own: `best` was made with the protocol that was asked for."""

    best: Figure
    own: bool
    others: tuple[Figure, ...]

    @property
    def contradicting(self) -> tuple[Figure, ...]:
        """Numbers of the others, not suspect themselves, that are 5 points or more away."""
        return tuple(
            f
            for f in self.others
            if not f.suspect and abs(f.value - self.best.value) >= CONTRADICTION - 1e-9
        )


@cache
def load() -> pd.DataFrame:
    """All rows as printed (text), with these columns added.

    cell: its spec, also where it is derived (`worst`, `iss`); None where there is none.
    spec: the same where it is a trial that can be run; reason: why there is no spec, else None.
    measure: what of the trial's row it is; accuracy, accuracy_std: fractions; suspect: bool.
    """
    folder = resources.files("raygrid") / "reference"
    parts = []
    for paper in PAPERS:
        with resources.as_file(folder / f"{paper}.csv") as path:
            parts.append(pd.read_csv(path, dtype=str, keep_default_na=False))
    rows = pd.concat(parts, ignore_index=True)
    mapped = [_map({str(k): v for k, v in row.items()}) for row in rows.to_dict("records")]
    rows["cell"] = [None if axes is None else str(axes) for axes, _ in mapped]
    rows["reason"] = [reason for _, reason in mapped]
    rows["spec"] = rows["cell"].where(rows["reason"].isna(), None)
    rows["measure"] = rows["metric"].map(MEASURES)
    percent = rows["unit"] == "percent"
    for new, old in (("accuracy", "value"), ("accuracy_std", "std")):
        rows[new] = (pd.to_numeric(rows[old]) / 100).round(6).where(percent)
    rows["suspect"] = rows["note"].str.contains("suspect:", regex=False)
    return rows


def _map(row: dict[str, str]) -> tuple[TrialSpec | None, str | None]:
    """The cell that a row belongs to, if any, and why it is no trial, if it is none."""
    if row["metric"] not in MEASURES:
        return None, _no_trial(row["metric"])
    if reason := _outside(row):
        return None, reason
    axes = TrialSpec(
        dataset=Part(row["dataset"]),
        attack=_attack(row),
        defense=parse_chain(_defense(row)),
        architecture=Part(row["architecture"]),
        learner=Part(_LEARNER.get(row["learner"], row["learner"])),
        protocol=Part(PROTOCOL[row["paper"]]),
        poison_ratio=_ratio(row),
    )
    if row["learner"] == "worst":
        return axes, "derived: the largest of the six learners' accuracies"
    if row["defense"] == "iss":
        return axes, "derived: the best of bdr, grayscale and jpeg"
    return axes, None


def _no_trial(metric: str) -> str:
    """Why a metric is none of a trial's row; families (`minutes_*`) share one reason."""
    return _NO_TRIAL[metric if metric in _NO_TRIAL else metric.partition("_")[0]]


def _outside(row: dict[str, str]) -> str | None:
    """Why a row is no cell of a grid at all."""
    if row["attack"] == "mean":
        return "mean over the attacks of that table"
    if row["attack"].endswith("_dvae_recon"):
        return "trained on the poison that D-VAE predicted, an analysis of that defense"
    if row["attack"].endswith("_dvae_increase"):
        return "the clean remainder carries the poison that D-VAE predicted"
    if "quoted from" in row["note"]:
        return "quoted from another paper, with another training"
    if "+" in row["architecture"]:
        return f"mean over the victims {row['architecture'].replace('+', ', ')}"
    if row["paper"] == "just_how_toxic" and row["table"] != "3":
        return "the attack authors' own setting, not that of the benchmark"
    return None


def _attack(row: dict[str, str]) -> Part:
    name = row["attack"]
    if name == "clean":
        return Part("clean")
    part = Part.parse(_attack_text(name, row["learner"]))
    if not row["budget"]:
        return part
    budget = _budget(row["budget_norm"], row["budget"])
    norm, usual = _USUAL.get(part.name, ("linf", (8 / 255,)))
    if budget.norm == norm and any(abs(budget.value - value) < 1e-9 for value in usual):
        return part
    return part.with_params(budget=str(budget))


def _attack_text(name: str, learner: str) -> str:
    if name == "ucl":  # contrastive poisoning; APBench made it for the learner it is tested on
        return f"cp(framework={learner})"
    for pattern, form in _ATTACK_FAMILY.items():
        if name not in _ATTACK and (match := re.fullmatch(pattern, name)):
            return form.format(*match.groups())
    return _ATTACK.get(name, name)


def _budget(norm: str, text: str) -> Budget:
    return Budget.parse(f"{norm}:{text}", Budget(norm, 0.0))


def _defense(row: dict[str, str]) -> str:
    name = row["defense"]
    if name == "none" and row["paper"] != "apbench":
        return "standard"
    if name == "dvae" and "detection, then purification" in row["note"]:
        return "dvae(detect=true)"
    return _DEFENSE.get(name, name)


def _ratio(row: dict[str, str]) -> float:
    """Targeted attacks bring their own few images, so their share is no ratio of the grid's."""
    if row["attack"] == "clean" or row["paper"] == "just_how_toxic":
        return 1.0
    return float(row["poison_ratio"])


def find(spec: TrialSpec | str, measure: str = "final_acc") -> Finding | None:
    """The published numbers of a cell, best one first; None if no paper has it.

    `seed` does not matter. The protocol does: the number of the paper whose protocol it is comes
    first, else the first paper that has one; numbers marked as suspect come last.
    """
    spec = TrialSpec.parse(spec) if isinstance(spec, str) else spec
    figures = _index().get((cell_key(spec), measure))
    if not figures:
        return None
    wanted = str(spec.protocol)
    ranked = sorted(figures, key=lambda f: (f.suspect, PROTOCOL[f.paper] != wanted))
    best, *others = ranked
    return Finding(best, PROTOCOL[best.paper] == wanted, tuple(others))


@cache
def _index() -> dict[tuple[str, str], list[Figure]]:
    rows = load()
    index: dict[tuple[str, str], list[Figure]] = {}
    for row in rows[rows["cell"].notna()].to_dict("records"):
        key = (cell_key(TrialSpec.parse(row["cell"])), row["measure"])
        std = None if pd.isna(row["accuracy_std"]) else float(row["accuracy_std"])
        new = Figure(
            row["paper"], (row["table"],), row["accuracy"], std, row["suspect"], row["note"]
        )
        _join(index.setdefault(key, []), new)
    return index


def _join(figures: list[Figure], new: Figure) -> None:
    """Add a number, or its table to the same number of the same paper."""
    for position, old in enumerate(figures):
        if (old.paper, old.value, old.suspect) == (new.paper, new.value, new.suspect):
            std = old.std if old.std is not None else new.std
            tables = tuple(dict.fromkeys(old.tables + new.tables))
            figures[position] = Figure(old.paper, tables, old.value, std, old.suspect, old.note)
            return
    figures.append(new)


def cell_key(spec: TrialSpec) -> str:
    """A spec without protocol and seed, every method in its shortest form."""
    attack = "clean" if spec.poison_ratio == 0 else canonical(ATTACKS, spec.attack)
    ratio = 1.0 if attack == "clean" else spec.poison_ratio
    chain = "+".join(canonical(DEFENSES, part) for part in spec.defense)
    return f"{spec.dataset}/{attack}@{ratio}/{chain}/{spec.architecture}/{spec.learner}"


@cache
def canonical(registry: Registry[Any], part: Part) -> str:
    """The shortest text of a method; that of a method which is not there stays as it is."""
    try:
        return str(registry.make(part).part())
    except SpecError:
        return str(part)


def specs_of(paper: str, table: str, dataset: str | None = None) -> list[str]:
    """The trials of a printed table, in its order, each once; raises SpecError for unknown names.

    Derived cells (`worst`, `iss`) come out as the trials that they are derived from.
    """
    if paper not in PAPERS:
        raise SpecError(unknown("paper", paper, PAPERS))
    rows = load()
    rows = rows[(rows["paper"] == paper) & rows["cell"].notna()]
    if table not in set(rows["table"]):
        raise SpecError(unknown(f"table with trials of {paper}", table, rows["table"].unique()))
    rows = rows[rows["table"] == table]
    if dataset is not None:
        rows = rows[rows["dataset"] == dataset]
    return list(dict.fromkeys(spec for cell in rows["cell"] for spec in _trials(cell)))


def _trials(cell: str) -> Iterator[str]:
    spec = TrialSpec.parse(cell)
    if spec.learner.name == "worst":
        yield from (str(spec.replace(learner=Part(name))) for name in SIX)
    elif spec.defense[0].name == "iss":
        yield from (str(spec.replace(defense=(Part(name),))) for name in ISS)
    else:
        yield cell


def tables_of(paper: str) -> list[str]:
    """The tables of a paper with at least one trial, in the order of the file."""
    rows = load()
    return list(rows[(rows["paper"] == paper) & rows["cell"].notna()]["table"].unique())
