"""Noise made in turns with networks: they learn on the noisy images, it descends on them frozen.

What contrastive and transferable attacks share. A round is, for each student in turn: steps of
its training on images + noise, then descent of its loss in the noise with all of it held still.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.joint import flat_state, load_flat_state, under
from raygrid.attacks.common.noise import Loss, NoisyBatch, SampleNoise
from raygrid.attacks.common.surrogates import moments
from raygrid.core.errors import DivergedError
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import require
from raygrid.core.seeds import Stream, forked
from raygrid.nn.augment import Views
from raygrid.nn.optimizers import restore_layout
from raygrid.nn.pgd import Descent, frozen
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import Batch, Step, Trainer, untrained

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network
    from raygrid.nn.contrastive.base import Framework


@dataclass
class Student:
    """A network that learns on the noisy images, and how the noise descends on it.

    loss: what its training lowers; objective: what the noise lowers. trainer: None for a network
    that was trained beforehand. model_batches, noise_batches: of one round; None: an epoch.
    round: the one under way, counted from 0.
    """

    name: str
    module: nn.Module
    objective: Loss
    descent: Descent
    trainer: Trainer | None = None
    model_batches: int | None = None
    noise_batches: int | None = None
    round: int = 0

    def learn(self, round_: int) -> float:
        """The training of one round; returns the mean loss. Raises DivergedError."""
        self.round = round_
        if self.trainer is None:
            return 0.0
        if self.model_batches is None:
            return self.trainer.epoch(round_)["train_loss"]
        trainer, first = self.trainer, round_ * self.model_batches
        trainer.set_rate(round_)
        self.module.train()
        batches = trainer.endless(first)
        totals = torch.zeros(3, device=trainer.device)
        with forked(trainer.stream.seed("dropout", round_), trainer.device):
            for _ in range(self.model_batches):
                totals += trainer.update(next(batches))
        loss, _, seen = trainer.checked(totals, round_)
        return loss / seen

    def tensors(self) -> dict[str, Tensor]:
        """Weights, buffers and optimizer state, for a checkpoint."""
        if self.trainer is None:
            return {}
        flat = flat_state(self.module, self.trainer.optimizer)
        return {f"{self.name}.{key}": value for key, value in flat.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        if self.trainer is not None:
            load_flat_state(under(self.name, tensors), self.module, self.trainer.optimizer)
            restore_layout(self.trainer.optimizer)


def fresh(
    architecture: str, images: Images, context: AttackContext, *key: Any, normalize: bool = False
) -> Network:
    """An untrained network on the device; the weights belong to `key`.

    normalize: by the moments of the training pixels, inside the network.
    """
    kind = ARCHITECTURES.make(architecture)
    seed = context.stream.seed("init", *key)
    by = moments(images.pixels) if normalize else None
    return untrained(kind, images, seed, context.device, by)


def contrastive_loss(
    model: Framework, views: Views, shown: NoisyBatch, move: bool = True, dual: bool = False
) -> Tensor:
    """A framework's loss on two fresh views of a noisy batch; move, dual: see `Framework`."""
    a, b = views(shown.z, shown.rng), views(shown.z, shown.rng)
    value: Tensor = model(a, b, shown.y, move=move, dual=dual)
    return value


def whole_batches(queue: int, size: int) -> None:
    """Raises SpecError for a queue of MoCo's that batches do not fill evenly: keys were lost."""
    fits = queue % size == 0
    require(fits, f"queue is {queue}, allowed are multiples of the batch size {size}")


def uniform_start(rows: int, images: Images, radius: float, context: AttackContext) -> Tensor:
    """Noise uniform in [-radius, radius], (rows, C, H, W) on the device, one draw for each row."""
    draws = context.stream.rows("start", torch.arange(rows), images.shape, "uniform")
    return draws.mul_(2).sub_(1).mul_(radius).to(context.device)


def training(
    name: str,
    module: nn.Module,
    loss: Loss,
    noise: SampleNoise,
    recipe: Recipe,
    context: AttackContext,
) -> Trainer:
    """A trainer of `module` that lowers `loss` on the noisy images."""

    def step(batch: Batch) -> Step:
        value = loss(NoisyBatch(noise.shown(batch.index), batch.x, batch.y, batch.rng))
        return Step(value, torch.zeros((), device=value.device), len(batch.y))

    return Trainer(module, step, noise.images, recipe, context.stream.child("fit", name))


def alternate(
    noise: SampleNoise,
    students: Sequence[Student],
    rounds: int,
    batch_size: int,
    context: AttackContext,
) -> Tensor:
    """All rounds; returns the noise of every image, float32 (N, C, H, W) on the CPU.

    Goes on from the checkpoint in `context.progress`; checkpoints are about twenty in all.
    """
    saved = context.progress.load()
    done = 0
    if saved is not None:
        done = int(saved[1]["rounds"])
        noise.values.copy_(saved[0]["noise"])
        for student in students:
            student.restore(saved[0])
    seldom = max(1, rounds // 20)
    for number in range(done, rounds):
        losses = {}
        for student in students:
            losses[f"{student.name}_loss"] = student.learn(number)
            with frozen(student.module):
                noise_phase(noise, student, number, batch_size, context)
        context.progress.report(number + 1, rounds, **losses)
        if (number + 1) % seldom == 0:
            tensors = {k: t for student in students for k, t in student.tensors().items()}
            context.progress.save({**tensors, "noise": noise.values}, {"rounds": number + 1})
    return noise.delta().cpu()


def noise_phase(
    noise: SampleNoise, student: Student, number: int, batch_size: int, context: AttackContext
) -> None:
    """One pass of the noise over shuffled batches, or over `noise_batches` of them.

    Raises DivergedError.
    """
    stream = context.stream.child("noise", student.name, number)
    for part, (index, keep) in enumerate(batches(len(noise.images), batch_size, stream)):
        if part == student.noise_batches:
            break
        rng = stream.generator("draws", part)
        rows = index.to(context.device)
        try:
            noise.descend(rows, keep, student.objective, student.descent, rng)
        except DivergedError as error:
            raise error.at(number + 1) from None


def batches(n: int, size: int, stream: Stream) -> Iterator[tuple[Tensor, int]]:
    """Shuffled rows, and how many of them count: each row counts once.

    Contrastive losses depend on the size of the batch, so a last batch of less than half of it is
    filled up with rows from the beginning.
    """
    order = torch.randperm(n, generator=stream.generator("order"))
    for start in range(0, n, size):
        rows = order[start : start + size]
        missing = size - len(rows) if start and 2 * len(rows) < size else 0
        yield torch.cat([rows, order[:missing]]), len(rows)
