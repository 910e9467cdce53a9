"""Liu, Wang and Gao 2024 (GUE): their code."""

from __future__ import annotations

from tests.settings.rules import Rule, attack

RULES = (
    Rule(r"code/gue/batch_size", attack("batch_size")),
    Rule(r"code/gue/epochs", attack("epochs")),
    Rule(r"code/gue/look_ahead_steps", attack("look_ahead")),
    Rule(r"code/gue/look_ahead_rate", attack("look_ahead_lr")),
    Rule(r"code/gue/generator_rate", attack("generator_lr")),
    Rule(r"code/gue/classifier_rate", attack("classifier_lr")),
    Rule(r"code/gue/eta", attack("eta")),
    Rule(r"code/gue/trial_epochs", attack("judge_epochs")),
    Rule(r"code/gue/width", attack("width")),
    Rule(r"code/gue/levels", attack("levels")),
    Rule(
        r"code/gue/selection",
        attack("selection"),
        why="victims are measured on the test set; selection=test does it, and is marked",
        instead="held_out",
    ),
)
