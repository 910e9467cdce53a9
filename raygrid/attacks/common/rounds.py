"""The one engine of noise made in rounds: networks learn on the noisy images, then it descends.

A round is, for each student in turn: steps of its training on images + noise, then descent of its
objective in the noise with all of it held still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.noise import SampleNoise
from raygrid.attacks.common.students import Student
from raygrid.core.errors import DivergedError
from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream
from raygrid.nn.pgd import frozen
from raygrid.storage.checkpoints import Progress

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Visit:
    """A batch that the noise descends on.

    rows: int64 of the training set; the first `keep` of them take the result; rng: its draws.
    """

    rows: Tensor
    keep: int
    rng: torch.Generator


Order: TypeAlias = "Callable[[Student, int], Iterator[Visit]]"
"""(student, number of the round) -> the batches of the noise's pass."""


@dataclass
class Rounds:
    """Up to `count` rounds of the students' training and the noise's descent.

    order: see `Order`. judge: asked after the noise of a round, with the network still frozen,
    whose error rate ends the rounds once it is at most `stop_error`; None: all rounds are done.
    seldom: rounds from one checkpoint to the next.
    """

    noise: SampleNoise
    students: Sequence[Student]
    count: int
    context: AttackContext
    order: Order
    judge: Callable[[Student, int], float] | None = None
    stop_error: float = 0.0
    seldom: int = 1
    done: int = 0
    error: float = 1.0

    def run(self) -> Tensor:
        """All rounds; returns the noise of every image, float32 (N, C, H, W) on the device.

        Goes on from the checkpoint in `context.progress`. Raises DivergedError.
        """
        self.restore()
        while self.done < self.count and not (self.judge and self.error <= self.stop_error):
            measures = self.round(self.done)
            self.done += 1
            self.context.progress.report(self.done, self.count, **measures)
            if self.done % self.seldom == 0:
                self.save()
        return self.noise.delta()

    def round(self, number: int) -> dict[str, float]:
        """One round; returns the students' losses, or the error where it is judged."""
        measures = {}
        for student in self.students:
            measures[f"{student.name}_loss"] = student.learn(number)
            student.redraw("round", number)
            with frozen(student.module):
                self.descend(student, number)
                if self.judge is not None:
                    self.error = self.judge(student, number)
        return measures if self.judge is None else {"error": self.error}

    def descend(self, student: Student, number: int) -> None:
        """The noise's pass of one round against a student that is held still."""
        for visit in self.order(student, number):
            try:
                self.noise.descend(visit.rows, visit.keep, *student.aim, visit.rng)
            except DivergedError as error:
                raise error.at(number + 1) from None

    def save(self) -> None:
        tensors = {k: t for student in self.students for k, t in student.tensors().items()}
        facts = {"rounds": self.done} | ({} if self.judge is None else {"error": self.error})
        self.context.progress.save({**tensors, **self.noise.tensors()}, facts)

    def restore(self) -> None:
        saved = self.context.progress.load()
        if saved is None:
            return
        tensors, facts = saved
        self.noise.restore(tensors)
        for student in self.students:
            student.restore(tensors)
        self.done, self.error = int(facts["rounds"]), float(facts.get("error", 1.0))


def alternating(
    noise: SampleNoise,
    students: Sequence[Student],
    count: int,
    batch_size: int,
    context: AttackContext,
) -> Rounds:
    """`count` rounds over shuffled batches, of which about twenty are kept as checkpoints."""
    order = shuffled_order(len(noise.images), batch_size, context)
    return Rounds(noise, students, count, context, order, seldom=max(1, count // 20))


def alternate(
    noise: SampleNoise,
    students: Sequence[Student],
    count: int,
    batch_size: int,
    context: AttackContext,
) -> Tensor:
    """All of these rounds; the noise of every image, float32 (N, C, H, W) on the CPU."""
    return alternating(noise, students, count, batch_size, context).run().cpu()


def shuffled_order(n: int, size: int, context: AttackContext) -> Order:
    """A pass over all of `n` rows in an order of its own, or over `noise_batches` batches of it."""

    def order(student: Student, number: int) -> Iterator[Visit]:
        stream = context.stream.child("noise", student.name, number)
        for part, (index, keep) in enumerate(batches(n, size, stream)):
            if part == student.noise_batches:
                break
            rng = stream.generator("draws", part)
            yield Visit(index.to(context.device), keep, rng)

    return order


def in_turn(
    passed: Callable[[int], Tensor], size: int, whole: bool, context: AttackContext
) -> Order:
    """Batches of the rows of a round as they come, by its number; whole: full batches alone."""

    def order(student: Student, number: int) -> Iterator[Visit]:
        rows = passed(number)
        each = min(size, len(rows)) if whole else size
        rng = context.stream.generator("draws", number)
        for index in rows.split(each):
            if not whole or len(index) == each:
                yield Visit(index, len(index), rng)

    return order


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


class Stages:
    """Several generations one after the other behind one progress; finished ones are kept."""

    def __init__(self, context: AttackContext, count: int) -> None:
        self.context = context
        self.outer: Progress = context.progress
        self.count = count
        self.saved = self.outer.load()
        tensors, facts = self.saved or ({}, {})
        self.number = int(facts.get("stage", 0))
        self.finished = [tensors[f"stage{i}"] for i in range(self.number)]
        self.next = 0

    def run(self, make: Callable[[AttackContext], Tensor]) -> Tensor:
        """The result of the next stage: made now, or kept from before a checkpoint."""
        mine, self.next = self.next, self.next + 1
        if mine == self.number:
            context = replace(self.context, progress=self, stream=self.context.stream.child(mine))
            result = make(context)
            self.finished.append(result)
            self.number += 1
            self.save({}, {})
        return self.finished[mine]

    def report(self, done: int, total: int, **facts: float) -> None:
        self.outer.report(self.number * total + done, self.count * total, **facts)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        kept = {f"stage{i}": result for i, result in enumerate(self.finished)}
        self.outer.save({**tensors, **kept}, {**facts, "stage": self.number})

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        saved, self.saved = self.saved, None
        own = saved is not None and any(not name.startswith("stage") for name in saved[0])
        return saved if own else None
