"""What the command line says where people mistype: the value and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raygrid.cli.main import main, parser
from raygrid.cli.options import options_of
from raygrid.core.errors import unknown
from raygrid.engine.grid import read_specs
from tests.reports.rows import TOY, trial

SPEC = "photo_digits/lsp/none/small_cnn/supervised/quick/0"


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with; one that argparse refuses ends by itself."""
    try:
        assert main(words) == 2
    except SystemExit as end:
        assert end.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", SPEC.replace("lsp", "lps")], "unknown attack 'lps' (did you mean 'lsp'?)"),
        (
            ["plan", "--seeds", "0-2"],
            "seed '0-2' is not a whole number from 0; several",
        ),
        (["plan", "--seeds", "0,1,2"], "with blanks between: 0 1 2"),
        (["plan", "--attacks", "clean,lsp"], "'clean,lsp' is not a method: expected name or name("),
        (["plan", "--attacks", "clean,lsp"], "; several stand apart, with blanks between"),
        (
            ["plan", "--datasets", "cifar-10"],
            "in lower case letters, digits and _, such as 'cifar10'",
        ),
        (["plan", "--defenses", "early-stopping"], "digits and _, such as 'early_stopping'"),
        (["plan", "--architectures", "ResNet-18"], "digits and _, such as 'resnet18'"),
        (
            ["plan", "--attacks", "lsp@0.8"],
            "is given apart: --poison-ratios 0.8 of a grid, --ratio 0.8 of `raygrid poison`",
        ),
        (
            ["poison", "photo_digits", "lsp(patch=4)@0.8"],
            "is given apart: --poison-ratios 0.8 of a grid, --ratio 0.8 of `raygrid poison`",
        ),
        (
            ["plan", "--ratio", "0.5"],
            "--ratio (did you mean --poison-ratio?); see raygrid plan --help",
        ),
        (
            ["reproduce", "cuda", "2"],
            "unrecognized arguments: 2; see raygrid reproduce cuda --help",
        ),
        (["plan", "--defens", "none"], "--defens (did you mean --defense?); see raygrid plan"),
        (["run", SPEC, "--quie"], "unrecognized arguments: --quie (did you mean --quiet?); see"),
        (
            ["show", "learners", "op"],
            "'op' is a method of defenses and protocols, not of 'learners'",
        ),
        (
            ["plan", SPEC.replace("photo_digits", "shapes")],
            "; one of your own is folder(name=shapes)",
        ),
        (
            ["plan", SPEC.replace("lsp", "waves")],
            "; one of your own is loaded with --import FILE",
        ),
        (
            ["table", "defense", "--import", "absent.py"],
            "--import absent.py: there is no such file",
        ),
        (["sync", "--import", "absent.py"], "--import absent.py: there is no such file"),
        (
            ["download", "cifar10", "--import", "absent.py"],
            "--import absent.py: there is no such file",
        ),
        (
            ["plan", SPEC, "--attacks", "em", "--seeds", "1", "2"],
            f"{SPEC} names whole trials, which --attacks, --seeds would not change: give specs or",
        ),
        (["lst"], "raygrid: unknown command 'lst' (did you mean 'list'?); known: doctor, "),
        (["table", "defens"], "unknown kind 'defens' (did you mean 'defense'?); known: budget, "),
        (["evaluate", "sed"], "unknown question 'sed' (did you mean 'seeds'?); known: "),
        (["figure", "tsn"], "unknown figure 'tsn' (did you mean 'tsne'?); known: agreement, "),
        (["reproduce", "apbnch"], "unknown paper 'apbnch' (did you mean 'apbench'?); known: "),
        (
            ["reproduce", "apbench", "--table", "3", "--scale", "smok"],
            "unknown scale 'smok' (did you mean 'smoke'?); known: grid, paper, quick, screen, ",
        ),
        (
            ["poison", "cifar10", "lsp", "--form", "nppz"],
            "unknown form 'nppz' (did you mean 'npz'?); known: npz, parquet, png, pt, triples",
        ),
        (["sync", "--tracking", "off"], "sync writes to MLflow, and --tracking off says not to"),
        (
            ["download", "photo_digits"],
            "photo_digits is made of what comes with scikit-learn and needs no files",
        ),
        (["download", "folder(name=x)"], "put its files under data/x"),
        (
            ["plan", "--gpus", "8xA10G", "--price", "nan"],
            "price is nan, allowed are numbers from 0",
        ),
        (["status", "--price", "nan"], "price is nan, allowed are numbers from 0"),
        (["status", "--devices", "-3"], "devices is -3, allowed are whole numbers from 1"),
        (["plan", "--price", "1"], "--price 1.0 needs a fleet; name one with --gpus"),
        (["list", "--json", "--markdown"], "--json and --markdown are two forms: leave one of"),
        (["table", "defense", "--format", "csv", "--json"], "--format csv and --json are two"),
        (
            ["poison", "photo_digits", "lsp", "--form", "npz"],
            "--form npz needs an export; name its folder with --export",
        ),
        (
            ["poison", "photo_digits", "lsp", "--form", "triples", "--export", "x"],
            "lsp is made for no target; triples hold the poisons of a set-up",
        ),
        (
            [
                "poison",
                "photo_digits",
                "htbd",
                "--ratio",
                "0",
                "--form",
                "triples",
                "--export",
                "x",
            ],
            "htbd@0.0 is made for no target; triples hold the poisons of a set-up",
        ),
        (
            ["poison", "photo_digits", "lsp(budget=l2:1)", "--budget", "l2:2"],
            "lsp(budget=l2:1) has the budget l2:1, --budget says l2:2: give one",
        ),
        (["run", SPEC, "--per-gpu", "3"], "per_gpu is 3, allowed are 1, 2, 4, 8"),
        (
            ["run", SPEC, "--address", "auto", "--executor", "inline"],
            "address is auto, but the inline executor runs all in this process",
        ),
        (["run", SPEC, "--deadline", "-5"], "raygrid: deadline is -5, allowed are numbers above 0"),
        (
            ["reproduce", "apbench", "--table", "99"],
            "(did you mean '9'?); known: 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 17",
        ),
        (
            ["run", SPEC, "--tracking", "htp://x", "--executor", "inline"],
            "MLflow address 'htp://x' has the unknown kind 'htp'; give http(s)://host:port",
        ),
    ],
)
def test_a_slip_is_told_in_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [] if words[0] in ("reproduce", "lst") else ["--out", str(tmp_path / "out")]
    line = refused([*words, *places], capsys)
    assert said in line
    assert "MLFLOW_TRACKING_URI" not in line
    assert not list(tmp_path.rglob("*.jsonl")), "nothing was started"


