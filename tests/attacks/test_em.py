"""EM against rounds worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.attacks.common.noise import class_means
from raygrid.attacks.common.students import JointAttack, Student, classifier
from raygrid.attacks.em import rectified, stratified
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.networks import to_device
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import classify_step
from raygrid.nn.trainer import Trainer
from raygrid.storage.store import Store
from raygrid.trials.artifacts.build import StoreProgress
from tests.attacks.test_attacks import Killed, Notebook, craft_for
from tests.attacks.toys import RECIPE, make
from tests.conftest import toy


def test_class_means_are_means_by_class() -> None:
    values = torch.tensor([1.0, 2.0, 6.0, 5.0]).view(4, 1, 1, 1)
    means, present = class_means(values, torch.tensor([2, 0, 2, 0]), 4)
    assert present.tolist() == [True, False, True, False]
    torch.testing.assert_close(means.flatten()[[0, 2]], torch.tensor([3.5, 3.5]))


def test_class_wise_noise_is_updated_by_the_mean_over_the_batch(images: Images) -> None:
    """One round, one batch: the noise is what a step by hand gives on the trained network."""
    attack = make("em", mode="class", batch_size=64, noise_share=1.0, max_rounds=1, model_steps=3)
    context = craft_for(attack, images)
    kept: list[dict[str, Tensor]] = []
    context.progress.save = lambda tensors, facts: kept.append(  # type: ignore[method-assign]
        {k: v.clone() for k, v in tensors.items()}
    )
    delta = attack.propose(images, context)
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    network.load_state_dict({k[7:]: v for k, v in kept[0].items() if k.startswith("module.")})
    to_device(network, "cpu", convolutional=True).eval()
    x = images.floats().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    nn.functional.cross_entropy(logits.float(), images.labels, reduction="sum").backward()
    assert x.grad is not None
    step = 0.1 * 8 / 255
    for label in range(4):
        expected = -step * x.grad[images.labels == label].sign().mean(0)
        assert ((kept[0]["noise"][label] - expected).abs() > 1e-6).float().mean() < 0.005
    assert len(delta.unique(dim=0)) == 4
    assert torch.equal(delta[0], delta[4])


def test_stratified_takes_the_same_share_of_every_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 2)
    rows = stratified(labels, 0.2, Stream("poison"))
    assert labels[rows].bincount().tolist() == [10, 4, 1]
    assert not torch.equal(rows, stratified(labels, 0.2, Stream("other")))


def test_em_stops_at_its_error_and_says_so(images: Images) -> None:
    settings = {"batch_size": 32, "steps": 4, "step": 0.25, "budget": Budget("linf", 16 / 255)}
    attack = make("em", stop_error=0.05, max_rounds=40, **settings)
    context = craft_for(attack, images)
    delta = attack.propose(images, context)
    assert context.facts["converged"]
    assert context.facts["error"] <= 0.05
    assert 1 <= context.facts["rounds"] < 40
    assert delta.abs().max() <= attack.radius  # type: ignore[attr-defined]
    short = make("em", stop_error=0.0, max_rounds=1, **settings)
    context = craft_for(short, images)
    short.propose(images, context)
    assert context.facts["rounds"] == 1
    assert context.facts["converged"] == (context.facts["error"] == 0)


def test_an_unshuffled_training_keeps_one_mixed_order(images: Images) -> None:
    module = nn.Linear(1, 1)
    recipe = Recipe(epochs=2, batch_size=16, shuffle=False)
    trainer = Trainer(
        module, lambda b: classify_step(module, b, "fp32"), images, recipe, Stream("t")
    )
    first, second = (torch.cat([b.index for b in trainer.batches(e)]) for e in (0, 1))
    assert torch.equal(first, second)
    assert torch.equal(first.sort().values, torch.arange(len(images)))
    assert not torch.equal(first, torch.arange(len(images)))  # images may come class by class


def test_em_depends_on_labels(images: Images) -> None:
    attack = make("em", batch_size=32, steps=2, max_rounds=2)
    context = craft_for(attack, images)
    other = dataclasses.replace(images, labels=images.labels.roll(1))
    assert not torch.equal(attack.propose(images, context), attack.propose(other, context))


def test_rectified_noise_keeps_whole_levels_upwards() -> None:
    levels = torch.tensor([-8.0, -0.5, 0.9, 1.0, 7.99, 8.0])
    kept = rectified(levels / 255) * 255
    assert kept.round().tolist() == [0, 0, 0, 1, 7, 8]
    images = toy(32)
    attack = make("em", rectify=True, batch_size=16, steps=2, max_rounds=1)
    pixels = attack.pixels(images, craft_for(attack, images))
    assert (pixels >= images.pixels).all()


@pytest.mark.parametrize("name", ["em", "em_remrepo"])
def test_a_stored_checkpoint_gives_the_same_bytes(name: str, images: Images, store: Store) -> None:
    """Tensors come back from files without the memory layout that fused optimizers walk along."""
    attack = ATTACKS.tiny(f"{name}(stop_error=0)" if name == "em" else name)
    pixels = attack.poison(images, craft_for(attack, images)).pixels
    dying = Notebook(1)
    with pytest.raises(Killed):
        attack.poison(images, craft_for(attack, images, progress=dying))
    assert dying.kept is not None
    progress = StoreProgress(store, name, every=0.0)
    progress.save(*dying.kept)
    again = craft_for(attack, images, progress=progress)
    assert torch.equal(attack.poison(images, again).pixels, pixels)


def test_a_joint_network_trains_on_the_unclipped_sum(images: Images) -> None:
    seen: list[Tensor] = []
    attack = make("em", batch_size=16)
    assert isinstance(attack, JointAttack)
    context = craft_for(attack, images)
    network, trainer = classifier(attack, images, RECIPE, context, lambda b: b.x + 0.7)
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    Student("", network, trainer=trainer, by_update=True).updates(0, 2)
    assert len(seen) == 2
    assert max(float(x.max()) for x in seen) > 1.0


@pytest.mark.parametrize(
    "part",
    [
        "em(steps=0)",
        "em(stop_error=2)",
        "em(noise_share=0)",
        "em(surrogate=resnet81)",
        "em(mode=both)",
        "tap(steps=0)",
        "tap(step=0)",
        "tap(batch_size=1)",
        "tap(surrogate_epochs=0)",
        "tap_full(restarts=0)",
    ],
)
def test_bad_parameters_are_refused(part: str) -> None:
    with pytest.raises(SpecError, match=r"allowed|unknown"):
        ATTACKS.make(part)
