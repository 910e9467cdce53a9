"""A printed trial with the fast victim on real images: minutes of a CPU core instead of hours.

Data, budgets and defenses stay as printed. Poisons that need no network are the printed ones;
those of a network are made with the fast one and fewer steps, so they are other poisons than the
printed, and tables of agreement keep the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.core.spec import Part, Scalar, TrialSpec

NETWORK = "small_airbench"
PROTOCOL = Part.of("fast", rung="minutes")
DATASETS = ("cifar10", "cifar100", "svhn")
SHORTER: Mapping[str, Mapping[str, Scalar]] = {
    "em": {"max_rounds": 10, "steps": 8},
    "em(mode=class)": {"max_rounds": 10},
    "em_apb": {"max_rounds": 10},
    "rem": {"adv_steps": 3, "copies": 1, "steps": 5, "train_steps": 1000},
    "rem_apb": {"max_rounds": 10},
    "tap": {"steps": 60, "surrogate_epochs": 10},
    "pgd": {"surrogate_epochs": 10},
    "hypo": {"steps": 60, "surrogate_epochs": 10},
    "sem": {"adv_steps": 3, "copies": 2, "steps": 8, "train_steps": 1000},
    "dune": {"checkpoints": 3, "step": 1 / 255, "steps": 15, "surrogate_epochs": 10},
}
"""By attack what keeps its poison of 50,000 images below about an hour of a CPU core."""


def screened(spec: TrialSpec) -> TrialSpec:
    """The printed trial with the fast victim; only for one that `not_screened` has nothing on."""
    network = ARCHITECTURES[spec.architecture.name].stand_in
    return spec.replace(
        attack=screened_attack(spec.attack) or spec.attack,
        architecture=Part(NETWORK if network == "small_cnn" else network),
        protocol=PROTOCOL,
    )


def screened_attack(attack: Part) -> Part | None:
    """The attack, with the fast network where it asks one; None if that takes too long.

    What a table varies, the budget among it, stays as printed.
    """
    if not _asks_a_network(attack):
        return attack
    varied = {key: value for key, value in attack.params if key not in ("budget", "surrogate")}
    shorter = SHORTER.get(str(Part.of(attack.name, **varied)), SHORTER.get(attack.name))
    if shorter is None:
        return None
    return attack.with_params(**{**shorter, **varied, "surrogate": NETWORK})


def _asks_a_network(attack: Part) -> bool:
    made = ATTACKS.make(attack)
    return made.base_attack is not None or made.passes(1) > 0 or bool(made.needs())


def not_screened(spec: TrialSpec) -> list[str]:
    """Why a printed trial has no counterpart with the fast victim; empty where it has one."""
    reasons = []
    if spec.learner.name != "supervised":
        reasons.append(f"learner {spec.learner}")
    if spec.dataset.name not in DATASETS:
        reasons.append(f"dataset {spec.dataset}")
    if spec.attack.name in ATTACKS and ATTACKS[spec.attack.name].on_target:
        reasons.append(f"targeted attack {spec.attack}")
    elif spec.attack.name in ATTACKS and screened_attack(spec.attack) is None:
        reasons.append(f"attack {spec.attack} in an hour of a core")
    return [f"{reason} at scale screen" for reason in reasons]
