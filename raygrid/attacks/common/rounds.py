"""Attacks that alternate, round by round, between a network and the noise it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.joint import Joint, JointAttack
from raygrid.core.images import Images
from raygrid.core.lazy import no_grad, torch
from raygrid.core.registry import require
from raygrid.nn.pgd import Descent, cross_entropy, frozen
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import Batch

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 10
"""Rounds after which the error is usually low enough."""
RECIPE = Recipe(epochs=1, schedule="constant", grad_clip=5.0, precision="fp32")
"""Of the network, SGD; batches are the attack's, and their order the noise's."""


@dataclass(frozen=True, kw_only=True)
class RoundsAttack(JointAttack):
    """SGD steps on images + noise, then noise for the frozen network, until it errs rarely."""

    version: ClassVar[int] = 2

    steps: int | None = None  # descent steps of a round; 20
    step: float = 0.1  # of the budget
    model_steps: int = 10  # SGD steps of a round
    stop_error: float | None = None  # error rate that ends the rounds; 0.01
    max_rounds: int | None = None  # 100

    def __post_init__(self) -> None:
        super().__post_init__()
        steps, error, rounds = self.plan
        require(steps >= 1, f"steps is {steps}, allowed are whole numbers from 1")
        require(self.step > 0, f"step is {self.step}, allowed are positive shares of the budget")
        require(self.model_steps >= 1, f"model_steps is {self.model_steps}, allowed from 1")
        require(0 <= error <= 1, f"stop_error is {error}, allowed are 0 to 1")
        require(rounds >= 1, f"max_rounds is {rounds}, allowed are whole numbers from 1")

    @property
    def usual(self) -> tuple[int, float, int]:
        """What `steps`, `stop_error` and `max_rounds` are if they are not set."""
        return 20, 0.01, 100

    @property
    def plan(self) -> tuple[int, float, int]:
        """Descent steps, stop error and most rounds."""
        steps, error, rounds = self.usual
        return (
            steps if self.steps is None else self.steps,
            error if self.stop_error is None else self.stop_error,
            rounds if self.max_rounds is None else self.max_rounds,
        )

    def passes(self, n: int) -> float:
        """With as many rounds as are usually needed, about ten."""
        learned = 3.0 * self.model_steps * min(self.batch_size, n) / n
        return min(ROUNDS, self.plan[2]) * (self.round_passes + learned)

    @property
    def round_passes(self) -> float:
        """Passes of an image while noise is made in one round, and for its error."""
        return 2.0 * self.plan[0] + 1

    def maker(self, images: Images, context: AttackContext) -> RoundsNoise:
        """The noise before the first round, with its network."""
        return RoundsNoise(self, images, context, len(images))

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        maker = self.maker(images, context)
        _, stop_error, max_rounds = self.plan
        done, error = maker.restore(context.progress.load())
        while done < max_rounds and error > stop_error:
            maker.joint.learn(done * self.model_steps, self.model_steps)
            maker.joint.redraw("round", done)
            with frozen(maker.joint.network):
                error = maker.round(done)
            done += 1
            context.progress.save(maker.tensors(), {"rounds": done, "error": error})
            context.progress.report(done, max_rounds, error=error)
        context.facts.update(rounds=done, error=error, converged=error <= stop_error)
        return maker.delta()[context.rows(images).to(context.device)]


class RoundsNoise:
    """Noise float32 (count, C, H, W) on the device; this one has a row for every image.

    rows: those that the attacker owns; the others stay clean and are learned all the same. The
    network trains on the same batches in every pass, without augmentation and without clipping to
    the pixel range, as the official EM code does.
    """

    shuffled = False

    def __init__(
        self, attack: RoundsAttack, images: Images, context: AttackContext, count: int
    ) -> None:
        self.attack = attack
        self.stream = context.stream
        recipe = RECIPE.with_(
            batch_size=attack.batch_size, shuffle=self.shuffled, drop_last=self.shuffled
        )
        self.joint = Joint(attack, images, recipe, context, self.noisy)
        self.images = self.joint.images
        self.noise = torch.zeros((count, *images.shape), device=context.device)
        self.rows = context.rows(images).to(context.device)
        self.owned = torch.zeros(len(images), 1, 1, 1, device=context.device)
        self.owned[self.rows] = 1
        self.descent = Descent(attack.radius, attack.step * attack.radius, attack.plan[0])

    def of(self, index: Tensor) -> Tensor:
        """The noise of these rows of the training set."""
        return self.noise[index]

    def delta(self) -> Tensor:
        """The noise of all rows."""
        return self.noise

    def noisy(self, batch: Batch) -> Tensor:
        return batch.x + self.of(batch.index)

    def round(self, number: int) -> float:
        """Make new noise for the frozen network; returns its error rate with that noise."""
        for index in self.rows.split(self.attack.batch_size):
            self.noise[index] = self.descend(index)
        return self.error(self.rows)

    def descend(self, index: Tensor) -> Tensor:
        """New noise of these rows, from what they have."""
        x, labels = self.images.floats(index), self.images.labels[index]
        start = (x + self.of(index)).clamp_(0, 1)
        return self.descent(x, start, cross_entropy(self.joint.network, labels))[0]

    @no_grad
    def error(self, rows: Tensor) -> float:
        """Share of these rows that the frozen network gets wrong with their noise."""
        wrong = torch.zeros((), dtype=torch.int64, device=rows.device)
        for index in rows.split(self.attack.batch_size):
            logits = self.joint.network(self.images.floats(index) + self.of(index))
            wrong += (logits.argmax(1) != self.images.labels[index]).sum()
        return int(wrong) / len(rows)

    def kept(self) -> dict[str, Tensor]:
        """What lasts from round to round besides the network."""
        return {"noise": self.noise}

    def tensors(self) -> dict[str, Tensor]:
        """All that the next round needs, for a checkpoint."""
        return {**self.joint.tensors(), **self.kept()}

    def restore(
        self, saved: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None
    ) -> tuple[int, float]:
        """Go on from a checkpoint; returns the finished rounds and the error after them."""
        if saved is None:
            return 0, 1.0
        tensors, facts = saved
        self.joint.restore(tensors)
        for name, mine in self.kept().items():
            mine.copy_(tensors[name])
        return int(facts["rounds"]), float(facts["error"])
