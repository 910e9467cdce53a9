"""Where a paper, its code and other papers disagree: how much does the number move?

    python experiments/contradictions [--which em_generator] [--scale quick|small|grid|paper]

Each contradiction runs its settings side by side, everything else equal, beside what the papers
print for them. Scales: digits and a small network in minutes; the small network on as much of
CIFAR-10 as lies under --data, with attacks as short as at quick but at the published budgets;
CIFAR-10 and ResNet-18 with 200 contrastive epochs; with 1,000. Where the schedule is the question,
the papers' protocols run at full length at every scale. Which there are:
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import separable
from questions import CONTRADICTIONS
from scales import specs
from verdict import RULE, table

from raygrid.api.run_grid import Options
from raygrid.cli.guard import guarded
from raygrid.cli.options import add_fleet, add_options, add_running, fleet_of, options_of
from raygrid.cli.plan import show_plan
from raygrid.cli.run import place_and_run
from raygrid.reproduce.scales import SIZES
from raygrid.storage.results import ResultLog

SEPARABLE = "ar_separable"
KNOWN = {
    **{name: each.says for name, each in CONTRADICTIONS.items()},
    SEPARABLE: "APBench calls the noise of AR linearly separable",
}


def main() -> int:
    listed = "\n".join(f"{name:15} {says}" for name, says in KNOWN.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--which", nargs="+", choices=KNOWN, default=list(KNOWN))
    parser.add_argument("--scale", choices=SIZES, default="quick")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_fleet(parser)
    add_running(parser)
    add_options(parser)
    args = parser.parse_args()
    return guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    options: Options = options_of(args, name=f"contradictions-{args.scale}")
    chosen = [CONTRADICTIONS[name] for name in args.which if name != SEPARABLE]
    wanted = list(dict.fromkeys(s for one in chosen for s in specs(one, args.scale, args.seeds)))
    if args.dry_run:
        return show_plan(wanted, options, args.json, fleet_of(args))
    status = place_and_run(wanted, options, args) if wanted else 0
    if not args.json:
        print("\n".join(report(args, options)))
    return status


def report(args: argparse.Namespace, options: Options) -> Iterator[str]:
    """The tables of what was asked for, from the rows that are there, in Markdown."""
    log = ResultLog(options.out.absolute() / "results.jsonl")
    rows = {row["spec"]: row for row in log.rows() if row["status"] == "done"}
    yield f"# Contradictions at scale {args.scale}"
    yield ""
    yield f"Here: mean ± standard deviation (seeds). {RULE}"
    yield ""
    for name in args.which:
        if name == SEPARABLE:
            yield from separable.table(args.scale, options.data, args.seeds)
        else:
            yield from table(name, CONTRADICTIONS[name], args.scale, args.seeds, rows)


if __name__ == "__main__":
    sys.exit(main())
