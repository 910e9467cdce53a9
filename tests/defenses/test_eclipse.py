"""ECLIPSE beside the rule of its code: wxldragon/ECLIPSE@1eb709f."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from raygrid.core import draws
from raygrid.core.errors import SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import FitContext
from raygrid.defenses.eclipse import Eclipse
from raygrid.nn.augment.color import grayscale
from raygrid.nn.diffusion import DenoiserPlan, Prior, fitted, of_unet
from raygrid.nn.diffusion.process import kept_after, kept_shares
from raygrid.trials.resolve import resolve
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


def test_its_cosine_schedule_is_that_of_its_code() -> None:
    """betas_for_alpha_bar: no step takes more than 0.999, which only the last one would."""
    shares = kept_shares("cosine")
    assert shares.shape == (4000,)
    for step in (1, 2, 100, 2500, 3999):
        assert float(shares[step - 1]) == pytest.approx(cosine_share(step, 4000), rel=1e-9)
    assert float(shares[3999]) == pytest.approx(0.001 * cosine_share(3999, 4000), rel=1e-9)


def network_of_noise(x: Tensor, labels: Tensor) -> Tensor:
    """Some function of images and of labels from 0 to 1,000 that looks for noise."""
    share = (labels / 1000).view(-1, 1, 1, 1)
    return (0.6 + 4 * share) * (x - nn.functional.avg_pool2d(x, 3, 1, 1)) + 0.3 * x.roll(1, 3)


def purified_by_the_code(x: Tensor, rng: torch.Generator) -> Tensor:
    """diffusion_purification: p_sample a hundred times, with the least of the variances allowed.

    The network is told a quarter of the step's number (rescale_timesteps).
    """
    shares = [1.0, *(cosine_share(step, 4000) for step in range(1, 101))]
    z = (2 * x - 1) * math.sqrt(shares[100])
    z = z + math.sqrt(1 - shares[100]) * torch.randn(x.shape, generator=rng)
    for i in reversed(range(100)):
        kept, before = shares[i + 1], shares[i]
        beta = 1 - kept / before
        found = network_of_noise(z, torch.full((len(z),), i * 1000 / 4000))
        image = (z / math.sqrt(kept) - math.sqrt(1 / kept - 1) * found).clamp(-1, 1)
        mean = beta * math.sqrt(before) / (1 - kept) * image
        mean = mean + (1 - before) * math.sqrt(1 - beta) / (1 - kept) * z
        sd = math.sqrt(beta * (1 - before) / (1 - kept))
        z = mean + (sd * torch.randn(x.shape, generator=rng) if i else 0)
    return (z + 1) * 0.5


def test_a_hundred_cosine_steps_are_those_of_its_code() -> None:
    images = toy(8, 16)
    eclipse = DEFENSES.make("eclipse(schedule=cosine, steps=100)")
    assert isinstance(eclipse, Eclipse)

    class Network(nn.Module):
        def forward(self, x: Tensor, labels: Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=network_of_noise(x, labels))

    context = FitContext(Stream("purify", ("toy", 0)), CPU)
    found = of_unet(Network(), 16, schedule=eclipse.plan.schedule)
    ours = eclipse.denoised(images, found, context).pixels
    rng = Stream("purify", ("toy", 0)).generator("denoise", 0)
    theirs = purified_by_the_code(images.floats(), rng)
    change = (ours.int() - to_uint8(theirs).int()).abs()
    assert int(change.max()) <= 1
    assert float(change.float().mean()) < 1e-3, "values between two levels are rounded differently"
    assert float((ours.int() - images.pixels.int()).abs().float().mean()) > 2
    # ToPILImage cuts off to whole levels; the last image is clipped, so nothing wraps around.
    assert float(theirs.min()) >= -1e-6
    assert float(theirs.max()) <= 1 + 1e-6


def test_a_predictor_is_fitted_to_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, of images that are all black, it is shown what is left of them, and when."""
    plan, seen = replace(Eclipse(schedule="cosine", steps=100).plan, size="tiny", updates=1), []

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor, labels: Tensor) -> SimpleNamespace:
            seen.append((x.detach(), labels))
            return SimpleNamespace(sample=x * self.weight)

    monkeypatch.setattr("raygrid.nn.diffusion.denoisers.unet", lambda size, side: Network())
    black = Images(torch.zeros(128, 3, 16, 16, dtype=torch.uint8), torch.zeros(128).long(), 2)
    fitted(plan, black, FitContext(Stream("prior"), CPU))
    ((noisy, labels),) = seen
    steps = (4 * labels).round().long()
    assert torch.equal(steps / 4, labels)
    assert 100 < int(steps.max()) < 150, "its horizon"
    shares = torch.tensor([cosine_share(int(step) + 1, 4000) for step in steps])
    means, sds = noisy.mean((1, 2, 3)), noisy.std((1, 2, 3))
    assert float((means + shares.sqrt()).abs().max()) < 0.02
    assert float((sds - (1 - shares).sqrt()).abs().max()) < 0.01
    assert plan.resolved()["schedule"] == "cosine"
    assert "schedule" not in Eclipse().resolved(), "keys of the results that there are"
    assert "schedule" not in Eclipse().plan.resolved()


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


