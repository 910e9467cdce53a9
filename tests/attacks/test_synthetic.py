"""The attacks without a surrogate: their algebra against values derived independently."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common import autoregression
from raygrid.attacks.common.autoregression import (
    border_size,
    find_processes,
    grow,
    threshold,
)
from raygrid.attacks.ops import scores, shortcuts
from raygrid.core.enforcement import size_of_change
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.engine.grid import Grid
from raygrid.storage.checkpoints import NoProgress
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.run import run_trial
from tests.conftest import toy
from tests.separability import held_out_accuracy


def context(name: str, seed: int = 0, units: range | None = None) -> AttackContext:
    return AttackContext(Stream("poison", ("toy", name, seed)), units=units)


def proposal(part: str, images: Images, seed: int = 0) -> Tensor:
    """The perturbation before rounding."""
    attack = ATTACKS.make(part)
    return attack.propose(images, context(attack.id, seed))


def poisoned(part: str, images: Images, seed: int = 0) -> Tensor:
    attack = ATTACKS.make(part)
    return attack.poison(images, context(attack.id, seed)).pixels


@cache
def many() -> Images:
    """Enough images to fit on half and score on the other half."""
    return toy(1000, 32, 10)


# regions


@pytest.mark.parametrize(
    ("n", "grid"), [(1, (1, 1)), (2, (1, 2)), (9, (3, 3)), (128, (8, 16)), (1024, (32, 32))]
)
def test_regions_are_constant_rectangles_of_plus_or_minus_the_budget(
    n: int, grid: tuple[int, int]
) -> None:
    images = toy(20, 32, 10)
    delta = proposal(f"regions(n={n})", images)
    assert (delta.abs() * 255 - 8).abs().max() < 1e-5
    assert len(delta.unique()) == 2
    rows, cols = grid
    if 32 % rows == 0 and 32 % cols == 0:
        blocks = delta.unfold(2, 32 // rows, 32 // rows).unfold(3, 32 // cols, 32 // cols)
        assert blocks.shape[2:4] == grid
        assert torch.equal(blocks.amax((4, 5)), blocks.amin((4, 5)))
    runs = (delta[:, :, :, 1:] != delta[:, :, :, :-1]).any(0).any(0).any(0)
    assert int(runs.sum()) == cols - 1


def test_the_boundaries_of_regions_are_rounded_on_odd_sizes() -> None:
    delta = proposal("regions(n=4, values=uniform)", toy(8, 17, 4))[:, 0, 0]
    # round(17 / 2) = 8: eight pixels left, nine right
    assert [len(row.unique()) for row in delta] == [2] * 8
    assert torch.equal(delta[:, 0], delta[:, 7])
    assert torch.equal(delta[:, 8], delta[:, 16])
    assert not torch.equal(delta[:, 7], delta[:, 8])


def test_regions_follow_the_label_and_not_the_image() -> None:
    images = toy(40, 16, 4)
    delta = proposal("regions", images)
    for label in range(4):
        assert len(delta[images.labels == label].unique(dim=0)) == 1
    assert len(delta.unique(dim=0)) == 4
    gray = Images(torch.full_like(images.pixels, 128), images.labels, 4)
    assert torch.equal(proposal("regions", gray), delta)


def test_one_region_collides_for_ten_classes_unless_distinct_is_asked_for() -> None:
    images = toy(20, 16, 10)
    facts: dict[str, float] = {}

    class Notes(NoProgress):
        def report(self, done: int, total: int, **found: float) -> None:
            facts.update(found)

    work = context("regions")
    work.progress = Notes()
    delta = ATTACKS.make("regions(n=1)").propose(images, work)
    assert len(delta.unique(dim=0)) == 10 - facts["collisions"] <= 8
    with pytest.raises(SpecError, match="8 patterns"):
        proposal("regions(n=1, distinct=true)", images)
    eight = toy(16, 16, 8)
    assert len(proposal("regions(n=1, distinct=true)", eight).unique(dim=0)) == 8


def test_regions_in_l2_have_that_length() -> None:
    for values in ("sign", "uniform", "normal"):
        delta = proposal(f"regions(budget=l2:0.5, n=64, values={values})", toy(8))
        assert (delta.flatten(1).norm(dim=1) - 0.5).abs().max() < 1e-6


@pytest.mark.parametrize("n", [0, 3, 2048])
def test_region_counts_that_have_no_grid_are_refused(n: int) -> None:
    with pytest.raises(SpecError, match="squares and powers of two"):
        ATTACKS.make(f"regions(n={n})")


def test_more_regions_than_pixels_are_refused() -> None:
    with pytest.raises(SpecError, match="32x32 pixels"):
        proposal("regions(n=1024)", toy(4, 16))


# ar


def by_hand(filter_: Tensor, border: Tensor, side: int, crop: int) -> Tensor:
    """One channel of one image, pixel by pixel, as the paper states the recursion."""
    field = torch.full((side, side), torch.nan, dtype=torch.float64)
    field[:2] = border[: 2 * side].view(2, side)
    field[2:, :2] = border[2 * side :].view(side - 2, 2)
    for i in range(side - 2):
        for j in range(side - 2):
            window = field[i : i + 3, j : j + 3].clone()
            window[2, 2] = 0
            field[i + 2, j + 2] = (filter_ * window).sum()
    return field[crop:, crop:]


def test_ar_lanes_are_the_recursion_of_the_paper() -> None:
    filters = find_processes(0, 4, 3, 3.0, 1000).filters
    borders = torch.randn(
        border_size(20, 20), 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    noise = grow(filters[2].permute(1, 2, 0)[..., None], borders, 20, 20, 4)
    for channel in range(3):
        for sample in range(5):
            expected = by_hand(filters[2, channel], borders[:, channel, sample], 20, 4)
            worst = (noise[..., channel, sample] - expected).abs().max()
            assert worst < 1e-13 * expected.abs().max()


def test_ar_processes_are_stable_normalized_and_tell_each_other_apart() -> None:
    filters = find_processes(0, 10, 3, 10.0, 100_000).filters
    assert filters.shape == (10, 3, 3, 3)
    assert filters[..., 2, 2].abs().max() == 0
    assert (filters.sum((2, 3)) - 1).abs().max() < 1e-12
    borders = torch.randn(
        border_size(36, 36), 10, 3, 200, generator=torch.Generator(), dtype=torch.float64
    )
    noise = grow(filters.permute(2, 3, 0, 1)[..., None], borders, 36, 36, 4)
    lengths = noise.square().sum((0, 1, 3)).sqrt()
    assert lengths.isfinite().all()
    assert lengths.max() < 1000
    kernels = filters.clone()
    kernels[:, :, 2, 2] = -1
    unit = noise[..., 0] / lengths[:, 0][None, None, :, None]
    answers = torch.nn.functional.conv2d(unit.permute(2, 3, 0, 1), kernels).relu().sum((2, 3))
    assert answers.diag().max() < 1e-9
    others = answers[~torch.eye(10, dtype=torch.bool)]
    assert others.min() > 3
    assert others.mean() > 10


def test_a_process_whose_noise_overflows_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The three noises that it is judged on may be fine; 200 have to be."""
    sound = find_processes(0, 4, 3, 3.0, 1000).filters
    assert all(autoregression._lasts(filters, 0) for filters in sound)
    wild = sound[0] * 1e8  # grows by its gain with every pixel
    assert not autoregression._lasts(wild, 0)
    fine = torch.zeros(3, 32, 32)
    monkeypatch.setattr(autoregression, "_candidates", lambda *_: iter([(wild, fine)] * 3))
    with pytest.raises(SpecError, match=r"3 candidates gave 0 .* finite over 200 noises"):
        find_processes(123, 1, 3, 0.0, 3)


