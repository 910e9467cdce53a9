"""Sandoval-Segura et al. 2023 (orthogonal projection): their code."""

from __future__ import annotations

from tests.settings.cuda import CROPS, augmented
from tests.settings.rules import PrintedRow, Rule, defense, recipe, words


def scales(row: PrintedRow) -> tuple[float, float]:
    """The smallest and the largest size of an image."""
    change = defense("scale")(row)
    assert isinstance(change, float)
    return 1 - change, 1 + change


RULES = (
    Rule(r"code/op/epochs", defense("fit.recipe.epochs")),
    Rule(r"code/op/batch_size", defense("fit.recipe.batch_size")),
    Rule(r"code/op/learning_rate", defense("fit.recipe.lr")),
    Rule(r"code/op/momentum", defense("fit.recipe.momentum")),
    Rule(r"code/op/weight_decay", defense("fit.recipe.weight_decay")),
    Rule(r"code/op/milestones", defense("fit.recipe.milestones")),
    Rule(
        r"code/op/order",
        defense("fit.recipe.shuffle"),
        why="one order is drawn and kept: the order of a file is not known to a set in memory",
        instead=False,
    ),
    Rule(r"code/op/directions", words(defense("directions"), {"None": "one for each class"})),
    Rule(r"code/affine_jitter/rotation", defense("rotation")),
    Rule(r"code/affine_jitter/shear", defense("shear")),
    Rule(r"code/affine_jitter/scale", scales),
    Rule(r"code/affine_jitter/jitter", defense("jitter")),
    Rule(
        r"code/cutmix/probability",
        why="a link of its own in the chain, which says it: cutmix(box=batch, p=0.5)",
    ),
    Rule(r"code/training/epochs", recipe("epochs")),
    Rule(r"code/training/optimizer", recipe("optimizer")),
    Rule(r"code/training/learning_rate", recipe("lr")),
    Rule(r"code/training/weight_decay", recipe("weight_decay")),
    Rule(r"code/training/milestones", recipe("milestones")),
    Rule(r"code/training/normalization", recipe("normalize")),
    Rule(r"code/training/augmentation", words(augmented, CROPS)),
)
