"""The one training loop: what it counts, clips, drops and leaves out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from raygrid.core.seeds import Stream
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step, classify_step
from raygrid.nn.trainer import Trainer
from tests.conftest import toy

RECIPE = Recipe(2, batch_size=2, lr=0.1, momentum=0.0, weight_decay=0.0, precision="fp32")


def counting(images: int, batch_size: int, slope: float = 0.0) -> Trainer:
    """The loss is the mean row of a batch plus slope times a weight; row 0 alone is a hit."""
    net = nn.Linear(1, 1, bias=False)

    def step(batch: Batch) -> Step:
        loss = batch.index.float().mean() + slope * net.weight.sum()
        return Step(loss, (batch.index == 0).sum(), len(batch.y))

    recipe = RECIPE.with_(batch_size=batch_size, grad_clip=0.5)
    return Trainer(net, step, toy(images, side=4), recipe, Stream("test"))


def test_every_image_weighs_the_same_whatever_its_batch_holds() -> None:
    metrics = counting(5, batch_size=3).epoch(0)
    assert metrics == pytest.approx({"train_loss": 2.0, "train_acc": 0.2, "lr": 0.1})


def test_an_image_that_would_be_a_batch_alone_is_left_out() -> None:
    run = counting(5, batch_size=2)
    rows = torch.cat([batch.index for batch in run.batches(0)])
    assert len(rows) == 4
    metrics = run.epoch(0)
    assert metrics["train_loss"] == pytest.approx(float(rows.float().mean()))
    assert metrics["train_acc"] == int((rows == 0).sum()) / 4
    assert [len(batch.y) for batch in counting(1, batch_size=2).batches(0)] == [1]


@pytest.mark.parametrize(("slope", "moved"), [(0.4, 0.04), (-0.4, -0.04), (3.0, 0.05)])
def test_gradients_longer_than_the_recipe_allows_are_cut_to_that(
    slope: float, moved: float
) -> None:
    run = counting(2, batch_size=2, slope=slope)
    before = float(run.module.weight.detach())  # type: ignore[arg-type, operator]
    run.epoch(0)
    assert before - float(run.module.weight.detach()) == pytest.approx(moved, abs=1e-6)  # type: ignore[arg-type, operator]


def test_a_restored_training_drops_out_the_same_and_leaves_other_draws_alone() -> None:
    def run() -> Trainer:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 4))

        def step(batch: Batch) -> Step:
            return classify_step(net, batch, "fp32")

        return Trainer(net, step, toy(12, side=4), RECIPE, Stream("test"))

    whole, resumed = run(), run()
    first = whole.epoch(0)
    state = copy.deepcopy(whole.state_dict())
    second = whole.epoch(1)
    resumed.load_state_dict(state)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert resumed.epoch(1) == second
    assert torch.equal(torch.get_rng_state(), before)
    assert first != second
