"""Transferability, robustness, and accuracy on sets: rows of JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.core.seeds import Stream
from raygrid.core.spec import TrialSpec
from raygrid.nn.pgd import Ball
from raygrid.nn.recipes import precision_of
from raygrid.reports.analysis.fidelity import fidelity_of_poison
from raygrid.reports.analysis.records import EvaluationRow, Records, Victim
from raygrid.reports.tables.frame import frame
from raygrid.trials.evaluate import Score, score
from raygrid.trials.poisons import Poisoned

if TYPE_CHECKING:
    from torch import Tensor

PGD20 = Ball(radius=8 / 255, steps=20, step=2 / 255)
_CHUNK = 500  # images a pass: part of the draws, so never a setting


def transferability(poisons: Iterable[Poisoned], victims: Sequence[Victim]) -> list[EvaluationRow]:
    """How often clean victims misclassify a poison (Sandoval-Segura et al. 2022, table 2).

    rate: share of the k of n stored training images that a victim does not give their label, in
    eval mode without augmentation; clean_rate: the same of the clean images. Of an attack toward
    other classes also target_rate, clean_target_rate: the share that is given the class that the
    attack intends. The last row of a poison has the mean over its victims.
    """
    rows: list[EvaluationRow] = []
    for poisoned in poisons:
        own = [_misclassified(poisoned, victim) for victim in victims]
        rates = [name for name in own[0] if name.endswith("rate")]
        means = {name: sum(r[name] for r in own) / len(own) for name in rates}
        rows += [*own, {"poison": poisoned.spec, "victim": "mean", **means}]
    return rows


def _misclassified(poisoned: Poisoned, victim: Victim) -> EvaluationRow:
    if victim.clean.shape != poisoned.clean.shape or victim.clean.classes != poisoned.clean.classes:
        raise DataError(f"{victim.name} was trained on other images than those of {poisoned.spec}")
    row: EvaluationRow = {"poison": poisoned.spec, "victim": victim.name}
    rates: dict[str, float] = {}
    for name, images in (("", poisoned.images), ("clean_", poisoned.clean)):
        said, n = _predicted(victim, images), len(images)
        wrong = int((said != images.labels).sum())
        if not name:
            row |= {"k": wrong, "n": n}
        rates[f"{name}rate"] = wrong / n
        intended = poisoned.attack.intended(images.labels, images.classes)
        if intended is not None:
            rates[f"{name}target_rate"] = int((said == intended).sum()) / n
    return {**row, **rates}


@no_grad
def _predicted(victim: Victim, images: Images) -> Tensor:
    """The class that a victim gives each image, int64 (n,) on the CPU."""
    parts = torch.arange(len(images)).split(_CHUNK)
    return torch.cat([victim(images.floats(p).to(victim.device)).argmax(1) for p in parts]).cpu()


def _score(victim: Victim, images: Images, precision: str = "fp32") -> Score:
    return score(victim.network, images.to(victim.device), victim.trial.defense.view, precision)


def robustness(
    victims: Sequence[Victim], ball: Ball = PGD20, images: int | None = None
) -> list[EvaluationRow]:
    """Accuracy on adversarial test images (APBench, table 11), beside that on clean ones.

    From a uniform start in the linf ball, one restart, the last iterate. white_acc: crafted on the
    victim itself. black_acc: crafted on the victim of the next seed (the first for the last) whose
    spec is the same otherwise; None if there is no other. images: how many of the test set.
    """
    rows = []
    for victim in victims:
        test = victim.first(images)
        source = _next_seed(victim, victims)
        clean = _score(victim, test)
        white = attacked(victim, victim, test, ball)
        black = attacked(victim, source, test, ball) if source else None
        rows.append(
            {
                "victim": victim.name,
                "n": clean.n,
                "clean_acc": clean.acc,
                "white_acc": white.acc,
                "black_acc": black.acc if black else None,
                "source": source.name if source else None,
            }
        )
    return rows


def _next_seed(victim: Victim, victims: Sequence[Victim]) -> Victim | None:
    def kind(other: Victim) -> object:
        return other.trial.spec.replace(seed=0)

    family = sorted((v for v in victims if kind(v) == kind(victim)), key=lambda v: v.trial.seed)
    seeds = [v.trial.seed for v in family]
    after = family[(seeds.index(victim.trial.seed) + 1) % len(family)]
    return None if after.trial.seed == victim.trial.seed else after


def attacked(victim: Victim, source: Victim, images: Images, ball: Ball) -> Score:
    """How a victim fares on adversarial versions of images that are crafted on `source`."""
    moved = []
    for start in range(0, len(images), _CHUNK):
        rng = Stream("robustness").generator(start)
        part = images.rows(torch.arange(start, min(start + _CHUNK, len(images))))
        moved.append(adversarial(source, part, ball, rng))
    x, labels = torch.cat(moved), images.labels.to(victim.device)
    with torch.no_grad():
        logits = torch.cat([victim(part) for part in x.split(_CHUNK)])
    loss = float(nn.functional.cross_entropy(logits, labels))
    return Score(int((logits.argmax(1) == labels).sum()), len(images), loss)


def adversarial(source: Victim, images: Images, ball: Ball, rng: torch.Generator) -> Tensor:
    """float32 (n, C, H, W) in [0, 1] within the ball around the images, on the device."""
    here = images.to(source.device)
    x = here.floats()
    noise = torch.rand(x.shape, generator=rng).to(x.device)
    start = (x + ball.radius * (2 * noise - 1)).clamp(0, 1)
    return ball.climb(lambda m: nn.functional.cross_entropy(source(m), here.labels), x, start)


def accuracy_on_sets(
    records: Records, spec: str, others: Mapping[str, Images]
) -> list[EvaluationRow]:
    """Accuracy of a victim without augmentation (D-VAE, table 1).

    Sets: `clean_train`; `clean_test`; `train`, what its attack left of the training set; and
    `others` by name.
    """
    victim = records.victim(spec)
    train = records.training_set(victim.trial)
    sets = {"clean_train": victim.clean, "clean_test": victim.test, "train": train, **others}
    trial = victim.trial  # asked as precisely as the trial asked, so that counts are the same
    precision = precision_of(trial.recipe, trial.architecture.convolutional)
    scores = {name: _score(victim, images, precision) for name, images in sets.items()}
    return [{"victim": victim.name, "set": name, **s.row()} for name, s in scores.items()]


def with_answers(
    records: Records,
    rows: Iterable[Mapping[str, Any]],
    answer: str,
    victims: Sequence[Victim] = (),
) -> pd.DataFrame:
    """Lines of `reports.tables.frame.frame` with a column that says something of each poison.

    answer: `transfer_rate`, the share of the poisoned images that `victims` get wrong, mean over
    these; or `psnr` in dB, mean over images, none for the clean control. A poison of several
    trials is asked once.
    """
    known: dict[tuple[str, int], float | None] = {}
    kept, values = list(rows), []
    for row in kept:
        spec = TrialSpec.parse(row["spec"])
        poison = f"{spec.dataset}/{spec.attack}@{spec.poison_ratio!r}", spec.seed
        if poison not in known:
            known[poison] = _answer_about(records.poisoned(*poison), answer, victims)
        values.append(known[poison])
    return frame(kept).assign(**{answer: pd.Series(values, dtype=float)})


def _answer_about(poisoned: Poisoned, answer: str, victims: Sequence[Victim]) -> float | None:
    if answer == "psnr":
        return fidelity_of_poison(poisoned)[0].get("psnr")
    return float(transferability([poisoned], victims)[-1]["rate"])
