"""The papers' tables and figures by number: all there, asked of the right trials, and answered."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from raygrid.api.run_grid import Options, run_grid
from raygrid.cli import main as cli
from raygrid.cli import reproduce
from raygrid.core.enforcement import size_of_change
from raygrid.core.errors import DataError, SpecError
from raygrid.core.options import LEFT
from raygrid.core.seeds import Stream
from raygrid.core.spec import TrialSpec
from raygrid.engine.grid import plan
from raygrid.literature.questions import QUESTIONS, PrintedQuestion
from raygrid.literature.reference import load, printed_questions, specs_of, tables_of
from raygrid.reports.analysis.explanation import grad_cam
from raygrid.reports.analysis.fidelity import fidelity_of_purified, norms_of_disentangled
from raygrid.reports.analysis.questions import accuracy_on_sets, robustness, transferability
from raygrid.reports.analysis.records import Records
from raygrid.reports.figures.changes import draw_changes
from raygrid.reports.figures.maps import examples
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.layout import Table
from raygrid.reports.tables.render import markdown
from raygrid.reproduce.figure_list import (
    LISTS,
    PaperFigure,
    drawings_of,
    drawn_figures_of,
    figures_of,
)
from raygrid.reproduce.figures import DRAWINGS, FigureData, draw
from raygrid.reproduce.papers import PAPERS
from raygrid.reproduce.questions import ANSWERS, PSNRS, FinishedTrials, answered
from raygrid.reproduce.tables import Only, paper_table, paper_table_of
from raygrid.storage.results import ResultLog
from raygrid.storage.store import Store
from raygrid.trials.artifacts import purified_of
from tests import plugin
from tests.nn.test_published_denoisers import score_sde, tiny
from tests.reports.test_figures import drawn

assert plugin.CARD
ROOT = Path(__file__).parents[2]
PRINTED = {  # the last table and the last figure of each paper
    "apbench": (18, 8, "000"),
    "learned_faster": (2, 4, "001"),
    "dvae": (13, 6, "002"),
}


# --- all of them are there -----------------------------------------------------------------------


@pytest.mark.parametrize("paper", PRINTED)
def test_every_table_and_figure_is_there_or_has_a_reason(paper: str) -> None:
    tables, figures, _ = PRINTED[paper]
    known = [*tables_of(paper), *LISTS.get(paper, {})]
    assert sorted(known, key=int) == [str(number) for number in range(1, tables + 1)]
    drawn = [*drawn_figures_of(paper), *drawings_of(paper)]
    assert sorted(drawn, key=int) == [str(number) for number in range(1, figures + 1)]


@pytest.mark.parametrize("paper", PRINTED)
def test_the_papers_have_no_more_tables_and_figures(paper: str, shared: Path) -> None:
    tables, figures, number = PRINTED[paper]
    text = next((shared / "papers").glob(f"{number}*.txt")).read_text()
    for kind, last in (("Table", tables), ("Figure", figures)):
        found = {int(n) for n in re.findall(rf"{kind} (\d+)[:.] ", text)}
        assert found == set(range(1, last + 1)), kind


@pytest.mark.parametrize("paper", PRINTED)
def test_every_printed_number_is_a_trial_a_question_or_has_a_reason(paper: str) -> None:
    rows = load()
    rows = rows[(rows["paper"] == paper) & rows["cell"].isna()]
    metrics = {metric for question in QUESTIONS.values() for metric in question.metrics}
    rest = rows[~rows["metric"].isin(metrics)]
    assert set(rest["reason"]) <= {
        "mean over the attacks of that table",
        "quoted from another paper, with another training",
    }


def test_every_question_and_drawing_is_known() -> None:
    assert set(ANSWERS) == set(QUESTIONS)
    assert {each.drawing for paper in PRINTED for each in drawn_figures_of(paper).values()} == set(
        DRAWINGS
    )
    assert figures_of("transferable") == {}


@pytest.mark.parametrize("paper", PRINTED)
def test_every_figure_can_be_planned(paper: str) -> None:
    for number, data in drawn_figures_of(paper).items():
        listed = [TrialSpec.parse(text) for text in data.trials]
        assert len(set(listed)) == len(listed) > 1
        for scale in ("quick", "paper"):
            wanted = paper_table_of(listed, scale, (0,))
            assert not plan(wanted.specs, None).skips, number
            assert not wanted.missing, number
        attacks = {str(spec.attack) for spec in listed}
        assert all(set(names) <= attacks for names in data.groups.values())


def test_the_stages_of_a_figure_are_those_of_its_table() -> None:
    lsp = [text for text in drawn_figures_of("dvae")["4"].trials if "/lsp/" in text]
    assert [str(TrialSpec.parse(text).defense[0]) for text in lsp] == [
        "dvae(epochs=20, limit1=1.5, second=false)",
        "dvae(epochs=20, limit1=1.5)",
    ]


def test_partial_poisoning_comes_with_its_controls() -> None:
    """For each defense and ratio of figure 5 the clean part alone; for plain training in 3, 4."""
    listed_figures = drawn_figures_of("apbench")
    for number, defenses in (("3", 1), ("4", 1), ("5", 4)):
        listed = [TrialSpec.parse(text) for text in listed_figures[number].trials]
        curves = {(str(s.defense[0]), s.poison_ratio) for s in listed if s.attack.name == "lsp"}
        controls = [s for s in listed if s.attack.name == "withheld"]
        assert {(str(s.defense[0]), s.poison_ratio) for s in controls} == curves
        assert len(controls) == len(curves) == 4 * defenses


# --- what is asked -------------------------------------------------------------------------------


def first(paper: str, table: str, row: str, column: str, metric: str = "") -> PrintedQuestion:
    found = printed_questions(paper, table)
    return next(a for a in found if (a.row, a.column) == (row, column) and metric in ("", a.metric))


def test_numbers_are_asked_of_the_trials_that_the_papers_ran() -> None:
    robust = first("apbench", "11", "rem", "ueraser_max", "pgd_whitebox_acc")
    assert [str(spec) for spec in robust.about] == [
        "cifar10/rem_apb/ueraser_max/resnet18/supervised/apbench/0"
    ]
    assert robust.value == 0.0311
    rate = first("learned_faster", "2", "pgd100", "googlenet")
    assert [str(spec) for spec in rate.about] == [
        "cifar10/pgd(steps=100, surrogate=resnet50)/standard/resnet18/supervised/learned_faster/0",
        "cifar10/clean/standard/googlenet/supervised/learned_faster(epochs=200)/0",
    ]
    assert rate.value == 0.8157
    mean = first("learned_faster", "2", "pgd100", "mean").about
    assert mean[0] == rate.about[0]
    assert [spec.architecture.name for spec in mean[1:]] == [
        "resnet18",
        "vgg19",
        "mobilenet",
        "googlenet",
    ]
    fits = first("dvae", "12", "dvae", "minutes_dvae_training")
    assert (fits.value, fits.on) == (23, "one RTX 3090")
    assert [str(part) for spec in fits.about for part in spec.defense] == ["dvae"]
    compressed = first("dvae", "13", "psnr", "jpeg30")
    assert {str(spec.defense[0]) for spec in compressed.about} == {"jpeg(quality=30)"}
    assert len(compressed.about) == 8
    again = first("dvae", "1", "lsp_dvae_recon", "poisoned_train_acc", "poisoned_train_acc")
    assert str(again.about[0].attack) == "dvae_recon(base=lsp)"


def test_a_part_of_a_table_has_what_its_questions_need() -> None:
    part = paper_table("learned_faster", "2", "paper", Only(attacks=["regions"]))
    specs = [TrialSpec.parse(text) for text in part.specs]
    assert sorted(spec.attack.name for spec in specs) == ["clean"] * 4 + ["regions"]
    assert {a.row for a in part.questions} == {"regions1024"}
    quality = paper_table(
        "dvae", "13", "paper", Only(attacks=["em"], defenses=["jpeg(quality=50)"])
    )
    assert [a.metric for a in quality.questions] == ["psnr", "psnr_pooled"]
    assert all(list(map(str, a.about)) == list(quality.specs) for a in quality.questions)
    em = paper_table("apbench", "11", "paper", Only(attacks=["em"], defenses=["at"]))
    assert em.specs == ("cifar10/em_apb/at/resnet18/supervised/apbench/0",)
    with pytest.raises(SpecError, match=r"unknown attack here 'lps' \(did you mean 'lsp'"):
        paper_table("apbench", "11", "paper", Only(attacks=["lps"]))
    with pytest.raises(SpecError, match=r"did you mean 'jpeg\(quality=30\)'"):
        paper_table("dvae", "13", "paper", Only(defenses=["jpeg(quality=31)"]))
    assert set(paper_table("apbench", "11").specs) == set(specs_of("apbench", "11"))


# --- what trials answer --------------------------------------------------------------------------

WHERE = "dots/{}/{}/small_cnn/supervised/brief/{}"
CLEAN = [WHERE.format("clean", "none", seed) for seed in (0, 1)]
LSP = WHERE.format("lsp(budget=l2:3.0)", "none", 0)
JPEG = [WHERE.format("lsp(budget=l2:3.0)", f"jpeg(quality={q})", 0) for q in (20, 50)]
VAE = WHERE.format("lsp(budget=l2:3.0)", "vae(epochs=1, limit=2.0)", 0)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> FinishedTrials:
    """Finished trials in a toy world that left everything."""
    out = tmp_path_factory.mktemp("papers")
    options = Options(out=out, data=out / "data", executor="inline", keep=LEFT, quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raygrid.api.run_grid._tables", lambda *place: [])
        found = run_grid([*CLEAN, LSP, *JPEG, VAE], options)
    assert not found.failed
    rows = {result.spec: result.row() for result in found.results}
    return FinishedTrials(Records(Store(out / "store"), out / "data"), rows)


def question(
    name: str, metric: str, about: list[str], value: float, **changes: str
) -> PrintedQuestion:
    """A number as if a paper had printed it."""
    places = {"row": "lsp", "column": "here", "on": "", **changes}
    return PrintedQuestion(
        question=name,
        paper="dvae",
        table="99",
        dataset="dots",
        metric=metric,
        about=tuple(map(TrialSpec.parse, about)),
        value=value,
        std=None,
        suspect=False,
        **places,
    )


def only(tables: list[Table]) -> Cell:
    (made,) = tables
    ((_, cell),) = made.panels[0].cells.items()
    return cell


def test_robustness_is_that_of_pairs_of_seeds(evidence: FinishedTrials) -> None:
    each = question("robustness", "pgd_blackbox_acc", CLEAN[:1], 0.5)
    cell = only(answered([each], evidence, "paper", (0, 1)))
    rows = robustness([evidence.records.victim(spec) for spec in CLEAN])
    assert cell.values == {seed: row["black_acc"] for seed, row in enumerate(rows)}
    alone = only(answered([each], evidence, "paper", (0,)))
    assert alone.value is None, "without another seed there is no black box"


def test_a_rate_is_that_of_each_victim_and_its_mean(evidence: FinishedTrials) -> None:
    about = [LSP, CLEAN[0]]
    cell = only(
        answered(
            [question("transferability", "attack_transfer_rate", about, 0.5)],
            evidence,
            "paper",
            (0,),
        )
    )
    records = evidence.records
    poisoned = records.poisoned("dots/lsp(budget=l2:3.0)")
    row = transferability([poisoned], [records.victim(CLEAN[0])])[0]
    assert cell.values == {0: row["rate"]}
    two = question("transferability", "attack_transfer_rate", [*about, LSP], 0.5)
    other = transferability([poisoned], [records.victim(LSP)])[0]
    mean = only(answered([two], evidence, "paper", (0,)))
    assert mean.value == pytest.approx((row["rate"] + other["rate"]) / 2)


def test_sets_fidelity_and_cost_are_those_of_the_commands(evidence: FinishedTrials) -> None:
    records = evidence.records
    sets = only(
        answered([question("sets", "clean_train_acc", [LSP], 0.9)], evidence, "paper", (0,))
    )
    assert sets.value == accuracy_on_sets(records, LSP, {})[0]["acc"]
    each = question("fidelity", "psnr", JPEG, 22.0)
    left = [fidelity_of_purified(records, spec)[0]["psnr"] for spec in JPEG]
    fidelity = only(answered([each], evidence, "paper", (0,)))
    assert fidelity.value == pytest.approx(sum(left) / 2)
    columns = QUESTIONS["cost"].metrics
    asks = [
        question("cost", name, [VAE], 1, row="vae", column=name, on="a GPU") for name in columns
    ]
    (table,) = answered(asks, evidence, "paper", (0,))
    fits, passes, training, total = (c.value or 0.0 for c in table.panels[0].cells.values())
    facts = records.store.meta("purified", evidence.rows[VAE]["artifacts"]["purified"])["facts"]
    assert 0 < fits == facts["fit_seconds"] / 60
    assert 0 < passes < facts["seconds"] / 60
    assert training == evidence.rows[VAE]["seconds"] / 60
    assert total == pytest.approx(training + facts["seconds"] / 60)
    assert not any(cell.differs for cell in table.panels[0].cells.values()), "another machine"
    assert "published (a GPU)" in markdown(table)


def test_what_no_paper_prints_stands_beside() -> None:
    pooled = first("dvae", "13", "psnr_pooled", "jpeg30")
    assert (pooled.value, pooled.question) == (None, "fidelity")
    assert pooled.about == first("dvae", "13", "psnr", "jpeg30").about
    for table, row, attack in (
        ("1", "lsp_dvae_recon", "dvae_recon(base=lsp)"),
        ("7", "ops_dvae_increase, 4 %", "dvae_grow(base=ops, share=0.04)"),
    ):
        metrics = [
            a.metric
            for a in printed_questions("dvae", table)
            if (a.dataset, a.row) == ("cifar10", row)
        ]
        assert metrics[-4:] == ["base_l2", "l2", "linf", "linf_max"]
        assert [str(s.attack) for s in first("dvae", table, row, "l2").about] == [attack]
    made = answered(printed_questions("dvae", "7"), None, "paper", (0,))
    assert [(table.kind, len(table.panels[0].rows)) for table in made] == [("norms", 16)]
    assert not any(cell.published for cell in made[0].panels[0].cells.values())


def test_psnr_is_shown_by_image_and_pooled(evidence: FinishedTrials) -> None:
    asks = [question("fidelity", name, JPEG, 22.0, row=name) for name in PSNRS]
    asks[1] = replace(asks[1], value=None)
    (table,) = answered(asks, evidence, "paper", (0,))
    left = [fidelity_of_purified(evidence.records, spec)[0] for spec in JPEG]
    for name, cell in zip(PSNRS, table.panels[0].cells.values(), strict=True):
        assert cell.value == pytest.approx(sum(row[name] for row in left) / 2), name
    assert left[0]["psnr_pooled"] < left[0]["psnr"]
    lines = [line for line in markdown(table).splitlines() if line.startswith("| PSNR")]
    assert [line.split(" | ")[0] for line in lines] == ["| PSNR (dB)", f"| {POOLED}"]
    assert ["[22.00]" in line for line in lines] == [True, False]


POOLED = "PSNR of the mean error (dB)"
FITTED = "base=lsp, batch_size=32, epochs=1, shrink=8"


def test_norms_are_those_of_what_a_d_vae_found(evidence: FinishedTrials) -> None:
    """Of a grown poison without the images that are the base attack's own."""
    records = evidence.records
    base = records.poisoned("dots/lsp")
    clean = base.clean.pixels
    own = float(size_of_change(clean, base.images.pixels, "l2").mean())
    rng = Stream("poison", ("dots", "dvae_grow", 0)).child("dvae").generator("seed")
    grown = torch.randperm(128, generator=rng)[64:]
    everything = torch.arange(128)
    for name, rows in (("dvae_recon", everything), ("dvae_grow", grown)):
        attack = f"{name}({FITTED}{', share=0.5' if name == 'dvae_grow' else ''})"
        asks = [
            question("norms", metric, [WHERE.format(attack, "none", 0)], 0.0, column=metric)
            for metric in QUESTIONS["norms"].beside
        ]
        (table,) = answered(asks, evidence, "paper", (0,))
        found = {column: cell.value for (_, column), cell in table.panels[0].cells.items()}
        made = records.poisoned(f"dots/{attack}").images.pixels
        kept = (made == base.images.pixels).flatten(1).all(1)
        assert kept.nonzero().flatten().tolist() == sorted(set(range(128)) - set(rows.tolist()))
        l2, linf = (size_of_change(clean[rows], made[rows], norm) for norm in ("l2", "linf"))
        assert found == pytest.approx(
            {
                "base_l2": own,
                "l2": float(l2.mean()),
                "linf": float(linf.mean()),
                "linf_max": float(linf.max()),
            }
        ), name
        assert f"| {own:.3f} " in markdown(table)
    with pytest.raises(DataError, match="dots/lsp/0 was not made by a D-VAE"):
        norms_of_disentangled(records, "dots/lsp")


