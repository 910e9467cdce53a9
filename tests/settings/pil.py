"""Liu, Chen and Zhang 2026 (PIL): their code."""

from __future__ import annotations

from raygrid.architectures import ARCHITECTURES
from tests.settings.cuda import CROPS, augmented
from tests.settings.rules import Getter, Row, Rule, attack, recipe, words


def surrogate(path: str) -> Getter:
    """A field of the recipe that the surrogate is trained by."""
    return attack(f"recipe.recipe.{path}", of="pil")


def matrices(row: Row) -> str:
    """What the surrogate is made of."""
    network = ARCHITECTURES.make(attack("surrogate")(row)).build(10, 32, 0)  # type: ignore[arg-type]
    dimensions = {name: p.dim() for name, p in network.named_parameters()}
    pair = len(dimensions) == 2 and set(dimensions.values()) == {2}
    return "two matrices without bias" if pair else str(dimensions)


RULES = (
    Rule(r"code/pil/budget", attack("budget.value")),
    Rule(r"code/pil/step_size", lambda row: attack("step")(row) * 8 / 255),  # type: ignore[operator]
    Rule(r"code/pil/steps", attack("steps")),
    Rule(r"code/pil/lambda", attack("weight")),
    Rule(r"code/pil/surrogate", matrices),
    Rule(r"code/surrogate/epochs", surrogate("epochs")),
    Rule(r"code/surrogate/batch_size", surrogate("batch_size")),
    Rule(r"code/surrogate/learning_rate", surrogate("lr")),
    Rule(r"code/surrogate/momentum", surrogate("momentum")),
    Rule(r"code/surrogate/weight_decay", surrogate("weight_decay")),
    Rule(r"code/surrogate/schedule", surrogate("schedule")),
    Rule(
        r"code/surrogate/order",
        surrogate("shuffle"),
        why="one order is drawn and kept: the order of a file is not known to a set in memory",
        instead=False,
    ),
    Rule(r"code/training/epochs", recipe("epochs")),
    Rule(r"code/training/batch_size", recipe("batch_size")),
    Rule(r"code/training/optimizer", recipe("optimizer")),
    Rule(r"code/training/learning_rate", recipe("lr")),
    Rule(r"code/training/momentum", recipe("momentum")),
    Rule(r"code/training/weight_decay", recipe("weight_decay")),
    Rule(r"code/training/schedule", recipe("schedule")),
    Rule(r"code/training/augmentation", words(augmented, CROPS)),
)
