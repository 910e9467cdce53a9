"""Attacks that make a batch's noise anew before every SGD step of their network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.students import JointAttack, Student, classifier
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import require
from raygrid.nn.augment import CropFlip
from raygrid.nn.pgd import frozen
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StepwiseAttack(JointAttack):
    """Noise for a batch, then an SGD step on the noisy batch, a fixed number of times.

    Noise is rounded to whole levels and kept by image; at the end it is made once more for all.
    """

    holds: ClassVar[float] = 7.0  # levels are int16, and floats in the end
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 16,
        "steps": 2,
        "train_steps": 6,
    }
    effort: ClassVar[frozenset[str]] = JointAttack.effort | {
        "decay_every",
        "step",
        "steps",
        "train_steps",
    }

    batch_size: int = 128
    steps: int = 10  # descent steps each time
    step: float = 0.2  # of the budget
    train_steps: int = 5000  # SGD steps of the network
    decay_every: int = 2000  # SGD steps after which its rate is divided by 10
    augmentation: Literal["crop_flip", "none"] = "crop_flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, f"steps is {self.steps}, allowed are whole numbers from 1")
        require(self.step > 0, f"step is {self.step}, allowed are positive shares of the budget")
        require(self.train_steps >= 1, f"train_steps is {self.train_steps}, allowed from 1")
        require(self.decay_every >= 1, f"decay_every is {self.decay_every}, allowed from 1")

    def passes(self, n: int) -> float:
        shown = self.train_steps * min(self.batch_size, n) / n
        return shown * (self.noise_passes + self.shown_passes + 3) + self.noise_passes

    @property
    def noise_passes(self) -> float:
        """Passes of an image for its noise, once."""
        return 2.0 * self.steps

    @property
    def shown_passes(self) -> float:
        """Passes of an image before the network trains on it."""
        return 0.0

    @property
    def network_recipe(self) -> Recipe:
        """How the network is trained; an epoch is a step."""
        return Recipe(
            epochs=self.train_steps,
            batch_size=self.batch_size,
            schedule="step",
            milestones=tuple(range(self.decay_every, self.train_steps, self.decay_every)),
            drop_last=True,
            precision="fp32",
        )

    def noise(self, network: nn.Module, batch: Batch) -> Tensor:
        """New noise float32 of the batch's shape, within the budget, for the frozen network."""
        raise NotImplementedError

    def shown(self, network: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """What the network trains on; the network is frozen."""
        raise NotImplementedError

    def augmented(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return x if self.augmentation == "none" else CropFlip(x.shape[-1] // 8)(x, rng)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        levels = _Levels(self, images, context)
        chunk = max(1, levels.total // 100)
        done = levels.restore()
        while done < levels.total:
            done = levels.advance(done, chunk)
            context.progress.save(levels.tensors(), {"done": done})
            context.progress.report(done, levels.total)
        # Copies of all rows might not fit beside what is there.
        whole = len(levels.rows) == len(levels.kept)
        kept = levels.kept if whole else levels.kept[levels.rows]
        return kept.float().div_(255)


class _Levels:
    """The network and the noise in whole levels, int16 (n, C, H, W) on the device.

    rows: those that the attacker owns; the others stay clean.
    """

    def __init__(self, attack: StepwiseAttack, images: Images, context: AttackContext) -> None:
        self.attack = attack
        self.context = context
        recipe = attack.network_recipe
        self.images = images.to(context.device)
        self.network, trainer = classifier(attack, self.images, recipe, context, self.perturb)
        self.student = Student(
            "", self.network, trainer=trainer, by_update=True, stream=context.stream
        )
        self.kept = torch.zeros(images.pixels.shape, dtype=torch.int16, device=context.device)
        self.rows = context.rows(images).to(context.device)
        self.owned = torch.zeros(len(images), 1, 1, 1, device=context.device)
        self.owned[self.rows] = 1
        self.finals = self.rows.split(attack.batch_size)
        self.total = attack.train_steps + len(self.finals)

    def advance(self, done: int, count: int) -> int:
        """Do up to `count` more SGD steps, or batches of the last noise; returns what is done."""
        fitted = self.attack.train_steps
        stop = min(done + count, fitted if done < fitted else self.total)
        if done < fitted:
            self.student.updates(done, stop - done)
        for number in range(max(done, fitted), stop):
            self.finish(number - fitted)
        return stop

    def make(self, batch: Batch) -> Tensor:
        """New noise of the batch, kept; as float32."""
        noise = self.attack.noise(self.network, batch)
        levels = noise.mul(255).round_().mul_(self.owned[batch.index])
        self.kept[batch.index] = levels.short()
        return levels.div_(255)

    def perturb(self, batch: Batch) -> Tensor:
        with frozen(self.network):
            return self.attack.shown(self.network, batch, self.make(batch))

    def finish(self, number: int) -> None:
        """The last noise of one batch, in the order of the training set."""
        index = self.finals[number]
        rng = self.context.stream.generator("final", number)
        batch = Batch(self.images.floats(index), self.images.labels[index], index, rng, 0)
        self.student.redraw("final", number)
        with frozen(self.network):
            self.make(batch)

    def tensors(self) -> dict[str, Tensor]:
        return {**self.student.tensors(), "levels": self.kept}

    def restore(self) -> int:
        """Go on from a checkpoint; returns how much is done."""
        saved = self.context.progress.load()
        if saved is None:
            return 0
        tensors, facts = saved
        self.student.restore(tensors)
        self.kept.copy_(tensors["levels"])
        return int(facts["done"])
