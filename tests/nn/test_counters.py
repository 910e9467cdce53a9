"""Batch norms that count nothing: the same numbers, the same names, one kernel less each."""

from __future__ import annotations

import copy

import torch
from torch import nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.seeds import Stream
from raygrid.nn.counters import BATCH_COUNTER, drop_counters
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step, classify_step
from raygrid.nn.trainer import Trainer
from tests.conftest import toy


def network() -> nn.Module:
    return ARCHITECTURES.make("small_resnet").build(4, 16, 0)


def passed(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of two passes in training mode and of one in eval mode."""
    with torch.no_grad():
        first, second = model.train()(x), model(x + 0.1)
        return [first, second, model.eval()(x)]


def test_dropping_the_counts_changes_no_number() -> None:
    counting, silent = network(), network()
    drop_counters(silent)
    x = toy(8).floats()
    for one, other in zip(passed(counting, x), passed(silent, x), strict=True):
        assert torch.equal(one, other)
    states = counting.state_dict(), silent.state_dict()
    assert states[0].keys() == states[1].keys()
    counts = [name for name in states[0] if name.endswith(BATCH_COUNTER)]
    assert len(counts) > 4
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) or name in counts
    assert {int(states[0][name]) for name in counts} == {2}
    assert {int(states[1][name]) for name in counts} == {0}


def test_weights_go_to_networks_that_count_and_come_from_them() -> None:
    counting, silent = network(), network()
    drop_counters(silent)
    passed(counting, toy(8).floats())
    silent.load_state_dict(counting.state_dict())
    copied = copy.deepcopy(silent)
    drop_counters(copied)  # once more does nothing
    x = toy(8, seed=1).floats()
    for one, other in zip(passed(counting, x), passed(copied, x), strict=True):
        assert torch.equal(one, other)
    plain = dict(copied.state_dict())
    again = network()
    again.load_state_dict(plain)
    assert torch.equal(passed(again, x)[2], passed(copied, x)[2])


def test_plain_means_need_their_count() -> None:
    layer = nn.BatchNorm2d(3, momentum=None)
    drop_counters(layer)
    layer(torch.rand(4, 3, 2, 2))
    assert int(layer.num_batches_tracked or 0) == 1


def test_what_is_trained_does_not_count() -> None:
    model = network()

    def step(batch: Batch) -> Step:
        return classify_step(model, batch, "fp32")

    Trainer(model, step, toy(16), Recipe(epochs=1), Stream("t")).epoch(0)
    kinds = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.num_batches_tracked for m in kinds] == [None] * len(kinds)
    assert all(bool(m.running_mean.any()) for m in kinds if m.running_mean is not None)
