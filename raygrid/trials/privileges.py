"""Methods that know more than others may: their numbers are shown, but never called the best."""

from __future__ import annotations

from raygrid.attacks import ATTACKS
from raygrid.core.errors import SpecError
from raygrid.core.registry import cached
from raygrid.core.spec import Part, parse_chain
from raygrid.defenses.chain import Chain

SEES_TEST = "knows the test set, on which it is measured"
ORACLE = "chooses by the test set, on which it is measured"
SEES_CLEAN = "starts from a network that saw clean images"
CLEAN_IMAGES = "chooses by clean images that were never poisoned"
INFORMED = "is of another threat model"


@cached
def of_attack(attack: str) -> str:
    """What an attack knows beyond its due; "" for nothing, or if it is not installed here."""
    try:
        return SEES_TEST if ATTACKS.make(Part.parse(attack)).sees_test else ""
    except SpecError:
        return ""


@cached
def of_defense(chain: str) -> str:
    """The same of a chain of defenses, of which one link is enough."""
    try:
        made = Chain.make(parse_chain(chain))
    except SpecError:
        return ""
    if any(link.sees_test for link in made.links):
        return SEES_TEST
    if made.selection == "test":
        return ORACLE
    if any(link.sees_clean for link in made.links):
        return SEES_CLEAN
    if made.selection == "clean_val":
        return CLEAN_IMAGES
    return INFORMED if any(link.informed for link in made.links) else ""
