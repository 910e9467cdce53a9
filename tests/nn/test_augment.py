"""The batched views against torchvision's operations on single images, and their gradients."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from raygrid.core.errors import SpecError
from raygrid.core.seeds import Stream
from raygrid.nn.augment import CropFlip, Views, color, standard
from raygrid.nn.augment.resize import BOX_DRAWS, Boxes, boxes_of, crop_resize

N, SIDE = 24, 20
EVERYTHING = Views(jitter=0.7, gray=0.3, blur=0.5)


def generator(*key: object) -> torch.Generator:
    return Stream("test_augment").generator(*key)


def pictures(n: int = N, side: int = SIDE, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth colors with noise, so that neither flat areas nor saturation rule."""
    coarse = torch.rand(n, 3, 5, 5, generator=generator("coarse", n))
    smooth = torch.nn.functional.interpolate(coarse, side, mode="bilinear")
    noise = torch.rand(n, 3, side, side, generator=generator("noise", n))
    return (0.7 * smooth + 0.3 * noise).to(dtype)


def one_by_one(x: Tensor, views: Views, params: object) -> Tensor:
    """The same views made by torchvision, image by image, from the drawn parameters."""
    import torchvision.transforms.v2.functional as tv
    from torchvision.transforms import InterpolationMode

    out = []
    for i, image in enumerate(x):
        p = params
        top, left = p.boxes.corner[i].tolist()  # type: ignore[attr-defined]
        tall, wide = p.boxes.extent[i].tolist()  # type: ignore[attr-defined]
        y = tv.resized_crop(
            image, top, left, tall, wide, list(x.shape[2:]), InterpolationMode.BILINEAR, True
        )
        y = tv.horizontal_flip(y) if p.flips[i] else y  # type: ignore[attr-defined]
        if p.jitters[i]:  # type: ignore[attr-defined]
            steps = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
            amounts = [*p.factors[i].tolist(), float(p.shift[i])]  # type: ignore[attr-defined]
            for operation in p.order:  # type: ignore[attr-defined]
                y = steps[operation](y, amounts[operation])
        y = tv.rgb_to_grayscale(y, 3) if p.grays[i] else y  # type: ignore[attr-defined]
        if p.blurs[i]:  # type: ignore[attr-defined]
            y = tv.gaussian_blur(y, [3, 3], [float(p.sigma[i])] * 2)  # type: ignore[attr-defined]
        out.append(y)
    return torch.stack(out)


@pytest.mark.parametrize("draw", range(6))
def test_views_equal_torchvision_image_by_image(draw: int) -> None:
    x = pictures()
    params = EVERYTHING.sample(x, generator("parity", draw))
    ours = EVERYTHING.apply(x, params)
    assert (ours - one_by_one(x, EVERYTHING, params)).abs().max() < 1e-5
    assert ours.min() >= -1e-6
    assert ours.max() <= 1 + 1e-6
    for drawn in (params.flips, params.jitters, params.grays, params.blurs):
        assert 0 < int(drawn.sum()) < N, "the draw does not test both sides"


def test_identical_images_get_distinct_views() -> None:
    x = pictures(1).expand(64, -1, -1, -1)
    views = Views()(x, generator("distinct"))
    assert len(views.flatten(1).unique(dim=0)) == 64


def test_the_generator_decides() -> None:
    x = pictures()
    one, same, other = (EVERYTHING(x, generator("draw", k)) for k in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_boxes_follow_the_law_of_random_resized_crop() -> None:
    from torchvision.transforms import RandomResizedCrop

    n, scale, ratio = 20_000, (0.2, 1.0), (3 / 4, 4 / 3)
    draws = torch.rand(n, BOX_DRAWS, generator=generator("law"))
    boxes = boxes_of(draws, (SIDE, SIDE), scale, ratio)
    assert bool((boxes.corner >= 0).all())
    assert bool((boxes.corner + boxes.extent <= SIDE).all())
    area = boxes.extent.prod(1).double() / SIDE**2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.tensor(
            [
                RandomResizedCrop.get_params(torch.empty(3, SIDE, SIDE), list(scale), list(ratio))
                for _ in range(n)
            ]
        )
    wanted = (theirs[:, 2] * theirs[:, 3]).double() / SIDE**2
    quantiles = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9], dtype=torch.float64)
    assert (area.quantile(quantiles) - wanted.quantile(quantiles)).abs().max() < 0.015
    means = torch.cat([boxes.corner, boxes.extent], 1).double().mean(0)
    assert (means - theirs.double().mean(0)).abs().max() < 0.15


