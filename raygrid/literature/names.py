"""The papers' ids in raygrid's terms: every printed row becomes a cell, or a reason why not."""

from __future__ import annotations

import re

from raygrid.core.budget import Budget
from raygrid.core.spec import Part, TrialSpec, parse_chain
from raygrid.literature import toxic

PrintedRow = dict[str, str]

PAPER_NAMES = (
    *("apbench", "learned_faster", "dvae", "just_how_toxic", "transferable"),
    *("cuda", "pil", "dune", "coin", "op", "entf", "pue"),
)
CODE_PAPERS = ("eclipse", "sem", "udp", "gue", "bridgepure", "rsk")
"""Papers whose numbers were not read, but whose code states its settings."""
PAPER_PROTOCOLS = {paper: paper for paper in (*PAPER_NAMES, *CODE_PAPERS)} | {
    **dict.fromkeys(("dune", "coin", "eclipse"), "wxl"),
    "transferable": "tp",
}
"""Of the victims; one that raygrid has not for papers none of whose numbers is of a trial."""

# What `worst` runs over.
SIX_LEARNERS = ("supervised", "supcl", "simclr", "byol", "moco", "simsiam")

METRIC_NAMES = {
    "test_acc": "final_acc",
    "final_acc": "final_acc",
    "peak_acc": "peak_acc",
    "success_rate": "target_success",
    "success_rate_whitebox": "target_success",
    "success_rate_blackbox": "target_success",
    "success_rate_flipped_target": "target_hflip_success",
    **{name: name for name in (f"detection_{r}" for r in ("acc", "recall", "precision", "f1"))},
}
"""The metrics that a trial's row holds, by the name that raygrid gives them."""

_UNTRIED = "no trial: "
"""What a note begins with that says why raygrid cannot run what a row is of."""

_NO_TRIAL = {
    "attack_transfer_rate": "share of poison images that a clean-trained victim gets wrong",
    "clean_train_acc": "accuracy on the clean training set of a poison that D-VAE predicted",
    "poisoned_train_acc": "accuracy on the training set of a poison that D-VAE predicted",
    "pgd_whitebox_acc": "accuracy under white-box PGD-20, no clean accuracy",
    "pgd_blackbox_acc": "accuracy under black-box PGD-20, no clean accuracy",
    "psnr": "fidelity of images in dB, no accuracy",
    "acc_drop": "drop of an accuracy that is not printed itself",
    "certified_drop": "drop of a certified accuracy that is not printed itself",
    "gpu_hours": "cost in hours, no accuracy",
    "gpu_seconds": "cost in seconds, no accuracy",
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
    r"(em|rem)_adapt_(\w+)": "{}_apb(against={})",
}
_DEFENSE = {
    "plain": "none",  # where `none` is ordinary training with crop and flip
    "at4": "at(radius=4/255)",
    "at8": "at",
    "at16": "at(radius=16/255)",
    "at_l2_025": "at(norm=l2, radius=0.25)",
    "at_l2_050": "at(norm=l2, radius=0.5)",
    "at_l2_075": "at(norm=l2, radius=0.75)",
    "rotation": "affine_jitter(jitter=0.0, rotation=20.0, scale=0.0, shear=0.0)",
    "cutmix_twice": "cutmix(box=clipped, p=0.5)+cutmix(box=clipped, p=0.5)",
    "jpeg10": "jpeg",
    "jpeg30": "jpeg(quality=30)",
    "jpeg50": "jpeg(quality=50)",
    "jpeg70": "jpeg(quality=70)",
    "aa": "ueraser_max(lite_after=50)",  # the UEraser authors' two-stage code
    "dvae_no_stage1": "dvae(first=false)",
    "dvae_no_subtract": "dvae(subtract=false)",
}
GROWN_SHARE = 0.01
"""The share from which `dvae_grow` grows by default."""
_LEARNER = {
    "sl": "supervised",
}
_USUAL = {"lsp": ("l2", (1.3, 1.0)), "ar": ("l2", (1.0,)), "ops": ("l0", (1.0,))}
"""Budgets that the papers call the attack's own; D-VAE prints 1.0 for LSP and ran 1.304."""