def test_differences_are_marked_and_gaps_explained(evidence: FinishedTrials) -> None:
    measured = fidelity_of_purified(evidence.records, JPEG[0])[0]["psnr"]
    for value, differs in ((measured + 0.9, False), (measured + 1.1, True)):
        cell = only(
            answered([question("fidelity", "psnr", JPEG[:1], value)], evidence, "paper", (0,))
        )
        assert (cell.differs, cell.own) == (differs, True)
    gone = WHERE.format("clean", "grayscale", 0)
    (table,) = answered([question("sets", "clean_train_acc", [gone], 0.9)], evidence, "paper", (0,))
    assert "left no weights: run it with --keep weights" in markdown(table)
    dry = only(answered([question("sets", "clean_train_acc", [LSP], 0.9)], None, "paper", (0,)))
    assert (dry.value, dry.published, dry.why) == (None, 0.9, None)


def test_stand_ins_say_what_they_stand_for() -> None:
    (table,) = answered(printed_questions("apbench", "11"), None, "quick", (0, 1))
    assert [panel.metric for panel in table.panels] == ["pgd_blackbox_acc", "pgd_whitebox_acc"]
    cell = table.panels[1].cells["em", "at"]
    assert (cell.published, cell.apart, cell.differs) == (0.2860, "apbench, cifar10", False)
    assert "photo_digits/" in cell.facts["trials"]
    assert table.panels[0].title.startswith("photo_digits, protocol quick, for cifar10")


