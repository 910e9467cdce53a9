"""kNN, the collapse that it hears, and what protocols say of probes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images
from raygrid.learners.common.features import CollapseAlarm, features_of
from raygrid.learners.common.knn import KnnClassifier
from tests.conftest import toy
from tests.learners.toys import unit


def test_knn_agrees_with_lightly_and_solves_what_is_separable(images: Images) -> None:
    from lightly.utils.benchmarking import knn_predict

    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0).eval()
    features = features_of(network, images, "fp32")
    knn = KnnClassifier(network, features, images.labels, 4, 20).eval()
    others = toy(32, seed=1)
    x = functional.normalize(network.features(others.floats()), dim=1).detach()
    theirs = knn_predict(x, knn.bank.T, images.labels, 4, knn_k=20, knn_t=0.1)
    assert torch.equal(knn(others.floats()).argmax(1), theirs[:, 0])
    apart = torch.eye(4)[images.labels] + 0.1 * unit(64, 4)
    separable = KnnClassifier(network, apart, images.labels, 4, 200)
    assert separable.neighbors == 64, "no more neighbors than images"
    few = KnnClassifier(network, apart, images.labels, 4, 10)
    scores = few.vote(functional.normalize(apart, dim=1) @ few.bank.T)
    assert torch.equal(scores.argmax(1), images.labels)
    assert torch.allclose(scores.exp().sum(1), torch.ones(64), atol=1e-4)


def test_votes_of_neighbors_are_those_of_the_demo_of_moco(images: Images) -> None:
    """Sums of exp(cosine / T) over the k nearest; renjie3/TUE@6b3752b moco_utils.py."""
    knn = KnnClassifier(
        ARCHITECTURES.make("small_cnn").build(4, 16, 0), unit(64, 16), images.labels, 4, 20
    )
    cosine = unit(32, 16) @ knn.bank.T
    near, which = cosine.topk(20, dim=-1)
    one_hot = functional.one_hot(images.labels[which], 4).float()
    sums = (one_hot * (near / 0.1).exp().unsqueeze(-1)).sum(1)
    expected = sums / sums.sum(1, keepdim=True)
    assert float(expected.max(1).values.mean()) < 0.9, "all votes for one class"
    torch.testing.assert_close(knn.vote(cosine).exp(), expected.clamp_min(1e-6))
    assert torch.equal(knn.vote(cosine).argmax(1), sums.argsort(-1, descending=True)[:, 0])


def test_a_collapse_is_heard_after_three_evaluations(images: Images) -> None:
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    flat = KnnClassifier(network, torch.ones(64, 16), images.labels, 4, 5)
    wide = KnnClassifier(network, unit(64, 16), images.labels, 4, 5)
    assert flat.spread() == pytest.approx(0, abs=1e-5)
    assert wide.spread() == pytest.approx(1, abs=0.1)
    alarm = CollapseAlarm()
    assert [alarm.hear(s) for s in (0.05, 0.05, 0.5, 0.05, 0.05, 0.05, 0.05)] == [
        *[False] * 5,
        True,
        True,
    ]
