"""REM of its paper and of APBench against steps worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.common.rounds import Rounds, in_turn
from raygrid.attacks.em_remrepo import EmRemRepo
from raygrid.attacks.rem import Rem
from raygrid.attacks.rem_apb import RemApb
from raygrid.core.images import Images
from raygrid.nn.augment import CropFlip
from raygrid.nn.networks import freeze
from raygrid.nn.pgd import Descent, cross_entropy, frozen, uniform
from raygrid.nn.steps import Batch
from tests.attacks.test_attacks import craft_for
from tests.attacks.toys import make, victim


def batch_of(images: Images, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    return Batch(images.floats(), images.labels, torch.arange(len(images)), rng, 0)


def rem(**settings: object) -> Rem:
    made = make("rem", **settings)
    assert isinstance(made, Rem)
    return made


def test_rem_without_adversary_and_crops_is_an_em_step(images: Images) -> None:
    network = victim(images, 1)
    plain = rem(adv_radius=0.0, copies=1, augmentation="none", steps=2)
    noise = plain.noise(network, batch_of(images))
    x = images.floats()
    start = x + uniform(x, plain.radius, torch.Generator().manual_seed(0))
    descent = Descent(plain.radius, 0.2 * plain.radius, 2)
    expected, _ = descent(x, start, cross_entropy(network, images.labels))
    middle = (images.pixels > 10) & (images.pixels < 245)
    assert ((noise - expected)[middle].abs() > 1e-6).float().mean() < 0.005


def test_rem_routes_gradients_back_through_crops_and_flips(images: Images) -> None:
    network = victim(images, 1)
    attack = rem(adv_radius=0.0, copies=3)
    noise = uniform(images.floats(), 0.5, torch.Generator().manual_seed(1)).requires_grad_()
    routed = attack.routed(network, batch_of(images, 5), noise)
    seen = (images.floats() + noise).clamp(0, 1).repeat(3, 1, 1, 1)
    seen = CropFlip(2)(seen, torch.Generator().manual_seed(5))
    loss = nn.functional.cross_entropy(network(seen), images.labels.repeat(3), reduction="sum")
    (whole,) = torch.autograd.grad(loss, noise)
    torch.testing.assert_close(routed, whole, atol=1e-5, rtol=1e-4)


def test_rem_takes_the_gradient_at_the_adversary_and_not_through_it(images: Images) -> None:
    elsewhere = torch.full_like(images.floats(), 0.25)

    class Stubborn(Rem):
        def adversary(self, network: nn.Module, x: Tensor, *_: object) -> Tensor:
            assert not x.requires_grad
            return elsewhere

    network = victim(images, 1)
    noise = torch.zeros_like(elsewhere)
    noise[:, :, 0] = 2.0  # clipped there, so nothing comes back
    attack = Stubborn(surrogate="small_cnn", copies=1, augmentation="none")
    z = elsewhere.clone().requires_grad_()
    loss = nn.functional.cross_entropy(network(z), images.labels, reduction="sum")
    (expected,) = torch.autograd.grad(loss, z)
    expected[:, :, 0] = 0
    torch.testing.assert_close(attack.routed(network, batch_of(images), noise), expected)


def test_the_adversary_raises_the_loss_within_its_ball(images: Images) -> None:
    network = victim(images, 2)
    attack = rem(adv_radius=0.5, adv_steps=4)
    x = images.floats()
    z = attack.adversary(network, x, images.labels, torch.Generator().manual_seed(0))
    assert (z - x).abs().max() <= 4 / 255 + 1e-6
    assert z.min() >= 0
    assert z.max() <= 1
    loss = cross_entropy(network, images.labels)
    assert (loss(z, 0) > loss(x, 0)).float().mean() > 0.95


def test_rem_noise_resists_the_adversary(images: Images) -> None:
    attack = rem(
        **{"batch_size": 32, "steps": 4, "step": 0.5, "copies": 1, "adv_steps": 2},
        **{"adv_step": 0.5, "train_steps": 30, "augmentation": "none"},
    )
    context = craft_for(attack, images)
    kept: dict[str, Tensor] = {}
    context.progress.save = lambda tensors, facts: kept.update(tensors)  # type: ignore[method-assign]
    noise = attack.propose(images, context)
    assert torch.equal((noise * 255).round() / 255, noise)
    assert (noise * 255).round().abs().max() == 8
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    network.load_state_dict({k[7:]: v for k, v in kept.items() if k.startswith("module.")})
    freeze(network)
    loss, x = cross_entropy(network, images.labels), images.floats()
    means = []
    for added in (noise, uniform(x, 8 / 255, torch.Generator().manual_seed(3))):
        shown = (x + added).clamp(0, 1)
        worst = attack.adversary(network, shown, images.labels, torch.Generator().manual_seed(4))
        means.append(float(loss(worst, 0).mean()))
    assert means[0] < 0.7 * means[1]


def test_remade_em_shows_the_noise_where_it_was_made(images: Images) -> None:
    attack = make("em_remrepo")
    assert isinstance(attack, EmRemRepo)
    batch = batch_of(images)
    noise = attack.noise(victim(images, 1), batch)
    moved = CropFlip(2)(images.floats(), torch.Generator().manual_seed(0))
    assert torch.equal(batch.x, moved)
    shown = attack.shown(nn.Identity(), batch, noise)
    assert torch.equal(shown, (moved + noise).clamp(0, 1))


def test_apbench_rem_starts_from_what_the_last_round_left(images: Images) -> None:
    attack = make("rem_apb", batch_size=32, max_rounds=2, stop_error=0.0, up_steps=2)
    assert isinstance(attack, RemApb)
    context = craft_for(attack, images)
    made = attack.start(images, context)
    student = attack.student(made, context)
    order = in_turn(lambda number: made.rows, 32, False, context)
    rounds = Rounds(made, [student], 2, context, order)
    student.updates(0, 5)
    with frozen(student.module):
        rounds.descend(student, 0)
        starts, noise = made.tensors()["starts"].clone(), made.values.clone()
        rounds.descend(student, 1)
    later = made.tensors()["starts"]
    assert starts.abs().max() <= 2 * 0.1 * 8 / 255 + 1e-6  # two steps from nothing
    assert later.abs().max() > starts.abs().max() * 1.5  # two more from there
    assert later.abs().max() <= 4 / 255 + 1e-6
    assert noise.abs().max() <= 8 / 255 + 1e-6
    loss = cross_entropy(student.module.eval(), images.labels)
    x = images.floats()
    assert loss(x + starts, 0).sum() > loss(x, 0).sum() > loss(x + noise, 0).sum()
