"""PIL beside the rule of its code: jinlinll/pil@50a2803, attacks.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.surrogate_training import train_surrogate
from raygrid.attacks.pil import Pil
from raygrid.core.errors import SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.nn.networks import freeze
from tests.conftest import toy
from tests.separability import held_out_accuracy
from tests.victims import photo_digits, reference_accuracy, victim_accuracy

STREAM = Stream("poison", ("toy", "pil", 0))


def as_the_code(x: Tensor, y: Tensor, network: nn.Module, start: Tensor, steps: int) -> Tensor:
    """Mean losses of the batch, one backward pass for both terms, no pixel box on the way."""
    noise, limit, classes = start, 8 / 255, 4
    for _ in range(steps):
        noise = noise.clone().requires_grad_()
        own = nn.functional.cross_entropy(network(noise), y)
        clean = network(x - noise).softmax(1)
        even = torch.full_like(clean, 1 / classes)
        taken = (even * (even.log() - clean.log())).sum(1).mean()
        (gradient,) = torch.autograd.grad(0.9 * own + 0.1 * taken, noise)
        noise = (noise.detach() - 8 / 2550 * gradient.sign()).clamp(-limit, limit)
    return (x - noise).clamp(0, 1)


def test_noise_is_that_of_the_code_from_the_same_start(images: Images) -> None:
    network = freeze(ARCHITECTURES.make("linear_product").build(4, 16, 3))
    attack = ATTACKS.make("pil(batch_size=16)")
    context = AttackContext(STREAM, surrogates={"pil30": network})
    found = attack.poison(images, context).pixels
    rows = torch.arange(len(images))
    start = (STREAM.rows("start", rows, (3, 16, 16), "uniform") * 2 - 1) * 8 / 255
    expected = to_uint8(as_the_code(images.floats(), images.labels, network, start, 30))
    apart = (found.short() - expected.short()).abs() > 0
    assert float(apart.float().mean()) < 1e-3, "signs of gradients near zero"


def test_the_loss_of_noise_is_zero_where_both_terms_are(images: Images) -> None:
    """A network without scores: CE is log K, the images' scores are uniform already."""
    network = ARCHITECTURES.make("linear").build(4, 16, 0)
    with torch.no_grad():
        network.head.weight.zero_()
    attack = ATTACKS.make("pil(weight=0.25)")
    assert isinstance(attack, Pil)
    objective = attack.objective(network, images.floats(), images.labels)
    losses = objective(torch.rand(64, 3, 16, 16), 0)
    assert losses.shape == (64,)
    assert torch.allclose(losses, torch.full((64,), 0.25 * math.log(4)), atol=1e-6)


def test_the_surrogate_is_the_product_of_two_matrices_trained_for_thirty_epochs() -> None:
    attack = ATTACKS.make("pil")
    assert isinstance(attack, Pil)
    recipe = attack.recipe.recipe
    assert recipe.rate(0) == 0.003
    assert recipe.rate(15) == pytest.approx(0.0015)
    assert recipe.batch_for(50_000) == 512
    network = ARCHITECTURES.make(attack.surrogate).build(10, 32, 0)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert shapes == {"body.1.weight": (10, 3072), "head.weight": (10, 10)}
    drawn = network.state_dict()["body.1.weight"]
    assert float(drawn.abs().max()) == pytest.approx(math.sqrt(1 / 3072), rel=1e-3)


def test_the_noise_alone_tells_the_classes_apart() -> None:
    images = toy(1000, 16, 4, signal=4.0)
    attack = ATTACKS.make("pil(surrogate_epochs=3)")
    assert isinstance(attack, Pil)
    network = train_surrogate(attack.recipe, images, STREAM, torch.device("cpu"))
    context = AttackContext(STREAM, surrogates={"pil30": freeze(network)})
    poisoned = attack.poison(images, context).pixels
    assert held_out_accuracy(images.pixels, poisoned, images.labels) > 0.95


def test_what_is_no_weight_is_refused() -> None:
    with pytest.raises(SpecError, match=r"weight is 1\.5, allowed are 0 to 1"):
        ATTACKS.make("pil(weight=1.5)")


@pytest.mark.slow
def test_pil_bites() -> None:
    """Measured once, seed 0, at twice its budget: 0.12, noise of that size 0.72."""
    train = photo_digits().train
    attack = ATTACKS.make("pil(budget=2x)")
    assert isinstance(attack, Pil)
    network = train_surrogate(attack.recipe, train, STREAM, torch.device("cpu"))
    context = AttackContext(STREAM, surrogates={"pil30": freeze(network)})
    accuracy = victim_accuracy(train.with_pixels(attack.poison(train, context).pixels))
    assert accuracy < reference_accuracy("noise(budget=16/255)") - 0.25
