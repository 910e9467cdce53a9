"""Schwarzschild et al. 2021, targeted poisoning: `python experiments/just_how_toxic.py --table 3`.

3             the benchmark: four cells, white-box, black-box and from scratch
2, text       every attack in its authors' setting, and the changes that the text prints
optimizer     Adam and SGD                      augmentation   none, crop and flip
architecture  six victims                       epsilon        8, 16, 25.5 levels
disjoint      extractors of other classes       size           K = 5 to 500 at a fixed share
pairs         any classes, a fixed pair         flip           the target mirrored
patch         3, 5, 8 pixels

Tables by name start from the settings of table 2, one thing changed at a time. Every attack comes
with its clean control. `--setups FOLDER` takes the official set-ups (the benchmark's checkout, or
the same as JSON); without it they are drawn by the same rules. `--seeds N`: set-ups 0 to N-1.
"""

import argparse
import sys
from collections.abc import Iterator

from raygrid.api.run_grid import Options
from raygrid.cli.reproduce import parser_of, plan_or_run, show_tables
from raygrid.cli.run import guarded
from raygrid.core.spec import Part, TrialSpec
from raygrid.literature.lookup import find
from raygrid.literature.reference import specs_of
from raygrid.literature.toxic import BASELINES
from raygrid.reports.tables.frame import frame
from raygrid.reproduce.tables import Only, PaperTable, paper_table_of
from raygrid.storage.results import ResultLog

PAPER = "just_how_toxic"
SIX = ("alexnet_fc", "alexnet_htbd", "resnet32_narrow", "resnet18", "vgg11", "mobilenetv2")
PAIRS = {"feature_collision": "0:6", "convex_polytope": "6:8"}  # the authors' own, target:base
ABLATIONS = (
    *("optimizer", "augmentation", "architecture", "epsilon", "disjoint", "size", "pairs"),
    *("flip", "patch"),
)


QUICK = (
    "Scale quick: stand-ins on digits of other classes, small networks and short attacks; in "
    "brackets what the paper printed for the real thing."
)


def ablation(axis: str) -> Iterator[TrialSpec]:
    """The settings of table 2 with one thing changed; what does not apply is left out."""
    for text in BASELINES.values():
        base = TrialSpec.parse(text)
        yield base
        yield from changed(base, axis)


def changed(base: TrialSpec, axis: str) -> Iterator[TrialSpec]:
    """The values of an axis that mean something for a setting."""
    if axis in ("augmentation", "architecture", "epsilon"):
        yield from {"augmentation": augmented, "architecture": rebuilt, "epsilon": bounded}[axis](
            base
        )
        return
    values: dict[str, list[dict[str, int | str]]] = {
        "optimizer": [{"optimizer": name} for name in ("adam", "sgd")],
        "size": [{"poisons": k, "per_class": 10 * k} for k in (5, 10, 25, 50, 100, 250, 500)],
    }
    if base.learner.name != "supervised":
        values["disjoint"] = [{"pretrain": "cifar100"}]
    if base.attack.name in PAIRS:
        values["pairs"] = [{"pair": PAIRS[base.attack.name]}]
    if base.attack.name in ("clbd", "htbd"):
        values["patch"] = [{"patch": size} for size in (3, 5, 8)]
    for params in values.get(axis, []):
        yield base.replace(protocol=base.protocol.with_params(**params))


def augmented(base: TrialSpec) -> Iterator[TrialSpec]:
    yield from (base.replace(defense=(Part(name),)) for name in ("none", "standard"))


def rebuilt(base: TrialSpec) -> Iterator[TrialSpec]:
    """Attacker and victim with another network."""
    for name in SIX:
        attack = base.attack.with_params(surrogate=name)
        yield base.replace(architecture=Part(name), attack=attack)


def bounded(base: TrialSpec) -> Iterator[TrialSpec]:
    """Without the penalty that stands for a budget in the first setting."""
    params = dict(base.attack.params)
    if params.get("variant") == "penalty":
        del params["variant"]
    for budget in ("8/255", "16/255", "25.5/255"):
        attack = Part.of(base.attack.name, **params).with_params(budget=budget)
        yield base.replace(attack=attack)


def wanted(args: argparse.Namespace) -> PaperTable:
    """The trials of a table with their controls, at the scale and set-ups that were asked for."""
    if args.table in ABLATIONS:
        printed = list(ablation(args.table))
    else:
        printed = [TrialSpec.parse(text) for text in specs_of(PAPER, args.table)]
    if args.dataset:
        printed = [spec for spec in printed if spec.dataset.name.startswith(args.dataset)]
    printed = Only(attacks=args.attacks, defenses=args.defenses).of(printed)
    both = [each for spec in printed for each in (spec, spec.replace(attack=Part("clean")))]
    if args.setups:
        both = [s.replace(protocol=s.protocol.with_params(setups=args.setups)) for s in both]
    return paper_table_of(list(dict.fromkeys(both)), args.scale, range(args.seeds))


def mirrored(job: PaperTable, options: Options) -> None:
    """One line an attack: success on the target as it is and mirrored, which every trial asks."""
    trials = frame(ResultLog(options.out.absolute() / "results.jsonl").rows())
    trials = trials[trials["status"].eq("done") & trials["target_hflip_success"].notna()]
    specs = [str(TrialSpec.parse(text).replace(seed=0)) for text in trials["spec"]]
    for text, rows in trials.groupby(specs):
        printed = job.printed.get(str(text), ())
        found = find(printed[0], "target_hflip_success") if len(printed) == 1 else None
        shares = rows[["target_success", "target_hflip_success"]].mean() * 100
        line = f"{text}: {shares.iloc[0]:.1f}, mirrored {shares.iloc[1]:.1f} of {len(rows)} set-ups"
        print(line + (f" [{100 * found.best.value:.1f}]" if found else ""))


def main() -> int:
    tables = ("3", "2", "text", *ABLATIONS)
    parser = parser_of(__doc__ or "", tables)
    parser.add_argument("--setups", help="folder with the official set-ups")
    args = parser.parse_args()
    return guarded(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    job = wanted(args)
    status, options = plan_or_run(job, PAPER, args)
    if not args.json:
        show_tables(job, options, ("success",), PAPER, args.scale, QUICK)
        if args.table == "flip":
            mirrored(job, options)
    return status


if __name__ == "__main__":
    sys.exit(main())
