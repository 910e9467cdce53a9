"""Networks whose weights are disturbed at random, in training and while noise descends on them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from raygrid.attacks.common.noise import ClassNoise, Loss, NoisyBatch, gradient
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.nn.disturbed import disturbed
from raygrid.nn.pgd import Descent
from raygrid.nn.steps import Batch
from raygrid.nn.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor


class DisturbedClassNoise(ClassNoise):
    """Class-wise noise that descends at several levels of disturbed weights, once it is `on`.

    levels: sd of each level, in turn one signed step each. draws: of the weights, whose gradients
    are summed. on: 0 or 1, whether the weights are disturbed yet; it lasts from round to round.
    """

    def __init__(
        self, images: Images, start: Tensor, rows: Tensor, levels: tuple[float, ...], draws: int
    ) -> None:
        super().__init__(images, start, rows, rule="mean")
        self.levels = levels
        self.draws = draws
        self.network: nn.Module | None = None
        self.on = torch.zeros((), dtype=torch.int64, device=start.device)

    def moved(
        self, index: Tensor, start: Tensor, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> Tensor:
        if not self.on:
            return super().moved(index, start, loss, descent, rng)
        x, labels, network = self.images.floats(index), self.images.labels[index], self.network
        assert network is not None

        def slope(z: Tensor, step: int) -> tuple[Tensor, Tensor]:
            level = self.levels[step % len(self.levels)]
            total, losses = torch.zeros_like(z), z.new_zeros(())
            for _ in range(self.draws if level else 1):
                with disturbed(network, level, rng):
                    value, part = gradient(loss, NoisyBatch(z, x, labels, rng))
                losses += value
                total += part
            return losses, total

        steps = replace(descent, steps=descent.steps * len(self.levels))
        return steps.follow(x, start, slope)[0]

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), "on": self.on}


class DisturbedTrainer(Trainer):
    """A trainer that, once the noise is `on`, takes a step a level, on disturbed weights.

    noise: whose levels count. weight_draws: whose losses are averaged in a step; the gradient's
    norm is cut off after each of them.
    """

    noise: DisturbedClassNoise
    weight_draws: int

    @classmethod
    def of(cls, usual: Trainer, noise: DisturbedClassNoise, weight_draws: int) -> DisturbedTrainer:
        """The same training, disturbed."""
        made = cls(usual.module, usual.step, usual.train, usual.recipe, usual.stream)
        made.noise, made.weight_draws = noise, weight_draws
        return made

    def update(self, batch: Batch) -> Tensor:
        if not self.noise.on:
            return super().update(batch)
        x, total = batch.x, torch.zeros(3, device=self.device)
        for level in self.noise.levels:
            self.optimizer.zero_grad(set_to_none=True)
            for _ in range(self.weight_draws):
                batch.x = x  # a step function may put noise on it
                total += self._accumulate(batch, level)
            self.optimizer.step()
        return total / (len(self.noise.levels) * self.weight_draws)

    def _accumulate(self, batch: Batch, level: float) -> Tensor:
        """Add the gradient of one draw; returns loss * count, hits and count."""
        share = 1 / (len(self.noise.levels) * self.weight_draws)
        with disturbed(self.module, level, batch.rng):
            out = self.step(batch)
            (out.loss * share).backward()
        self.clip()
        return self.sums(out)
