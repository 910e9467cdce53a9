"""The numbers that README shows are those of the rows under `experiments/results`."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from raygrid.core.spec import TrialSpec
from raygrid.engine.grid import plan
from raygrid.literature import lookup

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FOLDER = ROOT / re.findall(r"`(experiments/results/[\w-]+)` has the rows", README)[0]
CELL = re.compile(r"(?P<mean>[\d.]+)(?: ± (?P<spread>[\d.]+))?(?: \[(?P<printed>[\d.]+)\])?")
NETWORK = "small_airbench"


def rows() -> list[dict[str, Any]]:
    lines = (FOLDER / "results.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["status"] == "done"]


def shown() -> dict[tuple[str, str], str]:
    """The cells of README's first table by attack and defense."""
    lines = README[README.index("| attack |") :].split("\n\n")[0].splitlines()
    head, _, *body = [[text.strip() for text in line.strip("|").split("|")] for line in lines]
    return {
        (line[0].strip("`"), defense): text
        for line in body
        for defense, text in zip(head[1:], line[1:], strict=True)
        if text
    }


def measured() -> dict[tuple[str, str], list[float]]:
    """By attack and defense the accuracies (%) of all seeds, of whole poisons alone."""
    cells: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows():
        spec = TrialSpec.parse(row["spec"])
        if spec.poison_ratio in (0.0, 1.0) and spec.architecture.name == NETWORK:
            where = (str(spec.attack), "+".join(map(str, spec.defense)))
            cells.setdefault(where, {})[spec.seed] = 100 * row["final_acc"]
    return {where: list(seeds.values()) for where, seeds in cells.items()}


def test_every_cell_of_the_readme_is_the_mean_of_its_rows() -> None:
    found = measured()
    for where, text in shown().items():
        cell = CELL.fullmatch(text)
        assert cell, text
        values = found[where]
        assert cell["mean"] == f"{mean(values):.1f}", where
        assert cell["spread"] == (f"{stdev(values):.1f}" if len(values) > 1 else None), where


def test_every_printed_number_of_the_readme_is_of_a_paper() -> None:
    for (attack, defense), text in shown().items():
        cell = CELL.fullmatch(text)
        assert cell, text
        spec = f"cifar10/{attack}/{defense}/resnet18/supervised/fast/0"
        printed = lookup.find(spec)
        best = None if printed is None else f"{100 * printed.best.value:.1f}"
        assert cell["printed"] in (best, None), (attack, defense)


def test_the_command_of_the_readme_makes_every_row() -> None:
    """A row that the grid does not have would be one that no reader gets."""
    scales = runpy.run_path(str(ROOT / "experiments" / "full_grid.py"))["SCALES"]
    made = plan([spec for grid in scales["screen"] for spec in grid.specs()], None)
    planned = {str(trial.spec) for trial in made.trials} | {str(t.spec) for t in made.derived}
    assert [row["spec"] for row in rows() if row["spec"] not in planned] == []
