"""Questions put to a trained model: how many of n images get the wanted label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygrid.data import Images, Poison
from raygrid.training import autocast

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Score:
    """k of n images got the wanted label; loss is the mean cross-entropy with it."""

    k: int
    n: int
    loss: float

    @property
    def acc(self) -> float:
        return self.k / self.n

    def row(self) -> dict[str, float]:
        return {"k": self.k, "n": self.n, "acc": self.acc, "loss": self.loss}


@dataclass(frozen=True)
class Probe:
    """A question: images whose labels are the wanted ones."""

    name: str
    images: Images


@torch.no_grad()
def score(model: nn.Module, images: Images, view: View, precision: str = "fp32") -> Score:
    """Ask a classifier in eval mode; its training mode is restored.

    images: on the model's device, non-empty. view: the defense's change at test time.
    """
    training = model.training
    model.eval()
    hits = torch.zeros((), dtype=torch.int64, device=images.pixels.device)
    loss = torch.zeros((), dtype=torch.float32, device=images.pixels.device)
    for start in range(0, len(images), 1000):
        rows = slice(start, start + 1000)
        labels = images.labels[rows]
        with autocast(precision, images.pixels.device):
            logits = model(view(images.floats(rows)))
        loss += nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
        hits += (logits.argmax(1) == labels).sum()
    model.train(training)
    return Score(int(hits), len(images), float(loss) / len(images))


def probes_for(
    clean: Images, test: Images, val: Images | None, poison: Poison, mask: Tensor
) -> list[Probe]:
    """The questions that follow from the data alone.

    `clean_test` always (the "unseen" images of partial poisoning); `val` with a validation part.
    Where part of the training set is poisoned: `unlearnable` (poisoned images), `original` (their
    clean versions), `clean_train` (the rest). mask: bool (N,) poisoned rows.
    """
    probes = [Probe("clean_test", test)]
    if val is not None:
        probes.append(Probe("val", val))
    partly = 0 < int(mask.sum()) < len(clean)
    if not partly:
        return probes
    if not poison.withheld:
        where = torch.full((len(clean),), -1)
        where[poison.indices] = torch.arange(len(poison.indices))
        rows = where[mask.nonzero().squeeze(1)]
        poisoned = Images(poison.pixels[rows], poison.labels[rows], clean.classes)
        probes.append(Probe("unlearnable", poisoned))
    probes.append(Probe("original", clean.rows(mask)))
    probes.append(Probe("clean_train", clean.rows(~mask)))
    return probes


def detection(before: Images, after: Images, mask: Tensor) -> dict[str, float]:
    """How well the images that a purifier changed are those that were poisoned.

    Counts (`tp`, `fp`, `fn`, `tn`; positive means poisoned) and the rates that they define:
    `acc`, `recall`, `precision`, `f1`, `fpr`. A rate of nothing is left out.
    """
    flagged = (before.pixels != after.pixels).flatten(1).any(1).cpu()
    tp, fp = int((flagged & mask).sum()), int((flagged & ~mask).sum())
    fn, tn = int((~flagged & mask).sum()), int((~flagged & ~mask).sum())
    shares = {
        "acc": (tp + tn, len(mask)),
        "recall": (tp, tp + fn),
        "precision": (tp, tp + fp),
        "f1": (2 * tp, 2 * tp + fp + fn),
        "fpr": (fp, fp + tn),
    }
    rates = {name: part / whole for name, (part, whole) in shares.items() if whole}
    return {"tp": tp, "fp": fp, "fn": fn, "tn": tn, **rates}


def ask(
    model: nn.Module, probes: list[Probe], view: View, precision: str = "fp32"
) -> dict[str, Score]:
    """All scores by probe name."""
    return {p.name: score(model, p.images, view, precision) for p in probes}
