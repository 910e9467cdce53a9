"""Defenses against linear and convolution-based poisons beside the rules of their authors' code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from kornia.color import rgb_to_lab
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.core.errors import SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.defenses import DEFENSES
from raygrid.defenses.coin import Coin, interpolated
from raygrid.defenses.color_normalize import (
    equalized,
    from_lab,
    from_yuv,
    lab_shares,
    to_lab,
    to_yuv,
)
from raygrid.defenses.op import projected, span
from raygrid.defenses.sharpen_dct import SharpenDct, low_pass, sharpened
from raygrid.engine.grid import plan
from raygrid.nn.linear import LinearFit
from raygrid.trials.evaluate import score
from raygrid.trials.resolve import resolve
from raygrid.trials.run import task_of
from tests.conftest import seeded, toy
from tests.defenses.toys import CPU, fit_context
from tests.victims import photo_digits, poisoned


def purified(part: str, images: Images) -> Images:
    return DEFENSES.make(part).purify(images, fit_context())


# OP: psandovalsegura/learn-from-unlearnable@605dea2, utils_projection.py


def test_projections_are_those_of_the_code() -> None:
    """One vector of Q after the other is taken away, with numpy's QR of the normalized rows."""
    pixels = torch.randint(256, (20, 3, 8, 8), generator=seeded(), dtype=torch.uint8)
    weight = torch.randn(5, 192, generator=seeded(1))
    rows = [w / np.linalg.norm(w) for w in weight.double().numpy()]
    q, _ = np.linalg.qr(np.stack(rows).T)
    expected = pixels.double().flatten(1).numpy() / 255
    for vector in q.T:
        expected = expected - (expected @ vector)[:, None] * vector
    found = projected(pixels, span(weight)).flatten(1).numpy()
    assert np.abs(found - expected).max() < 1e-12
    assert np.abs(found @ q).max() < 1e-12, "nothing is left in these directions"


def test_the_classifier_is_fitted_as_in_the_code() -> None:
    """orthogonal_projection_step_1.py on one batch: softmax regression by plain SGD."""
    images = toy(64, 8, 4)
    fit = LinearFit(4, lr=0.1, batch_size=64, falls=(0.5, 0.75))
    found = fit(images, fit_context())
    weight = LinearFit(1, lr=1e-12, batch_size=64)(images, fit_context()).weight.clone()
    model = nn.Linear(192, 4, bias=False)
    model.load_state_dict({"weight": weight})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(images.floats().flatten(1)), images.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(found.weight, model.weight.detach(), rtol=1e-4, atol=1e-6)


def test_op_takes_a_pattern_of_each_class_away() -> None:
    """A class-wise poison lies in the span of the weights; what is stored keeps little of it."""
    images = toy(600, 16, 4, signal=0.0)
    attack = ATTACKS.make("regions(n=64, budget=32/255)")
    context = AttackContext(Stream("poison", ("toy", 0)))
    poison = images.with_pixels(attack.poison(images, context).pixels)

    def told_apart(some: Images) -> float:
        classes = torch.stack([some.pixels[some.labels == c].float().mean(0) for c in range(4)])
        return float((classes - classes.mean(0)).std())

    clean, before, after = map(told_apart, (images, poison, purified("op", poison)))
    assert before > 4 * clean
    assert after < clean + 0.35 * (before - clean)


def test_without_directions_nothing_is_taken_away() -> None:
    images = toy(32, 8, 4)
    assert torch.equal(purified("op(directions=0, epochs=1)", images).pixels, images.pixels)
    one = purified("op(directions=1, epochs=1)", images).pixels
    assert not torch.equal(one, images.pixels)


# COIN: wxldragon/COIN@6577fa8, train.py


def test_more_directions_than_classes_are_refused() -> None:
    """The classifier has a row a class: a hundred directions would be ten under another name."""
    spec = "photo_digits/lsp/op(directions={})/small_cnn/supervised/quick/0"
    found = plan([spec.format(10), spec.format(11)], None)
    assert len(found.trials) == 1
    assert found.skips[0].reason == "op: directions is 11, allowed are none and 0 to 10 classes"


