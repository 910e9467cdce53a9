"""Questions put to a trained model: how many of n images get the wanted label."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError
from raygrid.core.images import Images, Poison
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.learners.base import DrawView, Inputs
from raygrid.nn.steps import autocast
from raygrid.protocols.setups import Scene
from raygrid.trials.artifacts import World

if TYPE_CHECKING:
    from torch import Tensor

IMAGES_AT_ONCE = 1000
"""Images that are tested at a time."""


@dataclass(frozen=True)
class Score:
    """k of n images got the wanted label; loss is the mean cross-entropy with it.

    logodds: mean over images of log p / (1 - p) for the wanted label, where somebody asked for it.
    """

    k: int
    n: int
    loss: float
    logodds: float | None = None

    @property
    def acc(self) -> float:
        return self.k / self.n

    def row(self) -> dict[str, float]:
        row = {"k": self.k, "n": self.n, "acc": self.acc, "loss": self.loss}
        return row if self.logodds is None else {**row, "logodds": self.logodds}


@dataclass(frozen=True)
class Probe:
    """A question: images whose labels are the wanted ones. odds: whether log-odds are wanted."""

    name: str
    images: Images
    odds: bool = False


@dataclass(frozen=True)
class Probed:
    """A question as a learner's classifier is shown it."""

    name: str
    inputs: Inputs
    view: DrawView
    odds: bool = False


@no_grad
def score(
    model: nn.Module, images: Inputs, view: DrawView, precision: str = "fp32", odds: bool = False
) -> Score:
    """Ask a classifier in eval mode; its training mode is restored.

    images: on the model's device, non-empty. view: the defense's change at test time.
    """
    training = model.training
    model.eval()
    device = images.labels.device
    hits = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float32, device=device)
    ahead = torch.zeros((), dtype=torch.float32, device=device)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        rows = slice(start, start + IMAGES_AT_ONCE)
        labels = images.labels[rows]
        with autocast(precision, device):
            logits = model(view(images.floats(rows)))
        loss += nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
        hits += (logits.argmax(1) == labels).sum()
        if odds:
            ahead += log_odds(logits.float(), labels).sum()
    model.train(training)
    n = len(images)
    return Score(int(hits), n, float(loss) / n, float(ahead) / n if odds else None)


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log p / (1 - p) of each label, float32 (n,), from logits (n, classes)."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return own - others.logsumexp(1)


def probes_for(world: World, poison: Poison, mask: Tensor) -> list[Probe]:
    """The questions that follow from the data alone.

    `clean_test` always (the "unseen" images of partial poisoning); `val` with a validation part.
    Where part of the training set is poisoned: `unlearnable` (poisoned images), `original` (their
    clean versions), `clean_train` (the rest). At a set-up the questions are about its target
    instead, see `target_probes`. mask: bool (N,) poisoned rows.
    """
    clean = world.train
    probes = [Probe("clean_test", world.test)]
    if world.val is not None:
        probes.append(Probe("val", world.val))
    if world.scene is not None:
        return [*probes, *target_probes(world.scene, world.test, poison, mask)]
    partly = 0 < int(mask.sum()) < len(clean)
    if not partly:
        return probes
    if not poison.withheld:
        probes.append(Probe("unlearnable", _touched(poison, mask, clean.classes)))
    probes.append(Probe("original", clean.rows(mask)))
    probes.append(Probe("clean_train", clean.rows(~mask)))
    return probes


def target_probes(scene: Scene, test: Images, poison: Poison, mask: Tensor) -> list[Probe]:
    """Whether the target gets the label that an attacker wants, in every trial of a set-up.

    `target`: with the trigger of the poison if it has one; `target_plain`: without; `target_hflip`:
    mirrored; `target_<trigger>`: with each trigger of the set-up, so that a clean control answers
    for every backdoor. With a trigger: `class_trigger` and `all_trigger`, the test images of the
    target's class and of all classes but the wanted one. `poison_train`: the poisons themselves.
    """
    wanted = torch.tensor([scene.wanted])

    def target(name: str, pixels: Tensor) -> Probe:
        return Probe(name, Images(pixels, wanted, test.classes), odds=True)

    pasted = {f"target_{name}": t.apply(scene.target) for name, t in scene.triggers.items()}
    trigger = poison.trigger
    shown = scene.target if trigger is None else trigger.apply(scene.target)
    probes = [target("target", shown), target("target_hflip", shown.flip(-1))]
    probes += [target(name, pixels) for name, pixels in pasted.items()]
    if trigger is not None:
        probes.append(target("target_plain", scene.target))
        groups = scene.groups(test, trigger)
        probes += [Probe(name, images) for name, images in groups.items()]
    if bool(mask.any()) and not poison.withheld:
        probes.append(Probe("poison_train", _touched(poison, mask, test.classes)))
    return probes


def _touched(poison: Poison, mask: Tensor, classes: int) -> Images:
    """The poisoned images of the rows of a mask, bool (N,)."""
    where = torch.full((len(mask),), -1)
    where[poison.indices] = torch.arange(len(poison.indices))
    rows = where[mask.nonzero().squeeze(1)]
    return Images(poison.pixels[rows], poison.labels[rows], classes)


def detection(before: Images, after: Images, mask: Tensor) -> dict[str, float]:
    """How well the images that a purifier changed are those that were poisoned.

    Counts (`tp`, `fp`, `fn`, `tn`; positive means poisoned) and the rates that they define:
    `acc`, `recall`, `precision`, `f1`, `fpr`. A rate of nothing is left out; where nothing is
    poisoned there is nothing to find, and `fpr` is the only rate.
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
    known = shares if tp + fn else {"fpr": shares["fpr"]}
    rates = {name: part / whole for name, (part, whole) in known.items() if whole}
    return {"tp": tp, "fp": fp, "fn": fn, "tn": tn, **rates}


def ask(model: nn.Module, probes: list[Probed], precision: str = "fp32") -> dict[str, Score]:
    """All scores by probe name."""
    return {p.name: score(model, p.inputs, p.view, precision, p.odds) for p in probes}


def epoch_metrics(scores: Mapping[str, Score]) -> dict[str, float]:
    """Per-epoch metrics: `test_acc`, `test_loss` for the clean test set, `<probe>_acc` others."""
    flat = {}
    for name, score in scores.items():
        short = metric_prefix(name)
        flat[f"{short}_acc"], flat[f"{short}_loss"] = score.acc, score.loss
        if score.logodds is not None:
            flat[f"{short}_logodds"] = score.logodds
    return flat


def told_by(learner: str, given: Any) -> dict[str, float]:
    """What a session says of an epoch, as numbers that a row can hold.

    Raises DataError that names a measure which is no number, and `train_loss` where it is missing.
    """
    if not isinstance(given, Mapping) or "train_loss" not in given:
        said = "a dict with a number train_loss, and others by their names"
        raise DataError(f"an epoch of {learner} gives {given!r:.80}, allowed is {said}")
    return {str(name): _number(f"{name} of {learner}", value) for name, value in given.items()}


def _number(what: str, given: Any) -> float:
    """A number of Python's own, also of one of numpy's or a tensor of one value."""
    if type(given) in (bool, int, float):
        return given
    with suppress(TypeError, ValueError, RuntimeError):
        if not isinstance(given, str):
            return float(given)
    raise DataError(f"{what} is {str(given)!r:.80}, allowed are numbers")


def metric_prefix(probe: str) -> str:
    """What the metrics of a probe begin with: `test` for the clean test set, else its name."""
    return "test" if probe == "clean_test" else probe
