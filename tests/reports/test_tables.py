"""Tables: every number beside one worked out by hand, nothing silently absent or mixed."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from matplotlib.text import Text
from rich.console import Console

from raygrid.core.errors import SpecError
from raygrid.core.labels import short, telling
from raygrid.core.spec import TrialSpec
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import Selection
from raygrid.literature.names import SIX
from raygrid.literature.reference import load
from raygrid.reports.statistics import wilson
from raygrid.reports.tables.blocks import blocks, blocks_within
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.escape import escape
from raygrid.reports.tables.frame import frame, lines_of
from raygrid.reports.tables.kinds import KINDS, table
from raygrid.reports.tables.latex import latex
from raygrid.reports.tables.layout import SELECTIONS, Panel, Table, order
from raygrid.reports.tables.plots import picture
from raygrid.reports.tables.render import (
    json_text,
    markdown,
    plain_text,
    show,
    terminal,
)
from raygrid.reports.tables.tidy import COLUMNS, OPTIONAL, csv_text
from raygrid.reports.tables.trial_lines import trial_lines
from raygrid.reports.tables.write import worth_drawing, write_tables
from raygrid.trials.resolve import resolve
from raygrid.trials.result import COLLAPSED, Result

Json = dict[str, Any]
CIFAR = "cifar10/{}/standard/resnet18/supervised/{}/{}"
TOY = "photo_digits/{}/{}/small_cnn/{}/quick/{}"


def trial(spec: str, acc: float | None = None, **fields: Any) -> Json:
    """A row as a run leaves it, with `acc` after the last epoch and 5 points more at its peak."""
    row = Result(spec, key=spec, **fields)
    row.epochs_run = row.epochs_planned = 15
    if acc is not None:
        row.final_acc = None if row.stopped_early else acc
        row.last_acc = acc
        row.peak_acc, row.peak_epoch = min(1.0, acc + 0.05), 3
        row.probes = {"clean_test": {"k": acc * 1000, "n": 1000, "acc": acc, "loss": 1.0}}
    return row.row()


def cell(made: Table, row: str, column: str) -> Cell:
    (panel,) = made.panels
    return panel.cells[row, column]


def test_equal_rows_make_equal_files_in_whatever_order_they_came(tmp_path: Path) -> None:
    """peak.csv, peak.json and defense.csv followed the order in which trials had ended."""
    axes = product(("clean", "lsp", "em"), ("none", "standard", "jpeg"), (0, 1))
    rows = [trial(TOY.format(a, d, "supervised", s), 0.3 + s / 9) for a, d, s in axes]
    found = []
    for name, some in (("as they came", rows), ("backwards", rows[::-1])):
        write_tables(tmp_path / name, some, pictures=0)
        files = (tmp_path / name / "tables").iterdir()
        found.append({path.name: path.read_bytes() for path in files})
    assert {"peak.csv", "peak.json", "defense.csv"} <= set(found[0])
    assert found[0] == found[1]


def test_a_frame_has_the_axes_apart() -> None:
    spec = (
        "photo_digits/lsp(budget=l2:2.0, patch=4)@0.4/grayscale+standard/small_cnn/simclr/quick/3"
    )
    line = frame([trial(spec, 0.25)]).iloc[0]
    assert (line["attack"], line["method"]) == ("lsp(budget=l2:2.0, patch=4)", "lsp(patch=4)")
    assert (line["budget"], line["norm"], line["size"]) == ("l2:2.0", "l2", 2.0)
    assert (line["defense"], line["learner"], line["seed"]) == ("grayscale+standard", "simclr", 3)
    assert (line["poison_ratio"], line["n_test"], line["final_acc"]) == (0.4, 1000, 0.25)
    clean = frame([trial(TOY.format("clean", "standard", "supervised", 0), 0.9)]).iloc[0]
    assert (clean["poison_ratio"], clean["size"]) == (0.0, 0.0)


def test_lines_come_back_from_a_frame() -> None:
    rows = [*grid(), trial(CIFAR.format("lsp", "apbench", 1), 0.2, selected_epoch=3)]
    assert lines_of(frame(rows)) == trial_lines(rows)


def test_a_frame_has_the_epoch_that_was_selected() -> None:
    rows = [
        trial(TOY.format("lsp", "early_stopping", "supervised", 0), 0.5, selected_epoch=4),
        trial(TOY.format("lsp", "standard", "supervised", 0), 0.5),
    ]
    made = frame(rows)["selected_epoch"]
    assert made[0] == 4
    assert math.isnan(made[1])
    assert math.isnan(frame(rows[1:])["selected_epoch"][0]), "a number, also where none has one"


def test_a_frame_says_what_a_noise_predictor_has_seen() -> None:
    """Also where the spec leaves it at its default: no number of AVATAR means anything without."""
    rows = []
    for chain in ("jpeg+avatar", "avatar(diffusion_data=clean_train)", "jpeg"):
        spec = TOY.format("lsp", chain, "supervised", 0)
        rows.append(trial(spec, 0.5, resolved=resolve(spec, None).resolved()))
    made = frame(rows)["diffusion_data"]
    assert list(made[:2]) == ["poisoned", "clean_train"]
    assert made.isna()[2]


def test_mean_std_and_interval_of_three_seeds() -> None:
    rows = [
        trial(TOY.format("lsp", "standard", "supervised", s), a)
        for s, a in enumerate((0.1, 0.2, 0.4))
    ]
    found = cell(table("defense", trial_lines(rows)), "lsp", "standard")
    assert found.value == pytest.approx(0.7 / 3)
    std = math.sqrt((0.7 / 3 - 0.1) ** 2 / 2 + (0.7 / 3 - 0.2) ** 2 / 2 + (0.7 / 3 - 0.4) ** 2 / 2)
    assert found.std == pytest.approx(std)  # ddof = 1: 0.152753, not 0.124722
    assert found.std == pytest.approx(0.152753, abs=1e-6)
    assert 0.7 / 3 - 2.484 * std < 0
    assert found.low == 0, "no accuracy is below"
    assert found.high == pytest.approx(0.7 / 3 + 2.484 * std, abs=1e-4)
    assert (found.n, found.of, found.interval) == (3, 3, "t")
    assert found.peak_acc == pytest.approx(0.7 / 3 + 0.05)


def test_one_seed_has_no_std_and_wilsons_interval() -> None:
    rows = [trial(TOY.format("lsp", "standard", "supervised", 0), 0.5)]
    found = cell(table("defense", trial_lines(rows)), "lsp", "standard")
    assert found.std is None
    assert found.interval == "wilson"
    low, high = wilson(0.5, 10_000)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.5098, abs=1e-4))
    assert wilson(0.0, 100)[0] == pytest.approx(0.0, abs=1e-12)
    assert wilson(0.0, 100)[1] == pytest.approx(0.0370, abs=1e-4)


def test_text_shows_intervals_on_request() -> None:
    rows = [
        trial(TOY.format("lsp", d, "supervised", s), a)
        for d, values in (("standard", (0.1, 0.2, 0.4)), ("jpeg", (0.3, 0.4)), ("none", (0.5,)))
        for s, a in enumerate(values)
    ]
    plain = table("defense", trial_lines(rows))
    wide = plain.with_intervals()
    assert json_text(wide) == json_text(plain)
    for render in (markdown, plain_text, latex):
        assert "0.0 to 61.3" not in render(plain)
        text = render(wide)
        # 23.3 ± 2.484 * 15.3; 35 ± 8.98 * 7.07; Wilson of 500 in 1000; no accuracy is below 0
        for piece in ("0.0 to 61.3", "0.0 to 98.5; n = 2 of 3", "46.9 to 53.1; n = 1 of 3"):
            assert piece in text, piece
    said = (
        "95 % interval (Student's t over seeds; Wilson over test images for a single seed; an "
        "accuracy's ends at 0 and 100 %)"
    )
    assert said in markdown(wide)
    assert "Of two seeds it is the mean ± 8.98 standard deviations." in markdown(wide)
    assert "interval" not in markdown(plain)
    three = table("defense", trial_lines(rows[:3])).with_intervals()
    assert "Of two seeds" not in markdown(three)


def test_a_spread_comes_with_what_a_seed_varies() -> None:
    rows = [trial(TOY.format("lsp", "standard", "supervised", s), 0.1 + s / 10) for s in (0, 1)]
    said = "A seed of the grid makes poison and purified set anew, not just the victim."
    assert said in markdown(table("defense", trial_lines(rows)))
    assert said not in markdown(table("defense", trial_lines(rows[:1])))


def test_what_has_no_number_says_why() -> None:
    rows = [
        trial(TOY.format("clean", "standard", "supervised", 0), 0.9),
        trial(TOY.format("clean", "standard", "supervised", 1), 0.8),
        trial(TOY.format("lsp", "standard", "supervised", 0), 0.2),
        trial(
            TOY.format("lsp", "standard", "supervised", 1),
            status="failed",
            error="RuntimeError: out of luck\nTraceback",
        ),
        trial(TOY.format("lsp", "grayscale", "supervised", 0), status="diverged", error="loss nan"),
        trial(TOY.format("lsp", "none", "supervised", 0), status="skipped", reason="no meaning"),
        trial(TOY.format("clean", "grayscale", "supervised", 0), 0.7, stopped_early=True),
    ]
    made = table("defense", trial_lines(rows))
    text = plain_text(made)
    assert "20.0 (n = 1 of 2; 1 failed)" in text
    assert "lsp / standard: RuntimeError: out of luck" in text
    assert "Traceback" not in text
    for word in ("diverged", "skipped", "stopped early", "no meaning", "85.0 ± 7.1", "–"):
        assert word in text
    failed = cell(made, "lsp", "standard")
    assert (failed.n, failed.of, failed.failed, failed.value) == (1, 2, 1, 0.2)
    stopped = cell(made, "clean", "grayscale")
    assert (stopped.final_acc, stopped.value, stopped.peak_acc) == (None, None, 0.75)
    assert cell(table("defense", trial_lines(rows), "peak_acc"), "clean", "grayscale").value == 0.75


def test_a_collapsed_encoder_is_said_below_the_table() -> None:
    rows = [trial(TOY.format("clean", "standard", "simsiam", 0), 0.5)]
    for learner, collapsed in (("simclr", 0.0), ("byol", 1.0)):
        result = Result(TOY.format("lsp", "standard", learner, 0), key=learner, marks=["weak"])
        result.history = [
            {"train_loss": 1.0, "test_acc": 0.2, "collapsed": 1.0},
            {"train_loss": 0.9, "test_acc": 0.1, "collapsed": collapsed},
        ]
        result.probes = {"clean_test": {"k": 10, "n": 100, "acc": 0.1, "loss": 2.3}}
        result.summarize()
        rows.append(result.row())
    text = plain_text(table("worst-learner", trial_lines(rows)))
    assert f"lsp / byol: weak; {COLLAPSED}" in text
    assert text.count(COLLAPSED) == 1, "simclr came out of it"


def test_protocols_datasets_and_victims_are_never_mixed() -> None:
    specs = [
        CIFAR.format("em", "apbench", 0),
        CIFAR.format("em", "dvae", 0),
        CIFAR.format("em", "dvae(epochs=3)", 0),
        "cifar100/em/standard/resnet18/supervised/apbench/0",
        "cifar10/em/standard/resnet50/supervised/apbench/0",
        "cifar10/em@0.4/standard/resnet18/supervised/apbench/0",
        "cifar10/em/standard/resnet18/simclr/apbench/0",
    ]
    made = table("defense", trial_lines([trial(spec, i / 10) for i, spec in enumerate(specs)]))
    assert len(made.panels) == len(specs)
    assert all(len(panel.cells) == 1 for panel in made.panels)
    for kind in KINDS:
        for panel in table(kind, trial_lines([trial(spec, 0.5) for spec in specs])).panels:
            assert len({(c.axes["dataset"], c.axes["protocol"]) for c in panel.cells.values()}) == 1


def test_the_clean_control_stands_in_every_ratio() -> None:
    rows = [trial(TOY.format(a, "standard", "supervised", 0), 0.5) for a in ("lsp@0.4", "lsp")]
    rows.append(trial(TOY.format("clean", "standard", "supervised", 0), 0.9))
    made = table("defense", trial_lines(rows))
    assert [panel.rows for panel in made.panels] == [("clean", "lsp")] * 2
    (curve,) = table("ratio", trial_lines(rows)).panels
    assert curve.columns == ("0%", "40%", "100%")
    assert curve.numeric == (0.0, 0.4, 1.0)
    assert curve.cells["clean", "0%"].value == 0.9


def test_budgets_are_curves_by_norm() -> None:
    attacks = ("clean", "lsp", "lsp(budget=l2:2.0)", "lsp(budget=l2:0.5, patch=4)", "lsp(patch=4)")
    rows = [trial(TOY.format(a, "standard", "supervised", 0), 0.5) for a in attacks]
    (panel,) = table("budget", trial_lines(rows)).panels
    assert panel.rows == ("clean", "lsp", "lsp(patch=4)")
    assert panel.columns[0] == "0"
    assert panel.numeric is not None
    assert list(panel.numeric) == pytest.approx([0.0, 0.5, 1.304, 2.0], abs=1e-3)
    assert not table("budget", trial_lines(rows[:2])).panels


def test_qualities_of_jpeg_are_a_curve() -> None:
    chains = ("jpeg", "jpeg(quality=90)", "jpeg(quality=50)", "jpeg(at_test=true)", "jpeg+cutout")
    rows = [trial(TOY.format("lsp", c, "supervised", 0), i / 10) for i, c in enumerate(chains)]
    (panel,) = table("jpeg-quality", trial_lines(rows)).panels
    assert (panel.columns, panel.numeric) == (("10", "50", "90"), (10.0, 50.0, 90.0))
    assert [panel.cells["lsp", column].value for column in panel.columns] == [0.0, 0.2, 0.1]
    assert not table("jpeg-quality", trial_lines(rows[:1])).panels


def test_published_stands_beside_measured_and_differences_are_marked() -> None:
    """LSP in APBench: 13.06 +- 0.74, and D-VAE agrees; the papers contradict each other on EM."""
    for measured, differs in ((0.18, False), (0.1906, False), (0.20, True)):
        rows = [trial(CIFAR.format("lsp", "apbench", 0), measured)]
        found = cell(table("defense", trial_lines(rows)), "lsp", "standard")
        assert (found.published, found.published_std) == (0.1306, 0.0074)
        assert (found.source, found.own) == ("apbench T3, T6, T16", True)
        assert found.differs is differs
        assert found.contradicting == ()
    spread = [trial(CIFAR.format("lsp", "apbench", s), a) for s, a in enumerate((0.1, 0.2, 0.3))]
    assert not cell(
        table("defense", trial_lines(spread)), "lsp", "standard"
    ).differs  # 3 sigma = 30
    rows = [trial(CIFAR.format("em_remrepo", "dvae", 0), 0.5)]
    text = plain_text(table("defense", trial_lines(rows)), width=400)
    assert "[12.26]*†" in text
    assert "† em_remrepo / standard: dvae T2, T9: 12.26 against apbench T3, T6, T16: 20.78" in text
    named = trial_lines([trial(CIFAR.format("em", "apbench", 0), 0.9)])
    assert "[20.78 ± 1.03, em_apb]" in plain_text(table("defense", named))
    other = cell(
        table("defense", trial_lines([trial(CIFAR.format("em", "quick", 0), 0.9)])),
        "em",
        "standard",
    )
    assert (other.own, other.differs) == (False, False)
    assert "[32.83, learned_faster]" in plain_text(
        table("defense", trial_lines([trial(CIFAR.format("em", "quick", 0), 0.9)]))
    )


def test_suspect_numbers_are_marked() -> None:
    spec = "svhn/ar/early_stopping/resnet18/supervised/apbench/0"
    made = table("defense", trial_lines([trial(spec, 0.2)]))
    assert "[89.32]‡" in plain_text(made)
    assert not cell(made, "ar", "early_stopping").differs


ES = "early_stopping"
VAL, HELD = "early_stopping(mode=clean_val)", "early_stopping(mode=poison_val)"


def derived(*chains: str) -> list[Json]:
    """Rows of `clean` and `lsp`; rows of `iss` have a winner a seed."""
    winners = iter(("jpeg", "bdr", "jpeg", "bdr", "grayscale", "bdr"))
    return [
        trial(
            TOY.format(attack, chain, "supervised", seed),
            0.5 + seed / 100,
            winner=next(winners) if chain == "iss" else None,
        )
        for chain in chains
        for attack in ("clean", "lsp")
        for seed in range(3)
    ]


def test_numbers_selected_on_different_images_never_stand_in_one_panel() -> None:
    chains = ("standard", "jpeg", VAL, ES, "iss", HELD, f"jpeg+{ES}")
    for kind in ("defense", "peak"):
        for panel in table(kind, trial_lines(derived(*chains))).panels:
            cells = panel.cells.values()
            assert len({c.facts["selection"] for c in cells} - {""}) < 2
            assert {c.facts["selection"] for c in cells} - {""} <= {panel.where["selection"]}
    made = table("defense", trial_lines(derived(*chains)))
    shown = {panel.where["selection"]: set(panel.columns) for panel in made.panels}
    plain = {"standard", "jpeg"}
    assert shown == {
        "clean_val": plain | {VAL},
        "poison_val": plain | {HELD},
        "test": plain | {ES, "iss", f"jpeg+{ES}"},
    }
    assert all(panel.rows == ("clean", "lsp") for panel in made.panels)
    titles = {panel.where["selection"]: panel.title for panel in made.panels}
    assert titles["clean_val"].endswith("100 % poisoned, selections on clean validation images")
    assert titles["poison_val"].endswith("selections on held-out poisoned images")
    assert titles["test"].endswith("selections on the test set (an oracle)")
    assert len({panel.slug for panel in made.panels}) == 3, "each has a picture of its own"


def test_what_defenses_select_on_is_said_in_every_format() -> None:
    made = table("defense", trial_lines(derived("standard", "iss", ES, f"jpeg+{ES}", VAL)))
    oracle = f"{ES}, iss, jpeg+{ES}: selected on the test set (an oracle)."
    honest = f"{ES}: selected on clean validation images."
    assert f"- {ES}: {VAL}." in markdown(made)
    typeset = latex(made).replace(r"\_", "_").replace(r"\allowbreak{}", "")
    for text in (markdown(made), plain_text(made, width=400), typeset):
        assert oracle in text
        assert honest in text
    rows = {row["defense"]: row["selection"] for row in json.loads(json_text(made))}
    images = {"standard": "", "iss": "test", ES: "test", f"jpeg+{ES}": "test", VAL: "clean_val"}
    assert rows == images
    for kind in ("peak", "worst-learner"):
        more = [row for n in ("supervised", "byol") for row in derived(ES, "iss", "jpeg")]
        more += [{**row, "spec": row["spec"].replace("/supervised/", "/byol/")} for row in more]
        panels = table(kind, trial_lines(more)).panels
        for panel in panels:
            text = markdown(Table(kind, "", (panel,)))
            defense = panel.where["defense"]
            assert ("oracle" in panel.title) == (defense != "jpeg")
            assert (f"{defense}: selected on the test set" in text) == (defense != "jpeg")
            assert {c.facts["selection"] for c in panel.cells.values()} == {images.get(defense, "")}


def test_nothing_is_said_of_selections_where_there_are_none() -> None:
    made = table("defense", trial_lines(derived("standard", "jpeg")))
    (panel,) = made.panels
    assert panel.where["selection"] == ""
    assert panel.title.endswith("100 % poisoned")
    assert "select" not in plain_text(made)
    (alone,) = table("defense", trial_lines(derived("standard", ES))).panels
    assert alone.columns == ("standard", ES)


def test_what_won_among_several_is_visible() -> None:
    made = table("defense", trial_lines(derived("iss", "standard")))
    clean, lsp = cell(made, "clean", "iss"), cell(made, "lsp", "iss")
    assert clean.facts["winners"] == {"jpeg": 2, "bdr": 1}
    assert lsp.facts["winners"] == {"bdr": 2, "grayscale": 1}
    assert "winners" not in cell(made, "lsp", "standard").facts
    text = plain_text(made, width=400)
    assert "51.0 ± 1.0 (2 jpeg, 1 bdr)" in text
    assert "51.0 ± 1.0 (2 bdr, 1 grayscale)" in text
    assert "In brackets: the defense that won, with its seeds where several did." in text
    rows = {(r["attack"], r["defense"]): r for r in json.loads(json_text(made))}
    assert rows["lsp", "iss"]["winners"] == {"bdr": 2, "grayscale": 1}
    (line,) = (
        line
        for line in csv.DictReader(io.StringIO(csv_text(made)))
        if (line["attack"], line["defense"]) == ("lsp", "iss")
    )
    assert line["winners"] == "bdr 2, grayscale 1"
    one = table("defense", trial_lines(derived("iss")[:1]))
    assert "50.0 (jpeg)" in plain_text(one)
    assert "the defense that won" not in plain_text(table("defense", trial_lines(derived(ES))))
    lost = [{**row, "status": "failed", "error": "x"} for row in derived("iss")]
    assert "winners" not in cell(table("defense", trial_lines(lost)), "lsp", "iss").facts


def test_whatever_is_derived_says_what_it_selects_on() -> None:
    assert {name for name in DEFENSES if DEFENSES.make(name).selection} == {
        name for name in DEFENSES if DEFENSES[name].derived
    }
    assert SELECTIONS.keys() == set(get_args(Selection)) - {""}


def learners(values: dict[str, tuple[float | None, ...]]) -> list[Json]:
    rows = []
    for name, accuracies in values.items():
        for seed, acc in enumerate(accuracies):
            status = "failed" if acc is None else "done"
            rows.append(trial(TOY.format("lsp", "standard", name, seed), acc, status=status))
    return rows


def test_worst_is_the_largest_column_and_beside_it_the_mean_of_every_seeds_largest() -> None:
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX, (0.1, 0.1, 0.1))
    values |= {"supervised": (0.5, 0.2, 0.3), "byol": (0.4, 0.6, 0.35)}
    made = table("worst-learner", trial_lines(learners(values)))
    found, seeds = cell(made, "lsp", "worst"), cell(made, "lsp", "mean_of_max")
    assert made.panels[0].columns == (*SIX, "worst", "mean_of_max")
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
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX, (0.1, 0.1))
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
    three = dict.fromkeys(SIX, (0.1, 0.1, 0.1)) | {"byol": (0.2, 0.2, 0.8)}
    found = cell(table("worst-learner", trial_lines(learners(three))), "lsp", "worst")
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.8))
    spread = dict.fromkeys(SIX, (0.1, 0.1)) | {"supervised": (0.5, 0.3), "byol": (0.5, 0.3)}
    tied = cell(table("worst-learner", trial_lines(learners(spread))), "lsp", "worst")
    assert tied.facts["worst_learner"] == "supervised"


def test_the_worst_case_of_one_seed_has_the_interval_of_its_learner() -> None:
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX, (0.1,))
    values["moco"] = (0.4,)
    made = table("worst-learner", trial_lines(learners(values)))
    found = cell(made, "lsp", "worst")
    assert made.panels[0].columns == (*SIX, "worst")
    assert (found.value, found.facts["mean_of_max"]) == (0.4, 0.4)
    assert (found.low, found.high, found.interval) == (*wilson(0.4, 1000), "wilson")


def test_without_all_six_the_worst_case_is_partial() -> None:
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX[:5], (0.2, 0.3))
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
    values: dict[str, tuple[float | None, ...]] = dict.fromkeys(SIX, (0.2, 0.3))
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
    return [trial(TOY.format("em", "standard", n, s), 0.5) for n in SIX for s in (0, 1)]


def test_recomputing_the_worst_case_of_a_printed_table_finds_its_misprint() -> None:
    """Table 6 of Liu et al.: five victims; MobileNetV2's worst is 42.82, printed 41.82."""
    rows = load()
    rows = rows[(rows["paper"] == "transferable") & (rows["table"] == "6") & rows["spec"].notna()]
    results = [trial(spec, acc) for spec, acc in zip(rows["spec"], rows["accuracy"], strict=True)]
    without = [row for row in results if "/byol/" not in row["spec"]]
    for panel in table("worst-learner", trial_lines(without)).panels:
        assert panel.cells["tp", "worst"].published is None, "of all six"
    made = table("worst-learner", trial_lines(results))
    cells = {p.where["architecture"]: p.cells["tp", "worst"] for p in made.panels}
    assert len(cells) == 5  # the paper's text says five others than ResNet-18: there are four
    off = {name: (c.value, c.published) for name, c in cells.items() if c.value != c.published}
    assert off == {"mobilenetv2": (0.4282, 0.4182)}
    slip = cells["mobilenetv2"]
    assert (slip.suspect, slip.facts["worst_learner"]) == (True, "byol")
    assert not slip.differs