def test_pixels_are_interpolated_as_scipy_does_it() -> None:
    x = torch.rand(3, 3, 12, 9, generator=seeded(), dtype=torch.float64)
    offsets = (torch.rand(2, 3, 12, 9, generator=seeded(1), dtype=torch.float64) * 2 - 1) * 2.5
    rows = torch.arange(12.0)[:, None] + offsets[0]
    columns = torch.arange(9.0) + offsets[1]
    found = interpolated(x, rows, columns, "scipy")
    for image, made, row, column in zip(x, found, rows, columns, strict=True):
        for channel, values in zip(image, made, strict=True):
            expected = map_coordinates(channel.numpy(), [row, column], order=1, mode="wrap")
            assert np.abs(values.numpy() - expected).max() < 1e-9
            circular = map_coordinates(channel.numpy(), [row, column], order=1, mode="grid-wrap")
            assert np.abs(values.numpy() - circular).max() > 0.01
    around = interpolated(x, rows, columns, "circular")
    expected = map_coordinates(x[0, 0].numpy(), [rows[0], columns[0]], order=1, mode="grid-wrap")
    assert np.abs(around[0, 0].numpy() - expected).max() < 1e-9


def test_offsets_are_the_same_in_all_channels_and_within_their_reach() -> None:
    ramp = torch.arange(32.0).repeat(32, 1) / 255 * 8
    x = torch.stack([ramp, ramp, ramp]).repeat(8, 1, 1, 1)
    moved, _ = Coin(reach=2.0).augment(x, torch.zeros(8), seeded())
    assert torch.equal(moved[:, 0], moved[:, 1])
    inner = (moved - x)[..., 3:-3] * 255 / 8
    assert float(inner.abs().max()) <= 2 + 1 / 8
    assert float(inner.max()) > 1.7
    assert float(inner.mean()) == pytest.approx(-0.5 / 8, abs=0.02), "cut off: half a level darker"


def test_what_is_shown_are_whole_levels() -> None:
    x = toy(4, 32).floats()
    moved, _ = Coin().augment(x, torch.zeros(4), seeded())
    levels = moved * 255
    assert float((levels - levels.round()).abs().max()) < 1e-4
    with pytest.raises(SpecError, match="reach is 20"):
        DEFENSES.make("coin(reach=20.0)")


# RSK and FF: aseriesof-tubes/RSK@911680e, augments.py


def test_images_are_sharpened_by_a_kernel_of_their_own() -> None:
    x = torch.rand(2, 3, 10, 10, generator=seeded())
    kernels = torch.tensor([[2.5, -0.4, -0.3, -0.35, -0.45], [2.0, -0.1, -0.2, -0.3, -0.4]])
    found = sharpened(x, kernels)
    for image, made, (center, above, left, right, below) in zip(x, found, kernels, strict=True):
        weight = torch.zeros(3, 1, 3, 3)
        weight[:, 0, 1, 1] = center
        weight[:, 0, 0, 1], weight[:, 0, 1, 0] = above, left
        weight[:, 0, 1, 2], weight[:, 0, 2, 1] = right, below
        expected = nn.functional.conv2d(image[None], weight, groups=3)[0]
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_kernels_have_the_code_s_means_and_spread() -> None:
    drawn = SharpenDct().kernels(torch.randn(4000, 5, generator=seeded()))
    assert drawn.mean(0).tolist() == pytest.approx([2.5] + [-0.375] * 4, abs=0.01)
    sd = [0.1] + [math.hypot(0.1, 0.1 / 4)] * 4
    assert drawn.std(0).tolist() == pytest.approx(sd, abs=0.005)


def test_the_lowest_rows_and_columns_of_the_cosine_transform_stay() -> None:
    x = torch.rand(2, 3, 30, 30, generator=seeded())
    waves = scipy.fft.dctn(x.double().numpy(), axes=(2, 3), norm="ortho")
    waves[:, :, 9:] = 0
    waves[:, :, :, 9:] = 0
    expected = scipy.fft.idctn(waves, axes=(2, 3), norm="ortho")
    assert np.abs(low_pass(x, 0.3).numpy() - expected).max() < 1e-5
    assert torch.allclose(low_pass(x, 1.0), x, atol=1e-5)


# Color normalizations: wxldragon/DUNE@a35cbb6, train.py


def test_channels_are_normalized_and_stretched_together() -> None:
    pixels = toy(4, 16).pixels
    found = purified("color_normalize", toy(4, 16)).pixels
    for image, made in zip(pixels.double(), found, strict=True):
        mean, sd = image.mean((1, 2), keepdim=True), image.flatten(1).std(1, correction=0)
        x = (image - mean) / sd[:, None, None]
        expected = ((x - x.min()) / (x.max() - x.min()) * 255).floor()
        assert int((made.double() - expected).abs().max()) <= 1
        assert (int(made.min()), int(made.max())) == (0, 255)


