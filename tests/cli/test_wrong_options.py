"""A run with an option that is wrong says so in one line and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from raygrid.cli.main import main
from raygrid.cli.options import AXIS_HELP
from raygrid.core.flags import plain_type
from raygrid.core.options import flags, hints

GRID = {
    "--datasets": "photo_digits(every=20)",
    "--attacks": "clean",
    "--defenses": "none",
    "--architectures": "small_cnn",
    "--learners": "supervised",
    "--protocols": "quick(epochs=1)",
    "--seeds": "0",
}
WRONG: Mapping[str, Sequence[str]] = {
    "out": ("--out FILE", "--out FILE/x", "--out ''"),
    "data": ("--data ''", "--datasets cifar10 --data absent"),
    "store": (
        "--store FILE",
        "--store FILE/x",
        "--store s3:/x",
        "--store ftp://host/x",
        "--store file://host/x",
    ),
    "executor": ("--executor rya",),
    "address": ("--address auto --executor inline", "--address 127.0.0.1:1 --executor inline"),
    "cpus": ("--cpus 0", "--cpus many"),
    "tracking": (
        "--tracking htp://x",
        "--tracking folder",
        "--tracking http://127.0.0.1:9",
        "--tracking http://[::1",
        "--tracking sqlite:///",
        "--tracking sqlite:///FILE/x.db",
        "--tracking sqlite:///HERE",
        "--tracking sqlite:///FILE",
        "--tracking postgresql:///x",
        "--tracking postgresql://me:secret@127.0.0.1:9/x",
    ),
    "imports": ("--import no_such_module", "--import FILE", "--import absent.py"),
    "driver": ("--driver 2/2", "--driver one"),
    "checkpoint_every": ("--checkpoint-every -1", "--checkpoint-every nan"),
    "deadline": ("--deadline 0", "--deadline 5 --executor inline"),
    "shards": ("--shards 0",),
    "keep": ("--keep weigths",),
    "per_gpu": ("--per-gpu 3",),
    "datasets": ("--datasets no_such_dataset",),
    "attacks": ("--attacks lps", "--attacks lsp(patch=0)"),
    "budgets": ("--budgets l7:1 --attacks lsp",),
    "poison_ratios": ("--poison-ratios 1.5 --attacks lsp",),
    "defenses": ("--defenses jpge", "--defenses jpeg(quality=101)"),
    "architectures": ("--architectures resnet19",),
    "learners": ("--learners simlcr",),
    "protocols": ("--protocols quikc", "--protocols quick(epochs=0)"),
    "seeds": ("--seeds -1", "--seeds 0-2"),
}
CASES = [line for lines in WRONG.values() for line in lines]


def test_every_option_that_can_be_wrong_is_tried() -> None:
    valued = {name for name in flags() if plain_type(hints()[name])[0] is not bool}
    assert set(WRONG) == valued | set(AXIS_HELP)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one file in it; nobody says where MLflow, the store or Ray are."""
    for name in ("MLFLOW_TRACKING_URI", "RAYGRID_STORE", "RAYGRID_DATA", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").write_text("some text")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a run of one trial says that has to end at once."""
    named = line.replace("FILE", str(here / "file")).replace("HERE", str(here))
    words = ["" if word == "''" else word for word in named.split()]
    place = [] if "--out" in words else ["--out", "a/new/folder"]
    own = [] if "--executor" in words or "--address" in words else ["--executor", "inline"]
    rest = [word for axis in GRID.items() if axis[0] not in words for word in axis]
    try:
        status = main(["run", *rest, "--quiet", *place, *own, *words])
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    assert status == 2, said
    assert not said.out
    return said.err


def files(here: Path) -> dict[str, str]:
    return {path.name: path.read_text() if path.is_file() else "" for path in here.rglob("*")}


@pytest.mark.parametrize("line", CASES)
def test_a_wrong_option_leaves_nothing_behind(
    line: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (said,) = refused(line, here, capsys).splitlines()
    assert said.startswith("raygrid: ")
    assert "secret" not in said
    assert files(here) == {"file": "some text"}


@pytest.mark.slow
def test_a_cluster_that_is_not_there_leaves_nothing_behind(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray itself would wait for it for more than five minutes."""
    began = time.monotonic()
    (said,) = refused("--address 127.0.0.1:9", here, capsys).splitlines()
    assert said == "raygrid: Ray on 127.0.0.1:9 does not answer: Connection refused"
    assert files(here) == {"file": "some text"}
    assert time.monotonic() - began < 60, "with the import of Ray"


def test_the_environment_is_looked_at_too(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "MLFLOW_TRACKING_URI" in refused("", here, capsys)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("RAYGRID_STORE", f"{here}/file")
    assert f"{here}/file" in refused("", here, capsys)
    assert files(here) == {"file": "some text"}


def test_a_folder_that_was_there_stays_with_what_is_in_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "there").mkdir()
    (here / "there" / "notes.txt").write_text("mine")
    refused("--tracking htp://x --out there", here, capsys)
    assert files(here) == {"file": "some text", "there": "", "notes.txt": "mine"}