# --- figures -------------------------------------------------------------------------------------


def shown(
    evidence: FinishedTrials, drawing: str, trials: list[str], **groups: tuple[str, ...]
) -> FigureData:
    return FigureData(
        PaperFigure("toy", drawing, tuple(trials), groups=groups), evidence, "paper", (0,)
    )


def test_purifiers_are_drawn_by_what_they_leave(
    evidence: FinishedTrials, tmp_path: Path, saved: list[Figure]
) -> None:
    files = draw(shown(evidence, "compression", [*JPEG, VAE]), tmp_path / "figure")
    assert [path.name for path in files] == [
        "figure-rate.png",
        "figure-psnr.png",
        "figure-psnr.csv",
    ]
    assert all(path.read_bytes()[1:4] == b"PNG" for path in files[:2])
    records, rows_of = evidence.records, evidence.rows

    def at(trial: str) -> tuple[float, float]:
        left = fidelity_of_purified(records, trial)[0]["psnr"]
        return left, 100 * rows_of[trial]["final_acc"]

    rate, psnr = saved
    assert drawn(rate, 0) == {"lsp": ([2.0], [pytest.approx(at(VAE)[0])])}
    assert drawn(rate, 1) == {"lsp": ([2.0], [pytest.approx(at(VAE)[1])])}
    families = {"JPEG": JPEG, "VAE": [VAE]}
    assert drawn(psnr) == {
        family: tuple(pytest.approx(values) for values in zip(*map(at, trials), strict=True))
        for family, trials in families.items()
    }
    rows = {
        (row["family"], float(row["setting"])): row
        for row in csv.DictReader(files[-1].read_text().splitlines())
    }
    assert set(rows) == {("JPEG", 20.0), ("JPEG", 50.0), ("VAE", 2.0)}
    left = fidelity_of_purified(evidence.records, JPEG[0])[0]["psnr"]
    row = rows["JPEG", 20.0]
    assert float(row["psnr"]) == pytest.approx(left)
    assert float(row["final_acc"]) == evidence.rows[JPEG[0]]["final_acc"]


