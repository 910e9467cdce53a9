"""Wang et al. 2026 (DUNE): their code."""

from __future__ import annotations

from tests.settings.cuda import CROPS, START, augmented
from tests.settings.rules import PrintedRow, Rule, attack, defense, recipe, words


def quarter(row: PrintedRow) -> str:
    """The step of adversarial training as a part of its radius."""
    step, radius = (float(str(defense(path)(row))) for path in ("step", "radius"))
    return f"radius / {radius / step:g}"


TRAINING = (
    Rule(r"code/training/epochs", recipe("epochs")),
    Rule(r"code/training/batch_size", recipe("batch_size")),
    Rule(r"code/training/optimizer", recipe("optimizer")),
    Rule(r"code/training/learning_rate", recipe("lr")),
    Rule(r"code/training/momentum", recipe("momentum")),
    Rule(r"code/training/weight_decay", recipe("weight_decay")),
    Rule(r"code/training/schedule", recipe("schedule")),
    Rule(r"code/training/augmentation", words(augmented, CROPS)),
)
"""Of the victims that the same authors' COIN and ECLIPSE have, too."""
RULES = (
    Rule(r"code/dune/spatial_budget", attack("spatial")),
    Rule(r"code/dune/step_size", attack("step")),
    Rule(r"code/dune/steps", attack("steps")),
    Rule(r"code/dune/checkpoints", attack("checkpoints")),
    Rule(r"code/dune/permutation_offset", attack("shift")),
    Rule(r"code/dune/particles", attack("particles")),
    Rule(r"code/dune/iterations", attack("iterations")),
    Rule(r"code/dune/swarm_images", attack("swarm_images")),
    Rule(
        r"code/dune/perceptual_distance",
        why="it needs downloaded weights of AlexNet; the swarm is kept by the other two alone",
    ),
    Rule(r"code/coin/alpha", defense("reach")),
    Rule(r"code/jpeg10/quality", defense("quality")),
    Rule(r"code/at8/radius", defense("radius")),
    Rule(r"code/at8/steps", defense("steps")),
    Rule(r"code/at8/step", quarter),
    Rule(r"code/at8/start", why=START),
    *TRAINING,
)
