"""Classes one by one, from kept predictions: confusion, accuracy, whether a network collapsed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from raygrid.core.lazy import torch
from raygrid.reports.analysis.records import EvaluationRow, Records

if TYPE_CHECKING:
    from torch import Tensor


def by_class(records: Records, spec: str) -> list[EvaluationRow]:
    """What a trial's network said of the test images; it needs `--keep predictions`.

    A row a class: `acc`, of its n images (None without any); `predicted`, how many images got this
    class; `confusion`, how many of its own were taken for each class. The last row is of `all`
    classes: `entropy_bits` of the predicted ones, from 0 (one class for all images: the network
    collapsed) to `most_bits`, log2 of their number. Raises DataError if nothing was kept.
    """
    trial = records.trial(spec)
    left = records.left(trial, "predictions").tensors
    counts = confusion(left["labels"], left["predicted"], left["logits"].shape[1])
    n, predicted, right = counts.sum(1).tolist(), counts.sum(0), counts.diagonal()
    rows: list[EvaluationRow] = [
        {
            "victim": str(trial.spec),
            "class": number,
            "n": n[number],
            "acc": int(right[number]) / n[number] if n[number] else None,
            "predicted": int(predicted[number]),
            "confusion": line,
        }
        for number, line in enumerate(counts.tolist())
    ]
    every = {"victim": str(trial.spec), "class": "all", "n": sum(n)}
    every |= {"acc": int(right.sum()) / sum(n), "predicted": sum(n)}
    return [*rows, {**every, "entropy_bits": entropy(predicted), "most_bits": math.log2(len(n))}]


def confusion(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How many images of each class (rows) got each class (columns), int64 (classes, classes).

    labels, predicted: whole numbers (N,) below `classes`.
    """
    places = labels.long() * classes + predicted.long()
    return torch.bincount(places, minlength=classes**2).view(classes, classes)


def entropy(counts: Tensor) -> float:
    """Entropy in bits of a histogram (n,) of counts, not all of which are 0."""
    shares = counts[counts > 0].double() / counts.sum()
    return abs(float((shares * shares.log2()).sum()))