@pytest.mark.parametrize(
    ("drawing", "trials", "numbers"),
    [
        ("by_epoch", JPEG[:1], "test_acc"),
        ("curves", [CLEAN[0], LSP], "train_loss"),
        ("tsne", [CLEAN[0], LSP], "silhouette"),
        ("residuals", [LSP, *JPEG], "psnr"),
        ("peak_final", [CLEAN[0], LSP], "peak_acc"),
    ],
)
def test_figures_come_with_their_numbers(
    drawing: str,
    trials: list[str],
    numbers: str,
    evidence: FinishedTrials,
    tmp_path: Path,
    saved: list[Figure],
) -> None:
    groups = {"synthetic": ("lsp(budget=l2:3.0)",)} if drawing == "curves" else {}
    picture, values = draw(shown(evidence, drawing, trials, **groups), tmp_path / "new" / "figure")
    assert picture.read_bytes()[1:4] == b"PNG"
    table = pd.read_csv(values)
    assert table[numbers].notna().all()
    (figure,) = saved
    rows = [evidence.rows[trial] for trial in trials]
    if drawing == "by_epoch":
        acc = [100 * epoch["test_acc"] for epoch in rows[0]["history"]]
        assert drawn(figure) == {"lsp": ([1, 2], pytest.approx(acc))}
    if drawing == "curves":
        losses = [[epoch["train_loss"] for epoch in row["history"]] for row in rows]
        names = ("clean", "lsp")
        found = dict(zip(names, losses, strict=True))
        assert drawn(figure, 0) == {n: ([1, 2], pytest.approx(one)) for n, one in found.items()}
        assert figure.axes[0].get_title() == "synthetic"
    if drawing == "tsne":
        for axes, (_, row) in zip(figure.axes, table.iterrows(), strict=True):
            said = f"10-NN {100 * row['neighbors_acc']:.1f} %, silhouette {row['silhouette']:.2f}"
            assert axes.get_title().splitlines()[-1] == said
            assert axes.collections[0].get_offsets().shape == (64, 2)
    if drawing == "peak_final":
        ends = [(100 * row["final_acc"], 100 * row["peak_acc"]) for row in rows]
        points = [(x[0], y[0]) for x, y in drawn(figure).values()]
        assert points == [pytest.approx(end) for end in ends]
    if drawing == "residuals":
        lsp = "lsp(budget=l2:3.0)"
        assert list(table["set"]) == [lsp, f"{lsp}, jpeg(quality=20)", f"{lsp}, jpeg(quality=50)"]


