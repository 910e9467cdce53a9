"""Recorded steps train what single steps train, bit for bit, with a fraction of the launches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from raygrid.core.draws import sent
from raygrid.core.options import Options
from raygrid.defenses.chain import Chain
from raygrid.engine.costs.profiles import TRAINING_HOOKS
from raygrid.engine.worker import Worker
from raygrid.learners.base import Task
from raygrid.nn import graphs
from raygrid.nn.steps import Batch, Step
from raygrid.storage.store import Store
from tests.conftest import toy
from tests.defenses.test_defenses import TRAINED
from tests.defenses.toys import acting
from tests.defenses.toys import small as defense_of
from tests.device.pretend import DEVICE, Log
from tests.device.pretend.tape import PretendRecorder
from tests.device.test_training import same, task_on
from tests.learners.toys import RECIPE
from tests.learners.toys import small as learner_of

WAITING = {"affine_jitter", "ueraser_lite", "ueraser_max"}
"""Defenses of which a draw on the host decides what is computed."""
QUICK = {"cutmix", "none", "ueraser_lite"}
ACTING = {n for hook in TRAINING_HOOKS for n in acting(hook)} | {"none", "standard"}
SUPERVISED = [
    n if n in QUICK else pytest.param(n, marks=pytest.mark.slow)
    for n in TRAINED
    if n in ACTING and defense_of(n).learners != "views"
]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> PretendRecorder:
    """The switch is on, and the pretend device can record."""
    made = PretendRecorder()
    monkeypatch.setitem(graphs.RECORDERS, DEVICE.type, made)
    monkeypatch.setattr(graphs, "SWITCH", graphs.Switch(on=True))
    return made


def states(task: Task) -> list[Any]:
    """What training leaves one by one, and recorded."""
    found = []
    for on in (False, True):
        graphs.SWITCH.on = on
        session = learner_of("supervised").start(task)
        metrics = [session.epoch(epoch) for epoch in range(2)]
        found.append((session.state_dict(), metrics))
    return found


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_recorded_defense_trains_the_same(name: str, recorder: PretendRecorder, log: Log) -> None:
    chain = Chain((defense_of(name),))
    task = task_on(DEVICE, toy(72, 32, 10), defense=chain, recipe=replace(RECIPE, precision="bf16"))
    (there, told), (here, said) = states(task)
    assert same(there, here)
    assert told == said
    # Of five batches of an epoch the first is watched, and the last is not full.
    assert [tape.replays for tape in recorder.tapes] == ([] if name in WAITING else [3, 3])
    assert not log.drawn


ALL = {"schedule": "linear", "grad_clip": 0.1, "flips": "alternating"}
CHANGES = [
    ALL,
    *(pytest.param({name: value}, marks=pytest.mark.slow) for name, value in ALL.items()),
    pytest.param({"optimizer": "adam", "lr": 0.01}, marks=pytest.mark.slow),
    pytest.param({"drop_last": True}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_recorded_recipe_trains_the_same(
    changes: dict[str, Any], recorder: PretendRecorder, log: Log
) -> None:
    """Rates of every step, clipped gradients, mirrored epochs, other optimizers, batches left."""
    recipe = replace(RECIPE, **changes)
    (there, told), (here, said) = states(task_on(DEVICE, toy(72), recipe=recipe))
    assert same(there, here)
    assert told == said
    assert [tape.replays for tape in recorder.tapes] == [3, 3]


def test_a_replay_is_one_launch(recorder: PretendRecorder, log: Log) -> None:
    """What is left for the host: the batch and its draws put in place, the optimizer."""
    task = task_on(DEVICE, toy(80), recipe=RECIPE)
    launches = []
    for on in (False, True):
        graphs.SWITCH.on = on
        session: Any = learner_of("supervised").start(task)
        take = graphs.steps_of(session.trainer)
        for number, batch in enumerate(session.trainer.batches(0)):
            if number == 3:
                log.reset()
            take(batch)
        launches.append(sum(log.kernels.values()) / 2)
        assert not log.syncs
    assert launches[1] < launches[0] / 3


@pytest.mark.parametrize("learner", ["simclr", "moco", "linear_probe"])
def test_steps_that_remember_are_not_recorded(
    learner: str, recorder: PretendRecorder, log: Log
) -> None:
    """A queue moves on with every batch, and nobody would move it in a replay."""
    session: Any = learner_of(learner).start(task_on(DEVICE, toy(48)))
    assert graphs.steps_of(session.trainer) == session.trainer.update
    other: Any = learner_of("supervised").start(task_on(DEVICE, toy(48)))
    assert isinstance(graphs.steps_of(other.trainer), graphs.EpochSteps)
    graphs.SWITCH.on = False
    assert graphs.steps_of(other.trainer) == other.trainer.update


def test_a_step_that_waits_is_not_recorded(recorder: PretendRecorder, log: Log) -> None:
    task = task_on(DEVICE, toy(48))
    session: Any = learner_of("supervised").start(task)
    step = session.trainer.step

    def waiting(batch: Batch) -> Step:
        out: Step = step(batch)
        assert out.loss.item() > 0
        return out

    session.trainer.step = waiting
    session.epoch(0)
    assert recorder.tapes == []
    batch = next(session.trainer.batches(0))
    with pytest.raises(RuntimeError, match="stream is capturing"):
        recorder.record(lambda: session.trainer.descend(batch))


def with_loss_times(factor: Callable[[], Any]) -> Any:
    """A session whose steps take their loss times something that each of them asks for."""
    session: Any = learner_of("supervised").start(task_on(DEVICE, toy(48)))
    step = session.trainer.step

    def taken(batch: Batch) -> Step:
        out: Step = step(batch)
        return replace(out, loss=out.loss * factor())

    session.trainer.step = taken
    return session


def test_a_step_that_sends_more_than_draws_is_not_recorded(
    recorder: PretendRecorder, log: Log
) -> None:
    """A replay would copy from where the values lay when the step was recorded."""
    session = with_loss_times(lambda: sent(torch.tensor(2.0), DEVICE))
    session.epoch(0)
    assert recorder.tapes == []
    session = with_loss_times(lambda: 1)
    session.epoch(1)
    assert len(recorder.tapes) == 1


def test_a_step_that_draws_on_the_host_unasked_is_not_recorded(
    recorder: PretendRecorder, log: Log
) -> None:
    """CaiT drops layers by a draw of torch's own generator: a replay would drop the same ones."""
    session = with_loss_times(lambda: 2 if torch.rand(()).item() < 0.5 else 1)
    session.epoch(0)
    assert recorder.tapes == []


def test_what_is_recorded_is_not_done(log: Log) -> None:
    """Like a CUDA graph: a replay does it, as often as it is asked to."""
    recorder = PretendRecorder()
    x, total = torch.ones(3, device=DEVICE), torch.zeros(3, device=DEVICE)
    replay = recorder.record(lambda: total.add_(x * 2))  # type: ignore[arg-type, return-value]
    assert total.tolist() == [0, 0, 0]
    x.fill_(5)
    for times in (1, 2):
        replay()
        assert total.tolist() == [10 * times] * 3


def test_the_switch_is_an_option_of_the_run(store: Store, recorder: PretendRecorder) -> None:
    """Workers set it for their process."""
    for on in (True, False):
        Worker(store, Options(graphs=on))
        assert graphs.SWITCH.on == on
    assert not Options().graphs
