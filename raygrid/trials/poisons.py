"""Poisoned training sets without training: made or loaded, and measured."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raygrid.attacks.base import Attack
from raygrid.core.budget import Budget
from raygrid.core.enforcement import facts_of_change, rounding
from raygrid.core.errors import SpecError
from raygrid.core.images import Images, Poison
from raygrid.core.lazy import torch
from raygrid.core.spec import split_outside
from raygrid.protocols.setups import Scene
from raygrid.protocols.setups.triples import Triple
from raygrid.trials.artifacts import World, mix, poison_of
from raygrid.trials.catalog import Lookup
from raygrid.trials.context import Fetch
from raygrid.trials.resolve import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.trials.trial import Trial

UNTRAINED_VICTIM = ("supervised", "quick")  # never trained: a spec is complete only with a victim


@dataclass(frozen=True)
class Poisoned:
    """A training set under an attack, with where it comes from.

    clean: before; images: after, at the poison ratio. mask: bool (N,) of `clean`, rows that the
    attacker touched. spec: `dataset/attack@ratio/seed`. key: of the poison in the store.
    triple: the poisons alone where the attack is made for a set-up. augmentation: the standard one
    of the dataset, a name that `nn.augment.standard` knows. marks: what a reader of results with
    this poison has to know.
    """

    clean: Images
    images: Images
    mask: Tensor
    attack: Attack
    spec: str
    key: str
    triple: Triple | None = None
    augmentation: str = "crop_flip"
    marks: tuple[str, ...] = ()

    @property
    def replaced(self) -> bool:
        """Whether the touched rows are still there (`withheld` takes them away)."""
        return len(self.clean) == len(self.images)

    @property
    def limit(self) -> Budget | None:
        """The attack's budget for images of this size; None if it does not perturb."""
        return None if self.attack.limit is None else self.attack.limit_at(self.clean.shape[-1])


def make(
    text: str,
    catalog: Lookup,
    fetch: Fetch,
    seed: int = 0,
    victim: tuple[str, str] = UNTRAINED_VICTIM,
) -> Poisoned:
    """Make or load the poisoned set that `dataset/attack[@ratio]` names.

    The poison is the one that a grid with this dataset, attack and seed uses. victim: learner and
    protocol, which decide the set-up of an attack on a target. Raises SpecError for a faulty text
    or an attack that cannot be made for the dataset.
    """
    trial = trial_behind(text, catalog, seed, victim)
    world, bundle = World.of(fetch(trial.data), trial.setup), fetch(trial.poison)
    poison = poison_of(bundle)
    images, mask = mix(world, poison, trial.poison, trial.spec.poison_ratio)
    spec = trial.spec
    ratio = "" if spec.poison_ratio == 1.0 else f"@{spec.poison_ratio!r}"
    name = f"{spec.dataset}/{spec.attack}{ratio}/{seed}"
    triple = triple_of(world.scene, poison) if trial.attack.on_target and world.scene else None
    made = world.train, images, mask, trial.attack, name, trial.poison.key
    marks = tuple(bundle.facts.get("marks", ()))
    return Poisoned(*made, triple, trial.dataset.augmentation, marks)


def trial_behind(
    text: str, catalog: Lookup, seed: int = 0, victim: tuple[str, str] = UNTRAINED_VICTIM
) -> Trial:
    """The trial of which a set is the poisoned one, never trained; raises as `make`."""
    pieces = list(split_outside(text, "/"))
    if len(pieces) != 2:
        near = f" (did you mean {'/'.join(pieces[:2])!r}?)" if len(pieces) > 2 else ""
        said = f"{text!r} has {len(pieces)} pieces, expected 2: dataset/attack[@ratio]{near}"
        raise SpecError(said)
    trial = resolve(f"{text}/none/small_cnn/{victim[0]}/{victim[1]}/{seed}", catalog)
    reason = trial.attack.skip(trial.combination()) or trial.ratio_fault()
    if reason:
        raise SpecError(f"{text}: {reason}")
    return trial


def triple_of(scene: Scene, poison: Poison) -> Triple:
    """The poisons of a set-up in the form of the benchmark's files."""
    target = scene.setup.target
    return Triple(
        poison.pixels,
        poison.labels,
        scene.setup.bases,
        scene.target[0],
        target.true_label,
        poison.trigger,
    )


def inspect(poisoned: Poisoned) -> dict[str, Any]:
    """What there is to know about a poisoned set, as JSON values.

    size: mean and largest change of the touched images by norm (linf, l2 in the pixel range [0, 1],
    l0 in pixels). budget: what the attack was held to, the largest change in its norm, and by how
    much rounding to whole levels may exceed it. distinct: how many different changes there are.
    unchanged: touched images without any change. by_class: touched images of each class. marks:
    those of the poison.
    """
    clean, rows = poisoned.clean, poisoned.mask
    touched = torch.bincount(clean.labels[rows], minlength=clean.classes)
    facts: dict[str, Any] = {
        "spec": poisoned.spec,
        "key": poisoned.key,
        "images": len(poisoned.images),
        "shape": list(clean.shape),
        "classes": clean.classes,
        "poisoned": int(rows.sum()),
        "by_class": touched.tolist(),
        "marks": list(poisoned.marks),
    }
    if not poisoned.replaced or not bool(rows.any()):
        return facts
    before, after = clean.pixels[rows], poisoned.images.pixels[rows]
    change = facts_of_change(before, after)
    facts["size"] = change["size"]
    limit = poisoned.limit
    if limit is not None:
        facts["budget"] = {
            "limit": str(limit),
            "largest": facts["size"][limit.norm]["max"],
            "rounding": rounding(limit, clean.shape),
        }
    facts["unchanged"] = change["unchanged"]
    facts["distinct"] = _distinct(before, after)
    return facts


def _distinct(before: Tensor, after: Tensor) -> int:
    change = (after.short() - before.short()).numpy()
    return len({hashlib.sha256(row.tobytes()).digest() for row in change})
