"""Printed tables as jobs at three scales."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES
from raygrid.errors import SpecError
from raygrid.grid import plan
from raygrid.learners import LEARNERS
from raygrid.protocols import PROTOCOLS
from raygrid.published import specs_of, tables_of
from raygrid.reproduce import SMALL_EPOCHS, absent, job, scaled
from raygrid.spec import TrialSpec

ROOT = Path(__file__).parents[1]
KINDS = {r.kind: r for r in (ARCHITECTURES, ATTACKS, DATASETS, DEFENSES, LEARNERS, PROTOCOLS)}


def test_the_paper_scale_is_the_printed_table_without_what_is_not_installed() -> None:
    wanted = job("apbench", "3")
    printed = specs_of("apbench", "3")
    assert set(wanted.specs) <= set(printed)
    for text in set(printed) - set(wanted.specs):
        assert set(absent(TrialSpec.parse(text))) & set(wanted.missing)
    assert absent(TrialSpec.parse("nowhere/lsp/standard+nothing/resnet18/nobody/apbench/0")) == [
        "dataset nowhere",
        "defense nothing",
        "learner nobody",
    ]


def test_smaller_scales_ask_the_same_of_smaller_things() -> None:
    spec = TrialSpec.parse("cifar10/lsp/grayscale/resnet18/supervised/apbench/0")
    assert str(scaled(spec, "quick")) == "photo_digits/lsp/grayscale/small_cnn/supervised/quick/0"
    assert str(scaled(spec, "small")) == str(spec).replace(
        "/apbench/", f"/apbench(epochs={SMALL_EPOCHS})/"
    )
    assert scaled(spec, "paper") == spec
    quick = job("apbench", "3", "quick", seeds=(0, 1))
    assert "photo_digits/lsp/grayscale/small_cnn/supervised/quick/1" in quick.specs
    assert len(set(quick.specs)) == len(quick.specs)
    planned = plan(quick.specs, None)
    assert len(planned.trials) + len(planned.derived) + len(planned.skips) >= len(quick.specs)


@pytest.mark.parametrize("paper", ["apbench", "learned_faster", "dvae", "just_how_toxic"])
def test_every_table_is_a_job_that_can_be_planned(paper: str) -> None:
    for number in tables_of(paper):
        wanted = job(paper, number, "quick")
        planned = plan(wanted.specs, None)
        assert bool(planned.trials or planned.skips) == bool(wanted.specs)
        assert wanted.specs or wanted.missing
        for reason in wanted.missing:
            kind, method = reason.split()[:2]
            assert method not in KINDS[kind] or "unknown" in reason


def test_a_dataset_can_be_chosen_and_bad_names_are_refused() -> None:
    small = job("apbench", "5", "small", dataset="svhn")
    assert all(text.startswith("svhn/") for text in small.specs)
    with pytest.raises(SpecError, match="did you mean 'quick'"):
        job("apbench", "3", "quik")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="unknown paper"):
        job("apbenches", "3")


@pytest.mark.parametrize(
    ("paper", "number"),
    [("apbench", "6"), ("learned_faster", "2"), ("dvae", "9"), ("just_how_toxic", "patch")],
)
def test_the_script_of_a_paper_plans(
    paper: str,
    number: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("raygrid.experiment")
    script = ROOT / "experiments" / f"{paper}.py"
    monkeypatch.syspath_prepend(script.parent)
    words = ["--table", number, "--dry-run", "--out", str(tmp_path), "--executor", "inline"]
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "trials" in said
    assert re.search(r"0 of \d+ rows are there", said)
