"""How the papers' figures are drawn from what their trials left: pictures, and their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.labels import short
from raygrid.core.spec import Part, TrialSpec
from raygrid.reports.analysis import explanation, fidelity
from raygrid.reports.figures import changes, embeddings, lines, partial, scatters
from raygrid.reports.figures.curves import training_curves
from raygrid.reports.figures.embeddings import apart, sample
from raygrid.reports.figures.gallery import names_of_classes
from raygrid.reports.figures.maps import draw_maps
from raygrid.reports.tables.frame import curves, frame
from raygrid.reproduce.figure_list import PaperFigure
from raygrid.reproduce.papers import Scale
from raygrid.reproduce.questions import FinishedTrials, psnr
from raygrid.reproduce.scales import lacking, scaled
from raygrid.trials.artifacts import purified_of
from raygrid.trials.examples import first_of_classes
from raygrid.trials.trial import Trial

Drawn = tuple[str, Figure, pd.DataFrame | None]
"""What sets it apart from the others of a figure, picture, and its numbers if it has any."""


@dataclass(frozen=True)
class FigureData:
    """A figure of a paper with the trials that stand for it at some scale, and what they left."""

    figure: PaperFigure
    evidence: FinishedTrials
    scale: Scale
    seeds: Sequence[int]

    @cached_property
    def trials(self) -> dict[TrialSpec, list[Trial]]:
        """The stand-ins of each printed trial, one a seed, as far as they can be made here."""
        printed = [TrialSpec.parse(text) for text in self.figure.trials]
        there = {s: scaled(s, self.scale) for s in printed if not lacking(s, self.scale)}
        return {
            spec: [self.evidence.records.trial(str(at.replace(seed=s))) for s in self.seeds]
            for spec, at in there.items()
        }

    @property
    def names(self) -> list[str]:
        """The specs of the first seed."""
        return list(dict.fromkeys(str(own[0].spec) for own in self.trials.values()))

    @cached_property
    def rows(self) -> list[Mapping[str, object]]:
        """What is there of the trials' rows."""
        names = {str(trial.spec) for own in self.trials.values() for trial in own}
        return [row for spec, row in self.evidence.rows.items() if spec in names]

    @property
    def frame(self) -> pd.DataFrame:
        return frame(self.rows)

    def attacks(self, printed: Sequence[str]) -> list[str]:
        """Attacks by what stands for them here."""
        here = {str(spec.attack): str(own[0].spec.attack) for spec, own in self.trials.items()}
        return [here[name] for name in printed if name in here]


def _framed(draw: Callable[[pd.DataFrame], Figure]) -> Callable[[FigureData], Iterator[Drawn]]:
    """A figure of the rows alone."""

    def drawing(shown: FigureData) -> Iterator[Drawn]:
        yield "", draw(shown.frame), shown.frame.dropna(axis=1, how="all")

    return drawing


def _curves(shown: FigureData) -> Iterator[Drawn]:
    groups = {title: shown.attacks(names) for title, names in shown.figure.groups.items()}
    epochs = curves(shown.rows)
    yield "", training_curves(epochs, groups), epochs


def _by_epoch(shown: FigureData) -> Iterator[Drawn]:
    epochs = curves(shown.rows)
    yield "", lines.by_epoch(epochs), epochs


PURIFIER_FAMILIES = {"limit": "VAE", "width": "auto-encoder", "quality": "JPEG", "limit2": "D-VAE"}
"""Purifiers by the parameter that the papers' curves vary."""


def _points(shown: FigureData) -> pd.DataFrame:
    """A line a finished trial with `family`, `setting`, and `psnr` in dB of what it purified."""
    records = shown.evidence.records
    made = []
    for spec, own in shown.trials.items():
        family, setting = _varied(spec.defense[0])
        for trial in own:
            row = shown.evidence.rows.get(str(trial.spec))
            if row is not None and row["status"] == "done":
                left = psnr(records, trial.spec)["psnr"]
                made.append(frame([row]).assign(family=family, setting=setting, psnr=left))
    return pd.concat(made, ignore_index=True) if made else frame([]).assign(family=[])


def _varied(defense: Part) -> tuple[str, float]:
    params = dict(defense.params)
    key = next(key for key in PURIFIER_FAMILIES if key in params)
    return PURIFIER_FAMILIES[key], float(params[key])


def _compression(shown: FigureData) -> Iterator[Drawn]:
    points = _points(shown)
    vaes = points[points["family"] == "VAE"]
    limit = "most nats for each position of the latent"
    if len(vaes):
        yield "rate", lines.over_setting(vaes, ("psnr", "final_acc"), limit), None
    yield "psnr", lines.over_psnr(points), points.dropna(axis=1, how="all")


