"""A surrogate that an attack trains itself while it makes its noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import AttackContext, ScopedAttack
from raygrid.attacks.common.adaptive import TRANSFORMS
from raygrid.attacks.common.gradient import GradientAttack
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.seeds import forked
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import Batch, Step, Trainer, classify_step, untrained

if TYPE_CHECKING:
    from torch import Tensor

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
        """With a number that is raised when UEraser's augmentation changes."""
        more = {"ueraser": 2} if self.against == "ueraser" else {}
        return {**super().resolved(), **more}


class Joint:
    """A network from scratch and its optimizer; updates are counted over epochs without a break.

    images: the clean training set, on the device from here on. recipe: its epochs and milestones
    count updates here. perturb: see `Perturb`.
    """

    def __init__(
        self,
        attack: JointAttack,
        images: Images,
        recipe: Recipe,
        context: AttackContext,
        perturb: Perturb,
    ) -> None:
        from raygrid.attacks.common.seen import Seen

        kind = ARCHITECTURES.make(attack.surrogate)
        seed = context.stream.seed("init")
        self.network: nn.Module = untrained(kind, images, seed, context.device)
        if attack.against != "none":
            self.network = Seen(self.network, TRANSFORMS[attack.against])
        self.stream = context.stream
        self.images = images.to(context.device)

        def step(batch: Batch) -> Step:
            batch.x = perturb(batch)
            return classify_step(self.network, batch, recipe.precision)

        self.trainer = Trainer(self.network, step, self.images, recipe, context.stream.child("fit"))

    def learn(self, first: int, count: int) -> None:
        """`count` updates, the first of which is number `first` of the whole training.

        Raises DivergedError.
        """
        batches = self.trainer.endless(first)
        self.network.train()
        totals, epoch = torch.zeros(3, device=self.trainer.device), 0
        with forked(self.trainer.stream.seed("dropout", first), self.images.pixels.device):
            for number in range(first, first + count):
                self.trainer.set_rate(number)
                self.redraw("update", number)
                batch = next(batches)
                totals += self.trainer.update(batch)
                epoch = batch.epoch
        self.trainer.checked(totals, epoch)

    def redraw(self, *key: Any) -> None:
        """Fresh draws for the network's transform, the same ones for the same key."""
        from raygrid.attacks.common.seen import Seen

        if isinstance(self.network, Seen):
            self.network.rng = self.stream.generator("seen", *key)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, buffers and optimizer state under flat names, for a checkpoint."""
        return flat_state(self.network, self.trainer.optimizer)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`; other names in the mapping are left alone."""
        load_flat_state(tensors, self.network, self.trainer.optimizer)


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
