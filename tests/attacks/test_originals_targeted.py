"""Attacks on a target beside the rules of their authors' code, from the bases to the poisons."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from raygrid.architectures.networks.network import Network
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.core.images import to_uint8
from raygrid.core.seeds import Stream
from raygrid.protocols.setups import Scene, SetupRule
from tests.attacks.test_originals import MEAN, SD, surrogate
from tests.conftest import toy

EPS = 8 / 255


@cache
def scene() -> Scene:
    return SetupRule("toy/transfer", 6, 20).scene(0, toy(160), toy(40, seed=1))


def context(name: str) -> AttackContext:
    known = {name: surrogate(toy(160))}
    return AttackContext(Stream("originals"), surrogates=known, scene=scene())


# CLBD: aks2203/poisoning-benchmark@97a67ae, poison_crafting/craft_poisons_clbd.py. That code stores
# poisons by truncation (torchvision's ToPILImage), this one by rounding; compared before that.


def test_clean_label_backdoors_are_crafted_as_in_the_benchmark() -> None:
    attack, s = ATTACKS.make("clbd(surrogate=small_cnn)"), scene()
    made = context("robust")
    ours = attack.pixels(s.train, made)
    network, bases = made.surrogates["robust"], s.train.floats(s.slots)
    labels = s.train.labels[s.slots]
    assert (labels == s.wanted).all()
    rng = made.stream.generator("start")
    x = bases + (torch.rand(bases.shape, generator=rng) * 2 - 1) * EPS
    for _ in range(20):
        x = x.detach().requires_grad_()
        loss = nn.functional.cross_entropy(network(x), labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, x)
        x = x.detach() + 2 / 255 * slope.sign()
        x = torch.minimum(torch.maximum(x, bases - EPS), bases + EPS).clamp(0, 1)
    patch = s.triggers["clbd"].apply(torch.zeros_like(s.train.pixels[s.slots]))
    marked = s.triggers["clbd"].apply(torch.full_like(patch, 255))
    inside = patch == marked  # where the picture under the patch does not matter
    x = torch.where(inside, patch.float() / 255, x)
    theirs = to_uint8((bases + (x - bases).clamp(-EPS, EPS)).clamp(0, 1))
    assert inside.any()
    assert float((ours != theirs).float().mean()) < 0.003
    assert torch.equal(ours[inside], theirs[inside])


# Witches' Brew: JonasGeiping/poisoning-gradient-matching@90bd7d2, forest/witchcoven (witch_base.py,
# witch_matching.py) and forest/data (kettle.py, diff_data_augmentation.py)


class Witch:
    """Everything in normalized units; signed Adam on the perturbation, shifted after the sum."""

    def __init__(self, network: Network, bases: Tensor, target: Tensor, labels: Tensor) -> None:
        self.mean, self.sd = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, SD))
        self.network, self.labels = network, labels
        self.weights = list(network.parameters())
        self.inputs = (bases - self.mean) / self.sd
        logits = self.logits((target - self.mean) / self.sd)
        loss = nn.functional.cross_entropy(logits, labels[:1])
        self.aim = torch.autograd.grad(loss, self.weights)

    def logits(self, normalized: Tensor) -> Tensor:
        out: Tensor = self.network.head(self.network.body(normalized))
        return out

    def loss(self, seen: Tensor) -> Tensor:
        """One minus the cosine of all weights' gradients taken as one vector."""
        loss = nn.functional.cross_entropy(self.logits(seen), self.labels)
        own = torch.autograd.grad(loss, self.weights, create_graph=True)
        flat = [torch.cat([g.flatten() for g in side]) for side in (self.aim, own)]
        return 1 - flat[0] @ flat[1] / (flat[0].norm() * flat[1].norm())

    def shift(self, x: Tensor, draws: Tensor) -> Tensor:
        side = x.shape[-1]
        axis = torch.linspace(-1, 1, side)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        moves = (draws[:, :2] - 0.5) * 2 * torch.linspace(0, 1, side)[side // 4]
        # Mirrored below 1/2 and before the shift, as the draws are used here.
        mirrored = torch.where(draws[:, 2, None, None] < 0.5, -columns, columns)
        grid = torch.stack([mirrored + moves[:, :1, None], rows + moves[:, 1:2, None]], -1)
        return nn.functional.grid_sample(x, grid, align_corners=True)

    def brew(self, rng: torch.Generator, steps: int) -> tuple[Tensor, float]:
        """The perturbation in pixels and the loss before the last step."""
        limit = EPS / self.sd
        delta = torch.randn(self.inputs.shape, generator=rng) * limit
        delta = torch.maximum(torch.minimum(delta, limit), -limit)
        optimizer = torch.optim.Adam([delta], lr=0.1)
        falls = [int(steps // d) for d in (2.667, 1.6, 1.142)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls)
        low, high = -self.mean / self.sd - self.inputs, (1 - self.mean) / self.sd - self.inputs
        last = 0.0
        for _ in range(steps):
            moving = delta.clone().requires_grad_()
            draws = torch.rand(len(delta), 3, generator=rng)
            loss = self.loss(self.shift(self.inputs + moving, draws))
            last = float(loss.detach())
            delta.grad = torch.autograd.grad(loss, moving)[0].sign()
            optimizer.step()
            schedule.step()
            delta.copy_(torch.maximum(torch.minimum(delta, limit), -limit))
            delta.copy_(torch.maximum(torch.minimum(delta, high), low))
        return delta * self.sd, last


def test_witches_brew_is_brewed_as_in_its_code() -> None:
    attack, s = ATTACKS.make("witches_brew(surrogate=small_cnn, steps=10, restarts=2)"), scene()
    made = context("tap40")
    ours = attack.pixels(s.train, made)
    network, bases = made.surrogates["tap40"], s.train.floats(s.slots)
    assert isinstance(network, Network)
    network.requires_grad_(True)
    labels = torch.full((len(bases),), s.wanted)
    witch = Witch(network, bases, s.target.float() / 255, labels)
    tries = [witch.brew(made.stream.generator("brew", number), 10) for number in range(2)]
    network.requires_grad_(False)
    best = min(tries, key=lambda made: made[1])[0]
    theirs = to_uint8(bases + best)
    assert float(((ours.short() - theirs.short()).abs() > 0).float().mean()) < 0.01
    assert float((ours != s.train.pixels[s.slots]).float().mean()) > 0.5
