"""`experiments/benchmarks/fast_victim.py` counts the steps of a pair by the slower of the two."""

from __future__ import annotations

import importlib
import multiprocessing
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


def answer(pipe: Connection, seconds: float) -> None:
    """Stand where a training process stands."""
    while pipe.recv():
        pipe.send(seconds)


def test_a_pair_is_as_fast_as_its_slower_half(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    script = importlib.import_module("fast_victim")
    pipes = []
    for seconds in (1.0, 1.5):
        pipe, theirs = multiprocessing.Pipe()
        threading.Thread(target=answer, args=(theirs, seconds), daemon=True).start()
        pipes.append(pipe)
    alone, both = script.pair(pipes, 2)
    for pipe in pipes:
        pipe.send(False)
    assert (alone, both) == ([1.5, 1.0], [1.5, 1.5])  # the first round, of one second, is not there
    script.say_pair(alone, both, 8)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "one process: 6.40 steps/s; two at once: 10.67 steps/s together",
        "two processes do 1.67 times the steps of one (1.33 to 2.00)",
    ]
