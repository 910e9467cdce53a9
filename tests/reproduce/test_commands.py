"""`raygrid reproduce`: one clear error, what it runs, asks, writes and draws."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from raygrid.cli import main as cli
from raygrid.cli import reproduce
from raygrid.core.spec import TrialSpec
from raygrid.reproduce.figure_list import (
    PaperFigure,
    figures_of,
)
from raygrid.reproduce.papers import PAPERS, Scale
from raygrid.reproduce.tables import Files, paper_table, paper_table_of
from raygrid.storage.results import ResultLog
from tests.nn.test_published_denoisers import score_sde, tiny
from tests.reproduce.evidence import CLEAN, LSP, question


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
        (["--table", "3", "--diffusion", "my net"], "my net: checkpoint my net is not there"),
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


@pytest.mark.parametrize("scale", ["smoke", "quick"])
def test_official_setups_that_no_trial_reads_are_one_clear_error(
    scale: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At these scales digits stand in, whose set-ups nobody published."""
    words = ["just_how_toxic", "--table", "3", "--setups", "theirs", "--scale", scale]
    assert cli.main(["reproduce", *words, "--out", str(tmp_path / "out")]) == 2
    said = f"--setups theirs: no trial of scale {scale} reads the official set-ups; allowed with"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_official_setups_are_taken_where_the_papers_data_are(scale: Scale) -> None:
    files = Files(setups="theirs")
    wanted = paper_table("just_how_toxic", "3", scale, files=files)
    assert all("setups=theirs" in spec for spec in wanted.specs)
    reproduce.check_used(wanted, files, scale)


def test_official_setups_are_found_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder was another one wherever jobs run in folders of their own."""
    (tmp_path / "theirs").mkdir()
    monkeypatch.chdir(tmp_path)
    files = reproduce.files_of(Namespace(diffusion="", setups="theirs"))
    wanted = paper_table("just_how_toxic", "3", "small", files=files)
    monkeypatch.chdir("/")
    places = {dict(TrialSpec.parse(s).protocol.params)["setups"] for s in wanted.specs}
    assert places == {str(tmp_path / "theirs")}
    reproduce.check_used(wanted, files, "small")
    typed = reproduce.files_of(Namespace(diffusion="", setups="nowhere"))
    assert typed.setups == "nowhere", "the error names what was typed"


def test_a_dry_run_asks_no_hub(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names: asked.append(names[0]))
    words = ["--table", "3", "--attacks", "lsp", "--defenses", "avatar", "--diffusion", "nofile"]
    assert cli.main(["reproduce", "apbench", *words, "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    assert "checkpoint=nofile" in json.loads(said.out)["trials"][0]["spec"]
    assert "note: the hub is not asked for nofile in a dry run" in said.err
    assert not asked


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--dataset", "cifar11"], "unknown dataset here 'cifar11' (did you mean 'cifar10'?); kno"),
        (["--dataset", "CIFAR10"], "unknown dataset here 'CIFAR10' (did you mean 'cifar10'?); kno"),
        (["--seeds", "0-2"], "seed '0-2' is not a whole number from 0; several stand apart"),
        (["--seeds", "-1"], "seed '-1' is not a whole number from 0"),
    ],
)
def test_a_part_that_is_not_there_is_said_with_the_nearest(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["reproduce", "apbench", "--table", "3", "--dry-run", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_figure_of_losses_that_the_screening_victim_never_has_is_one_clear_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["reproduce", "learned_faster", "--figure", "1", "--dry-run", "--scale"]
    assert cli.main([*words, "screen"]) == 2
    says = "figure 1 counts epochs until the training loss is below 0.5, and at --scale screen"
    assert says in capsys.readouterr().err
    assert cli.main([*words, "smoke"]) == 0


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        ([], {0}),
        (["--seed", "1"], {1}),
        (["--seeds", "0", "1", "2"], {0, 1, 2}),
        (["--seeds", "2", "--seeds", "1", "2"], {1, 2}),
    ],
)
def test_seeds_are_given_as_to_a_grid(
    words: list[str], seeds: set[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--seed 1` was one seed, the first, where a grid takes the second."""
    part = ["--table", "3", "--attack", "lsp", "--defense", "standard", "--scale", "smoke"]
    assert cli.main(["reproduce", "apbench", *part, "--dry-run", "--json", *words]) == 0
    planned = [trial["spec"] for trial in json.loads(capsys.readouterr().out)["trials"]]
    assert len(planned) == len(seeds)
    assert {TrialSpec.parse(spec).seed for spec in planned} == seeds


def test_a_question_that_needs_more_seeds_gets_the_lowest_others() -> None:
    assert reproduce.with_fewest((0,), 1) == (0,)
    assert reproduce.with_fewest((0,), 3) == (0, 1, 2)
    assert reproduce.with_fewest((1, 7), 3) == (1, 7, 0)
    assert reproduce.with_fewest((4, 5, 6), 2) == (4, 5, 6)


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
