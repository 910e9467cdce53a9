"""Command-line options that several commands share, and how they become axes and options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from raygrid.api.run_grid import Options
from raygrid.engine.costs.simulate import Fleet
from raygrid.engine.grid import Grid
from raygrid.storage.store import LEFT

AXES = {
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


class FilledLater(argparse.ArgumentParser):
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
        return super().parse_known_args(args, namespace)


def add_axes(parser: argparse.ArgumentParser) -> None:
    """One option per axis, singular and plural."""
    group = parser.add_argument_group("axes (each takes one or more values)")
    for axis, text in AXES.items():
        flags = dict.fromkeys([f"--{axis}", f"--{singular(axis)}"])
        dashed = [flag.replace("_", "-") for flag in flags]
        group.add_argument(*dashed, nargs="+", metavar="X", dest=axis, help=text)


def singular(axis: str) -> str:
    return {"defenses": "defense"}.get(axis, axis.removesuffix("s"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where things are and how a grid runs."""
    default = Options()
    group = parser.add_argument_group("places")
    group.add_argument(
        "--out", type=Path, default=default.out, help="folder for all output (%(default)s)"
    )
    group.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("RAYGRID_DATA", default.data)),
        help="folder with the datasets' files (%(default)s)",
    )
    group.add_argument(
        "--store",
        default=os.environ.get("RAYGRID_STORE"),
        help="folder or URL (s3://...) for artifacts (OUT/store)",
    )
    group.add_argument("--tracking", help="MLflow URI, or off (a database under OUT)")
    group.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module that registers methods of your own",
    )


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """What a plan is simulated on."""
    group = parser.add_argument_group("fleet (of a plan)")
    group.add_argument("--gpus", metavar="NxKIND", help="play the schedule on it: 8xA10G, 16xCPU")
    group.add_argument("--price", type=float, default=0.0, help="of one GPU (or core) an hour")


def fleet_of(args: argparse.Namespace) -> Fleet | None:
    """The fleet that was named."""
    if not args.gpus:
        return None
    return replace(Fleet.parse(args.gpus, args.price), per_gpu=args.per_gpu)


def add_running(parser: argparse.ArgumentParser) -> None:
    """How a grid runs."""
    group = parser.add_argument_group("running")
    group.add_argument("--executor", choices=("auto", "ray", "inline"), default="auto")
    group.add_argument("--address", help="a Ray cluster: http://host:8265, host:6379, auto, local")
    group.add_argument("--detach", action="store_true", help="submit to the cluster and leave")
    group.add_argument("--cpus", type=int, help="CPUs for a local Ray (all)")
    group.add_argument(
        "--shards", type=int, help="jobs that make one poison together (as many as there is room)"
    )
    group.add_argument(
        "--per-gpu",
        type=int,
        metavar="N",
        help="trials that share a GPU: 1, 2, 4 or 8 (as many as fit, by what was measured)",
    )
    group.add_argument(
        "--no-mps",
        dest="mps",
        action="store_false",
        help="trials that share a GPU take turns on it, also where NVIDIA's MPS is there",
    )
    group.add_argument(
        "--no-measure",
        dest="measure",
        action="store_false",
        help="do not measure on the cluster's GPUs, before the grid starts, what unknown kinds of "
        "trials take; they are learned as they run",
    )
    group.add_argument(
        "--keep",
        nargs="+",
        choices=LEFT,
        help="what trials leave for `raygrid evaluate` and `figure` (`plan` says its size)",
    )
    group.add_argument("--quiet", action="store_true", help="no progress display")
    group.add_argument(
        "--checkpoint-every",
        type=seconds,
        metavar="SECONDS",
        help="between checkpoints of a trial (30)",
    )
    group.add_argument(
        "--deadline",
        type=seconds,
        metavar="SECONDS",
        help="without progress, after which a job is ended and tried once more "
        "(ten times its estimate, an hour at least)",
    )


def seconds(text: str) -> float:
    """A positive number of seconds."""
    if not (value := float(text)) > 0:
        raise ValueError
    return value


def options_of(args: argparse.Namespace, **changes: object) -> Options:
    """The run options that were given."""
    known = {f.name for f in fields(Options)}
    given = {k: v for k, v in vars(args).items() if k in known and v is not None}
    for name in ("imports", "keep"):
        given[name] = tuple(given.get(name, ()))
    return replace(Options(**given), **changes)  # type: ignore[arg-type]


def with_axes(grids: Sequence[Grid], args: argparse.Namespace) -> list[Grid]:
    """The grids with the axes that were given in place of their own."""
    changes = {axis: getattr(args, axis) for axis in AXES if getattr(args, axis) is not None}
    return [replace(grid, **changes) for grid in grids]
