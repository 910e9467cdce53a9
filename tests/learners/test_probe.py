"""The linear probe beside a port of its sources' loop, on the same features, weights and order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.seeds import Stream, forked
from raygrid.learners.common.features import features_of
from raygrid.learners.common.probe import fit_probe
from raygrid.nn.augment import Views
from raygrid.nn.recipes import PROBING, Probing
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Trainer
from tests.conftest import toy


def ported(
    features: Tensor, labels: Tensor, orders: list[list[Tensor]], start: nn.Linear
) -> Tensor:
    """Weights after each epoch of the probes of TransPoison@2d08a9c and AUE-AAP@64fb25f.

    evaluation.py and evaluation_cl.py: cross-entropy on features of the frozen encoder, SGD with
    rate 1.0 and momentum 0.9, no weight decay, the rate times 0.2 from epochs 61, 76 and 91 on.
    """
    optimizer = torch.optim.SGD(start.parameters(), lr=1.0, momentum=0.9)
    falls = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=(60, 75, 90), gamma=0.2)
    after = []
    for batches in orders:
        for rows in batches:
            loss = nn.functional.cross_entropy(start(features[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        falls.step()
        after.append(start.weight.detach().clone())
    return torch.stack(after)


def test_the_probe_is_that_of_its_sources() -> None:
    images, stream = toy(300), Stream("probe")
    network = ARCHITECTURES.make("small_cnn").build(images.classes, 32, 0).eval()
    probing = Probing(PROBING.recipe.with_(batch_size=64))
    fitted = fit_probe(network, images, probing, Views(), stream, "fp32")
    features = features_of(network, images, "fp32")
    with forked(stream.seed("init")):
        start = nn.Linear(network.width, images.classes)

    def unused(batch: Batch) -> Step:
        raise AssertionError

    order = Trainer(start, unused, images.blank(), probing.recipe, stream)
    orders = [[batch.index for batch in order.batches(epoch)] for epoch in range(100)]
    assert all(len(torch.cat(batches).unique()) == 300 for batches in orders)
    wanted = ported(features, images.labels, orders, start)
    heads = torch.stack([head["weight"] for head in fitted.heads])
    assert (heads - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert heads[0].std() > 0
    assert torch.equal(fitted.network.head.weight, heads[-1])
    assert [probing.recipe.rate(e) for e in (0, 59, 60, 75, 90)] == pytest.approx(
        [1.0, 1.0, 0.2, 0.04, 0.008]
    )