@pytest.mark.parametrize("text", ["error-minimizing", "lsp+em", "Em.", "lsp@0.8"])
def test_no_method_is_suggested_that_there_is_not(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["plan", "--attacks", text], capsys)
    assert f"{text!r} is not a method: expected name" in line
    assert "such as" not in line


def test_a_file_of_comments_is_no_default_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "specs.txt"
    file.write_text("# none yet\n\n")
    assert refused(["plan", f"@{file}"], capsys) == f"raygrid: @{file} holds no spec"
    file.write_text(f"\ufeff{SPEC}\n", encoding="utf-8")  # as some editors save it
    assert read_specs(file) == [SPEC]


def test_a_flag_that_is_repeated_adds_its_values() -> None:
    given = parser().parse_args(
        ["plan", "--attack", "clean", "--attacks", "lsp", "--keep", "weights", "--keep", "features"]
    )
    assert given.attacks == ["clean", "lsp"]
    assert options_of(given).keep == ("weights", "features")
    words = ["reproduce", "apbench", "--table", "3", "--attacks", "em", "--attacks", "lsp"]
    assert parser().parse_args(words).attacks == ["em", "lsp"]


def test_names_with_numbers_are_listed_by_value() -> None:
    assert unknown("x", "?", ["10", "9", "resnet101", "resnet18"]).endswith(
        "known: 9, 10, resnet18, resnet101"
    )


def test_a_table_that_needs_more_says_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = trial(TOY.format("lsp", "standard", "supervised", 0), 0.3)
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["table", "worst-learner", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "nothing to compare yet; it takes trials that differ in the learner alone" in said
