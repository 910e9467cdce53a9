"""Sandoval-Segura et al. 2022 (Learned Faster): table 1, sections 3 and 4."""

from __future__ import annotations

import math
from typing import Any

from raygrid.attacks.common.em_rounds import RoundsAttack
from raygrid.literature.reference import printed_questions
from raygrid.trials.result import Result
from tests.settings.rules import PrintedRow, Rule, attack, cells, every, recipe, wise, words

STEPS = (10, 100, 250)
CLEAN = (
    *(f"{name}{steps}" for name in ("pgd", "mifgsm") for steps in STEPS),
    *("functional_c", "functional_cs", "functional_csd"),
)
"""Made on a network that was trained on clean images."""
BOUNDED = (
    *(name for name in CLEAN if not name.startswith("functional")),
    *("em", "em_class"),
    *(f"regions{n}" for n in (1, 2, 4, 16, 64, 128, 1024)),
    *(f"lf{n}" for n in range(2, 9)),
)


def kind(row: PrintedRow) -> str:
    """What the noise does to a loss, if there is one."""
    found = attack("")(row)
    if not hasattr(found, "surrogate"):
        return "random"
    return "min" if isinstance(found, RoundsAttack) else "max"


def functional(row: PrintedRow) -> str:
    found: Any = attack("")(row)
    return f"{found.steps}-step Functional {'+'.join(found.parts)}"


def victims_epochs(row: PrintedRow) -> object:
    """Of the clean victims that the poisons of table 2 are shown to."""
    victims = [spec for each in printed_questions("learned_faster", "2") for spec in each.about[1:]]
    (found,) = {dict(spec.protocol.params)["epochs"] for spec in victims}
    return found


def threshold(row: PrintedRow) -> float:
    """The loss that is not yet low enough to count as learned; NaN if it is not 0.5."""
    losses = (0.5, math.nextafter(0.5, 0))
    result = Result("", "", "done", history=[{"train_loss": loss} for loss in losses])
    result.summarize()
    return losses[0] if result.epochs_to_half == 2 else math.nan


RULES = (
    Rule(r"1/.*/printed_id", why="the paper's label; its poisons have ids of their own here"),
    Rule(r"1/pgd\d+/detail", attack("steps"), said="{}-step PGD"),
    Rule(r"1/mifgsm\d+/detail", attack("steps"), said="{}-step MIFGSM"),
    Rule(r"1/functional_\w+/detail", functional),
    Rule(
        r"1/em(_class)?/detail",
        words(attack("mode"), {"sample": "SW", "class": "CW"}),
        "{}-Unlearnable",
    ),
    Rule(r"1/regions1/detail", attack("n"), said="{} region"),
    Rule(r"1/regions(?!1/)\d+/detail", attack("n"), said="{} regions"),
    Rule(r"1/lf\d/detail", attack("n"), said="{0}x{0} DCT"),
    Rule(r"1/.*/type", kind),
    Rule(r"1/.*/application", wise),
    Rule(r"text/training/architecture", lambda row: cells(row, "1", "architecture")),
    Rule(
        r"text/training/(epochs|batch_size|optimizer|momentum|weight_decay)",
        lambda row: recipe(row["setting"])(row),
    ),
    Rule(r"text/training/initial_learning_rate", recipe("lr")),
    Rule(r"text/learning speed/loss_threshold", threshold),
    Rule(
        r"text/learning speed/share_reaching_threshold_by_epoch_10|text/pgd250/early_stop_epoch",
        why="a result, read off the authors' curves",
    ),
    Rule(r"text/crafting/budget_linf", every(attack("budget.value"), *BOUNDED)),
    Rule(r"text/crafting/surrogate_epochs", every(attack("surrogate_epochs"), *CLEAN)),
    Rule(r"text/pgd10\+pgd100/surrogate", every(attack("surrogate"))),
    Rule(r"text/transfer victims/epochs", victims_epochs),
    Rule(
        r"text/regions/construction",
        words(
            attack("values", of="regions16"),
            {"sign": "n Bernoulli 3-vectors scaled to +-8/255, tiled to 32x32x3"},
        ),
    ),
    Rule(
        r"text/lf/construction",
        why="what the method is, in the words of its class; how it comes to 8/255 is left open",
    ),
    Rule(
        r"text/em paper/error_maximizing_pgd_steps",
        why="of a noise in EM's own paper that is quoted for comparison; no trial has it",
    ),
)