def test_the_peak_table_shows_gap_and_epochs() -> None:
    rows = [
        trial(TOY.format("lsp", "standard", "supervised", 0), 0.2, epochs_to_half=4),
        trial(TOY.format("lsp", "standard", "supervised", 1), 0.3, epochs_to_half=6),
        trial(TOY.format("clean", "standard", "supervised", 0), 0.9),
        trial(TOY.format("clean", "standard", "supervised", 1), 0.9, stopped_early=True),
    ]
    made = table("peak", trial_lines(rows))
    assert cell(made, "lsp", "gap").value == pytest.approx(0.05)
    assert cell(made, "lsp", "epochs_to_half").value == 5.0
    assert cell(made, "lsp", "peak_epoch").value == 3.0
    assert cell(made, "clean", "final_acc").n == 1
    text = plain_text(made, width=300)
    for piece in ("never", "30.0 ± 7.1", "5 ± 1.4", "90.0 (n = 1 of 2; 1 stopped early)"):
        assert piece in text, piece
    gray = table("peak", trial_lines([trial(TOY.format("lsp", "grayscale", "supervised", 0), 0.2)]))
    assert "epochs_to_half" not in gray.panels[0].columns


def test_a_loss_that_never_falls_counts_as_one_epoch_past_the_plan() -> None:
    """Not as a seed less: 4, never, never of 15 epochs is 12, not 4."""
    rows = [
        trial(TOY.format("lsp", "standard", "supervised", 0), 0.2, epochs_to_half=4),
        trial(TOY.format("lsp", "standard", "supervised", 1), 0.2),
        trial(TOY.format("lsp", "standard", "supervised", 2), 0.2, stopped_early=True),
        trial(TOY.format("em", "standard", "supervised", 0), 0.2),
        trial(TOY.format("em", "standard", "supervised", 1), status="diverged", error="loss nan"),
    ]
    rows[2]["epochs_run"] = 7
    made = table("peak", trial_lines(rows))
    found, never = (cell(made, attack, "epochs_to_half") for attack in ("lsp", "em"))
    assert (found.value, found.values) == (12.0, {0: 4.0, 1: 16.0, 2: 16.0})
    assert (found.n, found.facts["never"]) == (3, 2)
    assert (never.value, never.n, never.facts["never"]) == (16.0, 1, 1)
    text = plain_text(made, width=300)
    for piece in ("≥ 12 ± 6.9 (2 never)", "never (n = 1 of 3; 1 diverged)", "Never: counted as"):
        assert piece in text, piece
    assert json.loads(json_text(made))[0].get("never") is None, "of no other measure"


