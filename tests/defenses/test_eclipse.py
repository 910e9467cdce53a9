"""ECLIPSE beside the rule of its code: wxldragon/ECLIPSE@1eb709f."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from raygrid.core import draws
from raygrid.core.errors import SpecError
from raygrid.core.seeds import Stream
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import FitContext
from raygrid.defenses.eclipse import Eclipse
from raygrid.nn.augment.color import grayscale
from raygrid.nn.diffusion import DenoiserPlan, fitted
from raygrid.nn.diffusion.process import kept_after
from tests.conftest import toy
from tests.victims import photo_digits, poisoned, victim_accuracy

CPU = torch.device("cpu")


def cosine_share(step: int, steps: int) -> float:
    """What is left of an image's variance on a cosine schedule (Nichol and Dhariwal 2021)."""

    def height(t: int) -> float:
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    return height(step) / height(0)


def test_its_noise_is_that_of_100_of_4000_cosine_steps() -> None:
    theirs = math.sqrt(1 - cosine_share(100, 4000))
    ours = math.sqrt(1 - kept_after(Eclipse().steps))
    assert theirs == pytest.approx(0.0499, abs=1e-4)
    assert ours == pytest.approx(theirs, rel=0.01)
    assert abs(math.sqrt(1 - kept_after(Eclipse().steps - 1)) - theirs) > 0.003


def test_training_images_are_gray_or_not_then_noisy_and_cut_off() -> None:
    x = toy(64, 16).floats()
    found, _ = Eclipse().augment(x, torch.zeros(64), torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    gray = draws.rand((64, 1, 1, 1), rng, CPU) < 0.4
    seen = torch.where(gray, grayscale(x), x)
    noisy = (seen + 0.05 * draws.randn(x.shape, rng, CPU)).clamp(0, 1)
    assert 10 < int(gray.sum()) < 40
    expected = (noisy * 255).byte().float() / 255
    assert float((found - expected).abs().max()) <= 1 / 255 + 1e-6
    assert float(((found - expected).abs() > 1e-6).float().mean()) < 0.01, "within a thousandth"


def test_the_predictor_is_fitted_to_few_images() -> None:
    plan = Eclipse().plan
    assert (plan.few, plan.updates, plan.among(50_000), plan.among(500)) == (
        2000,
        250_000,
        2000,
        500,
    )
    assert plan.recipe(plan.among(50_000)).epochs == round(250_000 / (2000 // 128))
    assert plan.resolved()["few"] == 2000
    every = replace(plan, few=0)
    assert "few" not in every.resolved(), "keys of the predictors that there are"
    assert plan.cost(50_000) == pytest.approx(every.cost(50_000), rel=0.1), "as many updates"
    assert DenoiserPlan("s", 100_000, 150) == DEFENSES.make("avatar").plan  # type: ignore[attr-defined]


def test_what_is_out_of_range_is_refused() -> None:
    for part in ("few=-1", "gray=1.5", "noise=2.0"):
        with pytest.raises(SpecError, match="allowed are"):
            DEFENSES.make(f"eclipse({part})")


@pytest.mark.slow
def test_it_gives_accuracy_back_where_one_color_tells_a_class() -> None:
    """Measured once, seed 0: 0.18 to 0.26; the predictor has had 120 updates on 500 images."""
    part = "eclipse(size=tiny, updates=120, stride=4, few=500)"
    eclipse = DEFENSES.make(part)
    assert eclipse.prior is not None
    clean, train = photo_digits().train, poisoned("regions(n=1, budget=16/255)")
    seen_by = FitContext(Stream("prior"), CPU, augmentation="crop")
    weights = fitted(eclipse.prior.plan, clean, seen_by)
    fit_context = FitContext(Stream("purify"), CPU, prior=weights, augmentation="crop")
    purified = eclipse.purify(train, fit_context)
    assert not fit_context.marks, "the predictor knows nothing of such images"
    assert victim_accuracy(purified, part) > victim_accuracy(train, "standard") + 0.03
