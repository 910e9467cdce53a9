"""Lines of a result log that are no rows: counted, named, kept aside, the others used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from raygrid.core.errors import StoreError
from raygrid.storage import lines
from raygrid.storage.results import ResultLog
from tests.places import fill, small_disk

GOOD = {"key": "a", "spec": "x/y", "status": "done", "final_acc": 0.5}
BROKEN = {
    "null": (b"null", "it holds a NoneType"),
    "list": (b"[]", "it holds a list"),
    "text": (b"{torn", "it is no JSON"),
    "bytes": (b'{"key": "\xff"}', "it is not UTF-8"),
    "no key": (b'{"spec": "x", "status": "done"}', "it has no key"),
    "no spec": (b'{"key": "x", "status": "done"}', "it has no spec"),
    "unknown status": (
        b'{"key": "x", "spec": "x", "status": "skipped"}',
        "its status is 'skipped'",
    ),
    "no status": (b'{"key": "x", "spec": "x"}', "its status is None"),
    "nan": (json.dumps({**GOOD, "final_acc": float("nan")}).encode(), "its final_acc is nan"),
    "beyond": (json.dumps({**GOOD, "peak_acc": 81.8}).encode(), "its peak_acc is 81.8"),
    "deep": (b"[" * 100_000, "it is no JSON"),
    "huge": (json.dumps({**GOOD, "final_acc": 10**400}).encode(), "its final_acc is 1000"),
    "date": (json.dumps({**GOOD, "finished": "2026-11-30"}).encode(), "its finished is '2026-"),
    "never": (json.dumps({**GOOD, "finished": float("inf")}).encode(), "its finished is inf"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_line_is_named_and_the_others_are_used(tmp_path: Path, kind: str) -> None:
    content, reason = BROKEN[kind]
    log = ResultLog(tmp_path / "results.jsonl")
    log.append(GOOD)
    with log.path.open("ab") as file:
        file.write(content + b"\n")
    log.append({**GOOD, "key": "b"})
    assert [row["key"] for row in log.rows()] == ["a", "b"]
    (line,) = log.broken()
    assert (line.number, line.content) == (2, content + b"\n")
    assert line.reason.startswith(reason)
    assert f"1 broken lines in {log.path} are not used: 2 ({reason}" in log.warning()


def test_broken_lines_are_kept_aside_once(tmp_path: Path) -> None:
    log = ResultLog(tmp_path / "results.jsonl")
    log.append(GOOD)
    assert log.set_aside() is None
    assert log.warning() == ""
    with log.path.open("ab") as file:
        file.write(b'null\n{"key": "torn')  # what a killed writer leaves
    log.append({**GOOD, "key": "b"})
    before = log.path.read_bytes()
    for _ in range(2):
        assert log.set_aside() == tmp_path / "results.broken"
        assert (tmp_path / "results.broken").read_bytes() == b'null\n{"key": "torn\n'
    assert log.path.read_bytes() == before, "the log itself is nobody's to rewrite"


def test_a_row_is_on_the_disk_when_the_append_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that loses its power then has it."""
    flushed: list[int] = []
    monkeypatch.setattr(lines.os, "fsync", lambda file: flushed.append(os.fstat(file).st_size))
    log = ResultLog(tmp_path / "results.jsonl")
    sizes = []
    for key in "ab":
        log.append({**GOOD, "key": key})
        sizes.append(log.path.stat().st_size)
    assert flushed == sizes


@pytest.mark.parametrize("end", ["done", "diverged"])
def test_an_attempt_that_failed_hides_no_result_whatever_the_clocks_say(
    tmp_path: Path, end: str
) -> None:
    """The failed one came last, or from a machine whose clock was ahead."""
    good, later = {**GOOD, "status": end, "finished": 2.0}, {**GOOD, "finished": 3.0}
    failed = {**GOOD, "status": "failed", "finished": 9.0}
    log, other = ResultLog(tmp_path / "results.jsonl"), ResultLog(tmp_path / "other.jsonl")
    for row in (good, failed):
        log.append(row)
    assert list(log.rows()) == [good]
    assert list(log.attempts(since=2.0)) == [failed]
    other.append(failed)
    other.take_over(log.rows())
    assert list(other.rows()) == [good]
    other.take_over([failed])
    assert len(other.path.read_bytes().splitlines()) == 2, "what counts less is not taken over"
    other.take_over([later])
    assert list(other.rows()) == [later]


def test_a_full_disk_takes_no_half_of_a_row(tmp_path: Path) -> None:
    """A row larger than what is left of the disk; with room again it is there once and whole."""
    rows = [{**GOOD, "key": key, "spec": key, "note": key * 5000} for key in "ab"]
    with small_disk(tmp_path / "small", 1) as disk:
        log = ResultLog(disk / "results.jsonl")
        log.append(rows[0])
        before = log.path.read_bytes()
        filler = fill(disk)
        with pytest.raises(StoreError, match="No space left on device") as refused:
            log.append(rows[1])
        assert refused.value.passing
        assert log.path.read_bytes() == before
        filler.unlink()
        log.append(rows[1])
        assert list(log.rows()) == rows
        assert log.broken() == []