def test_epochs_of_another_loss_or_of_no_end_are_not_counted() -> None:
    mixed = trial(TOY.format("lsp", "mixup", "supervised", 0), 0.2)
    diverged = trial(TOY.format("lsp", "standard", "supervised", 0), status="diverged")
    for _, line in frame([mixed, diverged]).iterrows():
        assert not line["never"]
        assert math.isnan(line["epochs_to_half"])


def test_the_detection_table_has_the_printed_rates_beside_the_measured() -> None:
    spec = "cifar10/{}/dvae_detect/resnet18/supervised/dvae/0"
    found = {"acc": 0.9, "recall": 0.99, "precision": 0.8, "f1": 0.885, "fpr": 0.16, "tp": 1}
    rows = [
        trial(spec.format("lsp@0.4"), 0.9, detection=found),
        trial(spec.format("lsp@0.2"), 0.9, detection={**found, "recall": 0.5}),
        trial(spec.format("clean"), 0.9, detection={"fpr": 0.2}),
        trial(spec.format("lsp@0.4").replace("dvae_detect", "jpeg"), 0.9),
    ]
    made = table("detection", trial_lines(rows))
    (panel,) = made.panels
    assert panel.rows == ("clean @ 0%", "lsp @ 20%", "lsp @ 40%")
    recall = cell(made, "lsp @ 40%", "detection_recall")
    assert (recall.value, recall.published, recall.own, recall.differs) == (0.99, 1.0, True, False)
    assert cell(made, "lsp @ 20%", "detection_recall").differs
    assert cell(made, "clean @ 0%", "detection_fpr").value == 0.2
    text = plain_text(made, width=300)
    for piece in ("false positives", "99.00", "[100.00]", "Detection of poisoned images"):
        assert piece in text, piece
    assert worth_drawing(panel)
    drawn = picture(panel)
    shown = np.asarray(drawn.axes[0].images[0].get_array())
    assert np.allclose(shown[2], [90, 99, 80, 88.5, 16]), "all five rates, no victim's accuracy"
    assert "share of images (%)" in {axes.get_ylabel() for axes in drawn.axes}


