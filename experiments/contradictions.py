"""Where a paper, its code and other papers disagree: how much does the number move?

    python experiments/contradictions.py [--which frozen_views] [--tier quick|grid|paper]

frozen_views  TransPoison's code draws both views of an image once, for the whole training
probe_data    Liu et al. and AUE fit the linear probe on poisoned images, CP and APBench on clean
loss_scale    some codes multiply InfoNCE by T / 0.07 and others do not, at the same learning rate
tue_loss      TUE's published commands switch its contrastive loss off, the paper describes both

Each runs the two settings side by side, everything else equal. Tiers: digits and a small network
in minutes; CIFAR-10 and ResNet-18 with 200 contrastive epochs; with 1,000.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from raygrid.arguments import add_fleet, add_options, add_running, fleet_of, options_of
from raygrid.attacks import ATTACKS
from raygrid.experiment import guarded, place_and_run, show_plan
from raygrid.resolve import resolve
from raygrid.run import Options
from raygrid.spec import Part
from raygrid.store import ResultLog

Change = Mapping[str, Mapping[str, str | float | bool]]
"""By axis (attack, learner, protocol): the parameters that a setting sets."""


@dataclass(frozen=True)
class Contradiction:
    """Two settings by name, and on which attacks and learners they are compared."""

    first: tuple[str, Change]
    second: tuple[str, Change]
    attacks: Sequence[str]
    learners: Sequence[str]


@dataclass(frozen=True)
class Tier:
    """The size of a comparison. sgd: its protocol where the scale of a loss must matter."""

    dataset: str
    architecture: str
    protocol: str
    sgd: str


TIERS = {
    # AdamW, which `quick` trains with, does not feel the scale of a loss.
    "quick": Tier("photo_digits", "small_cnn", "quick", "tp(batch_size=64, epochs=12, lr=0.06)"),
    "grid": Tier("cifar10", "resnet18", "tp_grid", "tp_grid"),
    "paper": Tier("cifar10", "resnet18", "tp", "tp"),
}
CONTRADICTIONS = {
    "frozen_views": Contradiction(
        ("fresh views", {}),
        ("frozen views", {"learner": {"frozen_views": True}}),
        ("clean", "lsp", "tp"),
        ("simclr", "supcl"),
    ),
    "probe_data": Contradiction(
        ("poisoned probe", {}),
        ("clean probe", {"protocol": {"probe_data": "clean"}}),
        ("lsp", "tp"),
        ("simclr", "supcl"),
    ),
    "loss_scale": Contradiction(
        ("times T / 0.07", {}),
        ("unscaled", {"learner": {"loss_scale": "none"}}),
        ("clean", "tp"),
        ("simclr", "moco"),
    ),
    "tue_loss": Contradiction(
        ("separability alone", {}),
        ("with contrastive loss", {"attack": {"ssl": 1.0}}),
        ("tue",),
        ("supervised", "simclr"),
    ),
}
QUICK_BUDGET = {"lsp": "l2:3.48"}


def attack_part(name: str, tier: str) -> Part:
    """An attack at the parameters and budget of a tier."""
    if tier != "quick" or name == "clean":
        return Part(name)
    budget = QUICK_BUDGET.get(name, "16/255")
    return Part.of(name, **{**ATTACKS[name].quick, "budget": budget})


def specs(which: str, tier: str, change: Change, seeds: int) -> Iterator[tuple[str, str, str]]:
    """(attack, learner, canonical spec) of every trial of one setting."""
    size, asked = TIERS[tier], CONTRADICTIONS[which]
    protocol = Part.parse(size.sgd if which == "loss_scale" else size.protocol)
    protocol = protocol.with_params(**change.get("protocol", {}))
    for attack in asked.attacks:
        poison = attack_part(attack, tier).with_params(**change.get("attack", {}))
        for name in asked.learners:
            learner = Part.of(name, **change.get("learner", {}))
            where = f"{size.dataset}/{poison}/standard/{size.architecture}/{learner}/{protocol}"
            for seed in range(seeds):
                yield attack, name, str(resolve(f"{where}/{seed}", None).spec)


def compare(which: str, tier: str, seeds: int, log: ResultLog) -> Table:
    """Accuracy of both settings and by how many points the second is higher, where it is there."""
    asked = CONTRADICTIONS[which]
    found = {row["spec"]: row["final_acc"] for row in log.rows() if row["status"] == "done"}
    grid = Table(title=f"{which}, tier {tier}, final test accuracy in percent")
    for head in ("attack", "learner", asked.first[0], asked.second[0], "moves by"):
        grid.add_column(head)
    sums: dict[tuple[str, str], list[list[float]]] = {}
    for side, (_, change) in enumerate((asked.first, asked.second)):
        for attack, learner, spec in specs(which, tier, change, seeds):
            values = sums.setdefault((attack, learner), [[], []])[side]
            if found.get(spec) is not None:
                values.append(100 * found[spec])
    for (attack, learner), sides in sums.items():
        means = [sum(values) / len(values) if values else None for values in sides]
        texts = ["–" if mean is None else f"{mean:.1f}" for mean in means]
        first, second = means
        move = "–" if first is None or second is None else f"{second - first:+.1f}"
        grid.add_row(attack, learner, *texts, move)
    return grid


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--which", nargs="+", choices=CONTRADICTIONS, default=list(CONTRADICTIONS))
    parser.add_argument("--scale", "--tier", choices=TIERS, default="quick")
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
    wanted = [
        spec
        for which in args.which
        for _, change in (CONTRADICTIONS[which].first, CONTRADICTIONS[which].second)
        for _, _, spec in specs(which, args.scale, change, args.seeds)
    ]
    if args.dry_run:
        return show_plan(wanted, options, args.json, fleet_of(args))
    status = place_and_run(wanted, options, args)
    if not args.json:
        log = ResultLog(options.out.absolute() / "results.jsonl")
        for which in args.which:
            Console().print(compare(which, args.scale, args.seeds, log))
    return status


if __name__ == "__main__":
    sys.exit(main())
