"""A printed trial at a smaller size: the same question, with stand-ins for its parts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.literals import Scalar
from raygrid.core.registry import Registry, cached
from raygrid.core.spec import Part, TrialSpec
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES
from raygrid.learners import LEARNERS
from raygrid.literature.made import as_elsewhere
from raygrid.protocols import PROTOCOLS
from raygrid.reproduce.papers import Scale
from raygrid.reproduce.screening import SCREEN_NETWORK, SCREEN_PROTOCOL, not_screened, screened
from raygrid.trials.resolve import resolve

STAND_INS: tuple[Scale, ...] = ("smoke", "quick", "screen")
"""Where other data or networks stand in."""
SMALL_EPOCHS = 30
SMOKE_EPOCHS = 2
FITTING_PARAMETERS = ("epochs", "classifier_epochs", "updates")
"""How long methods fit networks of their own."""
TURN_PARAMETER = "lite_after"
"""The parameter of a defense that counts epochs of the victim."""
SMOKE_DATA = Part.of("photo_digits", every=6)


@dataclass(frozen=True)
class ComparisonSize:
    """The size of a comparison that no single paper prints.

    sgd: its protocol where the scale of a loss must matter. small: whether attacks are cut too.
    stronger: whether budgets are raised, for images that are easy to learn. screened: whether
    attacks and defenses are those of `screening`.
    """

    dataset: str
    architecture: str
    protocol: str
    sgd: str
    small: bool = False
    stronger: bool = False
    screened: bool = False


COMPARISON_SIZES: Mapping[Scale, ComparisonSize] = {
    "quick": ComparisonSize(
        "photo_digits",
        "small_cnn",
        "quick",
        "tp(batch_size=64, epochs=12, lr=0.06)",
        small=True,
        stronger=True,
    ),
    "screen": ComparisonSize(
        "cifar10", SCREEN_NETWORK, str(SCREEN_PROTOCOL), str(SCREEN_PROTOCOL), screened=True
    ),
    "small": ComparisonSize(
        "cifar10",
        "small_cnn",
        "quick(epochs=10)",
        "tp(batch_size=64, epochs=10, lr=0.06)",
        small=True,
    ),
    "grid": ComparisonSize("cifar10", "resnet18", "tp_grid", "tp_grid"),
    "paper": ComparisonSize("cifar10", "resnet18", "tp", "tp"),
}
"""What settings are compared at that no single paper prints, by scale; smoke has none."""


def scaled(spec: TrialSpec, scale: Scale) -> TrialSpec:
    """The same question at a smaller size; raises SpecError if there is no such size."""
    return _turning(spec, _sized(spec, scale))


def _sized(spec: TrialSpec, scale: Scale) -> TrialSpec:
    if scale == "quick":
        return _quick(spec)
    if scale == "smoke":
        return _smoke(_quick(spec))
    if scale == "screen":
        return spec if not_screened(spec) else screened(as_elsewhere(spec))
    if scale == "grid":
        name = f"{spec.protocol.name}_grid"
        if name not in PROTOCOLS:
            raise SpecError(f"protocol {spec.protocol} has no grid tier")
        return spec.replace(protocol=Part.of(name, **dict(spec.protocol.params)))
    if scale == "small" and epochs_of(spec) > SMALL_EPOCHS:
        return spec.replace(protocol=spec.protocol.with_params(epochs=SMALL_EPOCHS))
    return spec


def epochs_of(spec: TrialSpec) -> int:
    """How long the victim trains; 0 for a trial of which something is not there."""
    with suppress(SpecError):
        return resolve(spec, None).recipe.epochs
    return 0


def _turning(printed: TrialSpec, made: TrialSpec) -> TrialSpec:
    """A shorter trial whose defenses turn at the same share of the training as the printed ones."""
    parts = list(zip(printed.defense, made.defense, strict=True))
    if made == printed or not any(TURN_PARAMETER in dict(ours.params) for _, ours in parts):
        return made
    before, after = epochs_of(printed), epochs_of(made)
    if after >= before:
        return made
    return made.replace(defense=tuple(_turned(*pair, before, after) for pair in parts))


def _turned(theirs: Part, ours: Part, before: int, after: int) -> Part:
    turn = dict(theirs.params).get(TURN_PARAMETER)
    if not isinstance(turn, int) or TURN_PARAMETER not in dict(ours.params):
        return ours
    return ours.with_params(**{TURN_PARAMETER: min(turn, max(1, turn * after // before))})


def _quick(spec: TrialSpec) -> TrialSpec:
    """On the embedded digits, with the small network of the same family."""
    spec = as_elsewhere(spec)
    pretrained = spec.learner.name in LEARNERS and LEARNERS[spec.learner.name].pretrained
    return spec.replace(
        dataset=Part("photo_digits_last" if pretrained else COMPARISON_SIZES["quick"].dataset),
        attack=_quick_attack(spec.attack),
        defense=tuple(_quick_method(DEFENSES, part) for part in spec.defense),
        architecture=_quick_network(spec.architecture),
        protocol=_quick_protocol(spec),
    )


def _smoke(quick: TrialSpec) -> TrialSpec:
    """Of a quick trial so little that only its way is walked: few images, fewest epochs."""
    whole = quick.dataset.name == SMOKE_DATA.name
    return quick.replace(
        dataset=SMOKE_DATA if whole else quick.dataset,
        attack=_fitted_once(ATTACKS, quick.attack),
        defense=tuple(_fitted_once(DEFENSES, part) for part in quick.defense),
        protocol=quick.protocol.with_params(epochs=SMOKE_EPOCHS),
    )


def _fitted_once(registry: Registry[Any], part: Part) -> Part:
    """A quick method whose networks see the images once; what the table varies stays."""
    small = registry[part.name].quick if part.name in registry else {}
    given = dict(part.params)
    return part.with_params(
        **{k: 1 for k in FITTING_PARAMETERS if k in small and given.get(k) == small[k]}
    )


def _quick_network(part: Part) -> Part:
    if part.name not in ARCHITECTURES or ARCHITECTURES[part.name].stand_in == part.name:
        return part
    return Part(ARCHITECTURES[part.name].stand_in)


def _quick_attack(part: Part) -> Part:
    """An attack at its `quick` parameters, where it has some; its networks as the victim's.

    Of those, the ones on all images are at twice their budget, since fewer steps on digits, which
    are easy to learn, do less; what the table varies stays as printed.
    """
    params = dict(part.params)
    if "surrogate" in params:
        names = str(params["surrogate"]).split(":")
        params["surrogate"] = ":".join(str(_quick_network(Part(name))) for name in names)
    part = Part.of(part.name, **params)
    if part.name not in ATTACKS or not ATTACKS[part.name].quick:
        return part
    kind = ATTACKS[part.name]
    if kind.on_target:
        small = {k: v for k, v in kind.quick.items() if k != "surrogate" or k not in params}
        return part.with_params(**small)
    if "base_quick" in kind.quick:  # it has no budget itself, that of its base is doubled
        base = str(params.get("base", kind.__dataclass_fields__["base"].default))
        if base in ATTACKS and ATTACKS[base].quick:
            part = part.with_params(base_budget=_doubled(ATTACKS[base], params.get("base_budget")))
    else:
        part = part.with_params(budget=_doubled(kind, params.get("budget")))
    return _quick_method(ATTACKS, part)


def _doubled(kind: type[Attack], given: Scalar | None) -> str:
    """Twice the budget, its own if none is given; linf ends at 1."""
    usual: Budget = kind.__dataclass_fields__["budget"].default  # type: ignore[assignment]
    budget = Budget.parse(str(given or usual), usual)
    most = 1.0 if budget.norm == "linf" else float("inf")
    return str(Budget(budget.norm, min(2 * budget.value, most)))


def _quick_method(registry: Registry[Any], part: Part) -> Part:
    """A method at its `quick` parameters; what the table varies stays as printed."""
    small = registry[part.name].quick if part.name in registry else {}
    return Part.of(part.name, **{**small, **dict(part.params)})


def _quick_protocol(spec: TrialSpec) -> Part:
    """The paper's own small one or `quick`, with the probe on the images of the paper's."""
    if spec.protocol.name in PROTOCOLS and PROTOCOLS[spec.protocol.name].stand_in != "quick":
        theirs = PROTOCOLS[spec.protocol.name]
        return Part.of(theirs.stand_in, **theirs.stand_in_params(dict(spec.protocol.params)))
    views = spec.learner.name in LEARNERS and LEARNERS[spec.learner.name].views
    data = PROTOCOLS.make(spec.protocol).probe_data if views else "poisoned"
    return Part("quick") if data == "poisoned" else Part.of("quick", probe_data=data)


def lacking(spec: TrialSpec, scale: Scale) -> list[str]:
    """Why a printed trial has no counterpart at a scale; empty where it has one."""
    reasons = not_screened(spec) if scale == "screen" else []
    return reasons or absent(scaled(spec, scale))


def absent(spec: TrialSpec) -> list[str]:
    """What of a spec cannot be made here: `kind name`, or what is wrong with its parameters."""
    named: list[tuple[Registry[Any], Part]] = [
        (DATASETS, spec.dataset),
        (ATTACKS, spec.attack),
        *((DEFENSES, part) for part in spec.defense),
        (ARCHITECTURES, spec.architecture),
        (LEARNERS, spec.learner),
        (PROTOCOLS, spec.protocol),
    ]
    return [reason for registry, part in named if (reason := _fault(registry, part))]


@cached
def _fault(registry: Registry[Any], part: Part) -> str | None:
    if part.name not in registry:
        return f"{registry.kind} {part.name}"
    try:
        registry.make(part)
    except SpecError as error:
        return f"{registry.kind} {error}"
    return None