def test_transfer_shows_the_drop_from_the_clean_control() -> None:
    spec = "cifar10/{}/standard/{}/supervised/tp/0"
    pairs = [("clean", "resnet18", 0.8), ("clean", "resnet50", 0.9), ("em", "resnet18", 0.2)]
    rows = [trial(spec.format(a, n), acc) for a, n, acc in [*pairs, ("em", "resnet50", 0.45)]]
    made = table("transfer", trial_lines(rows))
    assert cell(made, "em", "resnet18").facts["drop"] == pytest.approx(0.75)
    assert cell(made, "em", "resnet50").facts["drop"] == pytest.approx(0.5)
    assert "20.00 (drop 75 %)" in plain_text(made)
    assert not table("transfer", trial_lines(rows[:1])).panels


def grid() -> list[Json]:
    values = {
        ("clean", "standard"): (0.9, 0.9),
        ("clean", "grayscale"): (0.8, 0.84),
        ("lsp", "standard"): (0.12, 0.14),
        ("lsp", "grayscale"): (0.5, 0.6),
        ("lsp(patch=4)", "standard"): (0.3, 0.3),
        ("lsp(patch=4)", "grayscale"): (0.7, 0.7),
    }
    return [
        trial(TOY.format(a, d, "supervised", s), acc)
        for (a, d), accuracies in values.items()
        for s, acc in enumerate(accuracies)
    ]