def test_a_ratio_that_never_fits_falls_back() -> None:
    draws = torch.rand(50, BOX_DRAWS, generator=generator("fallback"))
    boxes = boxes_of(draws, (8, 8), (1.0, 1.0), (2.0, 2.5))
    assert boxes.extent.unique(dim=0).tolist() == [[4, 8]]


def test_gradients_are_exact() -> None:
    x = pictures(3, 6, torch.float64).requires_grad_()
    views = Views(jitter=1.0, gray=0.3)
    params = views.sample(x, generator("gradcheck"))
    assert torch.autograd.gradcheck(lambda z: views.apply(z, params), (x,))


@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation", "hue", "blur"])
def test_gradients_of_every_operation(operation: str) -> None:
    x = pictures(2, 6, torch.float64).requires_grad_()
    amount = torch.tensor([0.3, -0.2] if operation == "hue" else [0.7, 1.3], dtype=torch.float64)
    more = (3,) if operation == "blur" else ()
    apply = getattr(color, operation)
    assert torch.autograd.gradcheck(lambda z: apply(z, amount, *more), (x,))


def test_nothing_outside_the_crop_gets_a_gradient() -> None:
    x = pictures(2, 12).requires_grad_()
    boxes = Boxes(torch.tensor([[2, 3], [0, 5]]), torch.tensor([[6, 5], [12, 7]]))
    crop_resize(x, boxes, torch.tensor([False, True])).sum().backward()
    inside = torch.zeros(2, 1, 12, 12, dtype=torch.bool)
    inside[0, :, 2:8, 3:8] = True
    inside[1, :, 0:12, 5:12] = True
    assert x.grad is not None
    touched = (x.grad != 0).all(1, keepdim=True)
    assert torch.equal(touched, inside)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_images_have_finite_gradients(level: float) -> None:
    x = torch.full((4, 3, 8, 8), level, requires_grad=True)
    views = Views(jitter=1.0, gray=0.5, blur=0.5)
    out = views(x, generator("flat"))
    out.sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(out).all())
    assert bool(torch.isfinite(x.grad).all())


def test_strength_is_that_of_aue() -> None:
    half = Views.of_strength(0.5)
    assert half == Views(
        scale=(0.55, 1.0), jitter=0.4, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05,
        gray=0.1,
    )  # fmt: skip
    assert Views.of_strength(1.0).scale[0] == pytest.approx(0.1)
    x = pictures()
    params = Views.of_strength(0.0).sample(x, generator("none"))
    weak = Views.of_strength(0.0).apply(x, params)
    flipped = torch.where(params.flips.view(-1, 1, 1, 1), x.flip(3), x)
    assert (weak - flipped).abs().max() < 1e-6, "strength 0 leaves the flip alone"


def test_no_flip_where_there_must_be_none() -> None:
    x = pictures()
    assert not Views(flip=False).sample(x, generator("flip")).flips.any()
    assert Views(flip=True).sample(x, generator("flip")).flips.any()


