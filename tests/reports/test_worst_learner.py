"""The worst case over learners, its intervals and what it lacks."""

from __future__ import annotations

import pytest

from raygrid.literature.names import SIX_LEARNERS
from raygrid.literature.reference import load
from raygrid.reports.statistics import wilson
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.render import plain_text
from raygrid.reports.tables.trial_lines import trial_lines
from tests.reports.rows import TOY, Json, cell, learners, trial


def test_worst_is_the_largest_column_and_beside_it_the_mean_of_every_seeds_largest() -> None:
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX_LEARNERS, (0.1, 0.1, 0.1))
    values |= {"supervised": (0.5, 0.2, 0.3), "byol": (0.4, 0.6, 0.35)}
    made = table("worst-learner", trial_lines(learners(values)))
    found, seeds = cell(made, "lsp", "worst"), cell(made, "lsp", "mean_of_max")
    assert made.panels[0].columns == (*SIX_LEARNERS, "worst", "mean_of_max")
    assert found.metric == "worst"
    assert found.value == cell(made, "lsp", "byol").value == pytest.approx((0.4 + 0.6 + 0.35) / 3)
    assert (found.values, found.facts["worst_learner"]) == ({0: 0.4, 1: 0.6, 2: 0.35}, "byol")
    assert (found.std, found.final_acc) == (cell(made, "lsp", "byol").std, found.value)
    assert seeds.value == pytest.approx((0.5 + 0.6 + 0.35) / 3)
    assert seeds.values == {0: 0.5, 1: 0.6, 2: 0.35}
    assert seeds.facts["worst_learners"] == {"supervised": 1, "byol": 2}
    assert found.facts["mean_of_max"] == seeds.value
    text = plain_text(made, width=400)
    for piece in ("45.0 ± 13.2 (byol)", "48.3 ± 12.6 (2 byol, 1 supervised)", "mean of max"):
        assert piece in text, piece


def test_the_intervals_of_the_worst_case_draw_seeds_within_each_learner() -> None:
    """Of two seeds each mean and each largest value has few values: the quantiles are known."""
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX_LEARNERS, (0.1, 0.1))
    values |= {"supervised": (0.5, 0.3), "byol": (0.2, 0.6)}
    made = table("worst-learner", trial_lines(learners(values)))
    found, seeds = cell(made, "lsp", "worst"), cell(made, "lsp", "mean_of_max")
    # Means: byol 0.2, 0.4, 0.4, 0.6, supervised 0.3, 0.4, 0.4, 0.5; both low with chance 1/16.
    assert (found.interval, found.low, found.high) == (
        "bootstrap",
        pytest.approx(0.3),
        pytest.approx(0.6),
    )
    # A draw: 0.6 with chance 1/2, 0.5 with 1/4, 0.3 with 1/4; the mean of two is 0.3 in 1/16.
    assert (seeds.low, seeds.high) == (pytest.approx(0.3), pytest.approx(0.6))
    # Of three seeds one value alone has a mean in 1/27: less than 1/20, more than 1/40.
    three = dict.fromkeys(SIX_LEARNERS, (0.1, 0.1, 0.1)) | {"byol": (0.2, 0.2, 0.8)}
    found = cell(table("worst-learner", trial_lines(learners(three))), "lsp", "worst")
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.8))
    spread = dict.fromkeys(SIX_LEARNERS, (0.1, 0.1)) | {
        "supervised": (0.5, 0.3),
        "byol": (0.5, 0.3),
    }
    tied = cell(table("worst-learner", trial_lines(learners(spread))), "lsp", "worst")
    assert tied.facts["worst_learner"] == "supervised"


