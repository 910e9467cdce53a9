"""Diffusion: the process against closed forms, networks and checkpoints against their sources."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.core.speed import GPU
from raygrid.defenses import DEFENSES
from raygrid.defenses.avatar import Avatar, at_side
from raygrid.engine.grid import plan
from raygrid.nn.context import FitContext
from raygrid.nn.diffusion import (
    SOLVERS,
    DenoiserPlan,
    Predictor,
    content,
    diffuse,
    fault,
    files,
    fitted,
    guided,
    loaded,
    noise_error,
    predictor,
    unet,
)
from raygrid.nn.diffusion.ddpmpp import DDPMPP, LAYOUTS
from raygrid.nn.diffusion.files import WeightsSource
from raygrid.nn.diffusion.guided import GUIDED
from raygrid.nn.diffusion.process import kept_after
from raygrid.nn.diffusion.unets import DiffusionUNet, Family, Layout
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import Artifact, DenoiserArtifact, purify
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial
from tests.conftest import toy
from tests.defenses.toys import fit_context

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return Stream("test", (seed,)).generator()


# --- the process ---------------------------------------------------------------------------------


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


# --- published networks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "layout", "side", "width", "size"),
    [
        (DDPMPP, LAYOUTS[0], 32, 128, 106_632_579),  # `cifar10_ddpmpp_deep_continuous`
        (GUIDED, guided.LAYOUTS[0], 256, 256, 552_814_086),  # `256x256_diffusion_uncond`
    ],
)
def test_networks_have_the_sizes_of_the_published_ones(
    family: Family, layout: Layout, side: int, width: int, size: int
) -> None:
    """Counted in their authors' own classes."""
    with torch.device("meta"):
        network = DiffusionUNet(family, layout, side, width)
    assert sum(p.numel() for p in network.parameters()) == size


def tiny(layout: Layout = LAYOUTS[2], width: int = 4) -> DiffusionUNet:
    """A small network of score-SDE."""
    return DiffusionUNet(DDPMPP, layout, 32, width)


def filled(network: DiffusionUNet) -> DiffusionUNet:
    """Weights that anyone can draw again, in the order of the parameters."""
    draws = torch.Generator().manual_seed(1)
    for p in network.parameters():
        fan = len(p) if p.dim() == 2 and network.family is DDPMPP else p[0].numel()
        scale = 1.5 / math.sqrt(fan) if p.dim() > 1 else 1.0
        p.data = scale * torch.randn(p.shape, generator=draws)
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "label", "first", "second", "mean"),
    [
        (
            DiffusionUNet(DDPMPP, LAYOUTS[2], 32, 8),
            999 * 60 / 1000,
            [2.4005, -2.15057, -0.8454],
            [1.76807, -3.18124, -0.26633],
            -0.463195,
        ),
        (
            DiffusionUNet(GUIDED, Layout((1, 2, 2), 1, (16, 8)), 32, 64),
            59,
            [2.56175, 0.67399, 1.66878],
            [1.82284, -0.36019, 1.34573],
            1.7256,
        ),
    ],
    ids=["score-SDE", "guided-diffusion"],
)
def test_networks_compute_what_their_authors_classes_do(
    network: DiffusionUNet, label: float, first: list[float], second: list[float], mean: float
) -> None:
    """The values are those of `NCSNpp` at yang-song/score_sde_pytorch@cb1f359 and of `UNetModel` as
    hmdolatabadi/AVATAR has it, with the same draws; without attention they are 1 and 1.8 off."""
    filled(network)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    found = network(x, torch.full((2,), label))
    assert found[0, :, 5, 7].tolist() == pytest.approx(first, abs=1e-4)
    assert found[1, :, 20, 31].tolist() == pytest.approx(second, abs=1e-4)
    assert float(found.mean()) == pytest.approx(mean, abs=1e-4)


