"""A mean over seeds is of one version of every method and of the same data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raygrid.reports.analysis.comparison import compare
from raygrid.reports.analysis.summary import over_seeds
from raygrid.reports.tables.cell_text import measured_text
from raygrid.reports.tables.frame import frame, lines_of
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.made_with import made_with
from raygrid.reports.tables.notes import notes
from raygrid.reports.tables.trial_lines import trial_lines
from raygrid.trials.resolve import resolve
from tests.reports.rows import TOY, Json, trial

WHERE = TOY.format("{}", "grayscale", "supervised", "{}")


def resolved(attack: str, seed: int, /, **changes: Any) -> Json:
    """What a trial says of itself; changes: of its parts, of methods by field."""
    said = json.loads(json.dumps(resolve(WHERE.format(attack, seed), None).resolved()))
    for name, value in changes.items():
        said[name] = {**said[name], **value} if isinstance(value, dict) else value
    return dict(said)


def row(attack: str, seed: int, acc: float, finished: float, /, **changes: Any) -> Json:
    made = resolved(attack, seed, **changes)
    return trial(WHERE.format(attack, seed), acc, finished=finished, resolved=made)


OLD: Json = {"architecture": {"version": 0}}
"""How rows from before an upgrade were made."""


def test_rows_of_other_versions_and_data_are_no_seeds_of_a_cell() -> None:
    """Two versions of a network, 17 points apart, stood as one mean of two seeds."""
    for other in (OLD, {"attack": {"version": 0}}, {"content": "x"}, {"recipe": {"epochs": 3}}):
        rows = [row("lsp", 0, 0.5, 1.0, **other), row("lsp", 1, 0.75, 2.0)]
        for taken in (rows, rows[::-1]):
            made = table("defense", trial_lines(taken))
            (panel,) = made.panels
            cell = panel.cells["lsp", "grayscale"]
            assert (cell.values, cell.seeds, cell.of) == ({1: 0.75}, (1,), 1)
            assert measured_text(cell) == "75.00"
            (said,) = [line for line in notes(made, panel) if "left out" in line]
            assert said.startswith("1 row is left out: of another version of a method, or on")
            assert [(each["acc"], each["n"]) for each in over_seeds(taken)] == [(0.75, 1)]


def test_the_versions_of_the_newest_row_win_and_the_others_are_counted_once() -> None:
    """A seed that ran with both counts as left out, too; the line of the old one came last."""
    new = [row("lsp", seed, 0.75 + seed / 100, 9.0 + seed) for seed in (0, 1)]
    old = [row("lsp", seed, 0.5, 1.0 + seed, **OLD) for seed in (0, 2)]
    older = row("lsp", 2, 0.4, 0.5, **OLD)  # of one version and seed the last line counts
    clean = row("clean", 0, 0.9, 1.0, **OLD)
    for kind in ("defense", "peak"):
        made = table(kind, trial_lines([*new, older, *old, clean]))
        (panel,) = made.panels
        column = "grayscale" if kind == "defense" else "final_acc"
        assert panel.cells["lsp", column].values == {0: 0.75, 1: 0.76}
        assert panel.cells["clean", column].values == {0: 0.9}, "a cell for itself"
        assert [line[:19] for line in notes(made, panel) if "left out" in line] == [
            "2 rows are left out"
        ], kind
    back = [{**each, "finished": 99.0} for each in old]
    (cell,) = table("defense", trial_lines([*new, *back])).panels[0].cells.values()
    assert cell.values == {0: 0.5, 2: 0.5}, "an older version that was run again is the newest"


def test_a_failure_of_a_newer_version_takes_no_finished_seed_away() -> None:
    """One that ran out of memory after an upgrade emptied the cell."""
    rows = [row("lsp", seed, 0.5 + seed / 100, 1.0 + seed, **OLD) for seed in (0, 2)]
    rows.append({**row("lsp", 1, 0.9, 9.0), "status": "failed", "final_acc": None})
    (cell,) = table("defense", trial_lines(rows)).panels[0].cells.values()
    assert cell.values == {0: 0.5, 2: 0.52}
    rows.append(row("lsp", 1, 0.75, 9.5))
    (cell,) = table("defense", trial_lines(rows)).panels[0].cells.values()
    assert cell.values == {1: 0.75}


def test_sides_are_compared_by_the_rows_of_their_newest_versions() -> None:
    rows = [row("lsp", seed, 0.75, 9.0) for seed in (0, 1)]
    rows += [row("lsp", 2, 0.25, 1.0, **OLD)]
    rows += [
        trial(TOY.format("lsp", "jpeg", "supervised", seed), 0.5, finished=1.0) for seed in range(3)
    ]
    (pair,) = [each for each in compare(rows, ["grayscale", "jpeg"]) if each["attack"] == "lsp"]
    assert (pair["difference_acc"], pair["n"]) == (pytest.approx(0.25), 2)


@pytest.mark.parametrize(
    "spec",
    [
        WHERE.format("lsp", "{}"),
        "photo_digits/lsp/bridgepure/small_cnn/supervised/quick/{}",
        "cifar10/em/avatar/resnet18/simclr/apbench/{}",
        "cifar10/bullseye_polytope/standard/resnet18/linear_probe/just_how_toxic/{}",
        "cifar10/dvae_recon(base=em)/iss/resnet18/supervised/dvae/{}",
    ],
)
def test_seeds_share_all_that_is_compared(spec: str) -> None:
    one, two = (resolve(spec.format(seed), None).resolved() for seed in (0, 1))
    assert one != two
    assert made_with(one) == made_with(two)
    assert made_with(json.loads(json.dumps(one))) == made_with(one), "as a log has it"


def test_a_field_that_came_later_is_no_difference_at_its_default() -> None:
    now = resolved("lsp", 0)
    before = json.loads(json.dumps(now))
    del before["attack"]["patch"]
    del before["defense"][0]["at_test"]
    del before["recipe"]["drop_last"]
    assert made_with(before) == made_with(now)
    for other in ({"attack": {"patch": 4}}, {"recipe": {"drop_last": True}}, {"content": "x"}):
        assert made_with(resolved("lsp", 0, **other)) != made_with(now)
    assert made_with({}) == "", "rows that do not say it"


def test_rows_that_do_not_say_how_they_were_made_stay_in_their_cell() -> None:
    rows = [trial(WHERE.format("lsp", 0), 0.5), row("lsp", 1, 0.75, 2.0)]
    for lines in (trial_lines(rows), lines_of(frame(rows))):
        (cell,) = table("defense", lines).panels[0].cells.values()
        assert cell.values == {0: 0.5, 1: 0.75}