def residual(delta: Tensor, filters: Tensor) -> Tensor:
    """What processes leave unexplained of perturbations, (n, K): 0 for the one that made them.

    delta: (n, C, H, W); filters: (K, C, 3, 3) with 0 at [2, 2].
    """
    full = filters.to(delta.dtype).clone()
    full[..., 2, 2] = -1
    return torch.nn.functional.conv2d(delta, full).abs().sum((2, 3))


def test_the_matched_filter_knows_the_class_of_ar_noise_but_not_of_the_image() -> None:
    images = many()
    filters = ATTACKS["ar"]().processes(10, 3).filters  # type: ignore[attr-defined]
    delta = proposal("ar", images)
    own = residual(delta, filters)
    assert torch.equal(own.argmin(1), images.labels)
    own_worst = own.gather(1, images.labels[:, None]).max() / 900
    assert own_worst < 2e-8
    after = poisoned("ar", images)
    rounded = (after.short() - images.pixels.short()).float() / 255
    assert (residual(rounded, filters).argmin(1) == images.labels).float().mean() > 0.99
    guess = residual(after.float() / 255, filters).argmin(1)
    assert (guess == images.labels).float().mean() < 0.3


def test_ar_noise_has_the_length_of_the_budget() -> None:
    images = many()
    assert (proposal("ar", images).flatten(1).norm(dim=1) - 1).abs().max() < 1e-5
    lengths = size_of_change(images.pixels, poisoned("ar", images), "l2")
    assert lengths.max() <= 1.01
    assert lengths.mean() > 0.99
    wide = proposal("ar", toy(4, 64, 4))
    assert (wide.flatten(1).norm(dim=1) - 2).abs().max() < 1e-5
    flat = proposal("ar(budget=linf:8/255)", images)
    assert (flat.flatten(1).abs().amax(1) * 255 - 8).abs().max() < 1e-4
    assert len(proposal("ar", images).unique(dim=0)) == len(images)


