"""TP: a shared encoder, one last layer in each half, both losses."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.rounds import alternate
from raygrid.attacks.tp import Crafting, Tp
from raygrid.core.seeds import Stream
from raygrid.nn.pgd import frozen
from tests.attacks.views import RADIUS, changed, loss_on, scenes, state, tiny_tp
from tests.conftest import toy


def test_tp_trains_the_shared_encoder_and_one_last_layer_in_each_half() -> None:
    images = toy(32)
    crafting = Crafting(tiny_tp(), images, AttackContext(Stream("poison")), RADIUS)
    cl, sl = crafting.contrastive(), crafting.supervised()
    assert cl.module.branch.network is sl.module  # type: ignore[union-attr]
    before = state(cl.module)
    cl.learn(0)
    parts = {key.split(".")[1] + "." + key.split(".")[2] for key in changed(before, cl.module)}
    assert parts == {"network.body", "projector.weight", "projector.bias"}
    before = state(cl.module)
    sl.learn(0)
    parts = {key.split(".")[1] + "." + key.split(".")[2] for key in changed(before, cl.module)}
    assert parts == {"network.body", "network.head"}
    assert cl.trainer is not None
    assert sl.trainer is not None
    kept = [
        t.optimizer.state[next(crafting.network.body.parameters())]
        for t in (cl.trainer, sl.trainer)
    ]
    assert not torch.equal(kept[0]["momentum_buffer"], kept[1]["momentum_buffer"])


def test_two_models_share_nothing_and_the_halves_of_the_noise_are_separate() -> None:
    images = toy(32)
    context = AttackContext(Stream("poison"))
    attack = tiny_tp(variant="two_models", sl_steps=0)
    crafting = Crafting(attack, images, context, RADIUS)
    cl, sl = crafting.contrastive(), crafting.supervised()
    places = [{p.data_ptr() for p in s.module.parameters()} for s in (cl, sl)]
    assert not places[0] & places[1]
    alone = Crafting(attack, images, context, RADIUS).run(("cl",))
    assert torch.equal(attack.propose(images, context), alone)


def test_tp_lowers_both_losses() -> None:
    images = scenes(128)
    attack = Tp(surrogate="small_cnn", batch_size=64, epochs=6, cl_lr=0.1, sl_lr=0.05)
    crafting = Crafting(attack, images, AttackContext(Stream("poison")), RADIUS)
    group = [crafting.contrastive(), crafting.supervised()]
    delta = alternate(crafting.noise, group, attack.epochs, 64, crafting.context)
    zero = torch.zeros_like(delta)
    for student, drop in zip(group, (0.02, 0.05), strict=True):
        assert loss_on(student, images, delta) < loss_on(student, images, zero) - drop


def test_hf_and_cc_add_two_noises_made_alone() -> None:
    images = toy(32)
    context = AttackContext(Stream("poison"))
    for variant, radius in (("hf", RADIUS / 2), ("cc", RADIUS)):
        attack = tiny_tp(variant=variant, cl_steps=2, sl_steps=2)
        halves = []
        for number, half in enumerate(("sl", "cl")):
            part = dataclasses.replace(context, stream=context.stream.child(number))
            halves.append(Crafting(attack, images, part, radius).run((half,)))
            assert halves[-1].abs().max() <= radius + 1e-6
        both = (halves[0] + halves[1]).clamp(-RADIUS, RADIUS)
        assert torch.equal(attack.propose(images, context), both)


def test_uniformity_keeps_features_apart() -> None:
    images = scenes(64)
    spread = {}
    for weight in (0.0, 1.0):
        attack = Tp(surrogate="small_cnn", batch_size=32, uniform=weight, cl_lr=0.1)
        crafting = Crafting(attack, images, AttackContext(Stream("poison")), RADIUS)
        cl = crafting.contrastive()
        for number in range(8):
            cl.learn(number)
        with frozen(cl.module), torch.no_grad():
            z = functional.normalize(cl.module.branch(images.floats()), dim=1)  # type: ignore[operator, union-attr]
        spread[weight] = float((z @ z.T).mean())
    assert spread[0.0] > 0.99, "alignment alone collapses"
    assert spread[1.0] < 0.9