def test_marks_are_explained_where_they_are() -> None:
    """One defense is not the best of several, one attack not the strongest."""
    rows = frame(grid())
    bold, underlined = "est defense of an attack", "trongest attack of a defense"
    for chosen, said in (
        (rows, {bold, underlined}),
        (rows[rows["defense"] == "standard"], {underlined}),
        (rows[rows["attack"] == "lsp"], {bold}),
        (rows[(rows["attack"] == "lsp") & (rows["defense"] == "standard")], set()),
    ):
        text = markdown(table("defense", lines_of(chosen)))
        assert {words for words in (bold, underlined) if words in text} == said
        assert ("**" in text, " _" in text) == (bold in said, underlined in said)


def test_what_knows_too_much_is_in_no_contest() -> None:
    """A predictor of the test set, a network chosen on it, pairs of poisoned and clean images."""
    known = {
        ("lsp", "jpeg"): 0.4,
        ("lsp", "bdr"): 0.3,
        ("lsp", "bridgepure"): 0.8,
        ("lsp", "eclipse(diffusion_data=test)"): 0.9,
        ("em", "jpeg"): 0.6,
        ("gue(selection=test)", "jpeg"): 0.1,
    }
    rows = [trial(TOY.format(a, d, "supervised", 0), acc) for (a, d), acc in known.items()]
    (panel,) = table("defense", trial_lines(rows)).panels
    assert panel.best("lsp") == {"jpeg"}
    assert panel.strongest("jpeg") == {"lsp"}
    text = markdown(table("defense", trial_lines(rows)))
    for said in (
        "eclipse(diffusion_data=test) knows the test set, on which it is measured: unmarked.",
        "gue(selection=test) knows the test set, on which it is measured: unmarked.",
        "bridgepure is of another threat model: unmarked.",
        "90.0",
    ):
        assert said in text


