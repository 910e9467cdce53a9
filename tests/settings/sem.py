"""Liu et al. 2024 (SEM): their code."""

from __future__ import annotations

from tests.settings.cuda import CROPS
from tests.settings.rules import Getter, PrintedRow, Rule, attack, words


def times(*paths: str) -> Getter:
    """The product of fields of the attack and its budget."""

    def look(row: PrintedRow) -> float:
        found = 8 / 255
        for path in paths:
            found *= float(str(attack(path)(row)))
        return found

    return look


RULES = (
    Rule(r"code/sem/budget", attack("budget.value")),
    Rule(r"code/sem/steps", attack("steps")),
    Rule(r"code/sem/step_size", times("step")),
    Rule(r"code/sem/radius", times("adv_radius")),
    Rule(r"code/sem/adversary_steps", attack("adv_steps")),
    Rule(r"code/sem/adversary_step", times("adv_step", "adv_radius")),
    Rule(r"code/sem/copies", attack("copies")),
    Rule(r"code/sem/network_steps", attack("network_recipe.epochs")),
    Rule(r"code/sem/batch_size", attack("network_recipe.batch_size")),
    Rule(r"code/sem/incomplete_batch_dropped", attack("network_recipe.drop_last")),
    Rule(r"code/sem/learning_rate", attack("network_recipe.lr")),
    Rule(r"code/sem/learning_rate_factor", attack("network_recipe.gamma")),
    Rule(r"code/sem/decay_every", attack("decay_every")),
    Rule(r"code/sem/momentum", attack("network_recipe.momentum")),
    Rule(r"code/sem/weight_decay", attack("network_recipe.weight_decay")),
    Rule(r"code/sem/architecture", attack("surrogate")),
    Rule(r"code/sem/augmentation", words(attack("augmentation"), CROPS)),
    Rule(r"code/sem/pixel_range", why="networks see pixels in [0, 1], as those of all attacks"),
)
