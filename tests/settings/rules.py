"""Rules that say where raygrid has a printed setting, and how what it has there is read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from raygrid.attacks import ATTACKS
from raygrid.attacks.common.classwise import ClassWise
from raygrid.core.spec import TrialSpec
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES
from raygrid.learners import LEARNERS
from raygrid.literature.made import made_by
from raygrid.literature.names import PAPER_PROTOCOLS, PrintedRow, axes_of
from raygrid.literature.reference import specs_of
from raygrid.protocols import PROTOCOLS

Getter = Callable[[PrintedRow], object]
"""What raygrid has in the place of a row."""

BLANK = {
    "metric": "test_acc",
    "note": "",
    "dataset": "cifar10",
    "attack": "clean",
    "defense": "none",
    "architecture": "resnet18",
    "learner": "simclr",
    "poison_ratio": "1.0",
    "budget_norm": "",
    "budget": "",
}
"""A row of results that says nothing in particular."""


@dataclass(frozen=True)
class Rule:
    """What is true of all rows that it covers.

    rows: a pattern that the whole of `table/item/setting` has to match. has: what raygrid has
    there, which is what is printed, said as in `said`. why: the reason that raygrid has nothing
    there, or has `instead`.
    """

    rows: str
    has: Getter | None = None
    said: str = "{}"
    why: str = ""
    instead: object = None

    def covers(self, row: PrintedRow) -> bool:
        return bool(re.fullmatch(self.rows, f"{row['table']}/{row['item']}/{row['setting']}"))

    def fault(self, row: PrintedRow) -> str | None:
        """What is wrong with the row, nothing if it holds."""
        if self.has is None:
            return None
        found = self.has(row)
        same = agrees(row, found, self.said)
        if not self.why:
            return None if same else f"raygrid has {found}"
        if same:
            return f"there is a reason, yet raygrid has {found}"
        return None if alike(found, self.instead) else f"raygrid has {found}, not {self.instead}"


def agrees(row: PrintedRow, found: object, said: str = "{}") -> bool:
    """Whether what is found is what a row prints."""
    printed = row["value"]
    if said != "{}":
        return printed.casefold() == said.format(found).casefold()
    if isinstance(found, bool):
        return printed == ("yes" if found else "no")
    if isinstance(found, tuple):
        pieces = [{**row, "value": piece} for piece in printed.split(",")]
        pairs = zip(pieces, found, strict=False)
        return len(pieces) == len(found) and all(agrees(piece, one) for piece, one in pairs)
    if isinstance(found, int | float):
        return alike(number(printed) / (100 if row["unit"] == "percent" else 1), found)
    return plain(printed) == plain(str(found))


def alike(one: object, other: object) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other


def number(text: str) -> float:
    """`8/255` and `0.1` as they are, `32x32x3` as its side; not a number: NaN."""
    if square := re.fullmatch(r"(\d+)x\1(x3)?", text):
        return float(square[1])
    over, _, under = text.partition("/")
    try:
        return float(over) / float(under or 1)
    except ValueError:
        return math.nan


def plain(text: str) -> str:
    return re.sub(r"[-\s]", "", text).casefold()


# --- looks ---------------------------------------------------------------------------------------


def attack(path: str, of: str = "", on: str = "cifar10") -> Getter:
    """A field of the attack that a paper ran under the name of the row's item, or of `of`."""

    def look(row: PrintedRow) -> object:
        spec = _made(row, on.format_map(row), attack=of or row["item"])
        return dig(ATTACKS.make(spec.attack), path)

    return look


def defense(path: str, of: str = "", on: str = "cifar10") -> Getter:
    """The same of a defense."""

    def look(row: PrintedRow) -> object:
        spec = _made(row, on.format_map(row), defense=of or row["item"])
        return dig(DEFENSES.make(spec.defense[0]), path)

    return look


def dataset(path: str) -> Getter:
    """The same of a dataset."""
    return lambda row: dig(DATASETS.make(_made(row, row["item"]).dataset), path)


def learner(path: str) -> Getter:
    return lambda row: dig(LEARNERS.make(row["item"]), path)


def recipe(
    path: str, learner: str = "supervised", on: str = "cifar10", defense: str = "none"
) -> Getter:
    """A field of a recipe of the paper's protocol; `{item}` stands for the row's."""

    def look(row: PrintedRow) -> object:
        data = DATASETS.make(on.format_map(row))
        (part,) = _made(row, "cifar10", defense=defense.format_map(row)).defense
        names = learner.format_map(row), data.id, data.image_size, (part.name,)
        return dig(PROTOCOLS.make(PAPER_PROTOCOLS[row["paper"]]).recipe(*names), path)

    return look


def every(getter: Getter, *items: str) -> Getter:
    """What is the same for all these items, or for all those that the row's joins with a plus."""

    def common(row: PrintedRow) -> object:
        names = items or row["item"].split("+")
        found = {name: getter({**row, "item": name}) for name in names}
        first, *others = found.values()
        return first if all(alike(first, other) for other in others) else found

    return common


def words(getter: Getter, said: dict[str, str]) -> Getter:
    """What is found, in the words of the papers."""
    return lambda row: said.get(str(found := getter(row)), found)


def repository(code: Getter, said: str = "{}") -> Getter:
    """The repository that the row names, said like this, if it is among those of a card."""

    def look(row: PrintedRow) -> object:
        cited = re.findall(r"[\w.-]+/[\w.-]+", str(code(row)))
        return row["value"] if row["value"] in map(said.format, cited) else cited

    return look


def wise(row: PrintedRow) -> str:
    """Whether all images of a class get one perturbation."""
    found = attack("")(row)
    by_class = isinstance(found, ClassWise) or getattr(found, "mode", "") == "class"
    return "class-wise" if by_class else "sample-wise"


def cells(row: PrintedRow, table: str, axis: str) -> object:
    """What all trials of a printed table have in common on an axis."""
    found = {str(getattr(TrialSpec.parse(text), axis)) for text in specs_of(row["paper"], table)}
    return found.pop() if len(found) == 1 else found


def dig(found: object, path: str) -> object:
    return reduce(getattr, filter(None, path.split(".")), found)


def _made(row: PrintedRow, on: str, **axes: str) -> TrialSpec:
    return made_by(row["paper"], axes_of({**BLANK, **row, "note": "", "dataset": on, **axes}))