def test_maps_are_pictures_of_each_group(
    evidence: FinishedTrials, tmp_path: Path, saved: list[Figure]
) -> None:
    data = shown(evidence, "maps", [CLEAN[0], LSP], **{"grad-cam": ("lsp(budget=l2:3.0)",)})
    (picture,) = draw(data, tmp_path / "figure")
    assert picture.name == "figure-grad-cam.png"
    assert picture.read_bytes()[1:4] == b"PNG"
    (figure,) = saved
    grid = np.array(figure.axes).reshape(3, 4)
    victims = [evidence.records.victim(spec) for spec in (CLEAN[0], LSP)]
    images = victims[0].test.rows(examples(victims[0].test))
    for line, victim in zip(grid[1:], victims, strict=True):
        found = np.stack([axes.images[-1].get_array() for axes in line])
        assert np.allclose(found, grad_cam(victim, images.floats(), images.labels), atol=1e-6)


def test_a_picture_names_its_rows_shortly(evidence: FinishedTrials) -> None:
    """The full specs beside a picture would leave it no room."""
    for drawing, trials in (("tsne", [CLEAN[0], LSP]), ("residuals", [LSP, *JPEG])):
        data = shown(evidence, drawing, trials)
        ((_, figure, numbers),) = DRAWINGS[drawing](data)
        assert numbers is not None
        if drawing == "tsne":
            found = [axes.get_title().splitlines()[0] for axes in figure.axes]
            assert found == ["clean", "lsp"]
        else:
            found = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
            rows = ["lsp", "lsp, jpeg(quality=20)", "lsp, jpeg(quality=50)"]
            assert found == ["clean", *rows]


