"""Zhu, Yu and Gao 2024 (UDP): their code."""

from __future__ import annotations

from raygrid.nn.augment import Views
from raygrid.reports.analysis.linearity import UDP_DETECTOR
from tests.settings.rules import Getter, PrintedRow, Rule, defense, dig


def views(path: str) -> Getter:
    """A field of what training sees."""
    return lambda row: dig(Views.of_strength(float(str(defense("strength")(row)))), path)


def least(row: PrintedRow) -> float:
    return round(Views.of_strength(float(str(defense("strength", of="udp")(row)))).scale[0], 12)


def jitter(row: PrintedRow) -> tuple[object, ...]:
    return tuple(views(name)(row) for name in ("brightness", "contrast", "saturation", "hue"))


def detector(path: str) -> Getter:
    return lambda row: dig(UDP_DETECTOR.recipe, path)


RULES = (
    Rule(r"code/udp/radius", defense("radius")),
    Rule(r"code/udp/steps", defense("steps")),
    Rule(r"code/udp/step_size", defense("step")),
    Rule(r"code/udp/training_step_size", defense("train_step")),
    Rule(r"code/udp/epochs", defense("fit.recipe.epochs")),
    Rule(r"code/udp/batch_size", defense("fit.recipe.batch_size")),
    Rule(r"code/udp/learning_rate", defense("fit.recipe.lr")),
    Rule(r"code/udp/momentum", defense("fit.recipe.momentum")),
    Rule(r"code/udp/weight_decay", defense("fit.recipe.weight_decay")),
    Rule(r"code/udp/milestones", defense("fit.recipe.milestones")),
    Rule(r"code/udp/strength", defense("strength")),
    Rule(r"code/udp/least_crop", least),
    Rule(r"code/udp/jitter", jitter),
    Rule(r"code/udp/jitter_probability", views("jitter")),
    Rule(r"code/udp/gray_probability", views("gray")),
    Rule(r"code/detection/epochs", detector("epochs")),
    Rule(r"code/detection/batch_size", detector("batch_size")),
    Rule(r"code/detection/learning_rate", detector("lr")),
    Rule(r"code/detection/milestones", detector("milestones")),
    Rule(
        r"code/detection/networks",
        why="evaluate linearity fits the linear one as OP does, the other one by this recipe",
    ),
)
