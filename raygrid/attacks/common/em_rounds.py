"""Attacks that alternate, round by round, between a network and the noise it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.noise import NoisyBatch, SampleNoise
from raygrid.attacks.common.rounds import Rounds, in_turn
from raygrid.attacks.common.students import JointAttack, Student, classifier
from raygrid.core.images import Images
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.core.registry import require
from raygrid.nn.pgd import Descent
from raygrid.nn.recipes import Recipe, precision_of
from raygrid.nn.steps import Batch, autocast

if TYPE_CHECKING:
    from torch import Tensor

USUAL_ROUNDS = 10
"""Rounds after which the error is usually low enough."""
EM_RECIPE = Recipe(epochs=1, schedule="constant", grad_clip=5.0)
"""Of the network, SGD; batches are the attack's, and their order the noise's."""


@dataclass(frozen=True, kw_only=True)
class RoundsAttack(JointAttack):
    """SGD steps on images + noise, then noise for the frozen network, until it errs rarely."""

    version: ClassVar[int] = 3  # from here on convolutional networks compute in bf16
    holds: ClassVar[float] = 5.0
    fan_out: ClassVar[bool] = False  # how convolutions are drawn: see `students.fresh`
    effort: ClassVar[frozenset[str]] = JointAttack.effort | {
        "max_rounds",
        "model_steps",
        "step",
        "steps",
        "stop_error",
    }

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
    def shuffled(self) -> bool:
        """Whether each pass of network and noise has an order of its own, and full batches alone.

        Otherwise the batches are the same in every pass.
        """
        return False

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
        """The passes of as many rounds as are usually needed, about ten."""
        learned = 3.0 * self.model_steps * min(self.batch_size, n) / n
        return min(USUAL_ROUNDS, self.plan[2]) * (self.round_passes + learned)

    @property
    def round_passes(self) -> float:
        """Passes of an image while noise is made in one round, and for its error."""
        return 2.0 * self.plan[0] + 1

    def start(self, images: Images, context: AttackContext) -> SampleNoise:
        """The noise before the first round."""
        rows = context.rows(images).to(context.device)
        values = torch.zeros((len(images), *images.shape), device=context.device)
        return SampleNoise(images, values, rows, boxed=False)

    def passed(self, noise: SampleNoise, context: AttackContext) -> Callable[[int], Tensor]:
        """The rows on the device that a round passes over, in order, by its number."""
        return lambda number: noise.rows

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        noise = self.start(images.to(context.device), context)
        _, stop_error, max_rounds = self.plan
        passed = self.passed(noise, context)
        rounds = Rounds(
            noise,
            [self.student(noise, context)],
            max_rounds,
            context,
            in_turn(passed, self.batch_size, self.shuffled, context),
            partial(self.error, noise, passed),
            stop_error,
        )
        delta = rounds.run()
        error = rounds.error
        context.facts.update(rounds=rounds.done, error=error, converged=error <= stop_error)
        # A copy of the noise of all rows might not fit beside it.
        return delta if len(noise.rows) == len(delta) else delta[noise.rows]

    def student(self, noise: SampleNoise, context: AttackContext) -> Student:
        """The network; it trains without augmentation and without clipping to the pixel range.

        The official EM code does so.
        """
        # Three times as fast as float32 where the processor multiplies bf16, and noise follows
        # signs of gradients alone.
        precision = precision_of(EM_RECIPE, ARCHITECTURES.make(self.surrogate).convolutional)
        recipe = EM_RECIPE.with_(
            batch_size=self.batch_size,
            shuffle=self.shuffled,
            drop_last=self.shuffled,
            precision=precision,
        )

        def noisy(batch: Batch) -> Tensor:
            return batch.x + noise.of(batch.index)

        network, trainer = classifier(self, noise.images, recipe, context, noisy, self.fan_out)

        def loss(shown: NoisyBatch) -> Tensor:
            with autocast(precision, shown.z.device):
                logits = network(shown.z)
            return nn.functional.cross_entropy(logits.float(), shown.y, reduction="sum")

        descent = Descent(self.radius, self.step * self.radius, self.plan[0])
        student = Student("", network, loss, descent, trainer, self.model_steps, by_update=True)
        student.stream = context.stream
        return student

    @no_grad
    def error(
        self, noise: SampleNoise, passed: Callable[[int], Tensor], student: Student, number: int
    ) -> float:
        """Share of a round's rows that the frozen network gets wrong with their noise."""
        rows, images = passed(number), noise.images
        wrong = torch.zeros((), dtype=torch.int64, device=rows.device)
        for index in rows.split(self.batch_size):
            with autocast(student.precision, rows.device):
                logits = student.module(images.floats(index) + noise.of(index))
            wrong += (logits.argmax(1) != images.labels[index]).sum()
        return int(wrong) / len(rows)
