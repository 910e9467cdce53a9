"""How many trials share a GPU: by the sum of what they train."""

from __future__ import annotations

import functools
import multiprocessing

import pytest

from raygrid.core.errors import DeviceError
from raygrid.engine.costs.gpu_share import GPU_CARDS, fitting
from raygrid.engine.costs.measure import Rehearsal
from raygrid.engine.costs.throughput import (
    LEAST_GAIN,
    Process,
    _serve,
    measure,
    profitable,
    together,
)
from raygrid.engine.grid import plan
from raygrid.engine.worker import best_device
from tests import plugin

assert plugin.CARD


class Card:
    """A card that trains `full` images a second at most; one trial alone gets `alone`."""

    def __init__(self, alone: float, full: float, holds: int = 8) -> None:
        self.alone, self.full, self.holds = alone, full, holds
        self.members: list[Member] = []
        self.running = 0

    def start(self) -> Member:
        if len(self.members) == self.holds:
            raise DeviceError("out of memory")
        self.members.append(Member(self))
        return self.members[-1]


class Member:
    def __init__(self, card: Card) -> None:
        self.card, self.ended = card, False

    def begin(self, seconds: float) -> None:
        assert seconds == 3.0
        self.card.running += 1

    def rate(self) -> float:
        card = self.card
        return min(card.alone, card.full / len(card.members))

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize(
    ("alone", "full", "best", "asked"),
    [
        (100, 100, 1, [1, 2]),
        (100, 109, 1, [1, 2]),
        (100, 111, 2, [1, 2, 4]),
        (100, 200, 2, [1, 2, 4]),
        (100, 390, 4, [1, 2, 4, 8]),
        (100, 1000, 8, [1, 2, 4, 8]),
    ],
)
def test_trials_are_added_as_long_as_their_sum_grows_by_a_tenth(
    alone: float, full: float, best: int, asked: list[int]
) -> None:
    card = Card(alone, full)
    rates = together(card.start, 8, 3.0)
    assert (profitable(rates), list(rates)) == (best, asked)
    assert all(rates[n] == pytest.approx(min(n * alone, full)) for n in rates)
    assert all(member.ended for member in card.members)


def test_memory_is_the_bound() -> None:
    card = Card(100, 1000)
    assert list(together(card.start, 3, 3.0)) == [1, 2]
    assert len(card.members) == 2
    short = Card(100, 1000, holds=3)
    assert list(together(short.start, 8, 3.0)) == [1, 2], "the fourth finds no room"
    assert all(member.ended for member in short.members)
    with pytest.raises(DeviceError, match="out of memory"):
        together(Card(100, 100, holds=0).start, 8, 3.0)
    total = GPU_CARDS["A10G"].memory_gb * 1024
    assert [fitting(mb, total) for mb in (19_000, 9000, 4000, 1000)] == [1, 2, 4, 13]


def test_a_gain_counts_from_the_best_so_far() -> None:
    assert profitable({1: 100, 2: 150, 4: 150 * LEAST_GAIN - 1, 8: 400}) == 2
    assert profitable({1: 100, 2: 150, 4: 165, 8: 181}) == 4


def rehearsal(fails: str = "") -> Rehearsal:
    (trial,) = plan(["dots/clean/standard/small_cnn/supervised/quick/0"], None).trials
    if fails:
        raise RuntimeError(fails)
    return Rehearsal(trial, best_device(), batches=1)


@pytest.mark.slow
def test_processes_train_side_by_side() -> None:
    found = measure(rehearsal, seconds=0.5)
    rates = found["images_per_second"]
    assert list(rates)[:2] == [1, 2]
    assert all(rate > 0 for rate in rates.values())
    assert found["together"] == profitable(rates)
    assert found["memory_mb"] > 10


def test_a_process_that_cannot_start_says_why() -> None:
    with pytest.raises(DeviceError) as error:
        Process.start(functools.partial(rehearsal, "told to fail"))
    assert str(error.value) == "RuntimeError: told to fail"


def test_a_process_that_finds_no_room_says_that_alone() -> None:
    here, there = multiprocessing.Pipe()
    with here, there:
        _serve(there, functools.partial(rehearsal, "CUDA error: out of memory"))
        assert here.recv() == {"error": "out of memory"}
