"""Trying again: how often, after which pauses, and what is raised at once."""

from __future__ import annotations

import pytest

from raygrid.core import retry
from raygrid.core.errors import StoreError
from raygrid.core.retry import patiently, retried, until


class Failing:
    """Raises its errors one after the other, then gives 7."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return 7


def test_it_is_tried_again_after_each_pause_and_then_once_more(hurried: list[float]) -> None:
    told: list[tuple[str, float]] = []
    action = Failing(OSError("a"), OSError("b"))
    before = lambda error, pause: told.append((str(error), pause))  # noqa: E731
    assert retried(action, (0.5, 1.0), lambda error: True, before) == 7
    assert hurried == [0.5, 1.0]
    assert told == [("a", 0.5), ("b", 1.0)]


def test_the_last_error_is_raised_as_it_is(hurried: list[float]) -> None:
    last = OSError("c")
    with pytest.raises(OSError, match="c") as found:
        retried(Failing(OSError("a"), last), (0.5,), lambda error: True)
    assert found.value is last
    assert hurried == [0.5]


def test_an_error_that_would_come_again_is_raised_at_once(hurried: list[float]) -> None:
    with pytest.raises(KeyError):
        retried(Failing(KeyError("a")), (0.5,), lambda error: isinstance(error, OSError))
    assert hurried == []


def test_a_store_is_waited_for_only_where_its_fault_may_pass(hurried: list[float]) -> None:
    assert patiently(Failing(StoreError("away", passing=True))) == 7
    assert hurried == [1.0]
    with pytest.raises(StoreError, match="read-only"):
        patiently(Failing(StoreError("read-only")))
    assert hurried == [1.0]


def test_pauses_go_on_for_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.0, 0.5, 1.0, 1.5])
    monkeypatch.setattr(retry.time, "monotonic", lambda: next(now))
    assert list(until(1.2, 0.5)) == [0.5, 0.5, 0.5]