def test_one_seed_has_no_spread_to_speak_of() -> None:
    alone = markdown(
        table("defense", trial_lines([trial(TOY.format("lsp", "jpeg", "supervised", 0), 0.3)]))
    )
    assert "in percent; of one seed." in alone
    assert "±" not in alone
    several = markdown(table("defense", trial_lines(grid())))
    assert "mean ± sample standard deviation over 2 seeds." in several


def test_markdown_is_as_expected() -> None:
    text = markdown(table("defense", trial_lines(grid())))
    expected = """\
| attack | standard | grayscale |
| --- | --- | --- |
| clean | **90.0 ± 0.0** | 82.0 ± 2.8 |
| lsp | _13.0 ± 1.4_ | **_55.0 ± 7.1_** |
| lsp(patch=4) | 30.0 ± 0.0 | **70.0 ± 0.0** |
"""
    assert expected in text
    assert "## photo_digits, protocol quick, small_cnn, supervised, 100 % poisoned" in text


def test_latex_is_escaped_and_has_booktabs() -> None:
    assert escape(r"a_b & 50% {x} #1 $ ~ ^ \ ± – †") == (
        r"a\_b \& 50\% \{x\} \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"$\pm$ -- \textdagger{}"
    )
    text = latex(table("defense", trial_lines(grid())))
    assert r"\toprule" in text
    assert r"photo\_digits" in text
    assert r"lsp(patch=4) & 30.0 $\pm$ 0.0 & \textbf{70.0 $\pm$ 0.0} \\" in text
    assert "_" not in text.replace(r"\_", "")
    assert text.count("{") == text.count("}")


def test_json_and_csv_have_one_object_a_cell_in_fractions() -> None:
    made = table(
        "defense", trial_lines([*grid(), trial(CIFAR.format("em_apb", "apbench", 0), 0.21)])
    )
    assert "NaN" not in json_text(made)
    cells = json.loads(json_text(made))
    assert len(cells) == 7
    em = next(c for c in cells if c["attack"] == "em_apb")
    wanted = {"final_acc": 0.21, "n": 1, "of": 1, "std": None, "published": 0.2078, "own": True}
    assert {name: em[name] for name in wanted} == wanted
    assert {
        "dataset",
        "attack",
        "poison_ratio",
        "defense",
        "architecture",
        "learner",
        "protocol",
        "peak_acc",
    } <= set(em)
    lines = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert [line["final_acc"] for line in lines] == [str(c["final_acc"]) for c in cells]


def test_csv_is_tidy() -> None:
    """One cell a row, plain columns: nothing in a field has to be parsed once more."""
    rows = [*grid(), *derived("iss"), trial(CIFAR.format("em_remrepo", "dvae", 0), 0.5)]
    rows.append(trial(CIFAR.format("lsp", "dvae", 0), status="failed", error="E: [1]\nTraceback"))
    made = table("defense", trial_lines(rows))
    lines = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert len(lines) == len(made.cells)
    assert not [text for line in lines for text in line.values() if text[:1] in ("{", "[")]
    names = list(lines[0])
    assert names == [*COLUMNS, *(name for name in OPTIONAL if name in names)]
    assert len(names) <= 30
    by = {(line["attack"], line["defense"], line["dataset"]): line for line in lines}
    lsp = by["lsp", "standard", "photo_digits"]
    assert (lsp["seeds"], lsp["n"], lsp["of"], lsp["why"]) == ("0 1", "2", "3", "")
    assert float(lsp["value"]) == pytest.approx(0.13)
    assert by["em_remrepo", "standard", "cifar10"]["contradicting"].startswith("apbench T3")
    lost = by["lsp", "standard", "cifar10"]
    assert (lost["why"], lost["failed"], lost["seeds"], lost["value"]) == ("E: [1]", "1", "", "")
    plain = next(csv.reader(io.StringIO(csv_text(table("defense", trial_lines(grid()))))))
    assert not set(plain) & {"winners", "why", "contradicting", "published_std"}, "none has any"