def test_what_its_predictor_has_seen_has_one_name() -> None:
    named = DEFENSES.make("eclipse(diffusion_data=poisoned)")
    assert str(named.part()) == "eclipse(diffusion_data=poisoned)"
    assert DEFENSES.make('eclipse(diffusion_data="")') == named
    assert named.resolved()["diffusion_data"] == "poisoned"
    assert str(DEFENSES.make("eclipse(diffusion_data=clean_train)").part()) == "eclipse"


@pytest.mark.parametrize(
    ("dataset", "seen", "knows"),
    [
        ("cifar10", "cifar10", True),
        ("cifar10", "cifar100", False),
        ("photo_digits_last", "photo_digits", True),
        ("photo_digits", "photo_digits_last", True),
        ("photo_digits_last", "photo_digits_first", False),
    ],
)
@pytest.mark.parametrize("name", ["avatar", "eclipse"])
@pytest.mark.parametrize("more", ["", "checkpoint=some/where, "])
def test_clean_images_of_the_trial_itself_have_one_name(
    name: str, dataset: str, seen: str, knows: bool, more: str
) -> None:
    """By its own name a dataset would pass for other data, and an oracle for a defense."""
    where = f"{dataset}/lsp/{name}({{}})/resnet18/supervised/apbench/0"
    trial = resolve(where.format(f"{more}diffusion_data={seen}"), None)
    said = f"{name}(diffusion_data={seen}) has seen the clean images of {dataset} itself: say "
    assert (trial.skip() or "").startswith(said) == knows
    if not more:
        clean = resolve(where.format("diffusion_data=clean_train"), None)
        assert not (clean.skip() or "").startswith(name)


def test_what_is_out_of_range_is_refused() -> None:
    for part in ("few=-1", "gray=1.5", "noise=2.0", "schedule=cosine, steps=4001"):
        with pytest.raises(SpecError, match="allowed are"):
            DEFENSES.make(f"eclipse({part})")
    with pytest.raises(SpecError, match="schedule is cosine, which has no solver euler"):
        DEFENSES.make("eclipse(schedule=cosine, solver=euler)")
    with pytest.raises(SpecError, match="which no known checkpoint was trained on"):
        DEFENSES.make("eclipse(schedule=cosine, checkpoint=a/b, diffusion_data=cifar10)")


@pytest.mark.slow
def test_it_gives_accuracy_back_where_one_color_tells_a_class() -> None:
    """Measured once, seed 0: 0.18 to 0.26; the predictor has had 120 updates on 500 images."""
    part = "eclipse(size=tiny, updates=120, stride=4, few=500)"
    eclipse = DEFENSES.make(part)
    assert isinstance(eclipse.prior, Prior)
    clean, train = photo_digits().train, poisoned("regions(n=1, budget=16/255)")
    seen_by = FitContext(Stream("prior"), CPU, augmentation="crop")
    weights = fitted(eclipse.prior.plan, clean, seen_by)
    fit_context = FitContext(Stream("purify"), CPU, prior=weights, augmentation="crop")
    purified = eclipse.purify(train, fit_context)
    assert not fit_context.marks, "the predictor knows nothing of such images"
    assert victim_accuracy(purified, part) > victim_accuracy(train, "standard") + 0.03
