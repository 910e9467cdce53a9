"""`raygrid run` of paced trials in a process of its own, and what they noted down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import faulty
from tests.patience import until
from tests.signals import heed_signals

ROOT = Path(__file__).parents[1]
SPEC = "dots/clean/none/small_cnn/paced(tag={})/paces/0"
INLINE = ("--executor", "inline")
RAY = ("--executor", "ray", "--cpus", "1", "--address", "local")


@dataclass
class PacedRun:
    """Runs trials of six epochs, each named by its tag.

    words: of the command line. pause: seconds of an epoch. limit: called in the process before it
    begins. env: more variables.
    """

    folder: Path
    words: tuple[str, ...] = INLINE
    tags: tuple[int, ...] = (1, 2)
    pause: float = 0.1
    limit: Callable[[], None] | None = None
    env: dict[str, str] = field(default_factory=dict)
    out: Path = Path()
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.out = self.folder / "out" if self.out == Path() else self.out
        self.orders.mkdir(exist_ok=True)

    @property
    def orders(self) -> Path:
        return self.folder / "faults"

    @property
    def specs(self) -> list[str]:
        return [SPEC.format(tag) for tag in self.tags]

    def hold(self, tag: int) -> None:
        """A trial waits in its first epoch until `release`."""
        (self.orders / f"hold-{tag}").touch()

    def release(self, tag: int) -> None:
        (self.orders / f"hold-{tag}").unlink()

    def start(self) -> subprocess.Popen[bytes]:
        words = ["run", *self.specs, "--import", "tests.faulty", "--quiet", "--data"]
        words += [str(self.folder), "--out", str(self.out), *self.words]
        own = {faulty.FOLDER: str(self.orders), faulty.PAUSE: str(self.pause), **self.env}
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "raygrid", *words],
                cwd=ROOT,
                env={**os.environ, **own},
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=self._begin,
                start_new_session=True,
            )
        return self.process

    def _begin(self) -> None:
        heed_signals()
        if self.limit is not None:
            self.limit()

    def said(self) -> str:
        """What it printed for a person so far."""
        return (self.folder / "log").read_text()

    def marks(self, event: str, tag: int | None = None) -> list[dict[str, Any]]:
        """What trials noted down, in order."""
        path = self.orders / "marks"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [m for m in found if m["event"] == event and tag in (None, m["tag"])]

    def until(self, found: Callable[[], Any], seconds: float = 120) -> Any:
        """Wait for something while the run lives, as long as it gets on."""

        def look() -> Any:
            value = found()
            assert value is not None or self.process is None or self.process.poll() is None, (
                f"it ended with {self.process.poll()}: {self.said()}"
            )
            return value

        return until(look, seconds, self.said, lambda: (self.said(), self.marks("epoch")))

    def until_training(self, tag: int) -> None:
        self.until(lambda: self.marks("epoch", tag) or None)

    def end(self, seconds: float = 400) -> tuple[int, str]:
        """Wait for its end, as long as it gets on: exit status and what it printed."""
        assert self.process is not None
        until(self.process.poll, seconds, self.said, lambda: (self.said(), self.marks("epoch")))
        return self.process.returncode, self.said()

    def statuses(self) -> dict[str, str]:
        """The status of every line of results by its spec; each spec has one line."""
        lines = (self.out / "results.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert len({row["spec"] for row in rows}) == len(rows), "a trial has two rows"
        return {row["spec"]: row["status"] for row in rows}

    def assert_whole(self) -> None:
        """Every trial is done, and was trained to its end once."""
        assert self.statuses() == dict.fromkeys(self.specs, "done")
        assert sorted(m["tag"] for m in self.marks("end")) == sorted(self.tags)
