"""What questions and figures share: the store of a command, its trials, poisons and victims."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.cli.options import options_of
from raygrid.core.errors import DataError, SpecError
from raygrid.core.registry import require
from raygrid.core.spec import split_outside
from raygrid.storage.mirrored import open_store
from raygrid.storage.results import Json, ResultLog, log_of

if TYPE_CHECKING:
    from raygrid.reports.analysis.records import Records, Victim
    from raygrid.trials.poisons import Poisoned


def add_epoch(parser: argparse.ArgumentParser) -> None:
    """The argument `--epoch`."""
    parser.add_argument(
        "--epoch",
        choices=("last", "peak"),
        default="last",
        help="weights after the last epoch or the best one (peak: trials run with --keep peak)",
    )


def records_of(args: argparse.Namespace) -> Records:
    from raygrid.reports.analysis.records import Records

    options = options_of(args)
    return Records(open_store(options.store_url, reading=True), options.data, args.epoch)


def check_picture(path: Path) -> None:
    """Raise SpecError, before any work, unless a picture can be written to `path`."""
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in kinds:
        raise SpecError(
            f"{path} is no name of a picture; allowed are names that end with "
            f"{', '.join(f'.{kind}' for kind in sorted(kinds))}"
        )


def victims_of(records: Records, what: str, specs: Sequence[str]) -> list[Victim]:
    if not specs:
        raise SpecError(f"{what} needs --victims: trials on clean data with kept weights")
    return [records.victim(spec) for spec in specs]


def rows_of(
    records: Records, args: argparse.Namespace, rows: Mapping[str, Json] | None = None
) -> list[Json]:
    """The rows of the given specs, or all; DataError if one is missing or there are none.

    rows: those of the output folder by spec, if they were read already.
    """
    from raygrid.trials.resolve import resolve

    rows = results_of(args) if rows is None else rows
    if not rows:
        raise DataError(f"there are no results under {args.out}")
    wanted = [str(resolve(spec, records.catalog).spec) for spec in args.specs] or list(rows)
    for spec in wanted:
        if spec not in rows:
            raise DataError(f"there is no result of {spec} under {args.out}")
    return [rows[spec] for spec in wanted]


def results_of(args: argparse.Namespace) -> dict[str, Json]:
    """All rows of the output folder by spec; lines that cannot be read are told of."""
    log = log_of(args.out)
    say_broken(log)
    return {row["spec"]: row for row in log.rows()}


def only_of_poisons(option: str, given: object, specs: Iterable[str]) -> None:
    """Raise SpecError for an option of poisons that is given where no spec is of one."""
    used = not given or any(map(is_poison, specs))
    require(used, f"{option} applies to poisons (dataset/attack) only, and none is named")


def only_of_trials(option: str, given: object, specs: Iterable[str]) -> None:
    """Raise SpecError for an option of trials that is given where every spec is a poison."""
    used = not given or not all(map(is_poison, specs))
    require(used, f"{option} applies to trials only, and only poisons (dataset/attack) are named")


def is_poison(text: str) -> bool:
    """Whether it is `dataset/attack` and not a trial."""
    return len(list(split_outside(text, "/"))) == 2


def poisons_of(records: Records, args: argparse.Namespace) -> list[Poisoned]:
    return [records.poisoned(text, args.seed) for text in args.specs]


def say_broken(log: ResultLog) -> None:
    """Tell a person about lines of a result log that nobody uses."""
    if log.warning():
        print(f"note: {log.warning()}", file=sys.stderr)
