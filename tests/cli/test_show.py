"""`raygrid show`: a method, or a trial by its spec or key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raygrid.cli.main import main
from raygrid.tracking.journal import picture_of
from tests.reports.rows import CIFAR, TOY, trial
from tests.reports.test_page import epochs, write_rows

SPEC = CIFAR.format("em_apb", "apbench", 0)
FAILED = TOY.format("lsp", "jpeg", "supervised", 1)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with a trial that papers print and one that failed."""
    done = trial(SPEC, 0.25, history=epochs(30, 0.3), artifacts={"poison": "f00"}, device="cpu")
    lost = trial(FAILED, status="failed", error="ValueError: no\nTraceback: there\n")
    rows = [{**done, "key": "abcdef0123"}, {**lost, "key": "abcdef9999"}]
    picture = picture_of(tmp_path, "f00")
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"png")
    return write_rows(tmp_path, rows)


@pytest.mark.parametrize("what", [SPEC, "abcdef0"])
def test_a_trial_is_found_by_spec_and_by_the_beginning_of_its_key(
    what: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", what, "--out", str(out)]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (said["spec"], said["key"], said["status"]) == (SPEC, "abcdef0123", "done")
    assert said["final"] == "25.00 %"
    assert said["peak"] == "30.00 % (epoch 3)"
    assert said["published"].startswith("20.78 % (apbench T3, T6, T16; against ")
    assert said["published"].endswith(")")
    assert said["by"].startswith("epoch   3 6 9 12")
    assert said["by"].endswith("27 30 (test accuracy, %, every 3 epochs)")
    assert said["poison"].split() == ["f00", str(picture_of(out, "f00"))]
    assert said["again"] == f"raygrid run {SPEC} --out again"


@pytest.mark.parametrize(
    ("cell", "marks", "says"),
    [
        (
            "em_apb/jpeg/resnet18/supervised/quick",
            ["not the official files: cifar10 (JPEG files)"],
            "80.72 % (apbench T3, T6, T17; protocol of apbench)",
        ),
        (
            "dune/ueraser_max/resnet18/supervised/wxl",
            [],
            "19.55 % (dune main; as a note on the paper prints it; adversarial augmentation, which "
            "of UEraser's forms is not said; beyond 8/255)",
        ),
    ],
)
def test_a_printed_number_says_whose_it_is_and_what_to_know_of_it(
    cell: str, marks: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another protocol's number nobody need know that the files are lossy as well."""
    spec = f"cifar10/{cell}/0"
    out = write_rows(tmp_path, [trial(spec, 0.25, marks=marks)])
    assert main(["show", spec, "--out", str(out)]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["published"] == says


@pytest.mark.parametrize(
    ("ran", "typed"),
    [
        ("lsp(budget=l2:2.6082647455154855)", "lsp(budget=2x)"),
        ("clean", "clean@0.5"),
        ("lsp(patch=4)@0.5", "lsp(patch=4,budget=1x)@0.50"),
    ],
)
def test_a_trial_is_found_by_every_spelling_of_its_spec(
    ran: str, typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run` takes them all, and writes the shortest one into the row."""
    place = "photo_digits/{}/standard/small_cnn/supervised/quick/0"
    spec = place.format(ran)
    write_rows(tmp_path, [{**trial(spec, 0.25), "key": "abcdef0123"}])
    long = place.format(typed).replace("quick", "quick(epochs=none)")
    assert main(["show", long, "--out", str(tmp_path)]) == 0
    assert f"spec       {spec}\n" in capsys.readouterr().out


def test_an_earlier_row_of_a_spec_is_found_by_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log keeps both: another version of a method has another key."""
    rows = [{**trial(SPEC, a), "key": key} for a, key in ((0.25, "abcdef01"), (0.5, "fedcba98"))]
    write_rows(tmp_path, rows)
    for what, accuracy in (("abcdef", "25.00"), ("fedcba", "50.00"), (SPEC, "50.00")):
        assert main(["show", what, "--out", str(tmp_path)]) == 0
        assert f"final      {accuracy} %" in capsys.readouterr().out


def test_the_way_to_run_it_again_has_what_it_was_shown_with(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--import", "tests.plugin", "--data", "my data"]
    assert main(["show", SPEC, "--out", str(out), *given]) == 0
    again = f"raygrid run {SPEC} --out again --import tests.plugin --data 'my data'"
    assert f"\nagain      {again}\n" in capsys.readouterr().out


def test_a_failed_trial_says_why_and_json_is_its_row(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", FAILED, "--out", str(out)]) == 0
    assert capsys.readouterr().out.endswith("error      ValueError: no\nTraceback: there\n")
    assert main(["show", FAILED, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == "abcdef9999"


def test_a_method_has_its_page(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "lsp", "--out", str(out / "nowhere")]) == 0
    page = capsys.readouterr().out
    assert "## lsp" in page
    assert "| `budget` |" in page
    assert main(["show", "ar", "--out", str(out / "nowhere")]) == 0
    assert "| `min_response` | `none` |" in capsys.readouterr().out, "as a spec takes it"


def test_a_name_of_two_kinds_has_two_pages(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The defense of that name could not be reached."""
    assert main(["show", "op", "--out", str(out)]) == 0
    both = capsys.readouterr().out
    assert [line for line in both.splitlines() if line[:2] == "# "] == ["# defenses", "# protocols"]
    assert main(["show", "defenses", "op", "--out", str(out)]) == 0
    one = capsys.readouterr().out
    assert one.startswith("## op")
    assert one in both


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("abcdef", "2 keys begin with abcdef: abcdef0123, abcdef9999"),
        ("resnet81", "unknown method 'resnet81' (did you mean 'resnet18'?); no key under"),
        (SPEC.replace("em_apb", "em_abp"), f"there is no result of .*; the nearest one is {SPEC}"),
    ],
)
def test_what_is_not_there_is_said_with_the_nearest(
    what: str, said: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert main(["show", what, "--out", str(out)]) == 2
    assert re.search(said.replace("(did", r"\(did").replace("?)", r"\?\)"), capsys.readouterr().err)
