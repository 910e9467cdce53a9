"""What tests of a cluster wait by."""

from __future__ import annotations

import time
from itertools import count

import pytest

from tests import patience
from tests.patience import crowd, until


def test_a_wait_goes_on_while_there_is_progress_and_ends_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, steps = count(0, 1.0), iter([1, 1, 2, 2, 3, 3, 3, 3, 3, 3])
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(patience, "crowd", lambda: 1.0)
    with pytest.raises(AssertionError, match="in 3 s without progress: so it was"):
        until(lambda: None, 3, lambda: "so it was", lambda: next(steps))
    assert list(steps) == [3, 3]
    assert until(lambda: "there", 3, str) == "there"


def test_a_crowded_machine_is_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for load, wanted in ((0.1, 1.0), (2.0, 1.0), (8.0, 4.0)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert crowd() == wanted
    asked = []
    clock = count(0, 1.0)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with pytest.raises(AssertionError):
        until(lambda: asked.append(0), 3, str)
    assert len(asked) == 12, "four times as long"
