"""What a grid found, in lines: against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

from raygrid.reports.analysis.headlines import headlines
from raygrid.reports.tables.kinds import CellSource
from raygrid.reports.tables.trial_lines import trial_lines
from tests.reports.rows import TOY, trial

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
        "strongest attack over 2 defenses: lsp; the best of them (jpeg) reaches 50.0 %",
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
        "strongest attack over 2 victims: lsp; the best of them (small_resnet) reaches 25.0 %",
        "strongest attack over 2 learners: em; the best of them (simclr) reaches 35.0 %",
    ]
    assert all(len(line) <= 88 for line in lines)


def test_what_cannot_be_compared_is_left_out() -> None:
    assert said([]) == []
    alone = [trial(TOY.format("lsp", "none", "supervised", 0), 0.2)]
    assert said(alone) == ["strongest attack: lsp, 20.0 % under none"]
    assert said([trial(TOY.format("clean", "none", "supervised", 0), 0.9)]) == []
    lost = [trial(TOY.format("lsp", "none", "supervised", 0), status="failed", error="x")]
    assert said(lost) == []


RATIO = "photo_digits/{}@{}/{}/small_cnn/supervised/quick/0"


def partly(*known: tuple[str, float, float], defense: str = "standard") -> list[dict[str, Any]]:
    """Rows of attacks at a poison ratio."""
    return [trial(RATIO.format(attack, ratio, defense), v) for attack, ratio, v in known]


def test_ratios_stand_beside_the_clean_part_alone() -> None:
    """Of the ratios with that control the one that most attacks met, of equals the largest."""
    some = partly(
        ("lsp", 0.25, 0.88),
        ("em", 0.25, 0.87),
        ("withheld", 0.25, 0.86),
        ("lsp", 0.5, 0.79),
        ("em", 0.5, 0.81),
        ("gue(selection=test)", 0.5, 0.1),  # chosen on the test set
        ("withheld", 0.5, 0.653),
        ("lsp", 0.75, 0.6),  # without its control
        ("em", 0.75, 0.6),
        ("ar", 0.75, 0.6),
    )
    line = "at 50 % poisoned: lsp 79.0 %, lowest of 2; clean part alone 65.3 %"
    assert [one for one in said([*rows(), *some]) if "poisoned" in one] == [line]
    longest = line.replace("lsp", "regions 16/255")
    assert len(f"- {longest}") <= 80


def test_a_ratio_without_its_control_is_said_alone() -> None:
    lines = said([*rows(), *partly(("lsp", 0.5, 0.79))])
    assert lines[-1] == "at 50 % poisoned: lsp 79.0 %"
    only_control = said([*rows(), *partly(("withheld", 0.5, 0.6))])
    assert not any("poisoned" in line for line in only_control)
    assert only_control == said(rows())  # the control of a ratio is no attack


def test_budgets_of_the_attack_that_has_the_most() -> None:
    sizes = {"8/255": 0.295, "16/255": 0.11, "32/255": 0.087}
    some = [
        trial(TOY.format(f"regions(budget={b})", "standard", "supervised", 0), v)
        for b, v in sizes.items()
    ]
    other = [
        trial(TOY.format(f"low_frequency(budget={b})", "standard", "supervised", 0), 0.01)
        for b in ("8/255", "16/255")
    ]
    line = "regions by budget: 29.5 % at 8/255, 11.0 % at 16/255, 8.7 % at 32/255"
    assert said([*rows(), *some, *other])[-1] == line
    more = trial(TOY.format("regions(budget=2/255)", "standard", "supervised", 0), 0.7)
    ends = "regions by budget: 70.0 % at 2/255 to 8.7 % at 32/255 (4 budgets)"
    assert said([*rows(), *some, more])[-1] == ends


def test_ratios_and_budgets_come_from_fair_cells() -> None:
    """Selection on the test set never stands there; another defense only where it is named."""
    met = [("lsp", 0.5, 0.7), ("lsp", 1.0, 0.4), ("ops", 0.5, 0.2)]
    oracle = partly(*met, defense="early_stopping")
    assert not any("poisoned" in line for line in said(oracle))
    line = "at 50 % poisoned under jpeg: ops 20.0 %, lowest of 2"
    assert line in said([*oracle, *partly(*met, defense="jpeg")])
    plain = said([*partly(*met, defense="jpeg"), *partly(("lsp", 0.5, 0.3), ("lsp", 1.0, 0.1))])
    assert "at 50 % poisoned: lsp 30.0 %" in plain
    half = [
        trial(RATIO.format(f"regions(budget={b})", 0.5, "standard"), v)
        for b, v in (("8/255", 0.8), ("16/255", 0.6))
    ]
    line = "regions by budget at 50 % poisoned: 80.0 % at 8/255, 60.0 % at 16/255"
    assert line in said(half)


def test_lengths_are_said_with_three_digits() -> None:
    sizes = [
        trial(TOY.format(f"lsp{more}", "standard", "supervised", 0), v)
        for more, v in (("", 0.3), ("(budget=l2:2.5)", 0.2), ("(budget=2x)", 0.1))
    ]
    line = "lsp by budget: 30.0 % at l2 1.30, 20.0 % at l2 2.5, 10.0 % at l2 2.61"
    assert said(sizes)[-1] == line
