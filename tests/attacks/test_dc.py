"""DeepConfuse: its look-ahead, generator and the choice of the worst one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import AttackContext
from raygrid.attacks.dc import Dc, Search, ahead
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from tests.attacks.toys import make


def dc(**settings: object) -> Dc:
    made = make("dc", **{"width": 4, "levels": 2, "batch_size": 32, "inner_epochs": 1, **settings})
    assert isinstance(made, Dc)
    return made


def test_the_look_ahead_is_differentiated_through_the_step(images: Images) -> None:
    """Against finite differences, on a linear classifier in float64."""
    x, y = images.floats()[:6].double(), images.labels[:6]
    generator = torch.Generator().manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(768, 4)).double()
    way = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    shown = (x + 0.01).requires_grad_()
    loss = ahead(classifier, shown, x, y, 0.1)
    (gradient,) = torch.autograd.grad(loss, shown)

    def after(images_: Tensor) -> Tensor:
        moved = copy.deepcopy(classifier)
        nn.functional.cross_entropy(moved(images_), y).backward()
        for parameter in moved.parameters():
            assert parameter.grad is not None
            parameter.data -= 0.1 * parameter.grad
        return nn.functional.cross_entropy(moved(x), y).detach()

    torch.testing.assert_close(loss.detach(), after(shown.detach()))
    slope = (after(shown.detach() + 1e-4 * way) - after(shown.detach() - 1e-4 * way)) / 2e-4
    torch.testing.assert_close((gradient * way).sum(), slope, rtol=1e-4, atol=1e-9)


def test_the_clean_pass_has_batch_statistics_of_its_own(images: Images) -> None:
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0).train()
    x, y = images.floats(), images.labels
    ahead(network, x * 0.5, x, y, 0.1)
    other = ARCHITECTURES.make("small_cnn").build(4, 16, 0).train()
    other(x * 0.5)
    for (name, one), two in zip(network.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(one, two), name


def test_a_trial_ends_with_the_learned_noise(images: Images) -> None:
    search = Search(dc(), images, AttackContext(Stream("poison")))
    before = {k: v.clone() for k, v in search.generator.state_dict().items()}
    fixed = search.noise(search.train)
    used: list[Tensor] = []
    search.fit = lambda classifier, x, y: used.append(x - 0)  # type: ignore[method-assign]
    search.judge = lambda number: None  # type: ignore[method-assign]
    search.trial(0)
    learned, now = search.learner.state_dict(), search.generator.state_dict()
    assert all(torch.equal(learned[k], now[k]) for k in learned)
    assert any(not torch.equal(before[k], now[k]) for k in now)
    rows = list(search.batches(0))
    for index, x in zip(rows, used, strict=True):  # the noise of the trial's beginning, all along
        torch.testing.assert_close(x, search.train.floats(index) + fixed[index])


def test_noise_is_a_function_of_the_image(images: Images) -> None:
    attack = dc(trials=1)
    search = Search(attack, images, AttackContext(Stream("poison")))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    twice = images.rows(torch.cat([order, order[:5]]))
    noise = search.noise(images)
    torch.testing.assert_close(search.noise(twice), noise[torch.cat([order, order[:5]])])
    assert noise.abs().max() <= attack.radius


def test_the_worst_generator_for_classifiers_is_kept(images: Images) -> None:
    search = Search(dc(), images, AttackContext(Stream("poison")))
    reached = iter([0.5, 0.7, 0.3, 0.4])
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raygrid.attacks.dc.batch_accuracy", lambda *_: next(reached))
        for number in range(4):
            with torch.no_grad():
                search.generator.last[0].bias.fill_(number)  # type: ignore[union-attr]
            search.judge(number)
            kept.append((float(search.best["last.0.bias"][0]), search.lowest, search.stale))
    assert kept == [(0, 0.5, 0), (0, 0.5, 1), (2, 0.3, 0), (2, 0.3, 1)]
