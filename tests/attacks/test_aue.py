"""AUE and AAP: what they see, and that AUE survives strong augmentation."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from raygrid.attacks.aap import Aap
from raygrid.attacks.aue import Aue
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.noise import SampleNoise
from raygrid.attacks.common.rounds import alternate
from raygrid.attacks.common.surrogates import augmentation
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.augment import Views
from raygrid.nn.augment.views import VIEW_DRAWS
from raygrid.trials.evaluate import score
from raygrid.trials.resolve import resolve
from raygrid.trials.run import task_of
from tests.attacks.test_attacks import craft_for
from tests.attacks.views import RADIUS, loss_on, rng
from tests.conftest import toy
from tests.victims import photo_digits


def test_aue_without_strength_sees_flips_alone() -> None:
    assert Aue(strength=0.0).views(0) == Views.of_strength(0.0)
    rising = Aue(schedule="increasing", epochs=4, strength=0.8)
    falling = Aue(schedule="annealing", epochs=4, strength=0.8)
    lows = [[a.views(e).scale[0] for e in range(4)] for a in (rising, falling)]
    assert lows[0] == pytest.approx([0.82, 0.64, 0.46, 0.28])
    assert lows[1] == pytest.approx([0.46, 0.64, 0.82, 1.0])


def test_aue_noise_is_easier_than_the_images_under_views() -> None:
    images = toy(128, signal=60)
    attack = Aue(surrogate="small_cnn", batch_size=32, epochs=8, lr=0.05)
    context = AttackContext(Stream("poison"))
    noise = SampleNoise(images, torch.zeros(images.pixels.shape))
    student = attack.student(images, noise, context)
    delta = alternate(noise, [student], attack.epochs, 32, context)
    clean = loss_on(student, images, torch.zeros_like(delta))
    assert loss_on(student, images, delta) < clean - 0.1
    random = (torch.rand(delta.shape, generator=rng("random")) * 2 - 1) * RADIUS
    assert abs(loss_on(student, images, random) - clean) < 0.05


def test_aap_moves_the_prediction_the_way_it_says() -> None:
    images = toy(256, signal=90)
    share = {}
    for targeted in (True, False):
        attack = Aap(
            surrogate="small_cnn", surrogate_epochs=15, steps=10, step=0.1, targeted=targeted
        )
        context = craft_for(attack, images)
        network = context.surrogates["views"]
        poisoned = attack.poison(images, context).pixels
        y = images.labels
        with torch.no_grad():
            before, after = (network(p.float() / 255).softmax(1) for p in (images.pixels, poisoned))
        wanted = (y + 1) % 4 if targeted else y
        rows = torch.arange(256)
        share[targeted] = float((after - before)[rows, wanted].mean())
    assert share[True] > 0.02
    assert share[False] < -0.02


def test_aap_sees_each_image_through_its_own_view_in_any_split(images: Images) -> None:
    views = Views.of_strength(0.4)
    x = images.floats()
    stream = Stream("poison")
    whole = views.params(
        stream.rows("v", torch.arange(64), (VIEW_DRAWS,), "uniform"), (16, 16), (0, 1, 2, 3)
    )
    half = views.params(
        stream.rows("v", torch.arange(32, 64), (VIEW_DRAWS,), "uniform"), (16, 16), (0, 1, 2, 3)
    )
    assert torch.equal(views.apply(x, whole)[32:], views.apply(x[32:], half))
    assert len(whole.factors.unique(dim=0)) == 64


def test_surrogates_of_views_mirror_or_not() -> None:
    assert augmentation("views:0.4", nn.Identity()) == Views.of_strength(0.4)
    assert augmentation("upright:0.4", nn.Identity()) == Views.of_strength(0.4, flip=False)
    assert Aap(flip=False).recipe.augmentation == "upright:0.4"


def strongly_augmented(train: Images, strength: float, epochs: int) -> float:
    """Clean test accuracy of small_cnn trained on views of a strength, 0 for none."""
    trial = resolve("photo_digits/clean/none/small_cnn/supervised/quick/0", None)
    task = task_of(trial, train, train, torch.device("cpu"))
    views = Views.of_strength(strength, flip=False) if strength else None
    recipe = task.recipe.with_(epochs=epochs)
    session = trial.learner.start(dataclasses.replace(task, recipe=recipe, augmentation=views))
    for epoch in range(epochs):
        session.epoch(epoch)
    return score(session.finish(), photo_digits(900).test, lambda x: x).acc


@pytest.mark.slow
def test_aue_survives_strong_augmentation_where_em_does_not() -> None:
    """EM is AUE at strength 0 here: the same program without the views."""
    train = photo_digits(900).train
    accuracy = {"clean": strongly_augmented(train, 0.6, 25)}
    for name, strength in (("em", 0.0), ("aue", 0.6)):
        attack = Aue(
            surrogate="small_cnn",
            epochs=15,
            lr=0.05,
            strength=strength,
            flip=False,
        )
        pixels = attack.poison(train, AttackContext(Stream("poison", (name,)))).pixels
        accuracy[name] = strongly_augmented(train.with_pixels(pixels), 0.6, 25)
    assert accuracy["em"] > accuracy["clean"] - 0.06
    assert accuracy["aue"] < accuracy["clean"] - 0.2