@pytest.mark.parametrize(
    "kind",
    ["crop", "crop_flip", "rrc_flip", "rrc_flip_jitter", "rrc_flip_jitter_weak", "flip_jitter"],
)
def test_standard_augmentation_is_seeded_and_says_whether_it_flips(kind: str) -> None:
    augmentation = standard(kind, SIDE)
    assert augmentation is not None
    assert augmentation.flip == (kind != "crop")
    x = pictures()
    one, same, other = (augmentation(x, generator(kind, k)) for k in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert standard("none", SIDE) is None


@pytest.mark.parametrize(
    ("kind", "smallest", "factor", "hue"),
    [
        ("rrc_flip", 0.08, None, None),
        ("rrc_flip_jitter", 0.08, 0.4, 0.2),
        ("rrc_flip_jitter_weak", 0.08, 0.1, 0.0),
        ("flip_jitter", 1.0, 0.4, 0.2),
    ],
)
def test_large_images_are_cropped_and_jittered_as_the_sources_do(
    kind: str, smallest: float, factor: float | None, hue: float | None
) -> None:
    """Every image is jittered; factors and hues reach as far as they may, and no farther."""
    views = standard(kind, 100)
    assert isinstance(views, Views)
    drawn = views.sample(torch.zeros(2000, 3, 100, 100), generator("reach", kind))
    area = drawn.boxes.extent.prod(1).double() / 100**2
    assert smallest - 0.01 <= area.min() <= smallest + 0.02
    assert area.max() > 0.9
    assert 0.45 < drawn.flips.float().mean() < 0.55
    assert not drawn.grays.any()
    assert not drawn.blurs.any()
    assert drawn.jitters.unique().tolist() == [factor is not None]
    if factor is not None and hue is not None:
        reach = (drawn.factors - 1).abs().amax(0)
        assert reach.tolist() == pytest.approx([factor] * 3, rel=0.02)
        assert float(drawn.shift.abs().max()) == pytest.approx(hue, rel=0.02)


def test_without_a_crop_every_pixel_stays_in_its_place() -> None:
    x = pictures(8)
    views = standard("flip_jitter", SIDE)
    assert isinstance(views, Views)
    still = dataclasses.replace(views, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    params = still.sample(x, generator("still"))
    mirrored = torch.where(params.flips.view(-1, 1, 1, 1), x.flip(3), x)
    assert (still.apply(x, params) - mirrored).abs().max() < 1e-6


def test_crop_flip_moves_whole_pixels() -> None:
    x = pictures(8, 8)
    crop = CropFlip(2)
    params = crop.sample(x, generator("crop"))
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    for i, (image, (top, left), flip) in enumerate(
        zip(padded, params[0].tolist(), params[1].tolist(), strict=True)
    ):
        wanted = image[:, top : top + 8, left : left + 8]
        wanted = wanted.flip(2) if flip else wanted
        assert torch.equal(crop.apply(x, params)[i], wanted)


@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
def test_all_crops_and_flips_are_equally_likely(kind: str) -> None:
    """By two pixels of 20,000 crops; the mean of Pearson's statistic is its degrees of freedom."""
    n, side = 20_000, 32
    numbered = torch.arange(float(side * side)).view(1, 1, side, side)
    crop, draws = standard(kind, side), generator("likely", kind)
    assert crop is not None
    parts = [crop(numbered.expand(2000, -1, -1, -1), draws)[:, 0, 16, 15:17] for _ in range(10)]
    left, right = torch.cat(parts).long().unbind(1)
    flips = right < left
    for batch in flips.split(2000):
        assert kind == "crop" or 0.45 < batch.float().mean() < 0.55
    top, column = left // side - 12, torch.where(flips, right - 11, left - 11) % side
    outcomes = (flips * 81 + top * 9 + column).bincount(minlength=81)
    assert len(outcomes) == (81 if kind == "crop" else 162)
    expected = n / len(outcomes)
    freedom = len(outcomes) - 1
    statistic = ((outcomes - expected) ** 2 / expected).sum()
    assert abs(float(statistic) - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale": (0.0, 1.0)}, "scale is"),
        ({"gray": 1.5}, "gray is 1.5"),
        ({"hue": 0.7}, "hue is 0.7"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Views(**settings)  # type: ignore[arg-type]


def test_the_order_of_color_operations_changes() -> None:
    x = pictures(2)
    orders = {Views().sample(x, generator("order", k)).order for k in range(200)}
    assert orders == set(itertools.permutations(range(4)))


def test_a_shift_brings_in_the_mirrored_image() -> None:
    augmentation = standard("shift_flip", 32)
    assert augmentation == CropFlip(2, border="reflect")
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    offsets, flips = torch.tensor([[0, 4], [2, 2], [3, 1]]), torch.tensor([False, False, True])
    made = CropFlip(2, border="reflect").apply(x, (offsets, flips))
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), "reflect")
    assert torch.equal(made[0], padded[0, :, 0:32, 4:36])
    assert torch.equal(made[1], x[1])
    assert torch.equal(made[2], padded[2, :, 3:35, 1:33].flip(-1))
    assert torch.equal(made[0, :, 0], made[0, :, 4]), "two rows above the edge mirror two below"


@pytest.mark.parametrize("kind", ["shift_flip", "crop_flip", "flip_jitter"])
def test_what_is_mirrored_can_be_said(kind: str) -> None:
    """All draws stay as they are, only who is mirrored is not drawn."""
    augmentation = standard(kind, 32)
    assert augmentation is not None
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nobody, everybody = (torch.full((8,), value) for value in (False, True))

    def made(mirrored: torch.Tensor | None) -> torch.Tensor:
        return augmentation(x, torch.Generator().manual_seed(1), mirrored)

    plain, turned, drawn = made(nobody), made(everybody), made(None)
    assert torch.allclose(plain.flip(-1), turned, atol=1e-5)
    for each, upright, mirror in zip(drawn, plain, turned, strict=True):
        assert torch.equal(each, upright) or torch.equal(each, mirror)