def test_the_worst_case_of_one_seed_has_the_interval_of_its_learner() -> None:
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX_LEARNERS, (0.1,))
    values["moco"] = (0.4,)
    made = table("worst-learner", trial_lines(learners(values)))
    found = cell(made, "lsp", "worst")
    assert made.panels[0].columns == (*SIX_LEARNERS, "worst")
    assert (found.value, found.facts["mean_of_max"]) == (0.4, 0.4)
    assert (found.low, found.high, found.interval) == (*wilson(0.4, 1000), "wilson")


def test_without_all_six_the_worst_case_is_partial() -> None:
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX_LEARNERS[:5], (0.2, 0.3))
    values["byol"] = (0.7, 0.5)
    values["simsiam"] = (None, None)
    made = table("worst-learner", trial_lines(learners(values)))
    found = cell(made, "lsp", "worst")
    assert found.metric == "worst_partial"
    assert found.facts["missing"] == ["simsiam"]
    assert found.value == pytest.approx(0.6)
    assert found.why == "simsiam: failed"
    assert cell(made, "lsp", "mean_of_max").metric == "mean_of_max_partial"
    text = plain_text(made, width=400)
    assert text.count("≥ 60.0 ± 14.1 (byol; without simsiam)") == 2
    del values["simsiam"]
    found = cell(table("worst-learner", trial_lines(learners(values))), "lsp", "worst")
    assert (found.metric, found.why) == ("worst_partial", "simsiam: not run")


def test_a_seed_that_lacks_a_learner_is_said() -> None:
    """The worst is still one of the columns; the mean of max is over the seeds that all have."""
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX_LEARNERS, (0.2, 0.3))
    values["moco"] = (0.4, None)
    made = table("worst-learner", trial_lines(learners(values)))
    found = cell(made, "lsp", "worst")
    assert (found.metric, found.value, found.n, found.of) == ("worst", 0.4, 1, 2)
    assert "40.0 (moco; n = 1 of 2)" in plain_text(made, width=400)
    values |= {"moco": (0.1, None), "byol": (0.2, 0.6)}
    made = table("worst-learner", trial_lines([*learners(values), *more_seeds()]))
    found, seeds = cell(made, "lsp", "worst"), made.panels[0].cells.get(("lsp", "mean_of_max"))
    assert (found.value, found.n, found.facts["fewer_seeds"]) == (0.4, 2, ["moco"])
    assert "40.0 ± 28.3 (byol; fewer seeds: moco)" in plain_text(made, width=400)
    assert seeds is not None
    assert (seeds.value, seeds.n, seeds.values) == (0.2, 1, {0: 0.2})


def more_seeds() -> list[Json]:
    """Two seeds of another attack, so that the table has both columns."""
    return [trial(TOY.format("em", "standard", n, s), 0.5) for n in SIX_LEARNERS for s in (0, 1)]


def test_recomputing_the_worst_case_of_a_printed_table_finds_its_misprint() -> None:
    """Table 6 of Liu et al.: five victims; MobileNetV2's worst is 42.82, printed 41.82."""
    rows = load()
    rows = rows[(rows["paper"] == "transferable") & (rows["table"] == "6") & rows["spec"].notna()]
    results = [trial(spec, acc) for spec, acc in zip(rows["spec"], rows["accuracy"], strict=True)]
    without = [row for row in results if "/byol/" not in row["spec"]]
    for panel in table("worst-learner", trial_lines(without)).panels:
        assert panel.cells["tp", "worst"].printed is None, "of all six"
    made = table("worst-learner", trial_lines(results))
    cells = {p.where["architecture"]: p.cells["tp", "worst"] for p in made.panels}
    assert len(cells) == 5  # the paper's text says five others than ResNet-18: there are four
    both = {name: (c.value, c.printed.value) for name, c in cells.items()}
    off = {name: pair for name, pair in both.items() if pair[0] != pair[1]}
    assert off == {"mobilenetv2": (0.4282, 0.4182)}
    slip = cells["mobilenetv2"]
    assert (slip.printed.suspect, slip.facts["worst_learner"]) == (True, "byol")
    assert not slip.printed.differs
