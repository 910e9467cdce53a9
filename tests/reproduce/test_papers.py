"""The papers' tables and figures by number: all there, and asked of the right trials."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raygrid.core.errors import SpecError
from raygrid.core.spec import TrialSpec
from raygrid.engine.grid import plan
from raygrid.literature.questions import QUESTIONS
from raygrid.literature.reference import load, specs_of, tables_of
from raygrid.reproduce.figure_list import (
    UNMEASURED_TABLES,
    drawings_of,
    drawn_figures_of,
    figures_of,
)
from raygrid.reproduce.figures import DRAWINGS
from raygrid.reproduce.questions import QUESTION_ANSWERS
from raygrid.reproduce.tables import Only, paper_table, paper_table_of
from tests.reproduce.evidence import first

ROOT = Path(__file__).parents[2]
PRINTED = {  # the last table and the last figure of each paper
    "apbench": (18, 8, "000"),
    "learned_faster": (2, 4, "001"),
    "dvae": (13, 6, "002"),
}


@pytest.mark.parametrize("paper", PRINTED)
def test_every_table_and_figure_is_there_or_has_a_reason(paper: str) -> None:
    tables, figures, _ = PRINTED[paper]
    known = [*tables_of(paper), *UNMEASURED_TABLES.get(paper, {})]
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
    assert set(QUESTION_ANSWERS) == set(QUESTIONS)
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


def test_strengths_of_views_are_those_of_the_dataset() -> None:
    """Tables 2 and 3 ran CIFAR-10's strengths on every dataset."""
    found = {str(TrialSpec.parse(s).attack) for s in specs_of("transferable", "2")}
    assert "aue(strength=1.0)" in found
    assert "aap(strength=0.8, surrogate_strength=0.8, targeted=true)" in found
