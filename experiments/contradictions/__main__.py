"""Where a paper, its code and other papers disagree: how much does the number move?

    python experiments/contradictions [--which em_generator]
        [--scale quick|screen|small|grid|paper] [--seeds 0 1]

Each contradiction runs its settings side by side, everything else equal, beside what the papers
print for them. Scales: digits and a small network in minutes; CIFAR-10 with the trials of the
screening grid, none of which that lies in --out is run again, without questions of other learners
and of poisons that take longer than about an hour of a core; the small network on as much of
CIFAR-10 as lies under --data, with attacks as short as at quick but at the published budgets;
CIFAR-10 and ResNet-18 with 200 contrastive epochs; with 1,000. Where the schedule is the question,
the papers' protocols run at full length at every scale. Which there are:
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import projected
import rim
import separable
from questions import CONTRADICTIONS
from scales import lacking, specs
from verdict import RULE, table

from raygrid.api.run_grid import Options
from raygrid.cli.guard import guarded
from raygrid.cli.options import (
    CommandParser,
    add_axis,
    add_fleet,
    add_options,
    add_running,
    fleet_of,
    options_of,
    seeds_of,
)
from raygrid.cli.plan import show_plan
from raygrid.cli.run import place_and_run
from raygrid.core.errors import SpecError
from raygrid.core.plugins import load_plugins
from raygrid.reproduce.scales import COMPARISON_SIZES
from raygrid.storage.results import log_of

# Answered without trials, from what attacks make of the images.
OF_POISONS = {"ar_separable": separable, "coin_detector": rim, "op_bytes": projected}
KNOWN = {
    **{name: each.says for name, each in CONTRADICTIONS.items()},
    **{name: each.SAYS for name, each in OF_POISONS.items()},
}


def main() -> int:
    listed = "\n".join(f"{name:15} {says}" for name, says in KNOWN.items())
    parser = CommandParser(
        description=f"{__doc__}\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--which", nargs="+", choices=KNOWN, help="all of the scale by default")
    parser.add_argument("--scale", choices=COMPARISON_SIZES, default="quick")
    add_axis(parser, "seeds", "whole numbers (0)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_fleet(parser)
    add_running(parser)
    add_options(parser)
    args = parser.parse_args()
    return guarded(lambda: run(args))


def asked(which: Sequence[str] | None, scale: str) -> list[str]:
    """The questions that are named, or all that a scale has, with a word on the others.

    Raises SpecError for a named one that the scale does not have.
    """
    names = which or list(KNOWN)
    reasons = {n: lacking(CONTRADICTIONS[n], scale) for n in names if n not in OF_POISONS}
    left_out = [f"{name} is not asked: {'; '.join(why)}" for name, why in reasons.items() if why]
    if which and left_out:
        raise SpecError("\n".join(left_out))
    for line in left_out:
        print(line, file=sys.stderr)
    return [name for name in names if not reasons.get(name)]


def run(args: argparse.Namespace) -> int:
    options: Options = options_of(args, name=f"contradictions-{args.scale}")
    load_plugins(options.imports)
    args.seeds = seeds_of(args)
    args.which = asked(args.which, args.scale)
    chosen = [CONTRADICTIONS[name] for name in args.which if name in CONTRADICTIONS]
    wanted = list(dict.fromkeys(s for one in chosen for s in specs(one, args.scale, args.seeds)))
    if args.dry_run:
        return show_plan(wanted, options, args.json, fleet_of(args))
    status = place_and_run(wanted, options, args) if wanted else 0
    if not args.json:
        print("\n".join(report(args, options)))
    return status


def report(args: argparse.Namespace, options: Options) -> Iterator[str]:
    """The tables of what was asked for, from the rows that are there, in Markdown."""
    log = log_of(options.out)
    rows = {row["spec"]: row for row in log.rows() if row["status"] == "done"}
    yield f"# Contradictions at scale {args.scale}"
    yield ""
    yield f"Here: mean ± standard deviation (seeds). {RULE}"
    yield ""
    for name in args.which:
        if name in OF_POISONS:
            yield from OF_POISONS[name].table(args.scale, options.data, args.seeds)
        else:
            yield from table(name, CONTRADICTIONS[name], args.scale, args.seeds, rows)


if __name__ == "__main__":
    sys.exit(main())
