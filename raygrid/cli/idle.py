"""Options that a question does not ask for: they are refused, not ignored."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

from raygrid.core.errors import SpecError


def refuse_idle(
    args: argparse.Namespace,
    question: str,
    takes: Mapping[str, Sequence[str]],
    add: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Raise one SpecError for all options that were set and that `question` would ignore.

    takes: the options that belong to each question. add: adds them all to a parser, which knows
    the defaults.
    """
    bare = argparse.ArgumentParser()
    add(bare)
    names = dict.fromkeys(name for taken in takes.values() for name in taken)
    given = (n for n in names if getattr(args, n) != bare.get_default(n))
    if idle := [name for name in given if name not in takes[question]]:
        own = f"takes {said(takes[question])}" if takes[question] else "takes none of these options"
        raise SpecError(f"{said(idle)}: {question} would ignore what is set here; it {own}")


def said(names: Sequence[str]) -> str:
    """Options as they are typed."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
