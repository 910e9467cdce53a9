"""Who may be called the strongest attack or the best defense; tables hold the others, too."""

from __future__ import annotations

from raygrid.trials import privileges

CONTROLS = ("clean", "withheld")
"""What stands among attacks and is none: no poison, and training on the clean part alone."""
SUM_COLUMNS = ("worst", "mean_of_max")
"""Columns of learners that sum up others."""
PLAIN_DEFENSES = ("none", "standard")
"""Those that leave the loss as it is, so that its fall can be compared, and defend by nothing."""


def is_attack(attack: str) -> bool:
    """Whether it is an attack proper: no control, and none that saw the test set."""
    return attack not in CONTROLS and not privileges.of_attack(attack)


def is_defense(chain: str) -> bool:
    """Whether it is a defense proper: augmentation alone is none, and it knew no more than others.

    None that saw the test set or clean images or chooses by them, and none of another threat model.
    """
    return chain not in PLAIN_DEFENSES and not privileges.of_defense(chain)
