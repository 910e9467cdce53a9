"""Wen et al. 2023 (EntF): their code."""

from __future__ import annotations

from tests.settings.rules import Getter, PrintedRow, Rule, attack


def surrogate(path: str) -> Getter:
    """A field of the recipe of the reference network."""
    return attack(f"recipe.{path}", of="entf")


def adversary(number: int) -> Getter:
    """Steps of the adversary that the reference network meets, or the size of one."""

    def look(row: PrintedRow) -> float:
        radius, climb = surrogate("radius")(row), surrogate("climb")(row)
        assert isinstance(radius, float)
        assert isinstance(climb, tuple)
        return float(climb[0] if number == 0 else climb[1] * radius)

    return look


RULES = (
    Rule(r"code/entf/budget", attack("budget.value")),
    Rule(r"code/entf/variant", attack("variant")),
    Rule(r"code/entf/steps", attack("steps")),
    Rule(r"code/entf/step_size", lambda row: attack("step")(row) * 8 / 255),  # type: ignore[operator]
    Rule(r"code/entf/start", attack("start")),
    Rule(
        r"code/entf/batch_size",
        attack("batch_size"),
        why="images are independent of each other in a frozen network",
        instead=512,
    ),
    Rule(r"code/surrogate/radius", surrogate("radius")),
    Rule(r"code/surrogate/adversary_steps", adversary(0)),
    Rule(r"code/surrogate/adversary_step", adversary(1)),
    Rule(r"code/surrogate/epochs", surrogate("recipe.epochs")),
    Rule(r"code/surrogate/batch_size", surrogate("recipe.batch_size")),
    Rule(r"code/surrogate/learning_rate", surrogate("recipe.lr")),
    Rule(r"code/surrogate/momentum", surrogate("recipe.momentum")),
    Rule(r"code/surrogate/weight_decay", surrogate("recipe.weight_decay")),
    Rule(r"code/surrogate/milestones", surrogate("recipe.milestones")),
    Rule(r"code/surrogate/architecture", surrogate("architecture")),
)