def _rate(shown: FigureData) -> Iterator[Drawn]:
    points = _points(shown)
    limit = "most nats for each position of the latent"
    drawn = lines.over_setting(points, ("final_acc",), limit)
    yield "", drawn, points.dropna(axis=1, how="all")


def _tsne(shown: FigureData) -> Iterator[Drawn]:
    records = shown.evidence.records
    rows = []
    for spec in shown.names:
        left = records.left(records.trial(spec), "features").tensors
        labels = left["labels"].numpy()
        chosen = sample(labels)
        near, silhouette = apart(left["features"].float().numpy()[chosen], labels[chosen])
        rows.append({"spec": spec, "neighbors_acc": near, "silhouette": silhouette})
    yield "", embeddings.draw_tsne_of_features(records, shown.names), pd.DataFrame(rows)


def _maps(shown: FigureData) -> Iterator[Drawn]:
    """Of the clean victim and those of each group, explained in the way the group is named."""
    for name, printed in shown.figure.groups.items():
        attacks = {"clean", *shown.attacks(printed)}
        chosen = [own[0] for own in shown.trials.values() if str(own[0].spec.attack) in attacks]
        victims = [shown.evidence.records.victim(str(trial.spec)) for trial in chosen]
        images = victims[0].test.rows(first_of_classes(victims[0].test.labels, 10))
        explain = explanation.grad_cam if name == "grad-cam" else explanation.shapley
        maps = {v.name: explain(v, images.floats(), images.labels) for v in victims}
        root = shown.evidence.records.catalog.data_root
        called = names_of_classes(victims[0].name, images.labels, root)
        yield name, draw_maps(images, maps, name == "shapley", called), None


def _residuals(shown: FigureData) -> Iterator[Drawn]:
    """Each poison, and what its trial's purifiers made of it; both against the clean images."""
    records = shown.evidence.records
    pairs: dict[str, tuple[Images, Images]] = {}
    names: dict[str, str] = {}
    chains = short(tuple(own[0].spec.chain for own in shown.trials.values()))
    attacks = short(tuple(str(own[0].spec.attack) for own in shown.trials.values()))
    for own in shown.trials.values():
        clean, given = records.world(own[0]).train, records.training_set(own[0])
        if len(given) != len(clean):
            raise DataError(f"{own[0].spec} withholds images: there is nothing to draw")
        attack = str(own[0].spec.attack)
        pairs[attack], names[attack] = (clean, given), attacks[attack]
        if own[0].purified is not None:
            made = purified_of(records.worker.fetch(own[0].purified))
            chain = chains[own[0].spec.chain]
            both = f"{attack}, {chain}"
            pairs[both], names[both] = (clean, made), f"{attacks[attack]}, {chain}"
    rows = [{"set": name, **fidelity.change(*pair)} for name, pair in pairs.items()]
    sets = {names[name]: pair for name, pair in pairs.items()}
    drawn = changes.draw_changes(
        sets,
        shown.figure.normalizations,
        called=lambda labels: names_of_classes(shown.names[0], labels, records.catalog.data_root),
    )
    yield "", drawn, pd.DataFrame(rows)


DRAWINGS: Mapping[str, Callable[[FigureData], Iterator[Drawn]]] = {
    "peak_final": _framed(scatters.peak_against_final),
    "speed_peak": _framed(scatters.speed_against_peak),
    "partial_acc": _framed(lambda rows: partial.partial_poisoning(rows, "acc")),
    "partial_loss": _framed(lambda rows: partial.partial_poisoning(rows, "loss")),
    "partial_defenses": _framed(partial.partial_under_defenses),
    "curves": _curves,
    "by_epoch": _by_epoch,
    "compression": _compression,
    "rate": _rate,
    "tsne": _tsne,
    "maps": _maps,
    "residuals": _residuals,
}


def draw(shown: FigureData, stem: Path) -> list[Path]:
    """Draw a figure into `<stem>[-name].png` and its numbers into a CSV beside; the files.

    Raises SpecError or DataError that says what is missing.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure, numbers in DRAWINGS[shown.figure.drawing](shown):
        path = stem.with_name("-".join(filter(None, (stem.name, name))) + ".png")
        figure.savefig(path)
        written.append(path)
        if numbers is not None:
            numbers.to_csv(path.with_suffix(".csv"), index=False)
            written.append(path.with_suffix(".csv"))
    return written
