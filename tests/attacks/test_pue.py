"""PUE beside the rule of its code: NeuralSec/certified-data-learnability@3f34839."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.noise import NoisyBatch
from raygrid.attacks.common.weight_noise import DisturbedClassNoise, disturbed
from raygrid.attacks.pue import Pue
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.networks import freeze
from raygrid.nn.pgd import Descent, frozen
from raygrid.nn.steps import Batch
from tests.attacks.toys import attack_of, moved_weights
from tests.victims import photo_digits, reference_accuracy, victim_accuracy

CPU = torch.device("cpu")
EPS, STEP = 8 / 255, 0.8 / 255
PART = "pue(surrogate=small_cnn, batch_size=32, weight_draws=3, noise_draws=2, weight_noise=0.1)"


def back(network: nn.Module, added: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, noise in zip(network.parameters(), added, strict=True):
            parameter -= noise


def min_min_attack_robust(
    network: nn.Module, x: Tensor, y: Tensor, eta: Tensor, rng: torch.Generator
) -> Tensor:
    """toolbox.py: a step a level, on the sum of the draws' gradients."""
    z = (x + eta).clamp(0, 1)
    for level in range(3):
        z = z.clone().requires_grad_()
        total = torch.zeros_like(z)
        for _ in range(2 if level else 1):  # undisturbed weights draw nothing anew
            added = moved_weights(network, 0.05 * level, rng)
            loss = nn.functional.cross_entropy(network(z), y)
            total += torch.autograd.grad(loss, z)[0]
            back(network, added)
        eta = (z.detach() - STEP * total.sign() - x).clamp(-EPS, EPS)
        z = (x + eta).clamp(0, 1)
    return eta


def test_noise_takes_a_step_a_level_as_in_the_code(images: Images) -> None:
    network = freeze(ARCHITECTURES.make("small_cnn").build(4, 16, 3))
    start = torch.zeros(4, 3, 16, 16)
    noise = DisturbedClassNoise(images, start, torch.arange(64), (0.0, 0.05, 0.1), 2)
    noise.network = network
    noise.on.fill_(1)

    def loss(shown: NoisyBatch) -> Tensor:
        return nn.functional.cross_entropy(network(shown.z), shown.y, reduction="sum")

    index = torch.arange(16)
    x, y = images.floats(index), images.labels[index]
    with frozen(network):
        rng = torch.Generator().manual_seed(1)
        found = noise.moved(index, noise.shown(index), loss, Descent(EPS, STEP, 1), rng)
        rng = torch.Generator().manual_seed(1)
        expected = min_min_attack_robust(network, x, y, torch.zeros_like(x), rng)
    assert float((found - expected).abs().gt(1e-6).float().mean()) < 0.01
    assert float(found.abs().max()) == pytest.approx(3 * STEP, rel=1e-4)


def train_batch_robust(network: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> None:
    """trainer.py: an SGD step a level, the growing gradient cut off after every draw."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    network.train()
    for level in range(3):
        optimizer.zero_grad()
        for _ in range(3):
            added = moved_weights(network, 0.05 * level, rng)
            (nn.functional.cross_entropy(network(x), y) / 9).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            back(network, added)
        optimizer.step()


def test_the_network_takes_a_step_a_level_as_in_the_code(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raygrid.nn.steps.autocast", plain)
    attack = attack_of(Pue, PART)
    context = AttackContext(Stream("poison"))
    noise = attack.start(images, context)
    noise.on.fill_(1)
    noise.values += 4 / 255
    student = attack.student(noise, context)
    assert student.trainer is not None
    student.trainer.set_rate(0)
    theirs = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    theirs.load_state_dict(student.module.state_dict())
    rows = torch.arange(32)
    x, y = images.floats(rows), images.labels[rows]
    student.module.train()
    student.trainer.update(Batch(x.clone(), y, rows, torch.Generator().manual_seed(2), 0))
    train_batch_robust(theirs, x + 4 / 255, y, torch.Generator().manual_seed(2))
    state = student.module.state_dict()
    for name, value in theirs.state_dict().items():
        if name.endswith("num_batches_tracked"):  # nothing here counts batches
            continue
        torch.testing.assert_close(state[name], value, rtol=2e-4, atol=2e-5)


def plain(precision: str, device: torch.device | str) -> AbstractContextManager[None]:
    """The code computes in float32."""
    return nullcontext()


def test_weights_come_back_exactly() -> None:
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weight = network.head.weight
    with disturbed(network, 0.5, torch.Generator().manual_seed(0)):
        change = weight.detach() - before["head.weight"]
        assert float(change.std()) == pytest.approx(0.5, rel=0.2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("errors", "on"), [([0.9, 0.5], 0), ([0.9, 0.4, 0.8], 1)])
def test_weights_are_disturbed_from_the_first_round_on_that_gets_half_right(
    errors: list[float], on: int, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, context = attack_of(Pue, PART), AttackContext(Stream("poison"))
    noise = attack.start(images, context)
    student = attack.student(noise, context)
    passed = attack.passed(noise, context)
    assert int(noise.on) == 0
    for number, error in enumerate(errors):
        monkeypatch.setattr("raygrid.attacks.em.Em.error", constant(error))
        attack.error(noise, passed, student, number)
    assert int(noise.on) == on
    assert int(noise.tensors()["on"]) == on, "kept in checkpoints"


def constant(value: float) -> Callable[..., float]:
    return lambda *args: value


def test_the_levels_are_those_of_the_code() -> None:
    """int(0.25 / 0.05) + 1 of them."""
    assert attack_of(Pue, "pue").levels == pytest.approx((0, 0.05, 0.1, 0.15, 0.2, 0.25))
    with pytest.raises(SpecError, match="pue is class-wise"):
        ATTACKS.make("pue(mode=sample)")


@pytest.mark.slow
def test_pue_bites() -> None:
    """Measured once, seed 0, quick settings at twice the budget: 0.11, noise of that size 0.72."""
    train = photo_digits().train
    quick = ", ".join(f"{k}={v}" for k, v in Pue.quick.items())
    attack = attack_of(Pue, f"pue({quick}, budget=2x)")
    context = AttackContext(Stream("poison", ("digits", "pue", 0)))
    pixels = attack.poison(train, context).pixels
    reached = victim_accuracy(train.with_pixels(pixels))
    assert reached < reference_accuracy("noise(budget=16/255)") - 0.25
