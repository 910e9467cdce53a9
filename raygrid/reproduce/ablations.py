"""The baselines of the targeted benchmark (Schwarzschild et al. 2021) with one thing changed.

The paper discusses these changes without tables of their own; here each is one, by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from raygrid.core.spec import Part, TrialSpec
from raygrid.core.text import decimal
from raygrid.literature.lookup import find
from raygrid.literature.toxic import BASELINES
from raygrid.protocols.setups import SetupRule
from raygrid.reports.tables.frame import frame
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial

TOXIC_VICTIMS = (
    "alexnet_fc",
    "alexnet_htbd",
    "resnet32_narrow",
    "resnet18",
    "vgg11",
    "mobilenetv2",
)
FRESH_LEARNER = "supervised"
"""The learner of victims that no extractor is pre-trained for."""
AUTHORS_PAIRS = {
    "feature_collision": "0:6",
    "convex_polytope": "6:8",
}  # the authors' own, target:base
ABLATIONS: Mapping[str, tuple[str, ...]] = {
    "just_how_toxic": (
        *("optimizer", "augmentation", "architecture", "black_box", "epsilon", "disjoint", "size"),
        *("pairs", "flip", "patch"),
    )
}
"""By paper the names of tables that it has not printed."""


def ablation(axis: str) -> Iterator[TrialSpec]:
    """The settings of table 2 with one thing changed; what does not apply is left out."""
    for text in BASELINES.values():
        base = TrialSpec.parse(text)
        yield base
        yield from _changed(base, axis)


def _changed(base: TrialSpec, axis: str) -> Iterator[TrialSpec]:
    """The values of an axis that mean something for a setting and that it has not already."""
    whole: dict[str, Callable[[TrialSpec], Iterator[TrialSpec]]] = {
        "augmentation": _augmented,
        "architecture": _rebuilt,
        "black_box": _unseen,
        "epsilon": _bounded,
        "disjoint": _disjoint,
    }
    if axis in whole:
        yield from whole[axis](base)
        return
    values: dict[str, list[dict[str, int | str]]] = {
        "optimizer": [{"optimizer": name} for name in ("adam", "sgd")],
        "size": [{"poisons": k, "per_class": 10 * k} for k in (5, 10, 25, 50, 100, 250, 500)],
    }
    if base.attack.name in AUTHORS_PAIRS:
        values["pairs"] = [{"pair": AUTHORS_PAIRS[base.attack.name]}]
    if base.attack.name in ("clbd", "htbd"):
        values["patch"] = [{"patch": size} for size in (3, 5, 8)]
    usual = _settings(base)
    changed = (
        base.replace(protocol=base.protocol.with_params(**params))
        for params in values.get(axis, [])
    )
    yield from (spec for spec in changed if _settings(spec) != usual)


def _settings(spec: TrialSpec) -> tuple[object, ...]:
    """What a protocol makes of a trial, however it says so: recipes and the rule of set-ups."""
    trial = resolve(spec, None)
    rule = replace(_rule(trial), per_class=_per_class(trial))
    return trial.recipe, trial.pretraining, rule


def _rule(trial: Trial) -> SetupRule:
    assert trial.setup is not None, "every protocol of these settings draws set-ups"
    return trial.setup.rule


def _per_class(trial: Trial) -> int:
    """Images of a class that a victim is trained on, which may be all of them."""
    return _rule(trial).per_class or trial.data.train_size // trial.dataset.classes


def _augmented(base: TrialSpec) -> Iterator[TrialSpec]:
    """Without augmentation, and with the standard one."""
    yield from (base.replace(defense=(Part(name),)) for name in ("none", "standard"))


def _rebuilt(base: TrialSpec) -> Iterator[TrialSpec]:
    """Another network for the victim, and for an attacker who has the victim's own."""
    own = base.learner.name != FRESH_LEARNER
    for name in TOXIC_VICTIMS:
        attack = base.attack.with_params(surrogate=name) if own else base.attack
        yield base.replace(architecture=Part(name), attack=attack)


def _unseen(base: TrialSpec) -> Iterator[TrialSpec]:
    """Another network for the victim alone, where the attacker has its own in the setting."""
    if base.learner.name != FRESH_LEARNER:
        others = (name for name in TOXIC_VICTIMS if name != base.architecture.name)
        yield from (base.replace(architecture=Part(name)) for name in others)


def _bounded(base: TrialSpec) -> Iterator[TrialSpec]:
    """Within a budget, which the attack with a penalty has none of: as the benchmark runs it."""
    attack = base.attack
    if dict(attack.params).get("variant") == "penalty":
        attack = attack.with_params(variant="released")
    for budget in ("8/255", "16/255", "25.5/255"):
        yield base.replace(attack=attack.with_params(budget=budget))


def _disjoint(base: TrialSpec) -> Iterator[TrialSpec]:
    """The paper's one network for all, pre-trained on other classes, also where victims are fresh.

    Those keep their poisons and images.
    """
    learner, protocol = base.learner, base.protocol.with_params(pretrain="cifar100")
    if learner.name == FRESH_LEARNER:
        trial, learner = resolve(base, None), Part("linear_probe")
        protocol = protocol.with_params(poisons=_rule(trial).poisons, per_class=_per_class(trial))
    yield base.replace(
        architecture=Part("resnet18"),
        attack=base.attack.with_params(surrogate="resnet18"),
        learner=learner,
        protocol=protocol,
    )


def mirrored(
    rows: Iterable[Mapping[str, Any]], printed: Mapping[str, tuple[TrialSpec, ...]]
) -> Iterator[str]:
    """A line an attack: success on the target as it is and mirrored, which every trial asks.

    printed: by trial (canonical, seed 0) the printed ones that it stands for; the number of a
    single one stands in brackets.
    """
    trials = frame(rows)
    trials = trials[trials["status"].eq("done") & trials["target_hflip_success"].notna()]
    specs = [str(TrialSpec.parse(text).replace(seed=0)) for text in trials["spec"]]
    for text, same in trials.groupby(specs):
        of = printed.get(str(text), ())
        found = find(of[0], "target_hflip_success") if len(of) == 1 else None
        means = same[["target_success", "target_hflip_success"]].mean()
        straight, mirror = (decimal(share, 1, 2) for share in means)
        line = f"{text}: {straight}, mirrored {mirror} of {len(same)} set-ups"
        yield line + (f" [{decimal(found.best.value, 1, 2)}]" if found else "")
