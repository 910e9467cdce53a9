"""AUE and AAP beside EhanW/AUE-AAP@64fb25f, aue.py and aap.py, through the same views.

Its kornia augmentation is the views' own here, drawn and applied by the code under test: what is
compared is everything around them.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.attacks.aap import Aap
from raygrid.attacks.aue import Aue
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.rounds import batches
from raygrid.attacks.common.students import fresh
from raygrid.core.images import to_uint8
from raygrid.core.seeds import Stream
from raygrid.nn.augment import Views
from raygrid.nn.augment.views import VIEW_DRAWS
from raygrid.nn.networks import freeze
from raygrid.nn.pgd import frozen
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Trainer
from tests.attacks.test_originals_contrastive import saturated

EPS = 8 / 255


def boxed(delta: Tensor, x: Tensor) -> Tensor:
    """Into the budget, then into what the pixels leave."""
    return (x + delta.clamp(-EPS, EPS)).clamp(0, 1) - x


@pytest.mark.slow
def test_sample_wise_aue_goes_the_way_of_its_code() -> None:
    """Two epochs: a pass of the network over one view of each noisy image, a pass of the noise.

    The network's rate falls along a cosine without warm-up; five steps of a tenth of the budget.
    """
    images, size, epochs = saturated(48), 16, 2
    attack = ATTACKS.make(f"aue(surrogate=small_cnn, batch_size={size}, epochs={epochs})")
    assert isinstance(attack, Aue)
    context = AttackContext(Stream("originals"))
    ours = attack.propose(images, context)

    def unused(batch: Batch) -> Step:
        raise AssertionError

    network, x = fresh("small_cnn", images, context, fan_out=True), images.floats()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    recipe = Recipe(epochs=epochs, batch_size=size)
    order = Trainer(nn.Linear(1, 1), unused, images, recipe, context.stream.child("fit", "ce"))
    views, poison = Views.of_strength(0.6), torch.zeros_like(x)
    for epoch in range(epochs):
        fall = (1 + math.cos(math.pi * epoch / epochs)) / 2
        optimizer.param_groups[0]["lr"] = 1e-6 + (0.1 - 1e-6) * fall
        network.train()
        for batch in order.batches(epoch):
            seen = views(batch.x + poison[batch.index], batch.rng)
            optimizer.zero_grad()
            cross_entropy(network(seen), batch.y).backward()
            optimizer.step()
        stream = context.stream.child("noise", "ce", epoch)
        with frozen(network):
            for part, (rows, _) in enumerate(batches(48, size, stream)):
                rng, delta = stream.generator("draws", part), poison[rows]
                for _ in range(5):
                    delta = delta.detach().requires_grad_()
                    loss = cross_entropy(network(views(x[rows] + delta, rng)), images.labels[rows])
                    (slope,) = torch.autograd.grad(loss, delta)
                    delta = boxed(delta.detach() - EPS / 10 * slope.sign(), x[rows])
                poison[rows] = delta
    assert float(((ours - poison).abs() > 1e-6).float().mean()) < 0.005
    assert float(poison.abs().mean()) > 0.2 * EPS


@pytest.mark.parametrize("targeted", [True, False])
def test_the_noise_steps_of_aap_are_those_of_its_code(targeted: bool) -> None:
    """From zero, 2.5 budgets over all steps, toward the next class or away from the own one."""
    images, steps = saturated(24), 10
    part = f"aap(surrogate=small_cnn, batch_size=24, steps={steps}, step={2.5 / steps}"
    attack = ATTACKS.make(f"{part}, targeted={str(targeted).lower()})")
    assert isinstance(attack, Aap)
    network = freeze(ARCHITECTURES.make("small_cnn").build(4, 16, 3))
    context = AttackContext(Stream("originals"), surrogates={"views": network})
    ours = attack.pixels(images, context)
    rows, x, views = torch.arange(24), images.floats(), Views.of_strength(0.4)
    wanted = (images.labels + 1) % 4 if targeted else images.labels
    delta = torch.zeros_like(x)
    for step in range(steps):
        delta = delta.detach().requires_grad_()
        draws = context.stream.rows(["view", step], rows, (VIEW_DRAWS,), "uniform")
        order = torch.randperm(4, generator=context.stream.generator("order", step))
        params = views.params(draws, x.shape[-2:], tuple(order.tolist()))
        loss = cross_entropy(network(views.apply(x + delta, params)), wanted)
        (slope,) = torch.autograd.grad(loss, delta)
        way = -1 if targeted else 1
        delta = boxed(delta.detach() + way * EPS * 2.5 / steps * slope.sign(), x)
    assert float((ours != to_uint8(x + delta)).float().mean()) < 0.005
    assert float(delta.abs().mean()) > 0.3 * EPS
