"""The diffusion process: schedule, posterior, solvers, small predictors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from raygrid.core.images import Images, to_uint8
from raygrid.defenses import DEFENSES
from raygrid.defenses.avatar import Avatar
from raygrid.nn.diffusion import (
    SOLVERS,
    DenoiserPlan,
    Predictor,
    diffuse,
    fitted,
    noise_error,
    predictor,
    unet,
)
from raygrid.nn.diffusion.process import kept_after
from raygrid.trials.artifacts import purify
from tests.defenses.toys import fit_context
from tests.nn.toys import CPU, rng


def exact_noise(mean: float, sd: float) -> Callable[[Tensor, int], Tensor]:
    """The exact noise predictor for images whose values are N(mean, sd^2)."""

    def noise(x: torch.Tensor, i: int) -> torch.Tensor:
        kept = kept_after(i + 1)
        total = kept * sd**2 + 1 - kept
        return (1 - kept) ** 0.5 * (x - kept**0.5 * mean) / total

    return noise


@pytest.mark.parametrize(
    ("steps", "kept"), [(60, 0.95956), (75, 0.9391), (100, 0.8970), (125, 0.8462), (150, 0.7883)]
)
def test_the_schedule_is_the_usual_one(steps: int, kept: float) -> None:
    assert kept_after(steps) == pytest.approx(kept, abs=5e-5)
    time = steps / 1000
    assert math.exp(-9.95 * time**2 - 0.1 * time) == pytest.approx(kept, abs=2e-3)


# Ancestral sampling clips to [-1, 1], so that its images must lie well inside.
@pytest.mark.parametrize(
    ("solver", "mean", "sd", "steps", "stride", "pull"),
    [
        ("euler", 0.2, 0.5, 60, 1, 0.8558),
        ("euler", 0.2, 0.5, 60, 4, 0.8558),
        ("euler", 0.2, 0.5, 100, 1, 0.6853),
        ("ancestral", 0.1, 0.25, 60, 1, 0.5973),
        ("ancestral", 0.1, 0.25, 60, 4, 0.5973),
        ("ancestral", 0.1, 0.25, 100, 1, 0.3525),
    ],
)
def test_an_exact_predictor_gives_the_exact_posterior(
    solver: str, mean: float, sd: float, steps: int, stride: int, pull: float
) -> None:
    """What comes out of x0 has mean mean + pull * (x0 - mean), and the distribution is kept."""
    kept = kept_after(steps)
    assert kept * sd**2 / (kept * sd**2 + 1 - kept) == pytest.approx(pull, abs=1e-4)
    solve, draws, noise = SOLVERS[solver], rng(), exact_noise(mean, sd)
    start = torch.full((40_000,), mean + 0.8 * sd)
    out = solve(diffuse(start, steps, draws), noise, steps, draws, stride)
    assert float(out.mean() - mean) / (0.8 * sd) == pytest.approx(pull, abs=0.015)
    start = mean + sd * torch.randn(40_000, generator=draws)
    out = solve(diffuse(start, steps, draws), noise, steps, draws, stride)
    assert out.mean() == pytest.approx(mean, abs=0.015)
    assert out.std() == pytest.approx(sd, abs=0.015)


class Steady:
    """Finds the same noise in everything, and remembers when it was asked."""

    def __init__(self, found: float) -> None:
        self.found = found
        self.asked: list[int] = []

    def __call__(self, x: Tensor, i: int) -> Tensor:
        self.asked.append(i)
        return torch.full_like(x, self.found)


def test_an_ancestral_step_is_the_posterior_of_the_clipped_image() -> None:
    """Ho et al. 2020, equations 6 and 7, with the image that the noise implies kept in [-1, 1]."""
    x, noise = torch.linspace(-2, 2, 9, dtype=torch.float64), Steady(0.5)
    kept, before = kept_after(2), kept_after(1)
    beta = 1 - kept / before
    image = ((x - (1 - kept) ** 0.5 * 0.5) / kept**0.5).clamp(-1, 1)
    mean = before**0.5 * beta / (1 - kept) * image
    mean += (1 - beta) ** 0.5 * (1 - before) / (1 - kept) * x
    drawn = mean + (beta * (1 - before) / (1 - kept)) ** 0.5 * torch.randn(
        9, generator=rng(), dtype=torch.float64
    )
    last = ((drawn - (1 - before) ** 0.5 * 0.5) / before**0.5).clamp(-1, 1)
    assert torch.allclose(SOLVERS["ancestral"](x, noise, 2, rng(), 1), last)
    assert noise.asked == [1, 0]


def test_an_euler_step_goes_down_the_reverse_equation() -> None:
    """Of 2 / 1000 in one step: the drift of Song et al. 2021, and noise in the last step as well.

    It ends at 1e-5, so that it is a little shorter than its width.
    """
    x, noise = torch.linspace(-2, 2, 9, dtype=torch.float64), Steady(0.5)
    time, width = 0.002, 0.002 - 1e-5
    beta = 0.1 + 19.9 * time
    score = -0.5 / (1 - math.exp(-9.95 * time**2 - 0.1 * time)) ** 0.5
    drawn = torch.randn(9, generator=rng(), dtype=torch.float64)
    expected = x + (0.5 * beta * x + beta * score) * width + (beta * width) ** 0.5 * drawn
    assert torch.allclose(SOLVERS["euler"](x, noise, 2, rng(), 2), expected)
    assert noise.asked == [1]


@pytest.mark.parametrize("solver", ["euler", "ancestral"])
def test_a_solver_asks_at_every_step_down_to_the_first(solver: str) -> None:
    for stride, asked in ((1, [6, 5, 4, 3, 2, 1, 0]), (3, [6, 3, 0])):
        noise = Steady(0.0)
        SOLVERS[solver](torch.zeros(1), noise, 7, rng(), stride)
        assert noise.asked == asked


def test_every_image_gets_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that go through in different parts."""
    monkeypatch.setattr(Avatar, "predictor", lambda *_: Predictor(exact_noise(0.1, 0.25), 8))
    images = Images(torch.full((510, 3, 8, 8), 160, dtype=torch.uint8), torch.zeros(510).long(), 1)
    after = purify(DEFENSES.make("avatar"), images, fit_context()).pixels
    assert len(torch.unique(after.flatten(1), dim=0)) == 510


