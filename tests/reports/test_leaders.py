"""What a table calls the best defense and the strongest attack, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from raygrid.core.errors import SpecError
from raygrid.reports.analysis.headlines import headlines
from raygrid.reports.statistics import paper_error, wilson
from raygrid.reports.tables.kinds import CellSource, table
from raygrid.reports.tables.notes import notes
from raygrid.reports.tables.tidy import csv_text
from raygrid.reports.tables.trial_lines import trial_lines
from raygrid.tracking.mlflow.description import findings
from tests.reports.rows import ES, HELD, TOY, VAL, trial
from tests.reports.test_success import BP, row


def lines(values: dict[tuple[str, str], float]) -> list[dict[str, object]]:
    where = {spot: TOY.format(*spot, "supervised", 0) for spot in values}
    return trial_lines(trial(where[spot], acc) for spot, acc in values.items())


def test_controls_take_part_in_no_contest() -> None:
    """`withheld` was underlined as the strongest attack, and `clean` had a best defense."""
    made = lines(
        {
            ("clean", "standard"): 0.9,
            ("clean", "jpeg"): 0.8,
            ("withheld@0.8", "standard"): 0.6,
            ("withheld@0.8", "jpeg"): 0.5,
            ("lsp@0.8", "standard"): 0.7,
            ("lsp@0.8", "jpeg"): 0.75,
            ("ops@0.8", "standard"): 0.8,
            ("ops@0.8", "jpeg"): 0.7,
        }
    )
    (panel,) = table("defense", made).panels
    assert {row: panel.best(row) for row in panel.rows} == {
        "clean": set(),
        "withheld": set(),
        "lsp": {"jpeg"},
        "ops": {"jpeg"},
    }
    assert [panel.strongest(column) for column in panel.columns] == [{"lsp"}, {"ops"}]


def test_who_is_within_the_spread_of_the_leaders_seeds_leads_with_it() -> None:
    """The best has 40 and 60 %, a standard deviation of 14.1 points."""
    values = {"grayscale": (0.4, 0.6), "jpeg": (0.36, 0.36), "bdr": (0.35, 0.35)}
    rows = [
        trial(TOY.format("lsp", defense, "supervised", seed), acc)
        for defense, accuracies in values.items()
        for seed, acc in enumerate(accuracies)
    ]
    (panel,) = table("defense", trial_lines(rows)).panels
    assert panel.best("lsp") == {"grayscale", "jpeg"}


@pytest.mark.parametrize("plain", ["none", "standard"])
def test_plain_training_is_no_defense_and_never_the_best(plain: str, tmp_path: Path) -> None:
    """Bold and MLflow had `standard` for the best defense, the headlines had grayscale."""
    values = {
        ("clean", plain): 0.9,
        ("clean", "jpeg"): 0.8,
        ("noise", plain): 0.88,
        ("noise", "jpeg"): 0.7,
        ("noise", "grayscale"): 0.75,
        ("lsp", plain): 0.6,
        ("lsp", "jpeg"): 0.5,
    }
    made = table("defense", lines(values))
    (panel,) = made.panels
    assert {row: panel.best(row) for row in panel.rows} == {
        "clean": set(),
        "lsp": {"jpeg"},
        "noise": {"grayscale"},
    }
    file = tmp_path / "defense.csv"
    file.write_text(csv_text(made))
    metrics, tags = findings([file])
    assert metrics == {"best_defense/lsp": 0.5, "best_defense/noise": 0.75}
    assert tags == {
        "raygrid.best_defense.lsp": "jpeg",
        "raygrid.best_defense.noise": "grayscale",
    }


@pytest.mark.parametrize("oracle", ["iss", "early_stopping"])
def test_what_chooses_by_the_test_set_is_never_the_best(oracle: str) -> None:
    made = lines({("lsp", "standard"): 0.1, ("lsp", "jpeg"): 0.6, ("lsp", oracle): 0.7})
    (panel,) = [p for p in table("defense", made).panels if p.where["selection"] == "test"]
    assert panel.best("lsp") == {"jpeg"}
    assert f"{oracle}: selected on the test set (an oracle), so unmarked." in notes(
        table("defense", made), panel
    )
    assert not any(oracle in line for line in headlines(CellSource(made)))


def test_of_an_attacks_success_little_is_best() -> None:
    """The undefended 83.3 % success was bold as the best defense."""
    rows = [
        {**each, "spec": each["spec"].replace("/standard/", f"/{defense}/")}
        for defense, hits in (("standard", 5), ("jpeg", 1))
        for each in (row(BP, "resnet18", seed, seed < hits) for seed in range(6))
    ]
    weak = [row("convex_polytope", "resnet18", seed, False) for seed in range(6)]
    (panel,) = table("defense", trial_lines(rows + weak), "target_success").panels
    assert panel.best(BP) == {"jpeg"}
    assert panel.strongest("standard") == {BP}
    cell = panel.cells[BP, "jpeg"]
    assert cell.std == pytest.approx(paper_error(1 / 6, 6)), "not the spread of 0 and 1"
    assert (cell.low, cell.high) == pytest.approx(wilson(1 / 6, 6))
    assert cell.interval == "wilson"
    for kind in ("worst-learner", "transfer"):  # their largest value would be no worst case
        with pytest.raises(SpecError, match="one of final_acc, peak_acc, not of 'target_success'"):
            table(kind, trial_lines(rows), "target_success")


@pytest.mark.parametrize("knowing", ["eclipse", "avatar(diffusion_data=clean_train)"])
def test_what_saw_clean_images_is_never_the_best(knowing: str) -> None:
    """The page on tables said that they are marked, and they were bold and in the headlines."""
    made = lines({("lsp", "standard"): 0.1, ("lsp", "jpeg"): 0.6, ("lsp", knowing): 0.8})
    (panel,) = table("defense", made).panels
    assert panel.best("lsp") == {"jpeg"}
    (said,) = (line for line in notes(table("defense", made), panel) if "saw clean" in line)
    assert said.endswith("starts from a network that saw clean images: unmarked.")
    assert not any(knowing.split("(")[0] in line for line in headlines(CellSource(made)))


@pytest.mark.parametrize(("chosen", "best"), [(VAL, "jpeg"), (HELD, HELD)])
def test_what_chooses_by_clean_images_is_never_the_best(chosen: str, best: str) -> None:
    """Poisoned images that are held out are the defender's own; clean ones are not."""
    made = lines({("lsp", "standard"): 0.1, ("lsp", "jpeg"): 0.6, ("lsp", chosen): 0.8})
    (panel,) = [p for p in table("defense", made).panels if chosen in p.columns]
    assert panel.best("lsp") == {best}
    said = "early_stopping: selected on clean validation images, so unmarked."
    assert (said in notes(table("defense", made), panel)) == (chosen == VAL)
    assert any(ES in line for line in headlines(CellSource(made))) == (chosen == HELD)