def map_row(row: PrintedRow) -> tuple[TrialSpec | None, str | None]:
    """The cell that a row belongs to, if any, and why it is no trial, if it is none."""
    if row["metric"] not in METRIC_NAMES:
        return None, _no_trial(row["metric"])
    if reason := _outside(row):
        return None, reason
    if row["paper"] == "just_how_toxic":
        return toxic.map_toxic_row(row)
    if row["learner"] == "worst":
        return axes_of(row), "derived: the largest of the six learners' accuracies"
    if row["defense"] == "iss":
        return axes_of(row), "derived: the best of bdr, grayscale and jpeg"
    return axes_of(row), None


def axes_of(row: PrintedRow) -> TrialSpec:
    """The axes that a row names, whatever its metric."""
    return TrialSpec(
        dataset=Part(row["dataset"]),
        attack=_attack(row),
        defense=parse_chain(_defense(row)),
        architecture=Part(row["architecture"]),
        learner=Part(_LEARNER.get(row["learner"], row["learner"])),
        protocol=Part(PAPER_PROTOCOLS[row["paper"]]),
        poison_ratio=_ratio(row),
    )


def _no_trial(metric: str) -> str:
    """Why a metric is none of a trial's row; families (`minutes_*`) share one reason."""
    return _NO_TRIAL[metric if metric in _NO_TRIAL else metric.partition("_")[0]]


def _outside(row: PrintedRow) -> str | None:
    """Why a row is no cell of a grid at all."""
    if row["attack"] == "mean":
        return "mean over the attacks of that table"
    if "quoted from" in row["note"]:
        return "quoted from another paper, with another training"
    return row["note"].partition(_UNTRIED)[2] or None


def _attack(row: PrintedRow) -> Part:
    name = row["attack"]
    if name == "clean":
        return Part("clean")
    base, by, how = name.partition("_dvae_")
    if by:
        return _by_dvae({**row, "attack": base}, how)
    part = Part.parse(_attack_text(name, row["learner"], (row["paper"], row["table"])))
    if not row["budget"]:
        return part
    budget = _budget(row["budget_norm"], row["budget"])
    norm, usual = _USUAL.get(part.name, ("linf", (8 / 255,)))
    if budget.norm == norm and any(abs(budget.value - value) < 1e-9 for value in usual):
        return part
    return part.with_params(budget=str(budget))


def _by_dvae(base: PrintedRow, how: str) -> Part:
    """The attack that D-VAE made of another: its poison again, or grown from a share of it."""
    original = str(_attack(base))
    if how == "recon":
        return Part.of("dvae_recon", base=original)
    share = float(base["poison_ratio"])
    shown = {} if share == GROWN_SHARE else {"share": share}
    return Part.of("dvae_grow", base=original, **shown)


def _attack_text(name: str, learner: str, table: tuple[str, str]) -> str:
    if name == "ucl":  # contrastive poisoning, made for the learner it is tested on
        return f"cp(framework={learner})"
    if name == "tue" and table == ("apbench", "10"):  # made for that learner too
        return f"tue(framework={learner})"
    for pattern, form in _ATTACK_FAMILY.items():
        if name not in _ATTACK and (match := re.fullmatch(pattern, name)):
            return form.format(*match.groups())
    return _ATTACK.get(name, name)


def _budget(norm: str, text: str) -> Budget:
    return Budget.parse(f"{norm}:{text}", Budget(norm, 0.0))


def _defense(row: PrintedRow) -> str:
    name = row["defense"]
    if name == "none" and row["paper"] != "apbench":
        return "standard"
    detects = row["metric"].startswith("detection") or "detection, then" in row["note"]
    if name == "dvae" and detects:
        return "dvae_detect"
    return _DEFENSE.get(name, name)


def _ratio(row: PrintedRow) -> float:
    """Of the training set; what D-VAE grows is all of it in the end."""
    whole = row["attack"] == "clean" or row["attack"].endswith("_dvae_increase")
    return 1.0 if whole else float(row["poison_ratio"])
