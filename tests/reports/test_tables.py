"""Tables: every number beside one worked out by hand, nothing silently absent or mixed."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from raygrid.attacks.lsp import Lsp
from raygrid.core.errors import SpecError
from raygrid.core.labels import short, telling
from raygrid.core.spec import TrialSpec
from raygrid.literature.names import SIX_LEARNERS
from raygrid.reports.statistics import wilson
from raygrid.reports.tables.blocks import blocks, blocks_within
from raygrid.reports.tables.cell_text import number
from raygrid.reports.tables.cells import beyond_noise
from raygrid.reports.tables.frame import frame, lines_of
from raygrid.reports.tables.kinds import TABLE_KINDS, table
from raygrid.reports.tables.latex import latex
from raygrid.reports.tables.layout import order
from raygrid.reports.tables.notes import notes
from raygrid.reports.tables.plots import picture
from raygrid.reports.tables.render import json_text, markdown, plain_text
from raygrid.reports.tables.tidy import csv_text
from raygrid.reports.tables.trial_lines import trial_lines
from raygrid.reports.tables.write import worth_drawing
from raygrid.trials.resolve import resolve
from raygrid.trials.result import COLLAPSED, Result
from tests.reports.rows import CIFAR, TOY, Json, as_if_run, cell, grid, trial, write_tables


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
        trial(TOY.format("lsp", "none", "supervised", 0), status="diverged", error="no end"),
        trial(TOY.format("clean", "grayscale", "supervised", 0), 0.7, stopped_early=True),
    ]
    made = table("defense", trial_lines(rows))
    text = plain_text(made)
    assert "20.0 (n = 1 of 2; 1 failed)" in text
    assert "lsp / standard: RuntimeError: out of luck" in text
    assert "Traceback" not in text
    for word in ("diverged", "stopped early", "no end", "85.0 ± 7.1", "–"):
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
    for kind in TABLE_KINDS:
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
        assert (found.printed.value, found.printed.std) == (0.1306, 0.0074)
        assert (found.printed.source, found.printed.own) == ("apbench T3, T6, T16", True)
        assert found.printed.differs is differs
        assert found.printed.contradicting == ()
    spread = [trial(CIFAR.format("lsp", "apbench", s), a) for s, a in enumerate((0.1, 0.2, 0.3))]
    wide = cell(table("defense", trial_lines(spread)), "lsp", "standard")
    assert not wide.printed.differs  # 3 sigma = 30
    rows = [trial(CIFAR.format("em_remrepo", "dvae", 0), 0.5)]
    text = plain_text(table("defense", trial_lines(rows)), width=400)
    assert "[12.26]*†" in text
    assert "† em_remrepo / standard: dvae T2, T9: 12.26 against apbench T3, T6, T16: 20.78" in text
    named = trial_lines([trial(CIFAR.format("em", "apbench", 0), 0.9)])
    text = plain_text(table("defense", named), width=400)
    assert "[20.78 ± 1.03, em_apb]" in text
    assert "In brackets: the published number. A paper's name beside it means another" in text
    other = cell(
        table("defense", trial_lines([trial(CIFAR.format("em", "quick", 0), 0.9)])),
        "em",
        "standard",
    )
    assert (other.printed.own, other.printed.differs) == (False, False)
    assert "[32.83, learned_faster]" in plain_text(
        table("defense", trial_lines([trial(CIFAR.format("em", "quick", 0), 0.9)]))
    )


@pytest.mark.parametrize(
    ("metric", "own", "printed", "limit"),
    [
        ("final_acc", None, None, 0.06),
        ("peak_acc", None, None, 0.12),
        ("peak_acc", 0.02, None, 0.12),
        ("final_acc", None, 0.07, 0.21),
        ("final_acc", 0.03, 0.04, 0.15),
    ],
)
def test_noise_is_the_band_or_three_deviations_of_both(
    metric: str, own: float | None, printed: float | None, limit: float
) -> None:
    made = table("defense", trial_lines([trial(CIFAR.format("lsp", "apbench", 0), 0.5)]))
    measured = replace(cell(made, "lsp", "standard"), metric=metric, std=own)
    for sign in (-1, 1):
        assert not beyond_noise(measured, 0.5 + sign * (limit - 0.001), printed)
        assert beyond_noise(measured, 0.5 + sign * (limit + 0.001), printed)


def test_suspect_numbers_are_marked() -> None:
    spec = "svhn/ar/early_stopping/resnet18/supervised/apbench/0"
    made = table("defense", trial_lines([trial(spec, 0.2)]))
    assert "[89.32]‡" in plain_text(made)
    assert not cell(made, "ar", "early_stopping").printed.differs


def test_what_has_to_be_known_of_printed_numbers_stands_once_below_a_table() -> None:
    """DUNE's numbers were cited as the paper's own, which a note on it prints."""
    cell_of = "cifar10/{}/{}/resnet18/supervised/wxl/0"
    pairs = product(("em", "rem", "dune"), ("standard", "jpeg", "ueraser_max"))
    made = table("defense", trial_lines(trial(cell_of.format(*pair), 0.5) for pair in pairs))
    said = [line for line in notes(made, made.panels[0]) if line.startswith("In brackets")]
    assert said[1:] == [
        "In brackets: as a note on the paper prints it.",
        "In brackets of dune: beyond 8/255.",
        "In brackets of ueraser_max: adversarial augmentation, which of UEraser's forms is not "
        "said.",
    ]
    assert cell(made, "dune", "jpeg").row()["published_note"] == (
        "as a note on the paper prints it; beyond 8/255"
    )
    assert "published_note" in csv_text(made).splitlines()[0].split(",")


def test_remarks_of_some_printed_numbers_say_where_these_stand() -> None:
    """What measure, value and tables say too, as `last epoch`, would be most of the lines."""
    where = "cifar10/{}/{}/resnet18/supervised/{}/0"
    pairs = [*product(("rem", "em_remrepo"), ("grayscale", "jpeg")), ("lsp", "jpeg")]
    specs = [where.format(*pair, "dvae") for pair in pairs]
    made = table("defense", trial_lines(trial(spec, 0.5) for spec in specs))
    said = [line for line in notes(made, made.panels[0]) if line.startswith("In brackets of")]
    assert said == [
        "In brackets of em_remrepo / grayscale: EM made with the REM codebase, paper remarks its "
        "robustness to grayscale.",
        "In brackets of rem / grayscale: paper remarks robustness to grayscale of poisons from the "
        "REM codebase.",
    ]
    several = table("defense", lines_of(as_if_run("pil", "augmentation")))
    panel = next(p for p in several.panels if ("pil", "none") in p.cells)
    quoted = "as a note on the paper quotes it; whether its victims ran for 30 epochs or 100"
    (line,) = (line for line in notes(several, panel) if quoted in line)
    assert line.startswith("In brackets of pil / none and 13 others: ")


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


def test_a_loss_that_smoothed_labels_keep_above_the_mark_has_no_epochs() -> None:
    """A fifth of a label over ten classes leaves 0.867 to a network that is always right."""

    def smoothed(share: float | None) -> Json:
        resolved = {"recipe": {} if share is None else {"smoothing": share}}
        return trial(TOY.format("lsp", "standard", "supervised", 0), 0.2, resolved=resolved)

    for share, there in ((None, 16), (0.0, 16), (0.05, 16), (0.2, None)):
        (line,) = trial_lines([smoothed(share)])
        assert (line["epochs_to_half"], line["never"]) == (there, there is not None), share
    text = plain_text(table("peak", trial_lines([smoothed(0.2)])), width=300)
    assert "none where smoothed labels keep it above" in text
    assert "never" not in text.lower()


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
    assert (recall.value, recall.printed.value) == (0.99, 1.0)
    assert (recall.printed.own, recall.printed.differs) == (True, False)
    assert cell(made, "lsp @ 20%", "detection_recall").printed.differs
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
    said = {kind: plain_text(table(kind, trial_lines([])), 200) for kind in TABLE_KINDS}
    assert all(f"{kind}: nothing to compare yet; it takes " in said[kind] for kind in TABLE_KINDS)
    assert "trials that differ in the learner alone" in said["worst-learner"]
    assert len(set(said.values())) == len(TABLE_KINDS)


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
        for learner in SIX_LEARNERS
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


def test_near_poison_ratios_are_never_one_cell() -> None:
    """0.4 % stood as 0 %, and of 1.5 % and 2 % one was lost."""
    ratios = (0.004, 0.015, 0.02, 0.024, 0.12, 0.125)
    rows = [trial(TOY.format(f"lsp@{r}", "standard", "supervised", 0), r) for r in ratios]
    clean = trial(TOY.format("clean", "standard", "supervised", 0), 0.9)
    (panel,) = table("ratio", trial_lines([*rows, clean])).panels
    assert panel.columns == ("0%", "0.4%", "1.5%", "2%", "2.4%", "12%", "12.5%")
    assert [panel.cells["lsp", column].value for column in panel.columns[1:]] == list(ratios)


def test_the_picture_over_qualities_has_measured_points_alone() -> None:
    """The clean set behind the lowest quality stood for attacks that were not run there."""
    values = {("clean", 10): 0.8, ("clean", 50): 0.88, ("lsp", 50): 0.42, ("lsp", 90): 0.3}
    rows = [
        trial(TOY.format(attack, f"jpeg(quality={q})", "supervised", 0), acc)
        for (attack, q), acc in values.items()
    ]
    (panel,) = table("jpeg-quality", trial_lines(rows)).panels
    drawn = {line.get_label(): line for line in picture(panel).axes[0].containers}
    found = {name: bars.lines[0].get_xydata().tolist() for name, bars in drawn.items()}
    assert found["lsp"] == [[50.0, pytest.approx(42.0)], [90.0, pytest.approx(30.0)]]
    assert found["clean"] == [[10.0, pytest.approx(80.0)], [50.0, pytest.approx(88.0)]]


def test_a_contrastive_learner_has_no_epoch_of_a_peak_and_no_loss_below_half() -> None:
    """Its loss is another one, and its peak is one of nearest neighbors."""
    row = trial(TOY.format("lsp", "standard", "simclr", 0), 0.4)
    row |= {"peak_acc": None, "knn_peak": 0.5, "peak_epoch": 4, "epochs_to_half": None}
    (line,) = trial_lines([row])
    assert (line["peak_epoch"], line["epochs_to_half"], line["never"]) == (None, None, False)
    assert "never" not in markdown(table("peak", [line]))


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.8895, "89.0"), (0.1415, "14.2"), (0.1095, "11.0"), (0.8475, "84.8"), (-0.0002, "0.0")],
)
def test_a_five_behind_the_last_digit_is_rounded_up(value: float, said: str) -> None:
    assert number(value, "final_acc", 1) == said


def test_the_budget_of_an_attack_that_is_not_here_is_the_one_that_its_row_was_made_with() -> None:
    spec = TOY.format("{}", "standard", "supervised", 0)
    made = {"resolved": {"attack": {"id": "theirs", "version": 1, "budget": "8/255"}}}
    rows = [trial(spec.format("theirs"), 0.2, **made), trial(spec.format("clean"), 0.9)]
    rows += [trial(spec.format("theirs(budget=16/255)"), 0.1)]
    lines = trial_lines(rows)
    assert [(x["method"], x["budget"], x["norm"]) for x in lines] == [
        ("theirs", "8/255", "linf"),
        ("clean", "", ""),
        ("theirs", "16/255", "linf"),
    ]
    assert table("budget", lines).panels[0].columns == ("0", "8/255", "16/255")


def test_a_budget_that_grows_stands_at_its_size() -> None:
    """At 64 pixels the default stood left of its half."""
    spec = "tinyimagenet/{}/standard/resnet18/supervised/apbench/0"
    parts = ("lsp(budget=0.5x)", "lsp", "lsp(budget=2x)")
    trials = [resolve(spec.format(part), None) for part in parts]
    lines = trial_lines(trial(str(t.spec), 0.5) for t in trials)
    real = [t.attack.limit_at(64).value for t in trials]
    assert [line["size"] for line in lines] == real == sorted(real)
    (panel,) = table("budget", lines).panels
    assert panel.numeric == tuple(real)


@pytest.mark.parametrize("order", [1, -1])
def test_a_budget_that_grows_is_that_of_each_dataset(order: int) -> None:
    """Of 32 and 64 pixels, whichever rows come first: one size stood in both tables."""
    spec = "{}/{}/standard/resnet18/supervised/apbench/0"
    places = [(d, a) for d in ("cifar10", "tinyimagenet") for a in ("lsp", "lsp(budget=l2:2.5)")]
    places += [(dataset, "clean") for dataset in ("cifar10", "tinyimagenet")]
    rows = [trial(spec.format(*place), 0.5) for place in places][::order]
    found = {p.where["dataset"]: p.numeric for p in table("budget", trial_lines(rows)).panels}
    own = Lsp().budget.value
    assert found == {"cifar10": (0, own, 2.5), "tinyimagenet": (0, 2.5, 2 * own)}
