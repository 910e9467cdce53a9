"""DUNE beside the rule of its code: wxldragon/DUNE@a35cbb6, generate_unlearnable.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.surrogate_training import train_surrogate
from raygrid.attacks.common.swarm import Swarm, uniform_similarity, unnatural
from raygrid.attacks.dune import Dune
from raygrid.core.enforcement import size_of_change
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.engine.grid import plan
from raygrid.nn.networks import freeze
from tests.attacks.toys import attack_of
from tests.conftest import seeded
from tests.victims import photo_digits, reference_accuracy, victim_accuracy

EPS = 8 / 255
PART = "dune(surrogate=small_cnn, batch_size=16, surrogate_epochs=2, checkpoints=2"
SWARM = "particles=4, iterations=4"


def members() -> nn.ModuleList:
    kind = ARCHITECTURES.make("small_cnn")
    networks = nn.ModuleList(kind.build(4, 16, seed) for seed in (1, 2))
    return freeze(networks)


def context(networks: nn.ModuleList) -> AttackContext:
    return AttackContext(Stream("poison", ("toy", "dune", 0)), surrogates={"dune80": networks})


def ensemble(networks: nn.ModuleList, images: Images, steps: int) -> Tensor:
    """The spatial branch: the gradients of all checkpoints averaged, signed steps."""
    x, targets = images.floats(), (images.labels + 3) % 4
    z = x
    for _ in range(steps):
        gradients = []
        for network in networks:
            z = z.detach().requires_grad_()
            loss = nn.functional.cross_entropy(network(z), targets)
            gradients.append(torch.autograd.grad(loss, z)[0])
        moved = z.detach() - sum(gradients).div(2).sign() * 0.5 / 255  # type: ignore[union-attr]
        z = torch.min(torch.max(moved, x - EPS), x + EPS).clamp(0, 1)
    return z


def test_noise_is_that_of_the_code_on_the_same_checkpoints(images: Images) -> None:
    networks = members()
    part = (
        "dune(surrogate=small_cnn, batch_size=16, color=false, surrogate_epochs=2, checkpoints=2)"
    )
    found = attack_of(Dune, part).poison(images, context(networks)).pixels
    expected = to_uint8(ensemble(networks, images, 30))
    assert float((found != expected).float().mean()) < 2e-3
    assert int((found.int() - expected.int()).abs().max()) <= 2


def swarm_of_the_code(position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """color_shift_optimization on a bowl: the best of all is a view of the moving positions."""
    own, own_values = np.copy(position), np.full(len(position), np.inf)
    best, best_value = np.zeros(3), float("inf")
    for _ in range(6):
        for j in range(len(position)):
            value = bowl(position[j])
            if value < own_values[j]:
                own_values[j] = value
                own[j] = position[j]
            if value < best_value:
                best_value = value
                best = position[j]
        velocity = 0.5 * velocity + 0.3 * (own - position) + 0.3 * (best - position)
        position += velocity
    return best


def bowl(place: np.ndarray | Tensor) -> float:
    center = np.array([0.05, -0.02, 0.08])
    return float(((np.asarray(place) - center) ** 2).sum())


def test_the_swarm_is_the_one_of_the_code_its_moving_best_included() -> None:
    generator = seeded(4)
    position, velocity = (
        (torch.rand(10, 3, generator=generator, dtype=torch.float64).numpy() * 2 - 1) * scale
        for scale in (0.1, 0.01)
    )
    expected = swarm_of_the_code(position, velocity)
    found = Swarm(10, 6, 0.1, aliased=True)(bowl, 3, seeded(4))
    assert np.abs(found.numpy() - expected).max() < 1e-12
    seen: list[float] = []

    def noted(place: Tensor) -> float:
        seen.append(bowl(place))
        return seen[-1]

    best = Swarm(10, 6, 0.1, aliased=False)(noted, 3, seeded(4))
    assert bowl(best) == min(seen)
    assert bowl(found) != min(seen), "where the particle has moved to"


def structural_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """scikit-image's with its defaults: uniform windows of 7, cropped by 3, sample covariance."""
    norm, out = 49 / 48, []
    for x, y in zip(a, b, strict=True):
        ux, uy = uniform_filter(x, 7), uniform_filter(y, 7)
        vx = norm * (uniform_filter(x * x, 7) - ux * ux)
        vy = norm * (uniform_filter(y * y, 7) - uy * uy)
        vxy = norm * (uniform_filter(x * y, 7) - ux * uy)
        top = (2 * ux * uy + 1e-4) * (2 * vxy + 9e-4)
        out.append((top / ((ux**2 + uy**2 + 1e-4) * (vx + vy + 9e-4)))[3:-3, 3:-3].mean())
    return float(np.mean(out))


