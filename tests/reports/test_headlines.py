"""What a grid found, in lines: against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

from raygrid.reports.analysis.headlines import headlines
from raygrid.reports.tables.kinds import CellSource
from raygrid.reports.tables.trial_lines import trial_lines
from tests.reports.test_tables import TOY, trial

ACCURACIES = {
    ("clean", "standard"): 0.9,
    ("em", "standard"): 0.3,
    ("lsp", "standard"): 0.2,
    ("em", "grayscale"): 0.8,
    ("lsp", "grayscale"): 0.4,
    ("em", "jpeg"): 0.6,
    ("lsp", "jpeg"): 0.5,
    ("em", "bdr"): 0.99,  # not measured against lsp
    ("em", "early_stopping"): 0.95,
    ("lsp", "early_stopping"): 0.95,  # chosen on the test set
    ("em", "grayscale+bridgepure"): 0.97,
    ("lsp", "grayscale+bridgepure"): 0.97,  # knows what the attack did to some images
    ("em", "eclipse(diffusion_data=test)"): 0.98,
    ("lsp", "eclipse(diffusion_data=test)"): 0.98,  # starts from a network that saw the test set
    ("gue(selection=test)", "standard"): 0.05,  # chosen on the test set
    ("gue(selection=test)", "jpeg"): 0.05,
}


def said(rows: list[dict[str, Any]]) -> list[str]:
    return headlines(CellSource(trial_lines(rows)))


def rows() -> list[dict[str, Any]]:
    return [trial(TOY.format(a, d, "supervised", 0), v) for (a, d), v in ACCURACIES.items()]


def test_attacks_and_defenses() -> None:
    assert said(rows()) == [
        "strongest attack: lsp, 20.0 % under standard (of 2 attacks, clean 90.0 %)",
        "best defense on average: grayscale, 60.0 % over 2 attacks",
        "best in the worst case: jpeg, 50.0 % under lsp",
        "best against all defenses: lsp, at most 50.0 % (jpeg, of 2 defenses)",
    ]


def test_an_attack_that_met_no_defense_hides_none() -> None:
    alone = trial(TOY.format("tap", "standard", "supervised", 0), 0.1)
    assert said([*rows(), alone])[1:] == said(rows())[1:]


def test_learners_and_architectures() -> None:
    learners = {("em", "simclr"): 0.35, ("lsp", "simclr"): 0.7, ("clean", "simclr"): 0.1}
    more = [trial(TOY.format(a, "standard", n, 0), v) for (a, n), v in learners.items()]
    larger = "photo_digits/{}/standard/small_resnet/supervised/quick/0"
    more += [trial(larger.format("em"), 0.55), trial(larger.format("lsp"), 0.25)]
    lines = said([*rows(), *more])
    assert lines[4:] == [
        "best against all victims: lsp, at most 25.0 % (small_resnet, of 2 victims)",
        "best against all learners: em, at most 35.0 % (simclr, of 2 learners)",
    ]
    assert all(len(line) <= 88 for line in lines)


def test_what_cannot_be_compared_is_left_out() -> None:
    assert said([]) == []
    alone = [trial(TOY.format("lsp", "none", "supervised", 0), 0.2)]
    assert said(alone) == ["strongest attack: lsp, 20.0 % under none"]
    assert said([trial(TOY.format("clean", "none", "supervised", 0), 0.9)]) == []
    lost = [trial(TOY.format("lsp", "none", "supervised", 0), status="failed", error="x")]
    assert said(lost) == []
