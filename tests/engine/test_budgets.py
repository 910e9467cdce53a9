"""A budget that no attack takes is refused; one that some take says who is left out."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from raygrid.cli.main import main
from raygrid.cli.options import AXIS_HELP, with_axes
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.engine.grid import Grid, Skip
from raygrid.trials.resolve import resolve


@pytest.mark.parametrize(
    ("attacks", "says"),
    [
        (("lsp",), "no attack takes the budget 8/255: lsp takes l2, not 8/255"),
        (("clean",), "no attack takes the budget 8/255: clean has none"),
        (("em(budget=4/255)",), "em.budget=4/255. has its own"),
        (("lsp", "clean"), "lsp takes l2, not 8/255; clean has none"),
    ],
)
def test_a_budget_that_no_attack_takes_is_refused(attacks: tuple[str, ...], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        list(Grid(attacks=attacks, budgets=("8/255",)).specs())


def test_attacks_that_a_budget_leaves_out_are_listed() -> None:
    grid = Grid(attacks=("lsp", "em", "clean"), budgets=("8/255", "default"))
    assert [str(spec.attack) for spec in grid.specs()] == [
        "lsp",
        "em(budget=8/255)",
        "em",
        "clean",
    ]
    assert grid.unmatched() == [Skip("lsp", "lsp takes l2, not 8/255")]


def test_the_command_line_says_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    assert main(["run", "--attacks", "lsp", "--budgets", "8/255", *out]) == 2
    assert "no attack takes the budget 8/255" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["plan", "--attacks", "lsp", "em", "--budgets", "8/255", *out]) == 0
    assert "skipped: lsp takes l2, not 8/255" in capsys.readouterr().err


def test_attacks_of_the_command_line_leave_the_parts_of_a_grid_that_they_have_no_budget_for() -> (
    None
):
    parts = (Grid(attacks=("em", "lsp")), Grid(attacks=("em",), budgets=("8/255", "l2:1.0")))
    words = argparse.Namespace(**dict.fromkeys(AXIS_HELP))
    for given, budgets in (
        (["clean"], [("default",)]),
        (["lsp"], [("default",), ("l2:1.0",)]),
        (["em", "lsp"], [("default",), ("8/255", "l2:1.0")]),
    ):
        words.attacks = given
        assert [grid.budgets for grid in with_axes(parts, words)] == budgets
    words.attacks, words.budgets = ["clean"], ["8/255"]
    with pytest.raises(SpecError, match="no attack takes the budget 8/255: clean has none"):
        list(with_axes(parts, words)[0].specs())


@pytest.mark.parametrize("attack", ["lsp", "ar"])
@pytest.mark.parametrize(("fraction", "number"), [("1/2x", "0.5x"), ("3/2x", "1.5x")])
def test_a_fraction_of_the_default_is_that_number_on_larger_images(
    attack: str, fraction: str, number: str
) -> None:
    """At 64 pixels the default grows; half of it by a fraction was a quarter."""
    where = f"tinyimagenet/{attack}(budget={{}})/none/resnet18/supervised/apbench/0"
    made, wanted = (resolve(where.format(text), None).attack.budget for text in (fraction, number))
    assert made == wanted
    with pytest.raises(SpecError, match=r"budget '80/2x' is linf 1.2549, 40 times 8/255"):
        Budget.parse("80/2x", Budget("linf", 8 / 255))
