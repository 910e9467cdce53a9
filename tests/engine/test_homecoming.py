"""What comes home from a cluster: all of it or nothing, and beside what is there."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from raygrid.core.errors import ClusterError
from raygrid.engine.ray.homecoming import (
    ARCHIVE_MARK,
    DIGEST_MARK,
    INSIDE_JOB,
    print_log,
    send_home,
    unpack_home,
)
from raygrid.storage.results import TABLES_MARK, ResultLog


def row(key: str, finished: float) -> dict[str, object]:
    return {"key": key, "spec": f"spec of {key}", "status": "done", "finished": finished}


def keep(out: Path, *rows: dict[str, object]) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    for each in rows:
        ResultLog(out / "results.jsonl").append(each)
    return out


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a job has printed that has two rows and a table."""
    there = keep(tmp_path / "there", row("both", 200.0), row("theirs", 100.0))
    (there / "tables").mkdir()
    (there / "tables" / "defense.md").write_text("| a |" * 5000)
    (there / "report.html").write_text("<p>theirs</p>")
    send_home(there)
    assert capsys.readouterr().out == "", "nothing is packed outside a job"
    monkeypatch.setenv(INSIDE_JOB, "1")
    print("before")
    send_home(there)
    print("after")
    return capsys.readouterr().out


def test_rows_of_this_machine_stay_beside_those_that_come_home(log: str, tmp_path: Path) -> None:
    """The file of the cluster replaced that of the laptop, whose grids ran again."""
    home = keep(tmp_path / "home", row("mine", 50.0), row("both", 150.0))
    unpack_home(log, home)
    found = {r["key"]: r["finished"] for r in ResultLog(home / "results.jsonl").rows()}
    assert found == {"mine": 50.0, "both": 200.0, "theirs": 100.0}
    assert (home / "tables" / "defense.md").read_text() == "| a |" * 5000
    assert (home / "report.html").read_text() == "<p>theirs</p>"
    before = (home / "results.jsonl").read_bytes()
    (home / TABLES_MARK).write_text(str(len(before)))
    unpack_home(log, home)
    assert (home / "results.jsonl").read_bytes() == before
    assert sorted(path.name for path in home.iterdir()) == [
        "report.html",
        "results.jsonl",
        "results.jsonl.lock",
        "tables",
    ]


def test_a_person_sees_the_log_without_what_is_packed(
    log: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_log(log)
    assert capsys.readouterr().out == "before\nafter\n"


@pytest.mark.parametrize("fault", ["a line is lost", "a line twice", "cut off"])
def test_a_log_that_is_not_whole_changes_nothing(fault: str, log: str, tmp_path: Path) -> None:
    lines = log.splitlines(keepends=True)
    wrong = {"a line is lost": lines[:1] + lines[2:], "cut off": lines[:-2]}
    wrong["a line twice"] = lines[:2] + lines[1:]
    home = keep(tmp_path / "home", row("mine", 50.0))
    with pytest.raises(ClusterError, match="not whole"):
        unpack_home("".join(wrong[fault]), home)
    assert [r["key"] for r in ResultLog(home / "results.jsonl").rows()] == ["mine"]
    assert not (home / "tables").exists()


def test_an_archive_cannot_leave_its_folder(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    text = base64.b64encode(buffer.getvalue()).decode()
    digest = hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack_home(
            f"{ARCHIVE_MARK}{text}\n{ARCHIVE_MARK}{DIGEST_MARK}{digest}\n", tmp_path / "home"
        )
    assert not (tmp_path / "evil").exists()
