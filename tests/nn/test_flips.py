"""Nobody mirrors images whose dataset's standard augmentation does not: digits, say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from raygrid.architectures import ARCHITECTURES
from raygrid.core.seeds import Stream
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES, advcl, dvae_detect
from raygrid.defenses.advcl import AdvCl
from raygrid.defenses.chain import Chain
from raygrid.defenses.dvae_detect import DVaeDetect
from raygrid.defenses.grayscale import Grayscale
from raygrid.learners import LEARNERS
from raygrid.learners.base import Task
from raygrid.learners.common.two_views import TwoViewSession
from raygrid.nn import augment
from raygrid.nn.augment import CropFlip
from raygrid.nn.context import FitContext
from raygrid.nn.contrastive.pseudo_labels import Clustering
from raygrid.nn.diffusion import DenoiserPlan, denoisers, fitted
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact, denoiser
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve
from tests import plugin as plugin
from tests.conftest import toy

CPU = torch.device("cpu")
FLIPS = {"none": False, "crop": False, "crop_flip": True, "rrc_flip": True, "flip_jitter": True}
STUDIES = "advcl(ce_weight=0.2, clusters=2:3, encoder=small_cnn, encoder_epochs=1, steps=1)"


def shop(augmentation: str) -> FitContext:
    return FitContext(Stream("mirroring"), CPU, augmentation=augmentation)


def test_the_name_of_an_augmentation_says_whether_it_mirrors() -> None:
    assert {kind: augment.flips(kind) for kind in FLIPS} == FLIPS
    upright = {"photo_digits", "photo_digits_first", "photo_digits_last", "svhn"}
    mirrored = {"cifar10", "cifar100", "imagenet100", "miniimagenet", "tinyimagenet", "folder"}
    for name in upright | mirrored:
        assert augment.flips(DATASETS[name].augmentation) == (name in mirrored)
    assert not augment.flips(DATASETS.make("folder(flip=false)").augmentation)


@pytest.mark.parametrize("kind", ["none", "crop", "crop_flip"])
def test_workshops_carry_the_augmentation_of_the_dataset(
    kind: str,
    catalog: Catalog,
    fetch: Callable[[Artifact], Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of purified sets, of studies, of predictors; it is a part of their keys."""
    seen: list[str] = []

    def purify(self: Grayscale, images: object, fit_context: FitContext) -> object:
        seen.append(fit_context.augmentation)
        return images

    def study(self: AdvCl, images: object, fit_context: FitContext) -> dict[str, Tensor]:
        seen.append(fit_context.augmentation)
        return {}

    def fit(plan: object, images: object, fit_context: FitContext, progress: object) -> object:
        seen.append(fit_context.augmentation)
        return {}

    monkeypatch.setattr(Grayscale, "purify", purify)
    monkeypatch.setattr(AdvCl, "study", study)
    monkeypatch.setattr(denoiser, "fitted", fit)
    monkeypatch.setattr(plugin.Dots, "augmentation", kind)
    text = "dots/clean/{}/small_cnn/simclr(neighbors=3)/quick(epochs=1)/0"
    made = resolve(text.format(f"grayscale+{STUDIES}"), catalog)
    alone = resolve(text.format(STUDIES), catalog)
    prior = resolve(text.format("avatar(size=tiny, diffusion_data=clean_train)"), catalog)
    found = (made.purified, made.study, alone.study, *prior.priors)
    artifacts = [artifact for artifact in found if artifact is not None]
    for artifact in artifacts:
        fetch(artifact)
    assert seen == [kind] * 4
    keys = {artifact.key for artifact in artifacts}
    monkeypatch.setattr(plugin.Dots, "augmentation", "rrc_flip")
    assert len(keys | {artifact.key for artifact in artifacts}) == 8


@pytest.mark.parametrize("kind", ["none", "crop", "crop_flip"])
@pytest.mark.parametrize("flip", [None, False, True])
def test_advcl_clusters_what_may_be_mirrored(
    kind: str, flip: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def labels(self: Clustering, images: object, fit_context: object) -> Tensor:
        asked.append(self.flip)
        return torch.zeros(1, 1, dtype=torch.int64)

    monkeypatch.setattr(Clustering, "labels", labels)
    AdvCl(ce_weight=0.2, flip=flip).study(toy(8), shop(kind))
    assert asked == [FLIPS[kind] if flip is None else flip]


def crops_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each crop that a module makes from here on mirrors images."""
    made: list[bool] = []

    def crop(padding: int, flip: bool) -> CropFlip:
        made.append(flip)
        return CropFlip(padding, flip)

    monkeypatch.setattr(module, "CropFlip", crop)
    return made


@pytest.mark.parametrize("kind", ["none", "crop", "crop_flip"])
@pytest.mark.parametrize("flip", ["none", "false", "true"])
def test_advcl_moves_crops_that_are_mirrored_where_the_views_are(
    kind: str, flip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = crops_of(advcl, monkeypatch)
    images = toy(8)
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make("small_cnn"),
        recipe=Recipe(epochs=1, batch_size=8),
        defense=Chain((DEFENSES.make(f"advcl(steps=0, flip={flip})"),)),
        streams={k: Stream(k) for k in ("init", "data", "views", "probe")},
        augmentation=augment.standard(kind, 16),
        normalization=None,
    )
    run = LEARNERS.make("simclr(hidden=16, output=8, neighbors=3)").start(task)
    assert isinstance(run, TwoViewSession)
    index = torch.arange(8)
    run.step(Batch(images.floats(), images.labels, index, torch.Generator(), 0))
    assert made == [FLIPS[kind] if flip == "none" else flip == "true"]


def test_the_network_that_detects_trains_as_the_dataset_is_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def standard(kind: str, side: int) -> None:
        asked.append(kind)

    monkeypatch.setattr(dvae_detect.augment, "standard", standard)
    detector = DVaeDetect(architecture="small_cnn", classifier_epochs=1)
    images = toy(16)
    for kind in ("none", "crop", "crop_flip"):
        detector._knows(images, images, shop(kind))
    for own in ("none", "crop"):
        chosen = dataclasses.replace(detector, augmentation=own)
        chosen._knows(images, images, shop("crop_flip"))
    assert asked == ["none", "crop", "crop_flip", "none", "crop"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "crop", "crop_flip"])
@pytest.mark.parametrize("flip", [None, False, True])
def test_noise_predictors_see_what_may_be_mirrored(
    kind: str, flip: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = crops_of(denoisers, monkeypatch)
    fitted(DenoiserPlan("tiny", 1, 150, flip), toy(8), shop(kind))
    assert made == [FLIPS[kind] if flip is None else flip]