def score_sde(path: Path, network: DiffusionUNet, **changed: Any) -> str:
    """A file as score-SDE writes it: the last weights, and their averages in a list."""
    last = {f"module.all_modules.{k}": torch.zeros_like(v) for k, v in network.state_dict().items()}
    means = {"decay": 0.9999, "num_updates": 7, "shadow_params": list(network.parameters())}
    means["shadow_params"] = [p.detach().clone() for p in network.parameters()]
    torch.save({"optimizer": {}, "model": last, "ema": means, "step": 7, **changed}, path)
    return str(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_of_score_sde_gives_its_averaged_network(
    layout: Layout, tmp_path: Path
) -> None:
    network = filled(tiny(layout))
    noise = loaded(score_sde(tmp_path / "checkpoint_8.pth", network), 32, CPU).noise
    x = torch.randn(2, 3, 32, 32, generator=rng())
    with torch.no_grad():
        expected = network(x, torch.full((2,), 999 * 0.06))
    assert torch.equal(noise(x, 59), expected)
    assert not torch.equal(noise(x, 60), expected)


def test_avatar_purifies_with_a_checkpoint_of_score_sde(tmp_path: Path) -> None:
    """Without diffusers; the file counts by its bytes."""
    first = score_sde(tmp_path / "one.pth", filled(tiny()))
    images = toy(4, 32)
    avatar = DEFENSES.make(f"avatar(checkpoint={first}, diffusion_data=clean_train, steps=2)")
    after = purify(avatar, images, fit_context())
    assert not torch.equal(after.pixels, images.pixels)
    assert avatar.prior is None
    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes(Path(first).read_bytes())
    other = score_sde(tmp_path / "two.pth", tiny())
    assert content(first) == content(str(moved)) != content(other)
    assert (content(""), content("google/ddpm-cifar10-32")) == ("", "google/ddpm-cifar10-32")
    text = "avatar(checkpoint={}, diffusion_data=clean_train, steps=2)"
    same, changed = (DEFENSES.make(text.format(path)) for path in (moved, other))
    assert avatar.resolved() == same.resolved() != changed.resolved()


def test_files_that_are_none_of_score_sde_are_one_clear_error(tmp_path: Path) -> None:
    def says(path: str, side: int = 32) -> str:
        """Before anything runs, and again where it is loaded."""
        with pytest.raises(DataError) as caught:
            loaded(path, side, CPU)
        assert fault(path, side) == str(caught.value)
        return str(caught.value)

    network = tiny()
    good = score_sde(tmp_path / "good.pth", network)
    wrong = [torch.zeros(3) for _ in network.parameters()]
    missing = {"shadow_params": list(network.parameters())[:-1]}
    assert "no network of score-SDE for 32 pixels that is known here: its 440 arrays" in says(
        score_sde(tmp_path / "wrong.pth", network, ema={"shadow_params": wrong})
    )
    assert "its 439 arrays" in says(score_sde(tmp_path / "short.pth", network, ema=missing))
    assert "no averaged weights" in says(score_sde(tmp_path / "plain.pth", network, ema=None))
    assert "no network of score-SDE for 64 pixels" in says(good, 64)
    torn = tmp_path / "torn.pth"
    torn.write_bytes(Path(good).read_bytes()[:1000])
    assert "cannot be loaded" in says(str(torn))
    coded = tmp_path / "coded.pth"
    torch.save({"ema": Path("code")}, coded)
    assert "cannot be loaded" in says(str(coded))
    assert "nowhere.pth is not there" in says(str(tmp_path / "nowhere.pth"))


def test_a_checkpoint_of_guided_diffusion_takes_resized_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a small network for 32 pixels in the place of that for 256, and images of 28."""
    layout = Layout((1, 2), 1, (16,))
    small = WeightsSource("guided-diffusion", GUIDED, (layout,), float, side=32, least=20)
    monkeypatch.setattr(files, "GUIDED_DIFFUSION", small)
    network = filled(DiffusionUNet(GUIDED, layout, 32, 32))
    names = ["time_embed.0.weight", "input_blocks.0.0.weight"]
    names += [f"other.{n}" for n in range(len(list(network.parameters())) - 2)]
    path = tmp_path / "uncond.pt"
    torch.save(dict(zip(names, map(torch.clone, network.parameters()), strict=True)), path)
    found = loaded(str(path), 28, CPU)
    assert found.side == 32
    x = torch.randn(2, 3, 32, 32, generator=rng())
    with torch.no_grad():
        assert torch.equal(found.noise(x, 59), network(x, torch.full((2,), 59.0)))
    avatar = DEFENSES.make(f"avatar(checkpoint={path}, diffusion_data=mismatch, steps=2)")
    after = purify(avatar, toy(3, 28), fit_context())
    assert after.shape == (3, 28, 28)
    for side in (16, 64):
        with pytest.raises(DataError, match=f"takes images of 20 to 32 pixels, not {side}"):
            loaded(str(path), side, CPU)


def test_an_image_that_is_resized_comes_back() -> None:
    flat = torch.full((1, 3, 28, 28), 0.25)
    assert at_side(flat, 28) is flat
    assert torch.allclose(at_side(at_side(flat, 32), 28), flat)
    ramp = torch.linspace(-1, 1, 28).expand(1, 3, 28, 28)
    back = at_side(at_side(ramp, 32), 28)
    assert torch.allclose(back[..., 2:-2], ramp[..., 2:-2], atol=1e-5)


# --- checkpoints of diffusers --------------------------------------------------------------------


def folder(path: Path, unet: Mapping[str, Any], scheduler: Mapping[str, Any] | None = None) -> str:
    """Settings of a U-Net as diffusers writes them, without weights."""
    path.mkdir(parents=True)
    usual = {"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 3, "out_channels": 3}
    (path / "config.json").write_text(json.dumps({**usual, **unet}))
    if scheduler is not None:
        (path / "scheduler_config.json").write_text(json.dumps(scheduler))
    return str(path)


def test_settings_that_do_not_fit_are_seen_before_anything_runs(tmp_path: Path) -> None:
    assert fault(folder(tmp_path / "a", {}, {"beta_schedule": "linear"}), 8) is None
    for number, (settings, scheduler, says) in enumerate(
        (
            ({"sample_size": 32}, {}, "is for 32 pixels, not 8"),
            ({"in_channels": 1, "out_channels": 1}, {}, "maps 1 channels to 1, not 3 to 3"),
            ({"out_channels": 6}, None, "maps 3 channels to 6, not 3 to 3"),
            ({"_class_name": "UNet2DConditionModel"}, {}, "is a UNet2DConditionModel"),
            ({}, {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule is squaredcos_cap_v2"),
            ({}, {"prediction_type": "v_prediction"}, "prediction_type is v_prediction"),
            ({}, {"num_train_timesteps": 4000}, "num_train_timesteps is 4000"),
        )
    ):
        found = fault(folder(tmp_path / str(number), settings, scheduler), 8)
        assert found is not None
        assert says in found
    whole = tmp_path / "pipeline"
    folder(whole / "unet", {"sample_size": 16})
    assert "is for 16 pixels" in str(fault(str(whole), 8))
    assert fault(str(whole), 16) is None
    (whole / "scheduler").mkdir()
    (whole / "scheduler" / "scheduler_config.json").write_text('{"beta_end": 0.1}')
    assert "beta_end is 0.1" in str(fault(str(whole), 16))
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in str(fault(str(tmp_path / "empty"), 8))
    (tmp_path / "empty" / "config.json").write_text("{")
    assert "cannot be loaded" in str(fault(str(tmp_path / "empty"), 8))
    for place in (str(tmp_path / "nowhere"), "./nowhere", "some/deep/place", "nowhere.pth"):
        assert "is not there" in str(fault(place, 8))


def test_an_id_of_the_hub_is_looked_at_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a folder in the hub's place; what is asked of it are settings, once."""
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def download(name: str, file: str) -> str:
        asked.append(file)
        if not (tmp_path / name / file).exists():
            raise EntryNotFoundError(file)
        return str(tmp_path / name / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    folder(tmp_path / "them" / "small", {"sample_size": 16})
    link = "avatar(checkpoint=them/small, diffusion_data=mismatch)"
    spec = f"photo_digits/{{}}/{link}/small_cnn/supervised/quick/0"
    made = plan([spec.format(attack) for attack in ("lsp", "ar")], None)
    assert [skip.reason for skip in made.skips] == ["them/small is for 16 pixels, not 32"] * 2
    assert asked == ["config.json", "scheduler_config.json"]
    assert fault("them/small", 16) is None
    assert "the hub cannot be reached, or it has no config.json" in str(fault("them/other", 16))


def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    path = folder(tmp_path / "small", {})
    link = f"avatar(checkpoint={path}, diffusion_data=mismatch)"
    made = plan([f"photo_digits/lsp/{link}/small_cnn/supervised/quick/0"], None)
    assert not made.trials
    assert f"{path} is for 8 pixels, not 32" in made.skips[0].reason


@pytest.mark.slow
def test_checkpoints_are_loaded(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    network = unet("xs", 8)
    network.save_pretrained(tmp_path / "alone")  # type: ignore[operator]
    pipeline = DDPMPipeline(network, DDPMScheduler())  # type: ignore[arg-type]
    pipeline.save_pretrained(tmp_path / "whole")
    x = torch.randn(2, 3, 8, 8, generator=rng())
    expected = network.eval()(x, torch.tensor([5, 5])).sample
    for name in ("alone", "whole"):
        noise = loaded(str(tmp_path / name), 8, CPU).noise
        assert torch.allclose(noise(x, 5), expected, atol=1e-5)


@pytest.mark.slow
def test_weights_that_do_not_fit_their_settings_are_one_clear_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def says(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            loaded(str(path), 8, CPU)
        return str(caught.value)

    torn = tmp_path / "torn"
    unet("xs", 8).save_pretrained(torn)  # type: ignore[operator]
    weights = torn / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "conv_in.weight": torch.zeros(16, 3, 3, 3)}, weights)
    assert "torn cannot be loaded" in says(torn)
    assert "conv_in" in says(torn)
    weights.write_bytes(weights.read_bytes()[:100])
    assert "torn cannot be loaded" in says(torn)
    weights.unlink()
    assert "torn cannot be loaded" in says(torn)


# --- what a predictor is fitted to ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("avatar(steps=1001)", "steps is 1001"),
        ("avatar(stride=0)", "stride is 0, allowed are numbers from 1"),
        ("avatar(steps=200)", "horizon is 150, allowed are 200 to 1000"),
        ("avatar(diffusion_data=mismatch)", "unknown diffusion_data 'mismatch'"),
        ("avatar(diffusion_data=cifar_100)", "did you mean 'cifar100'"),
        ("avatar(diffusion_data=clean_trian)", "did you mean 'clean_train'"),
        ("avatar(checkpoint=them/small)", "diffusion_data is not given: say what them/small has"),
        ("avatar(updates=0)", "updates is 0, allowed are numbers from 1"),
    ],
)
def test_bad_parameters_are_refused(part: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        DEFENSES.make(part)
    assert says in str(caught.value)


def test_what_a_predictor_has_seen_is_always_said() -> None:
    """In the key by one name; of a checkpoint nobody else can tell."""
    plain, named = (DEFENSES.make(part) for part in ("avatar", "avatar(diffusion_data=poisoned)"))
    assert plain == named
    assert plain.resolved()["diffusion_data"] == "poisoned"
    held = DEFENSES.make("avatar(checkpoint=them/small, diffusion_data=poisoned)")
    assert held.resolved()["diffusion_data"] == "poisoned"
    assert DEFENSES.make(str(held.part())) == held


def test_larger_predictors_are_fitted_for_longer() -> None:
    fits = {size: Avatar(size=size).resolved()["updates"] for size in ("xs", "s", "m")}  # type: ignore[arg-type]
    assert fits == {"xs": 100_000, "s": 100_000, "m": 300_000}
    assert Avatar(size="m", updates=7).plan.updates == 7


QUICK = "avatar(diffusion_data={}, size=xs, steps=2, updates=2)"


def resolved(attack: str, data: str, store: Store, root: Path, seed: int = 0) -> Trial:
    defense = QUICK.format(data)
    spec = f"photo_digits(every=15)/{attack}/{defense}/small_cnn/supervised/quick/{seed}"
    return resolve(spec, Catalog(store, root))


def prior(trial: Trial) -> DenoiserArtifact:
    assert trial.purified is not None
    assert isinstance(trial.purified.prior, DenoiserArtifact)
    return trial.purified.prior


def test_one_predictor_of_clean_images_serves_every_poison_and_seed(
    store: Store, tmp_path: Path
) -> None:
    made = [
        resolved(attack, "clean_train", store, tmp_path, seed)
        for attack, seed in (("lsp", 0), ("regions", 0), ("lsp", 1))
    ]
    assert len({prior(trial).key for trial in made}) == 1
    assert len({trial.purified.key for trial in made if trial.purified}) == 3
    assert prior(made[0]).needs() == (made[0].data,)
    own = resolved("lsp", "poisoned", store, tmp_path)
    assert own.purified is not None
    assert own.purified.prior is None
    other = resolved("lsp", "photo_digits_last", store, tmp_path)
    assert prior(other).data.dataset.part() != other.data.dataset.part()
    assert prior(other).key != prior(made[0]).key
    keys = {trial.key for trial in (made[0], own, other)}
    assert len(keys) == 3


def test_each_part_of_the_data_has_a_predictor_of_its_own(store: Store, tmp_path: Path) -> None:
    """Of the test set too, one for all poisons; what is held out is no part of the training set."""
    at = "photo_digits(every=15)/lsp/{}/small_cnn/supervised/quick(validation=0.25)/0"
    catalog = Catalog(store, tmp_path)
    parts = ("clean_train", "held_out", "test")
    made = [resolve(at.format(QUICK.format(data)), catalog) for data in parts]
    assert [prior(trial).part for trial in made] == ["train", "val", "test"]
    assert len({prior(trial).key for trial in made}) == 3
    assert len({trial.key for trial in made}) == 3
    train, held, test = (prior(trial) for trial in made)
    assert train.key == DenoiserArtifact(train.data, train.content, train.plan).key
    assert test.label == f"xs on test images of {test.data.label}"
    assert held.key != test.key
    assert [trial.defense.links[0].sees_test for trial in made] == [False, False, True]


def test_as_many_images_of_any_part_cost_the_same() -> None:
    few = "photo_digits/lsp/eclipse(few=500, diffusion_data={})/small_cnn/supervised/{}/0"
    parts = ("clean_train", "held_out", "test")
    made = [resolve(few.format(data, "quick(validation=0.12)"), None) for data in parts]
    train, held, test = (prior(trial).cost for trial in made)
    assert train == pytest.approx(held)
    assert train == pytest.approx(test)


def test_held_out_images_have_to_be_there() -> None:
    spec = "photo_digits/lsp/{}(diffusion_data=held_out)/small_cnn/supervised/{}/0"
    for name in ("avatar", "eclipse"):
        (skipped,) = plan([spec.format(name, "quick")], None).skips
        assert f"{name}(diffusion_data=held_out) needs held-out images" in skipped.reason
        assert "quick(validation=0.1)" in skipped.reason
        assert not plan([spec.format(name, "quick(validation=0.1)")], None).skips


def test_a_chain_hands_each_link_its_own_predictor(store: Store, tmp_path: Path) -> None:
    chain = f"jpeg+{QUICK.format('clean_train')}+grayscale"
    spec = f"photo_digits(every=15)/lsp/{chain}/small_cnn/supervised/quick/0"
    last = resolve(spec, Catalog(store, tmp_path)).purified
    assert last is not None
    middle = last.before
    assert middle is not None
    first = middle.before
    assert first is not None
    assert [part.prior is not None for part in (first, middle, last)] == [False, True, False]
    assert [type(need).__name__ for need in middle.needs()] == [
        "PurifiedArtifact",
        "DenoiserArtifact",
    ]


def test_other_data_have_to_have_the_same_size() -> None:
    spec = "photo_digits/lsp/avatar(diffusion_data=imagenet100)/small_cnn/supervised/quick/0"
    assert "imagenet100 has 224 pixels, not 32" in plan([spec], None).skips[0].reason


def test_what_a_predictor_costs_is_planned() -> None:
    spec = "cifar10/lsp/avatar(diffusion_data=clean_train{})/resnet18/supervised/apbench/0"
    trial = resolve(spec.format(""), None)
    assert trial.purified is not None
    epoch = GPU.seconds(3.3, 50_000)
    assert prior(trial).seconds(GPU) / epoch == pytest.approx(740, rel=0.02)
    assert trial.purified.seconds(GPU) / epoch == pytest.approx(58, rel=0.1)
    assert prior(trial).nbytes == pytest.approx(36e6, rel=0.02)
    held = resolve(spec.format(", checkpoint=some/where"), None)
    assert held.purified is not None
    assert held.purified.prior is None


@pytest.mark.slow
def test_a_predictor_of_the_test_set_marks_what_it_purified(
    store: Store, tmp_path: Path, fetch: Callable[[Artifact], Bundle]
) -> None:
    """It is fitted to the test images alone, which the defense never holds."""
    trial = resolved("lsp(budget=l2:4)", "test", store, tmp_path)
    data, found = fetch(trial.data), fetch(prior(trial)).tensors
    test = Images(data.tensors["test_pixels"], data.tensors["test_labels"], 10)
    stream = Stream("prior", (trial.dataset.id,))
    fit_context = FitContext(stream, CPU, augmentation=trial.dataset.augmentation)
    expected = fitted(prior(trial).plan, test, fit_context)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert trial.purified is not None
    marks = fetch(trial.purified).facts["marks"]
    assert "avatar's noise predictor was fitted to the test set" in marks
    honest = resolved("lsp(budget=l2:4)", "clean_train", store, tmp_path)
    assert honest.purified is not None
    assert not [m for m in fetch(honest.purified).facts["marks"] if "test set" in m]


@pytest.mark.slow
def test_the_declared_data_and_nothing_else_reach_the_fit(
    store: Store, tmp_path: Path, fetch: Callable[[Artifact], Bundle]
) -> None:
    """The predictor is that of the clean images, made once; the defense gets weights alone."""
    trial = resolved("lsp(budget=l2:4)", "clean_train", store, tmp_path)
    artifact = prior(trial)
    data = fetch(trial.data)
    clean = Images(data.tensors["train_pixels"], data.tensors["train_labels"], 10)
    stream = Stream("prior", (trial.dataset.id,))
    fit_context = FitContext(stream, CPU, augmentation=trial.dataset.augmentation)
    expected = fitted(artifact.plan, clean, fit_context)
    found = fetch(artifact).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert trial.purified is not None
    after = fetch(trial.purified).tensors["pixels"]
    assert after.shape == clean.pixels.shape
    assert not torch.equal(after, clean.pixels)
    assert set(store.names("denoiser")) == {artifact.key}


class Halting:
    """Progress that stops a fit after some epochs and keeps what it saved."""

    def __init__(self, after: int) -> None:
        self.after, self.kept = after, None
        self.done: list[int] = []

    def report(self, done: int, total: int, **facts: float) -> None:
        self.done.append(done)
        if done == self.after:
            raise KeyboardInterrupt

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.kept = ({k: v.clone() for k, v in tensors.items()}, dict(facts))  # type: ignore[assignment]

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        return self.kept


@pytest.mark.slow
def test_a_fit_that_was_cut_off_goes_on_where_it_was() -> None:
    plan, images = DenoiserPlan("xs", 4, 150, True), toy(140, 8)
    whole = fitted(plan, images, fit_context())
    progress = Halting(2)
    with pytest.raises(KeyboardInterrupt):
        fitted(plan, images, fit_context(), progress)
    again = fitted(plan, images, fit_context(), progress)
    assert progress.done == [1, 2, 3, 4]
    assert all(torch.equal(again[name], value) for name, value in whole.items())