def test_a_gallery_is_drawn_in_the_normalizations_of_its_plate(evidence: FinishedTrials) -> None:
    """D-VAE's figure 4 has two of them; every gallery has an image of each class."""
    two = drawn_figures_of("dvae")["4"].normalizations
    assert two == ("minmax", "symmetric")
    listed_figures = {(p, n): each for p in PRINTED for n, each in drawn_figures_of(p).items()}
    galleries = {at: each for at, each in listed_figures.items() if each.drawing == "residuals"}
    assert {at for at, each in galleries.items() if each.normalizations == ("symmetric",)} == (
        set(galleries) - {("dvae", "4")}
    )
    data = shown(evidence, "residuals", JPEG[:1])
    data = replace(data, figure=replace(data.figure, normalizations=two))
    ((_, figure, _),) = DRAWINGS["residuals"](data)
    grid = np.array(figure.axes).reshape(3, 3)
    assert [axes.get_title(loc="left") for axes in grid[1, 1:]] == [
        f"changes, {how}" for how in two
    ]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["clean", "lsp", "lsp, jpeg"]
    records = evidence.records
    trial = records.trial(JPEG[0])
    clean, given = records.world(trial).train, records.training_set(trial)
    assert trial.purified is not None
    made = purified_of(records.worker.fetch(trial.purified))
    expected = draw_changes({"lsp": (clean, given), "lsp, jpeg": (clean, made)}, two)
    for axes, same in zip(figure.axes, expected.axes, strict=True):
        pictures = [one.get_array() for one in axes.images]
        assert all(p.shape == (20, 4 * 18 + 2, 3) for p in pictures), "four classes of 16 pixels"
        for one, other in zip(pictures, same.images, strict=True):
            assert np.array_equal(one, other.get_array())


