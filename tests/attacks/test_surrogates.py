"""Surrogates: their augmentation, kept epochs, the store and a training that is killed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from raygrid.attacks.common.surrogate_training import accuracy, train_surrogate
from raygrid.attacks.common.surrogates import SurrogateRecipe, shortfall, tap40
from raygrid.attacks.common.transfer import crop_flip_by
from raygrid.core.images import Images, moments
from raygrid.core.seeds import Stream
from raygrid.datasets import DATASETS
from raygrid.nn.augment import CropFlip, shift_by
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import BuildContext, DatasetArtifact, SurrogateArtifact, World
from raygrid.trials.artifacts.build import BuildObserver, StoreProgress
from tests.attacks.test_attacks import Killed, Notebook
from tests.attacks.toys import CPU, RECIPE
from tests.conftest import toy


def test_shift_by_moves_by_whole_pixels_at_the_ends() -> None:
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    draws = torch.tensor([[1.0, 0.5, 0.9], [0.5, 0.0, 0.9], [0.5, 0.5, 0.1]])
    out = shift_by(x, draws)
    right, up = torch.zeros(3, 32, 32), torch.zeros(3, 32, 32)
    right[..., :-4] = x[0, ..., 4:]  # sampled four pixels to the right
    up[:, 4:] = x[1, :, :-4]
    torch.testing.assert_close(out, torch.stack([right, up, x[2].flip(-1)]), atol=2e-5, rtol=0)


@pytest.mark.parametrize("side", [17, 32])
def test_shift_by_is_grid_sample(side: int) -> None:
    rng = torch.Generator().manual_seed(0)
    x, draws = torch.rand(8, 3, side, side, generator=rng), torch.rand(8, 3, generator=rng)
    theta = torch.zeros(8, 2, 3)
    theta[:, 0, 0] = torch.where(draws[:, 2] < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = 1.0
    theta[:, :, 2] = (draws[:, :2] * 2 - 1) * float(torch.linspace(0, 1, side)[side // 4])
    grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=True)
    expected = nn.functional.grid_sample(x, grid, padding_mode="zeros", align_corners=True)
    torch.testing.assert_close(shift_by(x, draws), expected, atol=2e-5, rtol=0)


def test_crop_flip_by_reaches_every_offset() -> None:
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for row, low in ((0, 0.0), (4, 0.9999999)):
        draws = torch.tensor([[low, low, 0.2]])
        offsets = torch.tensor([[row, row]])
        expected = CropFlip(2).apply(x, (offsets, torch.tensor([True])))
        assert torch.equal(crop_flip_by(x, draws), expected)


def test_moments_are_those_of_the_pixels() -> None:
    images = toy(40)
    means, sds = moments(images.pixels)
    values = images.floats().double()
    assert means == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-7)
    assert sds == pytest.approx(values.std((0, 2, 3), unbiased=False).tolist(), abs=1e-7)


def test_tap40_falls_where_the_code_falls() -> None:
    assert tap40("resnet18").recipe.milestones == (14, 24, 35)


def test_kept_epochs_are_those_of_the_same_training(images: Images) -> None:
    plain = SurrogateRecipe("s", "small_cnn", RECIPE, "crop_flip", "data")
    keeping = dataclasses.replace(plain, kept=(0, 2))
    one = train_surrogate(plain, images, Stream("surrogate"), CPU).state_dict()
    many = train_surrogate(keeping, images, Stream("surrogate"), CPU)
    assert isinstance(many, nn.ModuleList)
    assert not many.training
    assert not any(p.requires_grad for p in many.parameters())
    last = many[1].state_dict()
    assert all(torch.equal(one[k], last[k]) for k in one)
    assert not torch.equal(one["head.weight"], many[0].head.weight)
    assert plain.resolved() != keeping.resolved()


def test_held_out_images_choose_the_epoch(images: Images) -> None:
    recipe = SurrogateRecipe("s", "small_cnn", RECIPE.with_(epochs=6), held_out=16)
    stream = Stream("surrogate")
    chosen = train_surrogate(recipe, images, stream, CPU)
    order = torch.randperm(64, generator=stream.generator("held_out"))
    held = images.rows(order[:16])
    every = dataclasses.replace(recipe, kept=tuple(range(6)))
    networks = train_surrogate(every, images, stream, CPU)
    assert isinstance(networks, nn.ModuleList)
    assert accuracy(chosen, held) == max(accuracy(n, held) for n in networks)


@pytest.mark.parametrize("kept", [(), (0, 1)])
def test_a_stored_surrogate_comes_back(
    kept: tuple[int, ...], images: Images, tmp_path: Path
) -> None:
    recipe = SurrogateRecipe("s", "small_cnn", RECIPE.with_(epochs=2), "none", "data", kept)
    artifact = SurrogateArtifact(
        DatasetArtifact(DATASETS.make("photo_digits"), "here"), "here", recipe, 0
    )
    tensors = {"train_pixels": images.pixels, "train_labels": images.labels}
    tensors |= {"test_pixels": images.pixels, "test_labels": images.labels}
    world = Bundle(tensors, {"classes": 4, "fingerprint": "toy"})
    bundle = artifact.make([world], BuildContext(CPU, tmp_path))
    network = artifact.network(bundle, images, CPU)
    again = train_surrogate(recipe, images, Stream("surrogate", ("photo_digits", 0)), CPU)
    for name, value in again.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    last = network[-1] if isinstance(network, nn.ModuleList) else network
    assert bundle.facts["test_acc"] == accuracy(last, World.of(world).test)


@pytest.mark.parametrize(("kept", "held_out"), [((), 0), ((0, 2), 0), ((), 16)])
def test_a_killed_surrogate_training_goes_on_with_the_same_bytes(
    kept: tuple[int, ...], held_out: int, images: Images
) -> None:
    recipe = SurrogateRecipe("s", "small_cnn", RECIPE, "crop_flip", "data", kept, held_out)
    whole = train_surrogate(recipe, images, Stream("surrogate"), CPU, book := Notebook())
    assert book.reports == [(1, 3), (2, 3), (3, 3)]
    for after in (1, 2, 3):
        notebook = Notebook(after)
        with pytest.raises(Killed):
            train_surrogate(recipe, images, Stream("surrogate"), CPU, notebook)
        again = train_surrogate(recipe, images, Stream("surrogate"), CPU, notebook)
        assert notebook.saves == 3
        assert not again.training
        for name, value in whole.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), f"killed after {after}"


def test_a_surrogate_goes_on_from_the_store(images: Images, store: Store) -> None:
    recipe = SurrogateRecipe("s", "small_cnn", RECIPE, "crop_flip", "data", kept=(0, 2))
    whole = train_surrogate(recipe, images, Stream("surrogate"), CPU)
    seen: list[int] = []
    kept: list[int] = []

    def tell(done: int, total: int, before: int) -> None:
        seen.append(done)
        kept.append(before)
        if len(seen) == 2:
            raise Killed

    first = StoreProgress(store, "key", BuildObserver(tell), every=0.0)
    with pytest.raises(Killed):
        train_surrogate(recipe, images, Stream("surrogate"), CPU, first)
    second = StoreProgress(store, "key", BuildObserver(tell), every=0.0)
    again = train_surrogate(recipe, images, Stream("surrogate"), CPU, second)
    assert seen == [1, 2, 3]
    assert kept == [0, 0, 3], "its first word after a checkpoint tells what was there"
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_a_weak_surrogate_is_marked() -> None:
    assert shortfall("cifar10", "resnet18", 0.93) is None
    assert shortfall("photo_digits", "resnet18", 0.1) is None
    assert shortfall("cifar10", "small_cnn", 0.1) is None
    mark = shortfall("cifar10", "resnet18", 0.8123)
    assert mark == "surrogate below 93%: resnet18 reaches 81.2% on cifar10"