def test_a_predictor_that_knows_nothing_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact one of Gaussian images has the error that it is measured by, no more."""
    draws = torch.randn(400, 3, 8, 8, generator=rng()) * 0.25 + 0.1
    images = Images(to_uint8((draws + 1) / 2), torch.zeros(400).long(), 1)
    x = 2 * images.floats() - 1
    exact = Predictor(exact_noise(0.1, 0.25), 8)
    blind = Predictor(lambda x, i: torch.zeros_like(x), 8)
    assert noise_error(exact, x, 60, rng(1)) == pytest.approx(1, abs=0.02)
    assert noise_error(blind, x, 60, rng(1)) == pytest.approx(1 / 0.5973, rel=0.03)
    for found, marks in ((blind, 1), (Predictor(Oracle(x), 8), 0)):
        monkeypatch.setattr(Avatar, "predictor", lambda *_, p=found: p)
        context = fit_context()
        purify(DEFENSES.make("avatar"), images, context)
        assert len(context.marks) == marks
    assert noise_error(Predictor(Oracle(x), 8), x, 60, rng(1)) < 1e-6


class Oracle:
    """Knows the very images, and so the noise."""

    def __init__(self, x: Tensor) -> None:
        self.known = x

    def __call__(self, x: Tensor, i: int) -> Tensor:
        kept = kept_after(i + 1)
        nearest = torch.cdist(x.flatten(1), kept**0.5 * self.known.flatten(1)).argmin(1)
        out: Tensor = (x - kept**0.5 * self.known[nearest]) / (1 - kept) ** 0.5
        return out


@pytest.mark.parametrize("solver", ["euler", "ancestral"])
def test_avatar_keeps_images_in_scale(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exact predictor a gray image is pulled to the mean of the model's images."""
    monkeypatch.setattr(Avatar, "predictor", lambda *_: Predictor(exact_noise(0.1, 0.25), 8))
    images = Images(torch.full((300, 3, 8, 8), 160, dtype=torch.uint8), torch.zeros(300).long(), 1)
    avatar = DEFENSES.make(f"avatar(solver={solver})")
    one, same, other = (purify(avatar, images, fit_context(s)) for s in (0, 0, 1))
    assert torch.equal(one.pixels, same.pixels)
    assert not torch.equal(one.pixels, other.pixels)
    expected = 0.1 + 0.5973 * (2 * 160 / 255 - 1 - 0.1)
    assert 2 * one.floats().mean() - 1 == pytest.approx(expected, abs=0.01)


def test_what_is_not_centered_is_off_the_models_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """APBench's scaling: the exact predictor of [-1, 1] takes a gray of 0 to 2 for too bright."""
    monkeypatch.setattr(Avatar, "predictor", lambda *_: Predictor(exact_noise(0.1, 0.25), 8))
    images = Images(torch.full((300, 3, 8, 8), 160, dtype=torch.uint8), torch.zeros(300).long(), 1)
    after = purify(DEFENSES.make("avatar(centered=false)"), images, fit_context())
    expected = 0.1 + 0.5973 * (2 * 160 / 255 - 0.1)
    assert 2 * after.floats().mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "millions", "cost"),
    [("tiny", 0.268, 0.062), ("xs", 1.114, 0.283), ("s", 8.952, 1.599), ("m", 35.747, 6.222)],
)
def test_denoisers_have_their_sizes(size: str, millions: float, cost: float) -> None:
    with torch.device("meta"):
        network = unet(size, 32).requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 32, 32), torch.zeros(1).long())
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)
    assert counter.get_total_flops() / 2e9 == pytest.approx(cost, abs=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_fitted_denoiser_knows_noise_from_images() -> None:
    """On flat images it comes near the exact predictor: the mean of an image tells its gray."""
    grays = torch.arange(64).view(-1, 1, 1, 1).expand(64, 3, 8, 8) * 4
    images = Images(grays.to(torch.uint8).contiguous(), torch.zeros(64).long(), 1)
    plan = DenoiserPlan("xs", 300, 150, True)
    noise = predictor(plan, fitted(plan, images, fit_context()), 8, CPU).noise
    x = 2 * images.floats() - 1
    draws = torch.randn(x.shape, generator=rng())
    kept = kept_after(100)
    found = noise(kept**0.5 * x + (1 - kept) ** 0.5 * draws, 99)
    assert (found - draws).square().mean() < 0.15