def test_a_figure_without_trials_says_so(evidence: FinishedTrials, tmp_path: Path) -> None:
    gone = WHERE.format("clean", "jpeg(quality=2)", 0)
    with pytest.raises(SpecError, match="no trial of this figure is finished"):
        draw(shown(evidence, "compression", [gone]), tmp_path / "figure")


# --- the scripts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--table", "33"], "unknown table '33' (did you mean '3'?)"),
        (["--table", "14"], "table 14 shows no data, it is the settings of training"),
        (["--figure", "2"], "figure 2 shows no data, it is a drawing of the system; those with"),
        (["--figure", "9"], "unknown figure '9'"),
        (["--table", "3", "--figure", "3"], "not allowed with"),
        ([], "one of the arguments --table --figure is required"),
    ],
)
def test_unknown_numbers_are_one_clear_error(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["reproduce", "apbench", *words])
    assert end.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("paper", "table"), [("cuda", "2"), ("pil", "main"), ("dune", "main")])
def test_a_paper_with_a_main_table_needs_no_number(
    paper: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table in PAPERS[paper].tables
    assert cli.main(["reproduce", paper, "--scale", "screen", "--dry-run", "--json"]) == 0
    planned = [trial["spec"] for trial in json.loads(capsys.readouterr().out)["trials"]]
    wanted = (TrialSpec.parse(text) for text in paper_table(paper, table, "screen").specs)
    assert planned == [str(spec) for spec in wanted]
    with pytest.raises(SystemExit):
        cli.main(["reproduce", paper, "--help"])
    assert f"Tables (`--table N`, {table} without it):" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["reproduce", paper, "--table", f"{table}9"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"unknown table '{table}9' (did you mean '{table}'?)" in last


def test_only_papers_without_figures_have_a_main_table() -> None:
    assert [name for name, paper in PAPERS.items() if paper.main] == ["cuda", "pil", "dune"]
    for name, paper in PAPERS.items():
        assert not (paper.main and figures_of(name))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--table", "12", "--diffusion", "mine.pth"], "nothing here is purified by diffusion"),
        (["--table", "3", "--diffusion", "mine.pth"], "mine.pth: checkpoint mine.pth is not there"),
        (["--figure", "8", "--diffusion", "./mine"], "./mine: checkpoint ./mine is not there"),
    ],
)
def test_a_predictor_that_is_not_there_or_not_used_is_one_clear_error(
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["reproduce", "apbench", *words, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_predictor_is_found_from_every_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Workers of a cluster run in folders of their own."""
    path = score_sde(tmp_path / "mine.pth", tiny())
    monkeypatch.chdir(tmp_path)
    words = ["--table", "3", "--attacks", "lsp", "--defenses", "avatar", "--diffusion", "mine.pth"]
    assert cli.main(["reproduce", "apbench", *words, "--dry-run", "--json"]) == 0
    (trial,) = json.loads(capsys.readouterr().out)["trials"]
    assert f"checkpoint={path}," in trial["spec"]


@pytest.mark.slow
def test_a_column_runs_with_a_predictor_that_others_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the paper printed stands beside; the images are what that predictor makes of them."""
    path = score_sde(tmp_path / "checkpoint_8.pth", tiny())
    places = ["--out", str(tmp_path), "--executor", "inline", "--quiet", "--tracking", "off"]
    part = ["--table", "3", "--attacks", "lsp", "--defenses", "avatar", "--scale", "smoke"]
    words = [*part, "--diffusion", path, *places]
    assert cli.main(["reproduce", "apbench", *words]) == 0
    said = capsys.readouterr().out
    assert "1 of 1 rows are there" in said
    assert "[76.90 ± 1.09, apbench, cifar10]" in said
    (row,) = ResultLog(tmp_path / "results.jsonl").rows()
    assert f"checkpoint={path}" in row["spec"]
    assert not (tmp_path / "store" / "artifacts" / "denoiser").exists()


def test_help_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "dvae", "--help"])
    said = capsys.readouterr().out
    assert "1      left out: a drawing of the method" in said
    assert "2      VAEs by their rate, and against JPEG" in said


