"""`dataset`, `poison`, `purify`, `train` on images in memory agree with what a grid makes."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raygrid.api.methods import dataset, poison, purify
from raygrid.api.training import train
from raygrid.core.errors import DataError, DivergedError, SpecError
from raygrid.core.images import Images
from raygrid.datasets.base import Split
from raygrid.storage.store import Bundle
from raygrid.trials import poisons
from raygrid.trials.artifacts import Artifact
from raygrid.trials.artifacts.purified import purified_of
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.run import run_trial
from tests.conftest import toy

DIGITS = "photo_digits(every=20)"
EM = "em(batch_size=64, max_rounds=1, steps=1, surrogate=small_cnn)"
Fetch = Callable[[Artifact], Bundle]


@pytest.fixture(scope="module")
def digits() -> Split:
    return dataset(DIGITS)


@pytest.mark.parametrize("attack", ["lsp", "regions(n=4)", EM])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_a_poison_of_a_datasets_images_is_the_one_of_a_grid(
    attack: str, ratio: float, digits: Split, catalog: Catalog, fetch: Fetch
) -> None:
    made = poison(digits.train, attack, ratio=ratio, seed=3, name="photo_digits")
    theirs = poisons.make(f"{DIGITS}/{attack}@{ratio}", catalog, fetch, 3)
    assert torch.equal(made.pixels, theirs.images.pixels)
    assert torch.equal(made.labels, digits.train.labels)


def test_own_arrays_in_either_layout_give_the_same_poison() -> None:
    images = toy(16)
    pixels = images.pixels.permute(0, 2, 3, 1).numpy()
    one = poison((pixels, images.labels.numpy()), "lsp")
    assert torch.equal(one.pixels, poison(images, "lsp").pixels)
    assert not torch.equal(one.pixels, images.pixels)
    assert not torch.equal(one.pixels, poison(images, "lsp", seed=1).pixels)


@pytest.mark.parametrize(
    ("attack", "options", "says"),
    [
        ("lps", {}, "unknown attack 'lps'"),
        ("lsp(budget=-1)", {}, "budget"),
        ("lsp", {"ratio": 1.5}, "poison_ratio '1.5' is not a number from 0 to 1"),
        ("lsp", {"seed": -1}, "seed '-1' is not a whole number"),
        ("lsp", {"name": "cifar11"}, "unknown dataset 'cifar11'.*'cifar10"),
        ("bullseye_polytope", {}, "made for one target image"),
    ],
)
def test_what_cannot_be_poisoned_is_said(attack: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        poison(toy(16), attack, **options)


def test_purified_images_are_those_of_a_grid(digits: Split, catalog: Catalog, fetch: Fetch) -> None:
    chain = "grayscale+jpeg(quality=10)"
    trial = resolve(f"{DIGITS}/clean/{chain}/small_cnn/supervised/quick/0", catalog)
    assert trial.purified is not None
    theirs = purified_of(fetch(trial.purified))
    assert torch.equal(purify(digits.train, chain, name="photo_digits").pixels, theirs.pixels)


@pytest.mark.parametrize("chain", ["mixup", "none", "jpeg+cutout"])
def test_a_defense_that_acts_in_training_purifies_nothing(chain: str) -> None:
    with pytest.raises(SpecError, match="acts during training"):
        purify(toy(8), chain)


def test_no_name_at_all_is_said(digits: Split) -> None:
    with pytest.raises(SpecError, match="dataset is None, allowed is a text such as 'cifar10'"):
        dataset(None)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="attack is None, allowed is a text such as 'aap'"):
        poison(digits.train, None)  # type: ignore[arg-type]
    for verb, method in ((poison, ["lsp"]), (purify, ["jpeg"]), (train, [])):
        with pytest.raises(SpecError, match="name is None, allowed is that of a dataset"):
            verb(digits.train, *method, name=None)  # type: ignore[operator]


@pytest.mark.parametrize("classes", [0, -1, 12.0, "10", True])
def test_a_number_of_classes_is_a_whole_one_from_one(classes: Any) -> None:
    says = f"classes is {classes!r}, allowed are None and whole numbers from 1"
    with pytest.raises(SpecError, match=says):
        poison(toy(16), "lsp", classes=classes)


def test_a_derived_defense_purifies_nothing() -> None:
    with pytest.raises(SpecError, match="iss is derived from finished trials and purifies noth"):
        purify(toy(16), "iss")


def test_training_is_that_of_a_trial(digits: Split, catalog: Catalog, fetch: Fetch) -> None:
    """The same losses and the same accuracy as the trial with this dataset has."""
    trial = resolve(f"{DIGITS}/clean/jpeg/small_cnn/supervised/quick(epochs=2)/1", catalog)
    theirs = run_trial(trial, fetch, TrialContext())
    model, history = train(
        digits.train,
        test=digits.test,
        protocol="quick(epochs=2)",
        defense="jpeg",
        seed=1,
        name="photo_digits",
    )
    for ours, other in zip(history, theirs.history, strict=True):
        assert {k: v for k, v in ours.items() if k != "epoch_seconds"} == {
            k: v for k, v in other.items() if k != "epoch_seconds"
        }
    guesses = model(digits.test.floats()).argmax(1)
    assert float((guesses == digits.test.labels).double().mean()) == theirs.final_acc
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def test_without_test_images_nothing_is_tested() -> None:
    _, history = train(toy(32), protocol="quick(epochs=1)")
    assert {name for name in history[0] if name.startswith("test")} == set()
    assert history[0]["train_loss"] > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"architecture": "resnet19"}, "unknown architecture 'resnet19'"),
        ({"learner": "simclr", "defense": "mixup"}, "mixup has no meaning for the learner simclr"),
        ({"defense": "early_stopping"}, "derived from finished trials"),
        (
            {"learner": "finetune", "protocol": "pretrained_quick"},
            "pretrained_quick trains a network on clean images for finetune to start from; which",
        ),
        ({"protocol": "toxic_quick"}, "toxic_quick puts every trial before a target, a test image"),
    ],
)
def test_what_cannot_be_trained_is_said(options: dict[str, str], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        train(toy(16), **options)  # type: ignore[arg-type]


def test_test_images_of_another_kind_are_refused() -> None:
    with pytest.raises(SpecError, match="test images are"):
        train(toy(16), test=toy(16, side=32))
    other = Images(toy(4).pixels, torch.tensor([0, 1, 2, 9]), 10)
    with pytest.raises(DataError, match="test: label 9 is not allowed"):
        train(toy(16), test=other)


def test_a_dataset_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        dataset("cifar10", data=tmp_path)
    with pytest.raises(SpecError, match="did you mean 'cifar10'"):
        dataset("cifar", data=str(tmp_path))


@pytest.mark.parametrize(
    ("defense", "says"),
    [
        ("eclipse", "eclipse starts from a network that saw clean images; which those are"),
        ("avatar(diffusion_data=held_out)", "saw clean images; which those are"),
        ("bridgepure", "bridgepure is of another threat model; which those are"),
        ("avatar(diffusion_data=svhn)", "the images of svhn are wanted beside the given ones"),
    ],
)
def test_given_images_stand_for_no_others(digits: Split, defense: str, says: str) -> None:
    """Poisoned images were taken for the clean ones that a predictor is fitted to."""
    with pytest.raises(SpecError, match=says):
        purify(digits.train, defense)


def test_an_attack_that_asks_the_test_set_has_to_have_one(digits: Split) -> None:
    with pytest.raises(SpecError, match="no test set is given here"):
        poison(digits.train, "gue(selection=test, surrogate=small_cnn)")


def test_what_diverged_is_told_as_in_the_row(
    digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a network that a defense fits, of whose epochs the victim's history knows nothing."""

    def lost(*_: Any, **__: Any) -> None:
        raise DivergedError(7, math.inf, measure="norm of the weights")

    with pytest.raises(DivergedError, match=r"^training diverged in epoch 1: loss is (nan|inf)$"):
        train(digits.train, architecture="small_cnn", protocol="quick(epochs=1, lr=1e30)")
    monkeypatch.setattr("raygrid.defenses.vae.fit", lost)
    with pytest.raises(DivergedError, match=r"diverged in epoch 7: norm of the weights is inf$"):
        train(digits.train, architecture="small_cnn", protocol="quick(epochs=1)", defense="vae")


def test_words_of_a_row_stay_with_the_error() -> None:
    error = DivergedError(words="training diverged in epoch 7: loss is inf")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error.of("dvae")) == "dvae: training diverged in epoch 7: loss is inf"
