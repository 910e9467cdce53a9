"""Wang et al. 2025 (PUE): their code."""

from __future__ import annotations

import inspect

from raygrid.attacks.common.em_rounds import EM_RECIPE
from raygrid.reports.analysis.learnability import CONFIDENCE, learnability
from tests.settings.rules import Getter, Rule, attack, dig


def network(path: str) -> Getter:
    """A field of the recipe of the attack's network."""
    return lambda row: dig(EM_RECIPE, path)


def certificate(name: str) -> Getter:
    """What the certificate takes where nobody says otherwise."""
    return lambda row: inspect.signature(learnability).parameters[name].default


RULES = (
    Rule(r"code/pue/budget", attack("budget.value")),
    Rule(r"code/pue/steps", lambda row: attack("plan")(row)[0]),  # type: ignore[index]
    Rule(r"code/pue/step_size", lambda row: attack("step")(row) * 8 / 255),  # type: ignore[operator]
    Rule(r"code/pue/network_steps", attack("model_steps")),
    Rule(r"code/pue/weight_noise", attack("weight_noise")),
    Rule(r"code/pue/weight_noise_step", attack("weight_step")),
    Rule(r"code/pue/network_draws", attack("weight_draws")),
    Rule(r"code/pue/noise_draws", attack("noise_draws")),
    Rule(r"code/pue/stop_error", lambda row: attack("plan")(row)[1]),  # type: ignore[index]
    Rule(r"code/pue/subset", attack("noise_share")),
    Rule(
        r"code/pue/batch_size",
        attack("batch_size"),
        why="batches are those of em here; pue(batch_size=128) has the paper's",
        instead=512,
    ),
    Rule(r"code/pue/learning_rate", network("lr")),
    Rule(r"code/pue/momentum", network("momentum")),
    Rule(r"code/pue/weight_decay", network("weight_decay")),
    Rule(r"code/pue/gradient_clip", network("grad_clip")),
    Rule(r"code/certificate/sigma", certificate("sigma")),
    Rule(r"code/certificate/draws", certificate("draws")),
    Rule(r"code/certificate/confidence", lambda row: CONFIDENCE),
)
