"""The numbers that README shows are those of the rows under `experiments/results`."""

from __future__ import annotations

import json
import re
import runpy
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from raygrid.core.spec import Part, TrialSpec
from raygrid.core.text import decimal
from raygrid.engine.grid import plan
from raygrid.literature import lookup
from raygrid.reports.analysis.agreement import agreement
from raygrid.reports.tables.cell_text import number
from raygrid.trials import privileges

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FOLDER = ROOT / re.findall(r"rows:\n`(experiments/results/[\w-]+)`", README)[0]
LATER = ROOT / re.findall(r"\]\((experiments/results/[\w-]+)/README.md\)", README)[0]
"""What later papers' methods did, on the same grid."""
LATER_TEXT = (LATER / "README.md").read_text()
CELL = re.compile(r"(?P<mean>[\d.]+)(?: ± (?P<spread>[\d.]+))?(?: \[(?P<printed>[\d.]+)\])?")
NETWORK = "small_airbench"


def rows(*folders: Path) -> list[dict[str, Any]]:
    lines = [
        line for folder in folders for line in (folder / "results.jsonl").read_text().splitlines()
    ]
    return [row for row in map(json.loads, lines) if row["status"] == "done"]


def shown(text: str) -> dict[tuple[str, str], str]:
    """The cells of the first table of a text by attack and defense."""
    lines = text[text.index("| attack |") :].split("\n\n")[0].splitlines()
    head, _, *body = [[word.strip(" `") for word in line.strip("|").split("|")] for line in lines]
    return {
        (line[0], defense): cell
        for line in body
        for defense, cell in zip(head[1:], line[1:], strict=True)
        if cell
    }


def measured(*folders: Path) -> dict[tuple[str, str], list[float]]:
    """By attack and defense the accuracies of all seeds, of whole poisons alone."""
    cells: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows(*folders):
        spec = TrialSpec.parse(row["spec"])
        if spec.poison_ratio in (0.0, 1.0) and spec.architecture.name == NETWORK:
            where = (str(spec.attack), "+".join(map(str, spec.defense)))
            cells.setdefault(where, {})[spec.seed] = row["final_acc"]
    return {where: list(seeds.values()) for where, seeds in cells.items()}


def percent(share: float) -> str:
    return number(share, "final_acc", 1)


TABLES = [
    pytest.param(README, (FOLDER, LATER), id="README"),
    pytest.param(LATER_TEXT, (FOLDER, LATER), id="later papers"),
]


@pytest.mark.parametrize(("text", "folders"), TABLES)
def test_every_cell_is_the_mean_of_its_rows(text: str, folders: tuple[Path, ...]) -> None:
    found = measured(*folders)
    for where, said in shown(text).items():
        cell = CELL.fullmatch(said)
        assert cell, said
        values = found[where]
        assert cell["mean"] == percent(mean(values)), where
        assert cell["spread"] == (percent(stdev(values)) if len(values) > 1 else None), where


@pytest.mark.parametrize("text", [README, LATER_TEXT], ids=["README", "later papers"])
def test_every_printed_number_is_of_a_paper(text: str) -> None:
    for (attack, defense), said in shown(text).items():
        cell = CELL.fullmatch(said)
        assert cell, said
        names = as_printed(attack), as_printed(defense)
        printed = lookup.find("cifar10/{}/{}/resnet18/supervised/fast/0".format(*names))
        best = None if printed is None else percent(printed.best.value)
        assert cell["printed"] in (best, None), (attack, defense)


def test_the_page_of_agreement_is_that_of_the_rows() -> None:
    found = agreement(rows(FOLDER, LATER)).correlations
    page = (FOLDER.parent / "agreement.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in page.splitlines()]
    said = {(words[0], words[1].strip("`")): words[2:] for words in lines if len(words) == 8}
    wanted = {}
    for row in found:
        network = row["setting"].split("/")[1]
        group = row["group"] + f", {network}" * (network != NETWORK)
        attack = row["attack"] if row["attack"] == "all" else as_printed(row["attack"])
        means = [percent(row[name]) for name in ("mean_difference_acc", "mean_error_acc")]
        ranks = [correlation(row, name) for name in ("spearman", "kendall")]
        wanted[group, attack] = [str(row["n"]), *means, str(row["far"]), *ranks]
    controls = {where for where in wanted if where[0].startswith("control")}
    assert {where: wanted[where] for where in wanted.keys() - controls} == {
        where: words for where, words in said.items() if where in wanted
    }


def correlation(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "–"
    value, low, high = (decimal(row[name + end], 2) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def as_printed(method: str) -> str:
    """The method that a shorter one with the fast network stands for."""
    part = Part.parse(method)
    kept = {name: value for name, value in part.params if name in ("budget", "n")}
    return str(Part.of(part.name, **kept))


def test_the_command_of_the_readme_makes_every_row() -> None:
    """A row that the grid does not have would be one that no reader gets."""
    scales = runpy.run_path(str(ROOT / "experiments" / "full_grid.py"))["SCALES"]
    made = plan([spec for grid in scales["screen"] for spec in grid.specs()], None)
    planned = {str(trial.spec) for trial in made.trials} | {str(t.spec) for t in made.derived}
    assert [row["spec"] for row in rows(FOLDER) if row["spec"] not in planned] == []


def test_the_worst_cases_of_the_readme_are_those_of_the_table() -> None:
    """Both ways, over the attacks and the defenses that know no more than others may."""
    said = re.search(
        r"Of the five defenses that met all (\d+) attacks and see no clean images,"
        r"\s+`(\w+)` keeps most in the worst case:\s+([\d.]+) % under `([^`]+)`,"
        r"\s+([\d.]+) points more than the next one,[^.]+\. `([^`]+)`\s+leaves least to the best of"
        r" them,\s+([\d.]+) % behind `(\w+)`",
        README,
    )
    assert said
    table = shown(LATER_TEXT)
    means = {where: 100 * mean(values) for where, values in measured(FOLDER, LATER).items()}
    cells = {where: means[where] for where in table}
    attacks = {attack for attack, _ in cells} - {"clean"}
    defenses = {d for _, d in cells if not privileges.of_defense(d)} - {"standard"}
    assert cells.keys() >= set(product(attacks, defenses))
    worst = {d: min((cells[a, d], as_printed(a)) for a in attacks) for d in defenses}
    best = {as_printed(a): max((cells[a, d], d) for d in defenses) for a in attacks}
    assert len(defenses) == 5
    *_, second, safest = sorted(worst, key=lambda defense: worst[defense])
    ahead = round(worst[safest][0], 1) - round(worst[second][0], 1)
    assert ahead < 15, "else the page of agreement would let it be told apart"
    strongest = min(best, key=lambda attack: best[attack])
    assert said.groups() == (
        str(len({Part.parse(attack).name for attack in attacks})),
        safest,
        f"{worst[safest][0]:.1f}",
        worst[safest][1],
        f"{ahead:.1f}",
        strongest,
        f"{best[strongest][0]:.1f}",
        best[strongest][1],
    )