def test_a_search_without_enough_candidates_is_refused() -> None:
    with pytest.raises(SpecError, match="lower min_response"):
        proposal("ar(candidates=7, min_response=40)", toy(4))


def test_the_response_threshold_is_the_published_one() -> None:
    assert threshold(2) == threshold(10) == 10
    assert threshold(100) == pytest.approx(3)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [100, 1000])
def test_ar_finds_processes_for_many_classes(classes: int) -> None:
    processes = find_processes(0, classes, 3, threshold(classes), 100_000)
    assert len(processes.filters.unique(dim=0)) == classes


# ops


def eight_color_pass(images: Images) -> list[tuple[int, int]]:
    """(place, color code) by class, by the definition: all distances of all colors, in float64."""
    colors = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)
    used: list[tuple[int, int]] = []
    for label in range(images.classes):
        x = images.pixels[images.labels == label].double().flatten(2) / 255
        best = (-1.0, -1, -1)
        for place in range(x.shape[2]):
            for code, color in enumerate(colors):
                distance = (color - x[:, :, place]).abs()
                score = float(distance.mean() / distance.std(correction=0))
                if (place, code) not in used and score > best[0]:
                    best = (score, place, code)
        used.append(best[1:])
    return used


def test_ops_chooses_what_the_full_pass_chooses() -> None:
    images = toy(60, 10, 6)
    expected = eight_color_pass(images)
    for label, (places, colors) in shortcuts(images, 1).items():
        place, code = expected[label]
        assert places.tolist() == [place]
        assert (colors[0] // 255).tolist() == [code >> 2 & 1, code >> 1 & 1, code & 1]


@pytest.mark.parametrize("count", [1, 3])
def test_ops_writes_the_same_pixels_in_every_image_of_a_class(count: int) -> None:
    images = toy(80, 16, 10)
    after = poisoned(f"ops(budget=l0:{count})", images)
    changed = (after != images.pixels).any(1)
    assert changed.flatten(1).sum(1).max() == count
    pairs = set()
    for label in range(10):
        mine = images.labels == label
        places = changed[mine].any(0).nonzero()
        assert len(places) <= count
        for y, x in places.tolist():
            color = after[mine][:, :, y, x].unique(dim=0)
            assert len(color) == 1, "images of a class differ in the color"
            assert set(color.flatten().tolist()) <= {0, 255}
            pairs.add((y, x, *color[0].tolist()))
    assert len(pairs) == 10 * count
    assert torch.equal(after.where(~changed[:, None], 0), images.pixels.where(~changed[:, None], 0))


def test_ops_does_not_choose_a_pixel_that_has_the_color_already() -> None:
    pixels = torch.randint(
        40, 200, (12, 3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    pixels[:, :, 2, 3] = 0  # for black 0/0, for white x/0
    images = Images(pixels, torch.arange(12) % 2, 2)
    (place, color), (other, _) = shortcuts(images, 1).values()
    assert place.item() == 13
    assert color.tolist() == [[255, 255, 255]]
    assert other.item() != 13
    black = torch.zeros(1, 3, dtype=torch.uint8)
    assert scores(pixels, black)[13].item() == -math.inf


def test_ops_on_constant_images_takes_the_first_pairs() -> None:
    """White is infinitely good everywhere; each class takes the first pixels that are left."""
    images = Images(torch.zeros(6, 3, 4, 4, dtype=torch.uint8), torch.arange(6) % 3, 3)
    chosen = shortcuts(images, 2)
    assert [places.tolist() for places, _ in chosen.values()] == [[0, 1], [2, 3], [4, 5]]
    assert all(bool((colors == 255).all()) for _, colors in chosen.values())


def test_ops_scores_of_a_large_class_are_exact() -> None:
    """Sums of squares beyond the exact range of float32."""
    pixels = torch.full((3000, 3, 2, 2), 255, dtype=torch.uint8)
    pixels[0, 0, 1, 1] = 254
    score = scores(pixels, torch.tensor([[0, 0, 0]], dtype=torch.uint8))[:, 0]
    values = np.full(9000, 255.0)
    values[0] = 254.0
    assert torch.isinf(score[:3]).all()
    assert score[3].item() == pytest.approx((values.mean() / values.std()) ** 2, rel=1e-12)


def test_more_pixels_than_there_are_are_refused() -> None:
    with pytest.raises(SpecError, match="l0:300 is more than the 256 pixels"):
        proposal("ops(budget=l0:300)", toy(8, 16))


# lsp


def test_lsp_cells_are_plain_blocks_around_class_centers() -> None:
    images = toy(400, 32, 4)
    delta = proposal("lsp", images)
    blocks = delta.unfold(2, 8, 8).unfold(3, 8, 8)
    assert torch.equal(blocks.amax((4, 5)), blocks.amin((4, 5)))
    cells = delta[:, :, ::8, ::8].flatten(1)
    assert len(cells.unique(dim=0)) == 400
    # The center is 10 per feature, the spread sqrt(48 / 3) = 4: signs of means are the vertices,
    # and before scaling mean / spread is 2.5.
    for label in range(4):
        mine = cells[images.labels == label]
        assert (mine.mean(0).abs() / mine.std(0)).median() == pytest.approx(2.5, rel=0.2)
    vertices = torch.stack([cells[images.labels == c].mean(0).sign() for c in range(4)])
    assert len(vertices.unique(dim=0)) == 4


def test_lsp_has_the_length_of_the_budget_whatever_the_size() -> None:
    images = toy(300, 32, 10)
    budget = 6 / 255 * 3072**0.5
    assert (proposal("lsp", images).flatten(1).norm(dim=1) - budget).abs().max() < 1e-5
    assert size_of_change(images.pixels, poisoned("lsp", images), "l2").max() <= 1.03 * budget
    assert size_of_change(images.pixels, poisoned("lsp", images), "linf").max() <= 20 / 255
    wide = proposal("lsp", toy(4, 60, 4))  # the patch does not divide the side
    assert wide.flatten(1).norm(dim=1).tolist() == pytest.approx([budget * 60 / 32] * 4)


def test_lsp_with_too_few_blocks_for_the_classes_is_refused() -> None:
    assert len(proposal("lsp(patch=32)", toy(16, 32, 8))) == 16  # 8 vertices, 8 classes
    with pytest.raises(SpecError, match="8 patterns, 10 were asked for"):
        proposal("lsp(patch=32)", toy(20, 32, 10))


# low_frequency


@pytest.mark.parametrize("n", [2, 5, 8])
def test_low_frequency_noise_has_nothing_outside_the_lowest_coefficients(n: int) -> None:
    delta = proposal(f"low_frequency(n={n})", toy(20, 32, 10))
    spectrum = scipy.fft.dctn(delta.double().numpy(), type=2, norm="ortho", axes=(2, 3))
    assert np.abs(spectrum[:, :, :n, :n]).max() > 0.05
    spectrum[:, :, :n, :n] = 0
    assert np.abs(spectrum).max() < 1e-6
    assert (delta.flatten(1).abs().amax(1) * 255 - 8).abs().max() < 1e-5
    assert len(delta.unique(dim=0)) == 10


def test_low_frequency_coefficients_are_those_that_were_drawn() -> None:
    work = context("low_frequency")
    shape = (4, 3, 4, 4)
    drawn = torch.randn(shape, generator=work.stream.generator("patterns"), dtype=torch.float64)
    expected = scipy.fft.idctn(
        np.pad(drawn.numpy(), ((0, 0), (0, 0), (0, 20), (0, 12))), norm="ortho", axes=(2, 3)
    )
    images = Images(torch.zeros(4, 3, 24, 16, dtype=torch.uint8), torch.arange(4), 4)
    delta = ATTACKS["low_frequency"]().propose(images, work).double().numpy()
    ratio = delta / expected
    assert np.allclose(ratio, ratio[:, :1, :1, :1], rtol=1e-4)


def test_clip_scaling_is_stronger_than_max_scaling() -> None:
    images = toy(20, 32, 10)
    gentle = proposal("low_frequency", images).flatten(1).norm(dim=1)
    strong = proposal("low_frequency(scaling=clip)", images)
    assert strong.abs().max() * 255 == pytest.approx(8)
    assert (strong.flatten(1).norm(dim=1) > gentle).all()
    # Published lengths with max scaling: 0.65, 0.47, 0.44 for n = 2, 4, 8 against 1.74 of regions.
    assert gentle.mean().item() == pytest.approx(0.5, abs=0.15)


# noise, withheld


def test_noise_is_bounded_and_says_nothing_about_the_label() -> None:
    images = many()
    uniform, sign = proposal("noise", images), proposal("noise(values=sign)", images)
    assert uniform.abs().max() <= 8 / 255
    assert uniform.std().item() == pytest.approx(8 / 255 / 3**0.5, rel=0.01)
    assert (sign.abs() * 255 - 8).abs().max() < 1e-5
    for delta in (uniform, sign):
        means = torch.stack([delta[images.labels == c].mean(0) for c in range(10)])
        # Means of 100 independent values: a tenth of the spread, no class pattern.
        assert means.std().item() == pytest.approx(delta.std().item() / 10, rel=0.05)
    for values in ("uniform", "sign"):
        delta = proposal(f"noise(budget=l2:1.0, values={values})", images)
        assert (delta.flatten(1).norm(dim=1) - 1).abs().max() < 1e-5


def test_withheld_leaves_what_the_attack_would_not_touch() -> None:
    images = toy(50, 16, 4)
    stream = Stream("ratio", ("toy", 0))
    kept, mask = (
        ATTACKS["withheld"]().poison(images, context("withheld")).overlay(images, 0.6, stream)
    )
    _, attacked = ATTACKS["noise"]().poison(images, context("noise")).overlay(images, 0.6, stream)
    assert torch.equal(mask, attacked)
    assert torch.equal(kept.pixels, images.pixels[~attacked])
    assert torch.equal(kept.labels, images.labels[~attacked])
    assert len(kept) == 20


def test_withheld_is_skipped_where_nothing_would_be_left() -> None:
    text = "photo_digits/withheld{}/standard/small_cnn/supervised/quick/0"
    assert "nothing to train on" in str(resolve(text.format(""), None).skip())
    assert resolve(text.format("@0.5"), None).skip() is None


def test_a_trial_with_withheld_rows_trains_on_the_rest(
    catalog: Catalog, fetch: Callable[[Artifact], Bundle]
) -> None:
    spec = "photo_digits/withheld@0.9/standard/small_cnn/supervised/quick(epochs=1)/0"
    result = run_trial(resolve(spec, catalog), fetch, TrialContext())
    assert result.status == "done", result.error
    assert {name: probe["n"] for name, probe in result.probes.items()} == {
        "clean_test": 1080,
        "original": 3879,
        "clean_train": 432,
    }


def test_a_budget_axis_leaves_attacks_without_a_budget_alone() -> None:
    grid = Grid(attacks=("clean", "withheld", "noise"), budgets=("16/255", "2x", "l2:1.0"))
    assert [str(spec.attack) for spec in grid.specs()] == [
        "clean",
        "withheld",
        "noise(budget=16/255)",
        "noise(budget=2x)",
        "noise(budget=l2:1.0)",
    ]


# held-out linear separability


@pytest.mark.parametrize(
    ("part", "least", "most"),
    [("regions(n=1024)", 0.99, 1.0), ("lsp", 0.99, 1.0), ("ar", 0.0, 0.6)],
)
def test_held_out_linear_separability(part: str, least: float, most: float) -> None:
    images = many()
    accuracy = held_out_accuracy(images.pixels, poisoned(part, images), images.labels)
    assert least <= accuracy <= most


@pytest.mark.parametrize("part", ["lsp", "ar"])
def test_a_multiple_of_a_growing_budget_grows_too(part: str) -> None:
    """At 64 pixels `2x` was the default itself, under another key."""

    def limit(budget: str, dataset: str) -> float:
        text = f"{part}(budget={budget})" if budget else part
        spec = f"{dataset}/{text}/none/resnet18/supervised/apbench/0"
        trial = resolve(spec, None)
        assert str(resolve(str(trial.spec), None).spec) == str(trial.spec)
        return trial.attack.limit_at(trial.dataset.image_size).value

    usual = limit("", "cifar10")
    assert limit("2x", "cifar10") == pytest.approx(2 * usual)
    assert limit("", "tinyimagenet") == pytest.approx(2 * usual)
    assert limit("1x", "tinyimagenet") == pytest.approx(2 * usual)
    assert limit("2x", "tinyimagenet") == pytest.approx(4 * usual)
    assert limit("0.5x", "tinyimagenet") == pytest.approx(usual)
    assert limit("l2:0.5", "tinyimagenet") == 0.5
