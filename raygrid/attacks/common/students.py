"""Networks that attacks train themselves while they make their noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import fan_out_init
from raygrid.attacks.base import AttackContext, ScopedAttack
from raygrid.attacks.common.adaptive import TRANSFORMS
from raygrid.attacks.common.gradient import GradientAttack
from raygrid.attacks.common.noise import Loss, NoisyBatch, SampleNoise
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import require
from raygrid.core.seeds import Stream, forked
from raygrid.nn.augment import Views
from raygrid.nn.networks import untrained
from raygrid.nn.optimizers import restore_layout
from raygrid.nn.pgd import Descent
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step, classify_step
from raygrid.nn.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network
    from raygrid.nn.contrastive.base import Framework

Perturb: TypeAlias = "Callable[[Batch], Tensor]"
"""A batch of clean images -> the images that the surrogate trains on."""


@dataclass(frozen=True, kw_only=True)
class JointAttack(GradientAttack, ScopedAttack):
    """Base of attacks that train their network themselves.

    With `against` the network sees everything through that transform, drawn anew each time, in
    training and where the noise is made: noise for a victim that is known to defend itself so.
    """

    against: Literal["none", "grayscale", "jpeg", "ueraser"] = "none"

    def resolved(self) -> dict[str, Any]:
        """The fields, and a number that is raised when UEraser's augmentation changes."""
        more = {"ueraser": 2} if self.against == "ueraser" else {}
        return {**super().resolved(), **more}


@dataclass
class Student:
    """A network that learns on the noisy images, and how the noise descends on it.

    name: before its tensors in a checkpoint; empty for the only one. objective, descent: what the
    noise lowers and how; None where the attack makes noise in another way. trainer: None for a
    network that was trained beforehand. model_batches, noise_batches: of one round; None: an epoch.
    by_update: rates and draws go by the number of the update in the whole training, not by the
    round. stream: of the draws of a transform that the network sees through. round: the one under
    way, counted from 0.
    """

    name: str
    module: nn.Module
    objective: Loss | None = None
    descent: Descent | None = None
    trainer: Trainer | None = None
    model_batches: int | None = None
    noise_batches: int | None = None
    by_update: bool = False
    stream: Stream | None = None
    round: int = 0

    @property
    def precision(self) -> str:
        """The precision in which its training computes."""
        return "fp32" if self.trainer is None else self.trainer.recipe.precision

    @property
    def aim(self) -> tuple[Loss, Descent]:
        """What the noise lowers, and how."""
        assert self.objective is not None, f"noise does not descend on {self.name}"
        assert self.descent is not None, f"noise does not descend on {self.name}"
        return self.objective, self.descent

    def learn(self, round_: int) -> float:
        """The training of one round; returns the mean loss. Raises DivergedError."""
        self.round = round_
        if self.trainer is None:
            return 0.0
        if self.model_batches is None:
            return self.trainer.epoch(round_)["train_loss"]
        return self.updates(*self.batches_of(round_, self.model_batches))

    def batches_of(self, round_: int, size: int) -> tuple[int, int]:
        """First batch of a round, counted over the whole training, and how many it has."""
        return round_ * size, size

    def updates(self, first: int, count: int) -> float:
        """`count` updates from number `first` of the whole training on; the mean loss, 0 of none.

        Epochs follow each other without a break. Raises DivergedError.
        """
        trainer, epoch = self.trainer, self.round
        assert trainer is not None
        self.module.train()
        batches = trainer.endless(first)
        totals = torch.zeros(3, device=trainer.device)
        key = first if self.by_update else self.round
        with forked(trainer.stream.seed("dropout", key), trainer.device):
            for number in range(first, first + count):
                trainer.set_rate(number if self.by_update else self.round)
                self.redraw("update", number)
                batch = next(batches)
                totals += trainer.update(batch)
                epoch = batch.epoch if self.by_update else self.round
        loss, _, seen = trainer.checked(totals, epoch)
        return loss / seen if count else 0.0

    def redraw(self, *key: Any) -> None:
        """Fresh draws for the network's transform, the same ones for the same key."""
        if self.stream is None:
            return
        from raygrid.attacks.common.seen import Seen

        if isinstance(self.module, Seen):
            self.module.rng = self.stream.generator("seen", *key)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, buffers and optimizer state, for a checkpoint."""
        if self.trainer is None:
            return {}
        start = f"{self.name}." if self.name else ""
        flat = flat_state(self.module, self.trainer.optimizer)
        return {f"{start}{key}": value for key, value in flat.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`; other names in the mapping are left alone."""
        if self.trainer is not None:
            mine = under(self.name, tensors) if self.name else tensors
            load_flat_state(mine, self.module, self.trainer.optimizer)
            restore_layout(self.trainer.optimizer)


def fresh(
    architecture: str,
    images: Images,
    context: AttackContext,
    *key: Any,
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    fan_out: bool = False,
) -> Network:
    """An untrained network on the device; the weights belong to `key`.

    moments: mean and sd of each channel, by which it normalizes its input. fan_out: whether
    convolutions are drawn by fan-out (`fan_out_init`), torchvision's rule, as in the codes of AUE,
    CP, TUE, TP and APBench's EM.
    """
    kind = ARCHITECTURES.make(architecture)
    seed = context.stream.seed("init", *key)
    network = untrained(kind, images, seed, context.device, moments)
    if fan_out:
        fan_out_init(network, context.stream.seed("fan_out", *key))
    return network


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


def classifier(
    attack: JointAttack,
    images: Images,
    recipe: Recipe,
    context: AttackContext,
    perturb: Perturb,
    fan_out: bool = False,
) -> tuple[nn.Module, Trainer]:
    """A classifier from scratch, behind the transform of `against`, and its trainer.

    images: the clean training set on the device. recipe: its epochs and milestones count updates.
    fan_out: see `fresh`.
    """
    network: nn.Module = fresh(attack.surrogate, images, context, fan_out=fan_out)
    if attack.against != "none":
        from raygrid.attacks.common.seen import Seen

        network = Seen(network, TRANSFORMS[attack.against])

    def step(batch: Batch) -> Step:
        batch.x = perturb(batch)
        return classify_step(network, batch, recipe.precision)

    return network, Trainer(network, step, images, recipe, context.stream.child("fit"))


def flat_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers and optimizer state as tensors under flat names."""
    flat = {f"module.{k}": v for k, v in module.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                flat[f"optimizer.{number}.{name}"] = value
    return flat


def load_flat_state(
    tensors: Mapping[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """The inverse of `flat_state`, in place; other names in the mapping are left alone."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    module.load_state_dict(under("module", tensors))


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v.clone() for k, v in tensors.items() if k.startswith(start)}
