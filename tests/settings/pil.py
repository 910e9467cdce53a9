"""Liu, Chen and Zhang 2026 (PIL): their code."""

from __future__ import annotations

import torch

from raygrid.architectures import ARCHITECTURES
from raygrid.defenses import DEFENSES
from raygrid.literature.names import axes_of
from tests.settings.cuda import CROPS, augmented
from tests.settings.rules import BLANK, Getter, PrintedRow, Rule, attack, defense, recipe, words

BOXES = {"clipped": "cut off at the border"}


def surrogate(path: str) -> Getter:
    """A field of the recipe that the surrogate is trained by."""
    return attack(f"recipe.recipe.{path}", of="pil")


def matrices(row: PrintedRow) -> str:
    """What the surrogate is made of."""
    network = ARCHITECTURES.make(attack("surrogate")(row)).build(10, 32, 0)  # type: ignore[arg-type]
    dimensions = {name: p.dim() for name, p in network.named_parameters()}
    pair = len(dimensions) == 2 and set(dimensions.values()) == {2}
    return "two matrices without bias" if pair else str(dimensions)


def hole(row: PrintedRow) -> int:
    """The height of the largest of many black squares."""
    rng = torch.Generator().manual_seed(0)
    x, _ = DEFENSES.make(row["item"]).augment(torch.ones(200, 1, 32, 32), torch.zeros(200), rng)
    return int((x == 0).any(3).sum(2).max())


def mixes(row: PrintedRow) -> int:
    """How often the chain of that name mixes."""
    chain = axes_of({**BLANK, **row, "note": "", "defense": row["item"]}).defense
    return sum(part == chain[0] for part in chain)


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
    Rule(r"code/rotation/rotation", defense("rotation")),
    Rule(r"code/cutout/length", hole),
    Rule(r"code/cutmix_twice/mixes", mixes),
    Rule(r"code/cutmix_twice/probability", defense("p")),
    Rule(r"code/cutmix_twice/boxes", words(defense("box"), BOXES)),
)
