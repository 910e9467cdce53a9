"""What a set-up is, and how one comes to be: read from the benchmark's files or drawn by a seed.

Schwarzschild et al. 2021 (Just How Toxic is Data Poisoning?), section 4 and their repository's
`poison_setups`. The attacker may change `bases`, training images of one class, so that a victim
gives the target, an image of another class, the label of the bases. Everything here is decided
without looking at an attack: a clean control answers for the same target.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, Target, Trigger
from raygrid.core.lazy import np, torch
from raygrid.protocols.setups import official
from raygrid.protocols.setups.triggers import triggers

if TYPE_CHECKING:
    from torch import Tensor

SETUPS_VERSION = 1
"""Of our own draws: raise it when the same number draws something else."""


@dataclass(frozen=True)
class Setup:
    """One target and its bases, by rows of the whole data set.

    bases: int64 (K,) rows of the training part, all of class `target.wanted`; may repeat.
    source: the official file, or our generator and its version.
    """

    number: int
    target: Target
    bases: Tensor
    source: str


@dataclass(frozen=True)
class Scene:
    """A set-up in front of its data.

    train: what the victim is trained on if nobody poisons. rows: int64 (N,) where each of its
    images stands in `whole`, the whole training part. slots: int64 (K,) where the bases stand in
    `train`; a base that the set-up repeats has two. target: uint8 (1, C, H, W).
    """

    setup: Setup
    whole: Images
    train: Images
    rows: Tensor
    slots: Tensor
    target: Tensor
    triggers: Mapping[str, Trigger]

    @property
    def wanted(self) -> int:
        """The label that the attacker wants, which is that of the bases."""
        return self.setup.target.wanted

    def groups(self, test: Images, trigger: Trigger) -> dict[str, Images]:
        """Test images with a trigger, under the wanted label.

        `class_trigger`: of the target's class; `all_trigger`: of every class but the wanted one.
        """
        return {
            group: Images(
                trigger.apply(test.pixels[rows]),
                torch.full((int(rows.sum()),), self.wanted),
                test.classes,
                self.group_fingerprint(test, trigger, group),
            )
            for group, rows in self.group_rows(test).items()
        }

    def group_rows(self, test: Images) -> dict[str, Tensor]:
        """Bool (T,) masks of the test part for each of the `groups`."""
        target = self.setup.target
        return {
            "class_trigger": test.labels == target.true_label,
            "all_trigger": test.labels != target.wanted,
        }

    def group_fingerprint(self, test: Images, trigger: Trigger, group: str) -> str:
        """Names the content of a group, nothing for a trigger that is not of this set-up."""
        own = [name for name, patch in self.triggers.items() if patch.same(trigger)]
        return f"{test.fingerprint}+{own[0]}:{group}" if own and test.fingerprint else ""


@dataclass(frozen=True)
class SetupRule:
    """Where the set-ups of one cell of the benchmark come from.

    cell: seeds our own draws. poisons: K. per_class: images of each class that the victim is
    trained on, None for all. patch: side of the triggers in pixels. pair: classes of target and
    bases, None for any two. folder, file: of the official set-ups; empty for our own.
    """

    cell: str
    poisons: int
    per_class: int | None = None
    patch: int = 5
    pair: tuple[int, int] | None = None
    folder: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        if self.poisons < 1:
            raise SpecError(
                f"a set-up with {self.poisons} poisons; allowed are whole numbers from 1"
            )
        if self.per_class is not None and self.per_class < self.poisons:
            raise SpecError(
                f"{self.poisons} poisons do not fit into {self.per_class} images of a class"
            )
        if self.pair is not None and self.pair[0] == self.pair[1]:
            raise SpecError(f"pair {self.pair[0]}:{self.pair[1]}: the classes must differ")

    def resolved(self) -> dict[str, Any]:
        """All that decides the set-ups, as JSON values; the files by what they hold."""
        fields = {"cell": self.cell, "poisons": self.poisons, "per_class": self.per_class}
        fields |= {"patch": self.patch, "pair": self.pair, "version": SETUPS_VERSION}
        return fields | {"official": official.digest(self.file) if self.folder else None}

    def check(self, number: int) -> str | None:
        """Why there is no set-up of that number, or None."""
        if not self.folder:
            return None
        try:
            count = len(official.read_official(self.folder, self.file))
        except DataError as error:
            return str(error)
        if number < count:
            return None
        return f"seed {number} is no set-up: {self.file} has {count}, from 0 to {count - 1}"

    def setup(self, number: int, train: Tensor, test: Tensor) -> Setup:
        """Set-up `number` for these labels, int64 (N,) each; raises DataError if it cannot be."""
        if not self.folder:
            return self._drawn(number, train, test)
        if (reason := self.check(number)) is not None:
            raise DataError(reason)
        true, index, wanted, bases = official.read_official(self.folder, self.file)[number]
        setup = Setup(number, Target(index, true, wanted), torch.tensor(bases), self.file)
        self._fits(setup, train, test)
        return setup

    def _fits(self, setup: Setup, train: Tensor, test: Tensor) -> None:
        """The labels that a file claims are those of the data, or the data have another order."""
        hint = "the images must be in the order of the official files"
        target, where = setup.target, f"set-up {setup.number} of {setup.source}"
        if target.index >= len(test) or int(setup.bases.max()) >= len(train):
            raise DataError(f"{where} names images that are not there: {hint}")
        found = int(test[target.index])
        if found != target.true_label:
            text = f"target {target.index} has class {found}, not {target.true_label}"
            raise DataError(f"{where}: {text}; {hint}")
        wrong = setup.bases[train[setup.bases] != target.wanted]
        if len(wrong):
            text = f"base {int(wrong[0])} has class {int(train[wrong[0]])}, not {target.wanted}"
            raise DataError(f"{where}: {text}; {hint}")

    def _drawn(self, number: int, train: Tensor, test: Tensor) -> Setup:
        """Our own: target class, base class, target, bases, in this order, none repeated."""
        rng = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([zlib.crc32(self.cell.encode()), number]))
        )
        classes = int(train.max()) + 1
        true = int(rng.integers(classes))
        wanted = (true + 1 + int(rng.integers(classes - 1))) % classes
        if self.pair is not None:
            true, wanted = self.pair
        targets = (test == true).nonzero().squeeze(1)
        candidates = (train == wanted).nonzero().squeeze(1)
        if len(targets) == 0:
            raise DataError(f"no test image has class {true}, allowed are 0 to {classes - 1}")
        if len(candidates) < self.poisons:
            raise DataError(
                f"class {wanted} has {len(candidates)} images, a set-up takes {self.poisons}"
            )
        index = int(targets[int(rng.integers(len(targets)))])
        chosen = rng.choice(len(candidates), self.poisons, replace=False)
        bases = candidates[torch.from_numpy(chosen)]
        return Setup(number, Target(index, true, wanted), bases, f"own:{SETUPS_VERSION}")

    def shared_rows(self, labels: Tensor) -> Tensor:
        """Rows, int64, that any set-up's pool is made of, its bases aside."""
        most = None if self.per_class is None else self.per_class + self.poisons
        return torch.cat([_of_class(labels, c)[:most] for c in range(int(labels.max()) + 1)])

    def pool_size(self, images: int, classes: int) -> int:
        """How many images the victim is trained on, of so many of a data set with even classes."""
        return images if self.per_class is None else min(images, self.per_class * classes)

    def shared_size(self, images: int, classes: int) -> int:
        """How many rows `shared_rows` has, of so many of a data set with even classes."""
        if self.per_class is None:
            return images
        return min(images, (self.per_class + self.poisons) * classes)

    def triggers(self, side: int) -> dict[str, Trigger]:
        """The patches for images of `side` pixels, the same for every number; raises DataError."""
        patterns = official.patterns(self.folder) if self.folder else None
        return triggers(self.patch, side, patterns)

    def scene(self, number: int, train: Images, test: Images) -> Scene:
        """The set-up in front of the data; raises DataError if the two do not fit."""
        setup = self.setup(number, train.labels, test.labels)
        rows, slots = self._pool(setup, train.labels)
        patches = self.triggers(train.shape[-1])
        index = setup.target.index
        pool = train if self._is_whole(rows, len(train)) else train.rows(rows)
        return Scene(setup, train, pool, rows, slots, test.pixels[index : index + 1], patches)

    @staticmethod
    def _is_whole(rows: Tensor, n: int) -> bool:
        return len(rows) == n and torch.equal(rows, torch.arange(n))

    def _pool(self, setup: Setup, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Rows that the victim is trained on, and the places of the bases among them.

        The first `per_class` images of every class; of the bases' class K fewer, none of them a
        base, and then the bases, each as often as the set-up names it.
        """
        bases = setup.bases
        if self.per_class is None and len(bases.unique()) == len(bases):
            return torch.arange(len(labels)), bases
        parts: list[Tensor] = []
        for label in range(int(labels.max()) + 1):
            rows = _of_class(labels, label)
            size = len(rows) if self.per_class is None else min(self.per_class, len(rows))
            if label == setup.target.wanted:
                rows = rows[~torch.isin(rows, bases)][: size - len(bases)]
                first = sum(len(part) for part in parts) + len(rows)
                parts.append(torch.cat([rows, bases]))
            else:
                parts.append(rows[:size])
        return torch.cat(parts), torch.arange(first, first + len(bases))


def _of_class(labels: Tensor, label: int) -> Tensor:
    return (labels == label).nonzero().squeeze(1)


@dataclass(frozen=True)
class SetupPlan:
    """One set-up by its number, before anybody has seen the data."""

    rule: SetupRule
    number: int

    def resolved(self) -> dict[str, Any]:
        return {**self.rule.resolved(), "number": self.number}

    def scene(self, train: Images, test: Images) -> Scene:
        return self.rule.scene(self.number, train, test)