def test_similarity_is_the_one_of_scikit_image() -> None:
    a = torch.rand(3, 3, 20, 18, generator=seeded(), dtype=torch.float64)
    b = (a + 0.2 * torch.rand(3, 3, 20, 18, generator=seeded(1), dtype=torch.float64)).clamp(0, 1)
    pairs = zip(a.numpy(), b.numpy(), strict=True)
    expected = [structural_similarity(x, y) for x, y in pairs]
    assert uniform_similarity(a, b).tolist() == pytest.approx(expected, abs=1e-9)


def test_what_looks_changed_is_counted_from_20_decibels_and_four_fifths() -> None:
    gray = torch.full((1, 3, 16, 16), 0.5)
    textured = gray + 0.1 * torch.randn(1, 3, 16, 16, generator=seeded())
    for shift, short in ((0.05, 0.0), (0.1, 0.0), (0.2, 20 + 20 * np.log10(0.2))):
        found = unnatural(textured + shift, textured, 20.0, 0.0)
        assert float(found) == pytest.approx(short, abs=1e-3)
    assert float(unnatural(textured, textured, 20.0, 0.8)) == 0
    unlike = unnatural(gray, textured, -100.0, 0.8)
    assert float(unlike) == pytest.approx(0.8 - float(uniform_similarity(gray, textured)), abs=1e-5)


def test_each_class_has_one_shift_on_top_of_its_noise(images: Images) -> None:
    networks = members()
    colored = attack_of(Dune, f"{PART}, {SWARM}, steps=3, spatial=0.0)")
    pixels = colored.poison(images, context(networks)).pixels.float()
    change = (pixels - images.pixels.float()).flatten(2)
    inside = ((images.pixels > 60) & (images.pixels < 195)).flatten(2)
    for label in range(4):
        for channel in range(3):
            mine = images.labels == label
            found = change[mine, channel][inside[mine, channel]]
            assert float(found.max() - found.min()) <= 1
    assert float(change.abs().max()) > 8, "beyond 8/255"


def test_the_budget_holds_the_sum_of_both(images: Images) -> None:
    networks = members()
    released, held = (
        attack_of(Dune, f"{PART}, {SWARM}, steps=20{budget})")
        .poison(images, context(networks))
        .pixels
        for budget in ("", ", budget=8/255")
    )
    assert float(size_of_change(images.pixels, released, "linf").max()) > EPS + 2 / 255
    change = released.int() - images.pixels.int()
    assert torch.equal(held.int() - images.pixels.int(), change.clamp(-8, 8))


def test_a_shift_that_leads_back_is_skipped() -> None:
    spec = "photo_digits/dune(shift=10)/standard/small_cnn/supervised/quick/0"
    (skip,) = plan([spec], None).skips
    assert "shift=10 leads back to each of 10 classes" in str(skip)


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "drop"), [("", 0.25), (", budget=16/255", 0.1)])
def test_dune_bites(budget: str, drop: float) -> None:
    """Quick settings, whose noise has 16/255, as released and with the sum held to that.

    Measured once, seed 0: 0.11 and 0.15, noise of that size 0.72.
    """
    train = photo_digits().train
    quick = ", ".join(f"{k}={v}" for k, v in Dune.quick.items())
    attack = attack_of(Dune, f"dune({quick}{budget})")
    (recipe,) = attack.needs()
    networks = train_surrogate(recipe, train, Stream("surrogate"), torch.device("cpu"))
    assert isinstance(networks, nn.ModuleList)
    place = replace(context(networks), facts={})
    accuracy = victim_accuracy(train.with_pixels(attack.poison(train, place).pixels))
    assert accuracy < reference_accuracy("noise(budget=16/255)") - drop
