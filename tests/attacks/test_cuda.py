"""CUDA beside the rule of its code: vinusankars/Convolution-based-Unlearnability@ff58b1c."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.cuda import Cuda, convolved, over_largest
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from tests.conftest import toy
from tests.victims import poisoned, reference_accuracy, victim_accuracy


def context(seed: int = 0) -> AttackContext:
    return AttackContext(Stream("poison", ("toy", "cuda", seed)))


def made(part: str, images: Images) -> tuple[Tensor, Tensor]:
    """Pixels and kernels."""
    attack = ATTACKS.make(part)
    assert isinstance(attack, Cuda)
    return attack.poison(images, context()).pixels, attack.kernels(images, context())


def as_the_code(images: Images, kernels: Tensor) -> Tensor:
    """Image by image through a convolution with padding 1, over its maximum, cut off to bytes."""
    out = []
    for pixels, label in zip(images.pixels, images.labels.tolist(), strict=True):
        weight = kernels[label].expand(3, 1, -1, -1)
        z = nn.functional.conv2d((pixels.float() / 255)[None], weight, padding=1, groups=3)
        out.append((z / z.max() * 255).clamp(0, 255).to(torch.uint8))
    return torch.cat(out)


def test_images_are_those_of_the_code_for_its_kernels(images: Images) -> None:
    pixels, kernels = made("cuda", images)
    expected = as_the_code(images, kernels)
    apart = (pixels.short() - expected.short()).abs()
    assert int(apart.max()) <= 1, "a sum on the edge of a level may be added up in another order"
    assert float((apart > 0).float().mean()) < 1e-4
    assert pixels.flatten(1).amax(1).unique().tolist() == [255]


def test_kernels_have_one_entry_of_one_and_the_others_up_to_the_blur() -> None:
    images = toy(8, 16, 200)
    _, kernels = made("cuda", images)
    flat = kernels.flatten(1)
    assert flat.shape == (200, 9)
    assert (flat == 1).sum(1).unique().tolist() == [1]
    rest = flat[flat < 1]
    assert float(rest.min()) >= 0
    assert float(rest.max()) <= 0.3
    assert float(rest.mean()) == pytest.approx(0.15, abs=0.01)
    assert len((flat == 1).nonzero()[:, 1].unique()) == 9, "the place is drawn, the middle included"


def test_without_blur_images_are_shifted_by_at_most_a_pixel(images: Images) -> None:
    pixels, kernels = made("cuda(blur=0.0, quant=round)", images)
    for row, label in enumerate(images.labels.tolist()):
        (place,) = kernels[label].nonzero().tolist()
        down, right = 1 - place[0], 1 - place[1]
        moved = torch.zeros(3, 18, 18)
        moved[:, 1 + down : 17 + down, 1 + right : 17 + right] = images.pixels[row].float()
        moved = moved[:, 1:17, 1:17]
        expected = (moved / moved.max() * 255 + 0.5).floor().to(torch.uint8)
        apart = (pixels[row].short() - expected.short()).abs()
        assert int(apart.max()) <= 1
        assert int((apart > 0).sum()) < 8, "halves of a level"


def test_the_rim_of_a_white_image_darkens_by_what_the_kernel_has_outside() -> None:
    kernel = torch.tensor([[0.1, 0.2, 0.0], [0.3, 1.0, 0.1], [0.2, 0.0, 0.1]])
    white = over_largest(convolved(torch.ones(1, 3, 5, 5), kernel[None]))[0]
    assert float(white[0, 2, 2]) == 1.0
    assert float(white[0, 0, 0]) == pytest.approx((1.0 + 0.1 + 0.0 + 0.1) / 2.0)
    assert float(white[2, 4, 2]) == pytest.approx((0.1 + 0.2 + 0.0 + 0.3 + 1.0 + 0.1) / 2.0)


def test_a_mirrored_border_leaves_no_rim() -> None:
    """White stays white everywhere, and inside images are those of the black border."""
    kernel = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(0))
    white = torch.ones(1, 3, 5, 5)
    assert float(convolved(white, kernel, "reflect").std()) < 1e-6
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    black, mirrored = convolved(x, kernel), convolved(x, kernel, "reflect")
    assert torch.equal(black[..., 1:-1, 1:-1], mirrored[..., 1:-1, 1:-1])
    assert bool((mirrored[..., 0, :] > black[..., 0, :]).all())


def test_a_black_image_stays_black() -> None:
    images = toy(4)
    pixels = images.pixels.clone()
    pixels[0] = 0
    out, _ = made("cuda", images.with_pixels(pixels))
    assert int(out[0].max()) == 0
    assert int(out[1].max()) == 255


def test_kernels_of_large_images_are_large_and_faint() -> None:
    _, kernels = made("cuda", toy(2, 224, 2))
    assert kernels.shape == (2, 9, 9)
    assert float(kernels[kernels < 1].max()) <= 0.06


def test_what_is_no_kernel_is_refused() -> None:
    for part in ("cuda(kernel=4)", "cuda(kernel=33)", "cuda(blur=1.5)"):
        with pytest.raises(SpecError, match="allowed are none"):
            ATTACKS.make(part)


@pytest.mark.slow
def test_cuda_bites() -> None:
    """Measured once, seed 0: clean 0.70, poisoned 0.09."""
    assert victim_accuracy(poisoned("cuda")) < reference_accuracy() - 0.35
