"""Generations of which one needs the result of another, behind one progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raygrid.attacks.base import AttackContext, Progress

if TYPE_CHECKING:
    from torch import Tensor


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
        return saved if saved is not None and "noise" in saved[0] else None