def test_labels_sort_by_number_and_controls_come_first() -> None:
    labels = ["resnet50", "resnet101", "em", "resnet18", "clean", "em(budget=16/255)"]
    assert sorted(labels, key=order) == [
        "clean",
        "em",
        "em(budget=16/255)",
        "resnet18",
        "resnet50",
        "resnet101",
    ]


def pixels(panel: Panel) -> tuple[int, int]:
    """Pixels of the picture that are not white, and all."""
    figure = picture(panel)
    figure.canvas.draw()
    values = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    return int((values < 250).any(-1).sum()), values.shape[0] * values.shape[1]


def pictured() -> list[Json]:
    rows = [*grid(), trial(TOY.format("lsp@0.4", "standard", "supervised", 0), 0.6)]
    rows.append(trial(TOY.format("lsp", "none", "supervised", 0), status="failed", error="x"))
    return rows


def test_pictures_show_something() -> None:
    for kind in ("defense", "ratio", "peak"):
        for panel in table(kind, trial_lines(pictured())).panels:
            inked, total = pixels(panel)
            assert inked > 0.02 * total


@pytest.mark.parametrize("kind", ["defense", "ratio", "peak"])
def test_titles_of_pictures_are_not_cut_off(kind: str) -> None:
    rows = derived("standard", VAL)[::3]
    rows += [{**row, "spec": row["spec"].replace("/lsp/", "/lsp@0.4/")} for row in rows]
    panel = table(kind, trial_lines(rows)).panels[-1]
    figure = picture(panel)
    figure.canvas.draw()
    (title,) = (
        text for text in figure.findobj(Text) if text.get_text().replace("\n", " ") == panel.title
    )
    box = title.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert box.y1 <= figure.bbox.height
    heads = [label.get_window_extent().y1 for label in figure.axes[0].get_xticklabels()]
    assert max(heads) <= box.y0, "the title lies on the names of the columns"


def test_a_heatmap_has_the_values_of_its_cells() -> None:
    panel = table("defense", trial_lines(grid())).panels[0]
    axes = picture(panel).axes[0]
    rows, columns = ["clean", "lsp", "lsp(patch=4)"], ["standard", "grayscale"]
    assert [label.get_text() for label in axes.get_yticklabels()] == rows
    assert [label.get_text() for label in axes.get_xticklabels()] == columns
    (image,) = axes.images
    means = [[90, 82], [13, 55], [30, 70]]
    assert np.allclose(np.asarray(image.get_array()), means)
    assert image.get_clim() == (0, 100)
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said[1, 1] == "55.0 ±7.1"
    assert len(said) == 6


def test_curves_have_a_point_a_ratio_and_dumbbells_both_ends() -> None:
    panels = table("ratio", trial_lines(pictured())).panels
    panel = next(p for p in panels if p.where["defense"] == "standard")
    axes = picture(panel).axes[0]
    lines = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    x, y = lines["lsp"].lines[0].get_data()  # type: ignore[union-attr]
    shares = [float(share) for share in x]
    values = [float(value) for value in y]
    assert dict(zip(shares, values, strict=True)) == pytest.approx({0.0: 90, 0.4: 60, 1.0: 13})
    assert float(lines["clean"].get_ydata()[0]) == pytest.approx(90)  # type: ignore[union-attr]

    rows = [trial(TOY.format("lsp", "standard", "supervised", 0), 0.2)]
    rows[0]["peak_acc"] = 0.7
    (panel,) = table("peak", trial_lines(rows)).panels
    axes = picture(panel).axes[0]
    ends = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    for name, value in (("final", 20), ("peak", 70)):
        point = ends[name].lines[0]  # type: ignore[union-attr]
        assert (float(point.get_xdata()[0]), float(point.get_ydata()[0])) == (
            pytest.approx(value),
            0,
        )


def test_everything_is_written_and_old_files_go(tmp_path: Path) -> None:
    rows = [*grid(), trial(TOY.format("lsp@0.4", "standard", "supervised", 0), 0.6)]
    written = write_tables(tmp_path, rows)
    names = {path.name for path in written}
    assert {"defense.md", "defense.csv", "defense.tex", "defense.json", "ratio.md"} <= names
    assert "transfer.md" not in names
    assert all(path.stat().st_size > 0 for path in written)
    assert {path.suffix for path in written} == {".md", ".csv", ".tex", ".json", ".png"}
    pictures = [path for path in written if path.suffix == ".png"]
    drawn = [path for path in pictures if path.name.startswith(("defense-", "ratio-", "peak-"))]
    assert len(drawn) == 2 + 1 + 2  # defense at two ratios; ratio; peak at two ratios, plain only
    later = write_tables(tmp_path, grid()[:1], pictures=0)
    assert sorted(later) == sorted((tmp_path / "tables").iterdir())
    assert "Pictures" not in (tmp_path / "tables/defense.md").read_text(), "0 of 1 tells nothing"
    write_tables(tmp_path, rows, pictures=2)
    said = "Pictures: the first 1 of 2 panels are drawn."
    assert said in (tmp_path / "tables/defense.md").read_text()


def test_no_rows_make_no_tables(tmp_path: Path) -> None:
    assert write_tables(tmp_path, []) == []
    said = {kind: plain_text(table(kind, trial_lines([])), 200) for kind in KINDS}
    assert all(f"{kind}: nothing to compare yet; it takes " in said[kind] for kind in KINDS)
    assert "trials that differ in the learner alone" in said["worst-learner"]
    assert len(set(said.values())) == len(KINDS)


def test_unknown_kinds_name_the_known_ones() -> None:
    with pytest.raises(SpecError, match="did you mean 'defense'"):
        table("defence", trial_lines([]))
    with pytest.raises(SpecError, match="did you mean 'final_acc'"):
        table("defense", trial_lines([]), "final_ac")


