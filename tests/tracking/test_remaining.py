"""How long the rest takes: told by what is done, parts of jobs among it, and by nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.engine.events import Listener
from raygrid.engine.schedule import Job
from raygrid.tracking import display as display_module
from raygrid.tracking.display import ProgressDisplay
from raygrid.tracking.remaining import Remaining
from raygrid.tracking.status import StatusFile, read_status
from raygrid.trials.artifacts import Artifact
from raygrid.trials.trial import Trial
from tests.trials.test_shards import PGD, TRIAL

pytestmark = pytest.mark.usefixtures("undrawn")


def jobs(**seconds: float) -> dict[str, Job]:
    return {key: Job(key, seconds=each) for key, each in seconds.items()}


def test_a_part_of_a_long_job_counts_before_its_end() -> None:
    work = Remaining(jobs(poison=300.0, trial=100.0), since=1000.0)
    assert work.left(1050.0) is None, "nothing to go by"
    work.reached("poison", 1, 3, 0)
    assert work.left(1050.0) == pytest.approx(150.0)  # a quarter of the work in 50 s
    work.reached("poison", 2, 3, 0)
    assert work.left(1100.0) == pytest.approx(100.0)
    work.finished("poison", worked=True)
    assert work.left(1150.0) == pytest.approx(50.0)
    work.finished("trial", worked=True)
    assert work.left(1200.0) == 0


def test_it_shrinks_while_jobs_go_on() -> None:
    """It grew from one finished trial to the next: what ran counted for nothing."""
    names = [f"t{i}" for i in range(4)]
    work = Remaining(jobs(**dict.fromkeys(names, 60.0)), since=0.0)
    said = []
    for number, name in enumerate(names):
        for epoch in range(1, 7):
            work.reached(name, epoch, 6, 0)
            said.append(work.left(60.0 * number + 10.0 * epoch))
        work.finished(name, worked=True)
    assert said == pytest.approx([240 - 10 * i for i in range(1, 25)])


def test_what_an_earlier_run_has_done_is_no_speed_of_this_one() -> None:
    work = Remaining(jobs(a=100.0, b=100.0), since=0.0)
    work.reached("a", 8, 10, 8)  # from a checkpoint
    assert work.left(10.0) is None
    work.reached("a", 9, 10, 8)
    assert work.left(10.0) == pytest.approx(110.0)
    work.finished("a", worked=True)
    assert work.left(20.0) == pytest.approx(100.0)


def test_the_first_batch_of_a_hundred_tells_as_much_as_the_fiftieth() -> None:
    """It was taken for what an earlier run had done: 99,500 s left of 199."""
    work = Remaining(jobs(poison=100.0), since=0.0)
    for batch in (1, 50):
        work.reached("poison", 500 * batch, 50_000, 0)
        assert work.left(2.0 * batch) == pytest.approx(2.0 * (100 - batch))


def test_a_job_that_is_over_and_not_told_yet_takes_nothing_from_the_rest() -> None:
    """Its row is written in between, and the time left was negative."""
    open_jobs = jobs(a=100.0, b=10.0)
    work = Remaining(open_jobs, since=0.0)
    work.reached("a", 9, 10, 0)
    del open_jobs["a"]
    assert work.left(90.0) is None
    work.finished("a", worked=True)
    assert work.left(100.0) == pytest.approx(10.0)


def test_jobs_that_were_there_or_can_never_be_done_are_no_work() -> None:
    open_jobs = jobs(done=10.0, there=500.0, failed=500.0, lost=500.0, rest=10.0)
    work = Remaining(open_jobs, since=0.0)
    work.finished("done", worked=True)
    work.finished("there", worked=False)
    work.finished("failed", worked=False)
    del open_jobs["lost"]  # its artifact failed
    assert work.left(7.0) == pytest.approx(7.0)


class Onlooker(Listener):
    """Notes what is left, and what the status file says, whenever something is told."""

    def __init__(self, display: ProgressDisplay, out: Path) -> None:
        self.display, self.out = display, out
        self.shares: dict[str, list[float]] = {}
        self.left: list[float] = []

    def progress(self, artifact: Artifact, done: int, total: int, before: int) -> None:
        (job,) = read_status(self.out)["running"]
        assert job["share"] == done / total
        self.shares.setdefault(artifact.kind, []).append(done / total)
        self.look()

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        self.look()

    def look(self) -> None:
        assert self.display.left is not None
        self.left.append(self.display.left)


def test_a_run_speaks_of_what_it_makes(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log was silent for as long as poisons were made."""
    monkeypatch.setattr(display_module, "HEARTBEAT_SECONDS", -1.0)
    stream = io.StringIO()
    display = ProgressDisplay(stream)
    onlooker = Onlooker(display, options.out)
    run_grid([TRIAL.format(PGD)], options, display, StatusFile(options.out, every=0.0), onlooker)
    assert set(onlooker.shares) == {"surrogate", "poison"}
    for shares in onlooker.shares.values():
        assert shares == sorted(shares)
        assert shares[-1] == 1
    assert len(onlooker.left) > sum(map(len, onlooker.shares.values())), "of its trial's epochs too"
    before, _, _ = stream.getvalue().partition("made poison")
    assert "0/1 trials, 1 running, 0 failed, artifacts" in before
    assert " left" in before
    assert display.left == 0
    assert display.needed == display.made + display.reused
