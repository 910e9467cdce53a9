"""Published noise predictors: sizes, outputs and checkpoint files of three code bases."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from raygrid.core.errors import DataError
from raygrid.defenses import DEFENSES
from raygrid.defenses.avatar import at_side
from raygrid.engine.grid import plan
from raygrid.nn.diffusion import content, fault, files, guided, loaded, unet
from raygrid.nn.diffusion.ddpmpp import DDPMPP, DDPMPP_LAYOUTS
from raygrid.nn.diffusion.files import WeightsSource
from raygrid.nn.diffusion.guided import GUIDED
from raygrid.nn.diffusion.unets import DiffusionUNet, Family, Layout
from raygrid.trials.artifacts import purify
from tests.conftest import toy
from tests.defenses.toys import fit_context
from tests.nn.toys import CPU, rng


@pytest.mark.parametrize(
    ("family", "layout", "side", "width", "size"),
    [
        (DDPMPP, DDPMPP_LAYOUTS[0], 32, 128, 106_632_579),  # `cifar10_ddpmpp_deep_continuous`
        (GUIDED, guided.GUIDED_LAYOUTS[0], 256, 256, 552_814_086),  # `256x256_diffusion_uncond`
    ],
)
def test_networks_have_the_sizes_of_the_published_ones(
    family: Family, layout: Layout, side: int, width: int, size: int
) -> None:
    """Counted in their authors' own classes."""
    with torch.device("meta"):
        network = DiffusionUNet(family, layout, side, width)
    assert sum(p.numel() for p in network.parameters()) == size


def tiny(layout: Layout = DDPMPP_LAYOUTS[2], width: int = 4) -> DiffusionUNet:
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
            DiffusionUNet(DDPMPP, DDPMPP_LAYOUTS[2], 32, 8),
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


@pytest.mark.parametrize("layout", DDPMPP_LAYOUTS)
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


def test_an_id_of_a_hub_that_is_out_of_reach_is_refused() -> None:
    """No test may ask the hub over the network: it would wait for it, and pass by its answer."""
    from huggingface_hub import is_offline_mode

    assert is_offline_mode()
    assert "the hub cannot be reached, or it has no config.json" in str(fault("some/where", 16))


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