@pytest.mark.slow
def test_ten_thousand_rows_take_less_than_twenty_seconds(tmp_path: Path) -> None:
    defenses = ["none", "standard", *(f"jpeg(quality={q})" for q in range(10, 90, 10))]
    rows = [
        trial(f"cifar10/{a}/{d}/{n}/{learner}/tp/{s}", 0.1 + 0.01 * s)
        for a in ("clean", *(f"lsp(patch={p})" for p in range(1, 10)))
        for d in defenses
        for n in ("resnet18", "resnet50", "vgg19", "small_cnn", "densenet121", "vit_small")
        for learner in SIX
        for s in range(3)
    ]
    assert len(rows) == 10_800
    assert TrialSpec.parse(rows[-1]["spec"]).seed == 2
    started = time.process_time()
    assert write_tables(tmp_path, rows)
    assert time.process_time() - started < 20


def test_labels_keep_what_tells_methods_apart() -> None:
    labels = [
        "clean",
        "lsp(budget=l2:3.48)",
        "em(budget=8/255, step=2)",
        "em(budget=16/255, step=2)",
        "em(budget=16/255, step=2, surrogate=small_cnn)",
        "grayscale+jpeg(quality=10)",
        "grayscale+jpeg(quality=30)",
        "8/255",
        "worst",
    ]
    made = short(labels)
    assert [made[label] for label in labels] == [
        "clean",
        "lsp",
        "em 8/255",
        "em 16/255",
        "em(surrogate=small_cnn) 16/255",
        "grayscale+jpeg(quality=10)",
        "grayscale+jpeg(quality=30)",
        "8/255",
        "worst",
    ]
    long = "lsp(budget=l2:1.3041323727577427)"
    assert list(
        short(["lsp", "lsp(budget=2x)", long, "l2:1.3041323727577427", "l0:1"]).values()
    ) == [
        "lsp",
        "lsp 2x",
        "lsp l2 1.30",
        "l2 1.30",
        "l0 1",
    ]
    near = [long, "lsp(budget=l2:1.3041)"]  # three digits would make them one
    assert list(short(near).values()) == ["lsp l2 1.3041323727577427", "lsp l2 1.3041"]
    seen = ("gue(epochs=9, selection=test)", "jpeg+eclipse(diffusion_data=test, few=9)", "lsp(n=2)")
    named = ["gue(selection=test)", "jpeg+eclipse(diffusion_data=test)", "lsp"]
    assert list(short(seen).values()) == named, "what was given the test set says so anywhere"


def test_a_shortened_label_is_explained_below_its_panel() -> None:
    text = markdown(table("defense", trial_lines(grid())))
    for panel in table("defense", trial_lines(grid())).panels:
        for label, name in panel.short.items():
            assert name == label or f"- {name}: {label}." in text


def test_specs_are_told_apart_by_what_differs() -> None:
    where = "cifar10/{}/{}/resnet18/supervised/quick/0"
    em = "em(budget=16/255, step=1.0)"
    pairs = [("clean", "none"), (em, "none"), (em, "jpeg(quality=10)"), (em, "jpeg(quality=30)")]
    names = telling([where.format(*pair) for pair in pairs])
    said = ["clean, none", "em, none", "em, jpeg(quality=10)", "em, jpeg(quality=30)"]
    assert list(names.values()) == said
    alone = where.format(em, "none")
    assert telling([alone]) == {alone: "em"}
    seeds = [alone, alone[:-1] + "1"]
    assert list(telling(seeds).values()) == ["em, 0", "em, 1"]
    poisons = ["cifar10/lsp/0", f"svhn/{em}@0.4/0"]
    assert list(telling(poisons).values()) == ["cifar10, lsp", "svhn, em@0.4"]
    other = em.replace("step=1.0", "step=2.0")
    shares = [f"cifar10/{a}/0" for a in (f"{em}@0.4", f"{em}@0.8", f"{other}@0.8", "lsp")]
    names = ["em(step=1.0)@0.4", "em(step=1.0)@0.8", "em(step=2.0)@0.8", "lsp"]
    assert list(telling(shares).values()) == names, "which budget and which step, of each ratio"
    others = ["first", "second/of/another/form"]
    assert telling(others) == {name: name for name in others}


def test_columns_stand_in_few_blocks_of_about_the_same_size() -> None:
    assert blocks(range(13), 4) == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    assert blocks("abc", 3) == [["a", "b", "c"]]
    assert blocks_within([10.0] * 5, 30.0) == [[0, 1, 2], [3, 4]]
    assert blocks_within([10.0, 10.0, 30.0, 10.0], 30.0) == [[0, 1], [2], [3]], "none too wide"
    assert blocks_within([99.0, 1.0], 30.0) == [[0], [1]], "what fits nowhere stands alone"


def test_a_table_in_a_pipe_loses_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    """80 columns, which rich takes where it cannot know, would cut them off."""
    rows = [
        trial(f"cifar10/tp/standard/resnet18/{learner}/tp/0", 0.1234 + i / 100)
        for i, learner in enumerate(SIX)
    ]
    show(table("worst-learner", trial_lines(rows)))
    text = capsys.readouterr().out
    for i in range(len(SIX)):
        assert f"{12.34 + i:.1f}" in text
    assert "…" not in text


def test_notes_name_the_marks_as_their_format_shows_them() -> None:
    made = table("defense", trial_lines(grid()))
    where = "strongest attack of a defense"
    assert f"Bold: best defense of an attack; italic: {where}" in markdown(made)
    assert f"Bold: best defense of an attack; underlined: {where}" in latex(made)
    plain = plain_text(made)
    assert f"**so**: best defense of an attack; _so_: {where}" in plain
    assert "**70.0 ± 0.0**" in plain
    assert "_13.0 ± 1.4_" in plain
    out = io.StringIO()
    Console(file=out, width=160, force_terminal=True, color_system="standard").print(terminal(made))
    assert f"Bold: best defense of an attack; underlined: {where}" in out.getvalue()
    assert "\x1b[1m70.0 ± 0.0\x1b[0m" in out.getvalue()
    assert "\x1b[4m13.0 ± 1.4\x1b[0m" in out.getvalue()
    for text in (plain, latex(made), out.getvalue(), markdown(made)):
        assert "in Markdown" not in text
