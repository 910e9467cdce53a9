"""Command-line options that several commands share, and how they become axes and options."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from raygrid.core.errors import unknown
from raygrid.core.flags import Flag, FlagGroup, plain_type
from raygrid.core.options import Options, flags, hints
from raygrid.core.registry import require
from raygrid.core.secrets import without_secrets
from raygrid.core.spec import parse_seed
from raygrid.engine.costs.simulate import Fleet
from raygrid.engine.grid import Grid

AXIS_HELP = {
    "datasets": "datasets, e.g. cifar10",
    "attacks": "attacks, e.g. clean lsp 'em(mode=class)'",
    "budgets": "budgets: default 16/255 l2:1.3 2x",
    "poison_ratios": "shares of the training set that are poisoned, 0 to 1",
    "defenses": "defense chains, e.g. standard grayscale+jpeg",
    "architectures": "architectures, e.g. resnet18 vit_small",
    "learners": "learners, e.g. supervised simclr",
    "protocols": "protocols, e.g. quick dvae apbench",
    "seeds": "whole numbers",
}


class CommandParser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, without the secrets of what was typed.

    Options are typed in full: what an abbreviation means changes with every new option.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kw})

    def error(self, message: str) -> NoReturn:
        line = without_secrets(" ".join(message.split()))
        self.exit(2, f"raygrid: {line}; see {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Say the nearest of the values that there are; `argparse` alone lists them."""
        if action.choices is not None and value not in action.choices:
            name = action.dest if action.dest != argparse.SUPPRESS else str(action.metavar).lower()
            known = map(str, action.choices)
            raise argparse.ArgumentError(None, unknown(name, str(value), known))


class FilledLater(CommandParser):
    """A parser whose arguments are added once it is the one that parses.

    What a command offers may take seconds to list (tables of papers); the others must not wait
    for that. fill: adds the arguments; None: they are added as usual.
    """

    def __init__(
        self, *args: Any, fill: Callable[[argparse.ArgumentParser], None] | None = None, **kw: Any
    ) -> None:
        super().__init__(*args, **kw)
        self._fill = fill

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the arguments, then parse; `argparse` calls this for the command that was named."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self)
        found, rest = super().parse_known_args(args, namespace)
        if rest:  # else the error would be the command line's, whose help has no options
            self.error(f"unrecognized arguments: {' '.join(rest)}{self._meant(rest)}")
        return found, rest

    def _meant(self, rest: Sequence[str]) -> str:
        """The nearest option of the first unknown one."""
        named = next((word for word in rest if word.startswith("--")), "")
        near = difflib.get_close_matches(named, list(self._option_string_actions))
        return f" (did you mean {near[0]}?)" if near else ""


def add_axes(parser: argparse.ArgumentParser) -> None:
    """One option per axis, singular and plural."""
    group = parser.add_argument_group("axes (each takes one or more values)")
    for axis, text in AXIS_HELP.items():
        add_axis(group, axis, text)


def add_axis(group: argparse._ActionsContainer, axis: str, text: str) -> None:
    """The option of one axis; it is None where it is not given."""
    words = dict.fromkeys([axis_flag(axis), axis_flag(singular(axis))])
    group.add_argument(*words, nargs="+", action="extend", metavar="X", dest=axis, help=text)


def seeds_of(args: argparse.Namespace) -> tuple[int, ...]:
    """The seeds of `add_axis`, each once, 0 where none is given; raises SpecError for no seed."""
    return tuple(dict.fromkeys(map(parse_seed, args.seeds or ("0",))))


def axis_flag(axis: str) -> str:
    return f"--{axis.replace('_', '-')}"


def axes_given(args: argparse.Namespace) -> list[str]:
    """The flags of the axes that were given."""
    return [axis_flag(axis) for axis in AXIS_HELP if getattr(args, axis) is not None]


def singular(axis: str) -> str:
    return {"defenses": "defense"}.get(axis, axis.removesuffix("s"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where things are, for every command."""
    add_flags(parser, "places")


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """What a plan is simulated on."""
    group = parser.add_argument_group("fleet (of a plan)")
    group.add_argument("--gpus", metavar="NxKIND", help="play the schedule on it: 8xA10G, 16xCPU")
    group.add_argument(
        "--price", type=float, default=0.0, help="dollars for one GPU (or core) an hour"
    )


def fleet_of(args: argparse.Namespace) -> Fleet | None:
    """The fleet that was named."""
    if not args.gpus:
        require(args.price == 0, f"--price {args.price} needs a fleet; name one with --gpus")
        return None
    return replace(Fleet.parse(args.gpus, args.price), per_gpu=args.per_gpu)


def add_running(parser: argparse.ArgumentParser) -> None:
    """How a grid runs."""
    group = add_flags(parser, "running")
    group.add_argument("--detach", action="store_true", help="submit to the cluster and leave")


def add_flags(parser: argparse.ArgumentParser, title: FlagGroup) -> argparse._ArgumentGroup:
    """The flags of all fields of `Options` that belong to a group."""
    group = parser.add_argument_group(title)
    for each in fields(Options):
        flag = flags().get(each.name)
        if flag is not None and flag.group == title:
            words = flag_words(each.name, flag, each.default)
            default = os.environ.get(flag.variable) or each.default
            group.add_argument(words, **facts_of(each.name, flag, default))
    return group


def flag_words(name: str, flag: Flag, default: object) -> str:
    """The flag of an option: what is on by default has one that turns it off."""
    word = (flag.word or name).replace("_", "-")
    return f"--no-{word}" if default is True else f"--{word}"


def facts_of(name: str, flag: Flag, default: Any) -> dict[str, Any]:
    """What argparse has to know of an option. It converts text; `Options` says what is allowed."""
    kind, _ = plain_type(hints()[name])
    facts: dict[str, Any] = {"dest": name, "help": flag.help, "default": default}
    if kind is bool:
        return {**facts, "action": "store_false" if default else "store_true"}
    allowed = flag.allowed or (get_args(kind) if get_origin(kind) is Literal else ())
    metavar = flag.metavar or (f"{{{','.join(map(str, allowed))}}}" if allowed else None)
    facts["metavar"] = metavar
    if get_origin(kind) is tuple:
        listed = {"action": "append"} if flag.repeated else {"nargs": "+", "action": "extend"}
        return {**facts, **listed, "default": list(default)}
    if default is not None:
        facts["help"] += " (%(default)s)"
    if flag.variable:
        facts["help"] += f"; also by {flag.variable}"
    return {**facts, "type": {int: int, float: float, Path: _path}.get(kind, str)}


def _path(text: str) -> Path:
    """A path; an empty text, as of a variable that is not set, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty, allowed is a path")
    return Path(text)


def options_of(args: argparse.Namespace, **changes: Any) -> Options:
    """The run options that were given; raises SpecError for values that are not allowed."""
    given = {name: getattr(args, name) for name in flags() if hasattr(args, name)}
    return Options(**{**given, **changes})


def with_axes(grids: Sequence[Grid], args: argparse.Namespace) -> list[Grid]:
    """The grids with the axes that were given in place of their own.

    Budgets of theirs that no attack which was given takes go with their part of the grid.
    """
    changes = {axis: getattr(args, axis) for axis in AXIS_HELP if getattr(args, axis) is not None}
    made = [replace(grid, **changes) for grid in grids]
    if "budgets" in changes or "attacks" not in changes:
        return made
    return [kept for grid in made if (kept := grid.with_taken_budgets()) is not None]
