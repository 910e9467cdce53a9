"""The rows of the benchmark of targeted attacks as trials: its cells, and its authors' baselines.

Attacks bring their own few images, so that their share is no ratio of the grid's.
"""

from __future__ import annotations

from raygrid.core.spec import Part, TrialSpec

MEAN_OF_VICTIMS = "mean"
"""Stands in a cell for an architecture: the mean over the victims `of`, joined by colons."""

NETWORKS_64 = {"resnet34": "resnet34_strided", "vgg16": "vgg16_max"}
"""The paper's networks for 64 pixels, by the names that it has for them."""
_LEARNER = {"sl_scratch": "supervised", "sl_transfer": "linear_probe", "sl_e2e": "finetune"}
BASELINES = {
    "feature_collision": (
        "cifar10/feature_collision(budget=255/255, surrogate=alexnet_fc, variant=penalty)/none"
        "/alexnet_fc/finetune"
        "/just_how_toxic(epochs=20, optimizer=adam, per_class=5000, poisons=50, pretrain=cifar10)/0"
    ),
    "convex_polytope": (
        "cifar10/convex_polytope(budget=25.5/255)/none/resnet18/linear_probe"
        "/just_how_toxic(epochs=60, lr=0.1, optimizer=adam, poisons=5, pretrain=cifar10)/0"
    ),
    "clbd": (
        "cifar10/clbd(budget=16/255, variant=unclipped)/none/resnet32_narrow/supervised"
        "/just_how_toxic(patch=3)/0"
    ),
    "htbd": (
        "cifar10/htbd(budget=16/255, pairing=released, surrogate=alexnet_htbd)/none/alexnet_htbd"
        "/linear_probe/just_how_toxic(patch=8, per_class=5000, poisons=800, pretrain=cifar10)/0"
    ),
}
"""Table 2: every attack in its authors' setting, as far as it is printed."""


def map_toxic_row(row: dict[str, str]) -> tuple[TrialSpec, str | None]:
    """The cell of a row, and why it is no trial, if it is none."""
    if row["table"] == "2":
        return TrialSpec.parse(BASELINES[row["attack"]]), None
    if row["table"] == "text":
        return _in_the_text(row), None
    transfer = row["learner"] == "sl_transfer"
    tiny = row["dataset"] == "tinyimagenet"
    attack = Part(row["attack"])
    if row["surrogate"] != "resnet18":
        attack = attack.with_params(surrogate=_network(row["surrogate"], tiny))
    victims = [_network(name, tiny) for name in row["architecture"].split("+")]
    axes = TrialSpec(
        dataset=Part("tinyimagenet_last" if tiny and transfer else row["dataset"]),
        attack=attack,
        defense=(Part("standard"),),
        architecture=Part(victims[0]) if len(victims) == 1 else mean_of(victims),
        learner=Part(_LEARNER[row["learner"]]),
        protocol=Part("just_how_toxic"),
    )
    if len(victims) > 1:
        return axes, f"derived: the mean over the victims {', '.join(victims)}"
    return axes, None


def _network(name: str, tiny: bool) -> str:
    return NETWORKS_64.get(name, name) if tiny else name


def mean_of(victims: list[str]) -> Part:
    return Part.of(MEAN_OF_VICTIMS, of=":".join(victims))


def members(architecture: Part) -> tuple[Part, ...]:
    """The victims behind an architecture: itself, or those whose mean it is."""
    if architecture.name != MEAN_OF_VICTIMS:
        return (architecture,)
    return tuple(Part(name) for name in str(dict(architecture.params)["of"]).split(":"))


def _in_the_text(row: dict[str, str]) -> TrialSpec:
    """Section 4: a baseline with one thing changed."""
    base = TrialSpec.parse(BASELINES[row["attack"]])
    if row["defense"] == "standard":
        params = {k: v for k, v in base.protocol.params if k not in ("optimizer", "lr")}
        protocol = Part.of(base.protocol.name, **params)
        return base.replace(defense=(Part("standard"),), protocol=protocol)
    if row["attack"] == "htbd":
        attack = base.attack.with_params(surrogate="resnet18")
        return base.replace(architecture=Part("resnet18"), attack=attack)
    return base