def test_shifts_of_whole_channels_leave_nothing() -> None:
    """What DUNE adds in color is gone, as long as no pixel leaves the range."""
    images = toy(16, 16)
    pixels = images.pixels.clamp(40, 200)
    shift = torch.tensor([20, -30, 10]).view(1, 3, 1, 1)
    moved = (pixels.long() + shift).to(torch.uint8)
    for kind in ("channel", "equalize"):
        one, other = (
            purified(f"color_normalize(kind={kind})", images.with_pixels(p)).pixels.long()
            for p in (pixels, moved)
        )
        assert int((one - other).abs().max()) <= 1, kind


def equalize_hist(channel: Tensor) -> Tensor:
    """OpenCV's equalizeHist, level by level."""
    counts = torch.bincount(channel.flatten().long(), minlength=256).tolist()
    first = next(level for level, count in enumerate(counts) if count)
    if counts[first] == channel.numel():
        return channel
    scale, total, table = 255 / (channel.numel() - counts[first]), 0, [0] * 256
    for level in range(first + 1, 256):
        total += counts[level]
        table[level] = round(total * scale)
    return torch.tensor(table, dtype=torch.uint8)[channel.long()]


def test_histograms_are_equalized_by_the_rule_of_opencv() -> None:
    pixels = toy(3, 16).pixels
    pixels[0, 0] = 77  # a constant channel
    found = equalized(pixels)
    expected = torch.stack([equalize_hist(c) for c in pixels.flatten(0, 1)]).view_as(pixels)
    assert int((found.int() - expected.int()).abs().max()) <= 1
    assert float((found != expected).float().mean()) < 0.01
    assert found[0, 0].unique().tolist() == [77]


def test_lab_is_the_one_of_kornia_and_comes_back() -> None:
    x = torch.rand(4, 3, 9, 9, generator=seeded())
    lab = to_lab(x)
    assert float((lab - rgb_to_lab(x)).abs().max()) < 0.2
    assert float((from_lab(lab_shares(lab)) - x).abs().max()) < 2e-3
    pale = x / 2 + 0.25  # red and blue leave the range of V
    assert float((from_yuv(to_yuv(pale)) - pale).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", ["lab", "yuv"])
def test_a_gray_ramp_stays_a_gray_ramp(kind: str) -> None:
    """Its two color channels are constant and become 0: strong colors, as in the code."""
    ramp = torch.linspace(0, 255, 256).view(1, 1, 16, 16).expand(1, 3, -1, -1)
    images = Images(to_uint8(ramp / 255), torch.zeros(1, dtype=torch.int64), 2)
    found = purified(f"color_normalize(kind={kind})", images).pixels.float()
    assert float(found[0, 1].flatten().diff().min()) >= 0, "green grows with the brightness"
    assert float(found[0, 1].max()) > 100
    assert float((found[0, 1] - found[0, 0]).mean()) > 40


# Against what they were made for


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "defense", "gain"),
    [
        ("regions(budget=16/255)", "op", 0.2),
        ("cuda", "coin", 0.2),
        ("cuda", "sharpen_dct", 0.05),
        ("regions(n=1, budget=16/255)", "color_normalize", 0.2),
        ("regions", "udp(epochs=3, strength=0.0)", 0.05),
    ],
)
def test_the_defense_gives_accuracy_back(attack: str, defense: str, gain: float) -> None:
    """Measured once, seed 0: op 0.10 to 0.44, coin 0.09 to 0.38, sharpen_dct 0.09 to 0.19.

    One color for each class is what `color_normalize` takes out of whole channels: 0.18 to 0.54.
    The noise of `udp` alone, without its augmentation, at the size of the poison: 0.22 to 0.35.
    """
    train = poisoned(attack)
    assert defended(train, defense) > defended(train, "standard") + gain


def defended(train: Images, defense: str) -> float:
    """Test accuracy of a small network on real digits."""
    trial = resolve(f"photo_digits/clean/{defense}/small_cnn/supervised/quick/0", None)
    seen = DEFENSES.make(defense).purify(train, fit_context())
    session = trial.learner.start(task_of(trial, seen, seen, CPU))
    for epoch in range(trial.recipe.epochs):
        session.epoch(epoch)
    return score(session.finish(), photo_digits().test, trial.defense.view).acc
