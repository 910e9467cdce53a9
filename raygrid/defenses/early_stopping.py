"""Early stopping: the accuracy of the best epoch of a finished trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from raygrid.core.registry import Card, Combination
from raygrid.defenses.base import DEFENSES, Defense, Selection

_SCORES = {"peak_test": "test_acc", "clean_val": "val_acc", "poison_val": "poison_val_acc"}
_HELD_OUT = {"clean_val": "validation", "poison_val": "holdout"}


@DEFENSES.register("early_stopping")
@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Defense):
    """The epoch that scores best on held-out images, the first of equals; its test accuracy counts.

    What is held out decides everything, so tables never mix modes. `peak_test`: the test set
    itself, an optimistic bound. `clean_val`: clean images that were never poisoned nor trained on
    (protocol field `validation`). `poison_val`: a part of the poisoned set (field `holdout`).
    """

    card = Card(
        paper="Sandoval-Segura et al. 2022, section 3; Qin et al. 2024 (APBench)",
        published={
            "cifar10/em_apb/early_stopping/resnet18/supervised/apbench/0": 0.2539,
            "cifar10/lsp/early_stopping/resnet18/supervised/apbench/0": 0.2910,
            "cifar10/tap/early_stopping/resnet18/supervised/apbench/0": 0.3954,
        },
        cost="nothing: computed from the trial without it",
        notes="by their numbers both papers report `peak_test`",
    )
    version: ClassVar[int] = 2  # all that the row measures is of the selected epoch
    derived: ClassVar[bool] = True
    learners: ClassVar[Literal["all", "supervised"]] = "supervised"

    mode: Literal["peak_test", "clean_val", "poison_val"] = "peak_test"

    @property
    def selection(self) -> Selection:
        return "test" if self.mode == "peak_test" else self.mode

    def select(self, history: Sequence[dict[str, float]]) -> int | None:
        scores = [epoch[_SCORES[self.mode]] for epoch in history]
        return scores.index(max(scores))

    def skip(self, combination: Combination) -> str | None:
        if combination.views:
            learner = combination.learner.id
            return f"{self.id} compares epochs; those of {learner} are scored by kNN only"
        share = _HELD_OUT.get(self.mode)
        if share is None:
            return None
        named, protocol = f"{self.id}(mode={self.mode})", combination.protocol.id
        if getattr(combination.protocol, share) == 0:
            return f"{named} needs held-out images: {protocol}({share}=0.1)"
        if combination.stops_early:
            return f"{named} must not know the test set, by which patience ends the training"
        return None
