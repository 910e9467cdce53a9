"""A printed trial with the fast victim on real images: minutes of a CPU core instead of hours.

Data and budgets stay as printed. Poisons that need no network, or linear ones alone, are the
printed ones; those of a network are made with the fast one and fewer steps, so they are other
poisons than the printed, and tables of agreement keep the two apart. Defenses that fit a network of
their own have a smaller one, fitted for less; all others are the printed ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.linear import Linear
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack
from raygrid.core.literals import Scalar
from raygrid.core.spec import Part, TrialSpec
from raygrid.core.speed import CPU
from raygrid.core.text import about
from raygrid.engine.grid import plan

SCREEN_NETWORK = "small_airbench"
SCREEN_PROTOCOL = Part.of("fast", rung="minutes")
SCREEN_DATASETS = ("cifar10", "cifar100", "svhn")
MOST_POISON_HOURS = 1.1
"""The most that a poison may take, its surrogates among it: about an hour of a CPU core."""
SHORTER_ATTACKS: Mapping[str, Mapping[str, Scalar]] = {
    "aap": {"step": 0.04, "steps": 60, "surrogate_epochs": 10},
    "aue": {"epochs": 15},
    "cp": {"epochs": 10, "lr": 0.1, "start": "uniform", "step": 0.2, "steps": 3},
    "dune": {"checkpoints": 3, "step": 1 / 255, "steps": 15, "surrogate_epochs": 10},
    "dvae_grow": {"epochs": 10, "shrink": 4},
    "dvae_recon": {"epochs": 10, "shrink": 4},
    "em": {"max_rounds": 10, "steps": 8},
    "em(mode=class)": {"max_rounds": 10},
    "em_apb": {"max_rounds": 10},
    "em_remrepo": {"decay_every": 800, "train_steps": 2000},
    "entf": {"steps": 50, "surrogate_epochs": 8},
    "functional": {"lr": 0.012, "steps": 5, "surrogate_epochs": 10},
    "hypo": {"steps": 60, "surrogate_epochs": 10},
    "mifgsm": {"surrogate_epochs": 10},
    "pgd": {"surrogate_epochs": 10},
    "pue": {"max_rounds": 10, "noise_draws": 2, "weight_draws": 4},
    "rem": {"adv_steps": 3, "copies": 1, "steps": 5, "train_steps": 1000},
    "rem_apb": {"max_rounds": 10},
    "sem": {"adv_steps": 3, "copies": 2, "steps": 8, "train_steps": 1000},
    "sep": {
        **{"checkpoints": 4, "inner_steps": 4, "step": 2 / 255, "steps": 10},
        "surrogate_epochs": 12,
    },
    "tap": {"steps": 60, "surrogate_epochs": 10},
    "tap_full": {"restarts": 2, "steps": 30, "surrogate_epochs": 10},
    "tap_remrepo": {"step": 0.033, "steps": 60, "surrogate_epochs": 10},
    "tp": {"cl_lr": 0.1, "epochs": 5, "step": 0.2, "surrogate_epochs": 10},
    "tue": {"epochs": 8},
}
"""By attack what keeps its poison of 50,000 images below about an hour of a CPU core.

Where steps are fewer they are larger, so that noise still reaches the budget. There is none of the
games of two networks (`dc`, `gue`), of which an hour is less than a hundredth or a tenth, and none
of `ntga`, which has no length.
"""
SMALLER_DEFENSES: Mapping[str, Mapping[str, Scalar]] = {
    "avatar": {"size": "tiny", "stride": 4, "updates": 4000},
    "bridgepure": {"lr": 0.002, "size": "tiny", "steps": 8, "updates": 2000},
    "dvae": {"epochs": 10, "shrink": 4},
    "dvae_detect": {
        **{"architecture": "small_resnet", "classifier_epochs": 10, "epochs": 10, "shrink": 4}
    },
    "eclipse": {"size": "tiny", "stride": 4, "updates": 4000},
    "udp": {"epochs": 10},
    "vae": {"epochs": 10, "shrink": 4},
}
"""By defense what keeps purifying 50,000 images below about an hour of a CPU core."""


def screened(spec: TrialSpec) -> TrialSpec:
    """The printed trial with the fast victim; only for one that `not_screened` has nothing on."""
    return spec.replace(
        attack=screened_attack(spec.attack),
        defense=tuple(map(screened_defense, spec.defense)),
        architecture=Part(screened_network(spec.architecture.name)),
        protocol=SCREEN_PROTOCOL,
    )


def screened_network(name: str) -> str:
    """The fast network, or the small one of another family that has one of its own."""
    network = ARCHITECTURES[name].stand_in
    return SCREEN_NETWORK if network == "small_cnn" else network


def screened_attack(attack: Part) -> Part:
    """The attack, with the fast network and fewer steps where it asks one that is not linear.

    What a table varies, the budget among it, stays as printed.
    """
    kind = ATTACKS[attack.name]
    if not _asks_a_network(ATTACKS.make(attack)):
        return attack
    varied = {key: value for key, value in attack.params if key not in ("budget", "surrogate")}
    shorter = SHORTER_ATTACKS.get(
        str(Part.of(attack.name, **varied)), SHORTER_ATTACKS.get(attack.name, {})
    )
    surrogate = {"surrogate": SCREEN_NETWORK} if "surrogate" in kind.__dataclass_fields__ else {}
    return attack.with_params(**{**shorter, **varied, **surrogate})


def _asks_a_network(attack: Attack) -> bool:
    """Whether it is made of a network's answers, or of another poison; not of linear ones."""
    networks = {recipe.architecture for recipe in attack.needs()}
    networks.update(name for name, passes in attack.work(1) if passes > 0)
    linear = all(isinstance(ARCHITECTURES.make(name), Linear) for name in networks)
    return attack.base_attack is not None or not linear


def screened_defense(defense: Part) -> Part:
    """The defense, with smaller networks of its own; one that the user gives stays as it is."""
    smaller = {} if "checkpoint" in dict(defense.params) else SMALLER_DEFENSES.get(defense.name, {})
    return Part.of(defense.name, **{**smaller, **dict(defense.params)})


@cache
def hours(attack: Part) -> float:
    """Estimated hours of a CPU core for an attack's poison of CIFAR-10 and what it is made of."""
    made = plan(
        [f"cifar10/{attack}/standard/{SCREEN_NETWORK}/supervised/{SCREEN_PROTOCOL}/0"], None
    )
    return sum(each.seconds(CPU) for each in made.artifacts if each.kind != "dataset") / 3600


def not_screened(spec: TrialSpec) -> list[str]:
    """Why a printed trial has no counterpart with the fast victim; empty where it has one."""
    return [f"{reason} at scale screen" for reason in _reasons(spec)]


def _reasons(spec: TrialSpec) -> Iterator[str]:
    if spec.learner.name != "supervised":
        yield f"learner {spec.learner}"
    if spec.dataset.name not in SCREEN_DATASETS:
        yield f"dataset {spec.dataset}"
    if spec.attack.name not in ATTACKS:
        return
    if ATTACKS[spec.attack.name].on_target:
        yield f"targeted attack {spec.attack}"
    elif (taken := hours(screened_attack(spec.attack))) > MOST_POISON_HOURS:
        yield f"attack {spec.attack}, of which a poison takes {about(3600 * taken)} of a core,"