def test_a_table_is_run_asked_and_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a toy in place of the table's trials."""
    each = question("robustness", "pgd_whitebox_acc", CLEAN[:1], 0.9)
    wanted = paper_table_of(list(each.about), "paper", (0, 1))
    monkeypatch.setattr(reproduce.reference, "printed_questions", lambda *place: [each])
    monkeypatch.setattr(reproduce, "paper_table", lambda *place: replace(wanted, questions=(each,)))
    places = ["--out", str(tmp_path), "--data", str(tmp_path), "--scale", "paper"]
    places += ["--executor", "inline", "--quiet", "--tracking", "off"]
    assert cli.main(["reproduce", "apbench", "--table", "11", *places]) == 0
    (cell,) = json.loads((tmp_path / "tables" / "apbench-11-robustness.json").read_text())
    assert cell["seeds"] == [0, 1]
    assert cell["published"] == 0.9
    assert "attacked through the victim itself" in capsys.readouterr().out


def test_a_printed_table_is_walked_through_at_scale_smoke(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own trials, on few images: rows, question and published numbers, nothing in between."""
    places = ["--out", str(tmp_path), "--executor", "inline", "--quiet", "--tracking", "off"]
    part = ["--table", "11", "--attacks", "ar", "--defenses", "standard", "--scale", "smoke"]
    assert cli.main(["reproduce", "apbench", *part, *places]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 rows are there" in said
    assert "the numbers say nothing" in said
    cells = json.loads((tmp_path / "tables/apbench-11-robustness.json").read_text())
    assert {cell["metric"]: cell["published"] for cell in cells} == {
        "pgd_blackbox_acc": 0.1582,
        "pgd_whitebox_acc": 0.0,
    }
    assert all(0 <= cell["value"] <= 1 for cell in cells)
    assert not any(cell["differs"] for cell in cells)


def test_a_figure_is_run_and_drawn(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = PaperFigure("toy", "peak_final", (CLEAN[0], LSP))
    monkeypatch.setattr(reproduce, "drawn_figures_of", lambda paper: {"3": data})
    places = ["--out", str(tmp_path), "--data", str(tmp_path), "--scale", "paper"]
    places += ["--executor", "inline", "--quiet", "--tracking", "off", "--attacks", "lsp"]
    assert cli.main(["reproduce", "apbench", "--figure", "3", *places]) == 0
    files = capsys.readouterr().out.split()[-2:]
    assert [Path(file).name for file in files] == ["apbench-3-paper.png", "apbench-3-paper.csv"]
    assert len(pd.read_csv(files[1])) == 1
