"""The fast network: its whitening, its start, its sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.airbench import (
    VARIANCE_FLOOR,
    AirBench,
    patches_of,
    photo_filters,
    whitening,
)
from raygrid.architectures.networks.airbench import IdentityConv, ScaledLinear, ShiftedNorm
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.engine.grid import plan
from raygrid.nn.networks import untrained
from tests.conftest import toy


def colored(n: int = 64, side: int = 24) -> torch.Tensor:
    """Images of smooth, correlated colors: float32 (n, 3, side, side)."""
    rng = torch.Generator().manual_seed(3)
    noise = torch.randn(n, 3, side + 4, side + 4, generator=rng)
    smooth = nn.functional.avg_pool2d(noise, 5, 1) * 5
    mixed = torch.einsum(
        "ij,njhw->nihw", torch.tensor([[1, 0.5, 0], [0, 1, 0.5], [0.3, 0, 1]]), smooth
    )
    return mixed + 0.3 * torch.randn(n, 3, side, side, generator=rng)


def test_whitened_patches_are_uncorrelated_with_variance_one() -> None:
    images = colored()
    filters = whitening(patches_of(images))
    assert filters.shape == (24, 3, 2, 2)
    assert torch.equal(filters[12:], -filters[:12])
    out = nn.functional.conv2d(images, filters[:12])
    values = out.permute(0, 2, 3, 1).reshape(-1, 12).double()
    covariance = torch.cov(values.T, correction=0)
    # The floor keeps each variance a little below 1: lambda / (lambda + floor).
    assert torch.allclose(covariance, torch.eye(12, dtype=torch.float64), atol=5e-3)
    spectrum = torch.linalg.eigvalsh(torch.cov(patches_of(images).double().T, correction=0))
    assert torch.allclose(
        covariance.diag().sort().values, spectrum / (spectrum + VARIANCE_FLOOR), atol=1e-4
    )


def test_patches_are_those_that_a_convolution_sees() -> None:
    images = colored(2, 6)
    filters = torch.randn(24, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    direct = nn.functional.conv2d(images, filters).permute(0, 2, 3, 1).reshape(-1, 24)
    assert torch.allclose(patches_of(images) @ filters.flatten(1).T, direct, atol=1e-5)


@pytest.mark.parametrize("whiten", ["photos", "train", "none"])
def test_where_the_filters_come_from(whiten: str) -> None:
    images = toy(32, 32)
    kind = ARCHITECTURES.make(f"airbench(widths=8:8:8, whiten={whiten})")
    network = untrained(kind, images, 0, torch.device("cpu"), ((0.4, 0.5, 0.6), (0.2, 0.2, 0.1)))
    first = network.body[0]  # type: ignore[index]
    learned = dict(network.named_parameters())
    assert ("body.0.weight" in learned) == (whiten == "none")
    assert "body.0.bias" in learned
    if whiten == "photos":
        assert torch.equal(first.filters, photo_filters())
    if whiten == "train":
        normalized = network.normalize(images.floats())
        shown = nn.functional.conv2d(normalized, first.filters[:12])
        covariance = torch.cov(shown.transpose(0, 1).flatten(1), correction=0)
        assert torch.allclose(covariance, torch.eye(12), atol=0.02)


def test_a_constant_training_set_has_finite_filters_and_scores() -> None:
    same = Images(torch.full((8, 3, 32, 32), 77, dtype=torch.uint8), torch.arange(8) % 2, 2)
    kind = ARCHITECTURES.make("airbench(widths=8:8:8, whiten=train)")
    network = untrained(kind, same, 0, torch.device("cpu")).eval()
    lengths = network.body[0].filters.flatten(1).norm(dim=1)  # type: ignore[index]
    assert torch.allclose(lengths, torch.full((24,), VARIANCE_FLOOR**-0.5), rtol=1e-3)
    assert network(same.floats()).isfinite().all()


def test_gray_images_leave_directions_that_color_would_be_amplified_along() -> None:
    """The trap: filters from what grayscale left answer to colors that training never showed."""
    images = colored(16).mul(20).add(128).clamp(0, 255)
    gray = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    own, theirs = (whitening(patches_of(x / 255)) for x in (images, gray))
    colors = (images - gray) / 255

    def answer(filters: torch.Tensor) -> float:
        return float(nn.functional.conv2d(colors, filters).std())

    assert answer(theirs) > 1.5 * answer(own)


def test_convolutions_start_as_the_identity_on_their_first_inputs() -> None:
    x = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    wide, narrow = IdentityConv(6, 10), IdentityConv(6, 4)
    assert torch.allclose(wide(x)[:, :6], x)
    assert torch.allclose(narrow(x), x[:, :4])
    assert wide.weight[6:].std() > 0, "the other outputs are drawn as usual"


def test_the_head_starts_at_deviation_one_and_divides_by_its_width() -> None:
    head = ScaledLinear(256, 10)
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(0))
    assert float(head.weight.detach().std()) == pytest.approx(1.0)
    assert torch.allclose(head(x), x @ head.weight.T / 256, atol=1e-6)
    network = ARCHITECTURES.make("small_airbench").build(7, 32, 3)
    assert isinstance(network.head, ScaledLinear)
    assert [name for name, _ in network.head.named_parameters()] == ["weight"]


def test_norms_have_a_bias_and_move_by_four_tenths() -> None:
    norm = ShiftedNorm(3)
    x = torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 2
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    out = norm(x)
    assert torch.allclose(out.mean((0, 2, 3)), torch.tensor([0.0, 1.0, -1.0]), atol=1e-5)
    assert torch.allclose(norm.running_mean, 0.4 * x.mean((0, 2, 3)), atol=1e-5)
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    shifted = (x - norm.running_mean.view(1, 3, 1, 1)) / norm.running_var.sqrt().view(1, 3, 1, 1)
    assert torch.allclose(norm.eval()(x), shifted + norm.bias.view(1, 3, 1, 1), atol=1e-4)


@pytest.mark.parametrize("side", [16, 17, 24, 32, 48, 64])
def test_sides_from_16_to_64_work(side: int) -> None:
    network = ARCHITECTURES.make("small_airbench").build(5, side, 0).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 3, side, side)).shape == (2, 5)


@pytest.mark.parametrize("side", [8, 224])
def test_other_sides_are_skipped(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from raygrid.datasets.photo_digits import PhotoDigits

    monkeypatch.setattr(PhotoDigits, "image_size", side)
    made = plan(["photo_digits/clean/standard/airbench/supervised/quick/0"], None)
    assert f"airbench takes images of 16 to 64 pixels, not {side}" in made.skips[0].reason


@pytest.mark.parametrize("widths", ["64:256", "0:8:8", "a:b:c", "64:256:256:256", "64:256:4096"])
def test_bad_widths_are_refused(widths: str) -> None:
    with pytest.raises(SpecError, match=r"widths is .*allowed are three numbers from 1 to 2048"):
        AirBench(widths=widths)
