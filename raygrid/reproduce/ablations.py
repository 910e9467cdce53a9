"""The baselines of the targeted benchmark (Schwarzschild et al. 2021) with one thing changed.

The paper discusses these changes without tables of their own; here each is one, by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from raygrid.core.spec import Part, TrialSpec
from raygrid.literature.lookup import find
from raygrid.literature.toxic import BASELINES
from raygrid.reports.tables.frame import frame

VICTIMS = ("alexnet_fc", "alexnet_htbd", "resnet32_narrow", "resnet18", "vgg11", "mobilenetv2")
PAIRS = {"feature_collision": "0:6", "convex_polytope": "6:8"}  # the authors' own, target:base
ABLATIONS: Mapping[str, tuple[str, ...]] = {
    "just_how_toxic": (
        *("optimizer", "augmentation", "architecture", "epsilon", "disjoint", "size", "pairs"),
        *("flip", "patch"),
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
    """The values of an axis that mean something for a setting."""
    whole = {"augmentation": _augmented, "architecture": _rebuilt, "epsilon": _bounded}
    if axis in whole:
        yield from whole[axis](base)
        return
    values: dict[str, list[dict[str, int | str]]] = {
        "optimizer": [{"optimizer": name} for name in ("adam", "sgd")],
        "size": [{"poisons": k, "per_class": 10 * k} for k in (5, 10, 25, 50, 100, 250, 500)],
    }
    if base.learner.name != "supervised":
        values["disjoint"] = [{"pretrain": "cifar100"}]
    if base.attack.name in PAIRS:
        values["pairs"] = [{"pair": PAIRS[base.attack.name]}]
    if base.attack.name in ("clbd", "htbd"):
        values["patch"] = [{"patch": size} for size in (3, 5, 8)]
    for params in values.get(axis, []):
        yield base.replace(protocol=base.protocol.with_params(**params))


def _augmented(base: TrialSpec) -> Iterator[TrialSpec]:
    """Without augmentation, and with the standard one."""
    yield from (base.replace(defense=(Part(name),)) for name in ("none", "standard"))


def _rebuilt(base: TrialSpec) -> Iterator[TrialSpec]:
    """Attacker and victim with another network."""
    for name in VICTIMS:
        attack = base.attack.with_params(surrogate=name)
        yield base.replace(architecture=Part(name), attack=attack)


def _bounded(base: TrialSpec) -> Iterator[TrialSpec]:
    """Without the penalty that stands for a budget in the first setting."""
    params = dict(base.attack.params)
    if params.get("variant") == "penalty":
        del params["variant"]
    for budget in ("8/255", "16/255", "25.5/255"):
        attack = Part.of(base.attack.name, **params).with_params(budget=budget)
        yield base.replace(attack=attack)


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
        shares = same[["target_success", "target_hflip_success"]].mean() * 100
        line = f"{text}: {shares.iloc[0]:.1f}, mirrored {shares.iloc[1]:.1f} of {len(same)} set-ups"
        yield line + (f" [{100 * found.best.value:.1f}]" if found else "")
