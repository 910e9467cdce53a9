"""TUE from start to end beside the rules of its authors' code: renjie3/TUE@6b3752b.

Expectations are worked out from ssl_perturbation.py, toolbox.py, moco_utils.py and simclr_utils.py
at that commit; no text of them is taken over. Batches, views and orders are drawn as ours are.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raygrid.architectures.networks.ghost_norm import GhostNorm, ghost_norms
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.free_noise import OvershootNoise
from raygrid.attacks.common.noise import uniform_start
from raygrid.attacks.common.rounds import shuffled_order
from raygrid.attacks.tue import Tue
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream, forked
from raygrid.engine.grid import plan
from raygrid.nn.augment import SharedViews, Views
from raygrid.nn.contrastive.moco import MocoLoss
from raygrid.nn.contrastive.pairs import SimClrLoss
from tests.attacks.test_originals_contrastive import clipped, saturated

EPS = 8 / 255
SCALE = (0.08, 1.0)


def test_ghost_norms_have_the_statistics_of_interleaved_parts() -> None:
    """The code reshapes a batch to n / 8 rows of 8 C channels: image i is in part i mod 8."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(24, 5, 4, 4, generator=rng) * 3 + 1
    norm = nn.BatchNorm2d(5)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(5, generator=rng) + 0.5)
        norm.bias.copy_(torch.rand(5, generator=rng))
    ghost = GhostNorm(norm, 8)
    out, expected = ghost(x), torch.empty_like(x)
    means, variances = [], []
    for part in range(8):
        own = x[part::8]
        mean, var = own.mean((0, 2, 3)), own.var((0, 2, 3), correction=0)
        scaled = (own - mean.view(1, 5, 1, 1)) / (var.view(1, 5, 1, 1) + 1e-5).sqrt()
        expected[part::8] = scaled * norm.weight.view(1, 5, 1, 1) + norm.bias.view(1, 5, 1, 1)
        means.append(mean)
        variances.append(own.var((0, 2, 3)))
    torch.testing.assert_close(out, expected)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, 0.1 * torch.stack(means).mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * torch.stack(variances).mean(0))
    assert torch.equal(ghost.eval()(x), norm.eval()(x))
    with pytest.raises(SpecError, match="a batch of 23 images has no 8 equal parts"):
        ghost.train()(x[1:])


def test_networks_behind_ghost_norms_keep_their_weights_and_their_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    before = list(model.parameters())
    ghost_norms(model, 4)
    assert isinstance(model[1], GhostNorm)
    assert list(map(id, model.parameters())) == list(map(id, before))


def test_shared_views_are_one_draw_for_all_images() -> None:
    images = saturated(6)
    x = images.floats()[:1].expand(6, -1, -1, -1)
    views = SharedViews(SCALE, jitter=1.0)
    seen = views(x, torch.Generator().manual_seed(3))
    assert all(torch.equal(seen[0], one) for one in seen)
    assert not torch.equal(seen, views(x, torch.Generator().manual_seed(4)))
    each = Views(SCALE)(x, torch.Generator().manual_seed(3))
    assert not torch.equal(each[0], each[1])


def separated(noise: Tensor, labels: Tensor) -> Tensor:
    """Their discriminant: distances between centers, spreads without gradient."""
    groups = [noise.flatten(1)[labels == k] for k in labels.unique()]
    centers = torch.stack([group.mean(0) for group in groups])
    spread = torch.stack(
        [(g - c).norm(dim=1).mean() for g, c in zip(groups, centers, strict=True)]
    ).detach()
    away = torch.cdist(centers, centers)
    pairs = ~torch.eye(len(groups), dtype=torch.bool)
    return ((spread[:, None] + spread[None] + 1e-5)[pairs] / (away[pairs] + 1e-5)).mean()


class Theirs:
    """Their program over one training set; its networks begin as ours."""

    def __init__(self, attack: Tue, images: Images, context: AttackContext, start: Tensor) -> None:
        self.attack, self.images, self.context = attack, images, context
        self.noise = start.clone()
        self.student = attack.student(OvershootNoise(images, start.clone()), context)
        self.model, self.trainer = self.student.module, self.student.trainer
        self.ssl, plan = attack.ssl_weight, attack.plan
        if isinstance(self.model, MocoLoss):
            self.queue, self.pointer = self.model.queue.bank.clone(), 0
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
                self.model.branch.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-4
            )
        elif self.ssl:
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, weight_decay=1e-6)
        self.csd, self.steps, self.train_step = plan.csd, plan.steps, plan.train_batches
        self.updates: Iterator[object] = iter(())

    def run(self) -> Tensor:
        round_ = 0
        if self.trainer is not None:
            self.updates = self.trainer.endless(0)
        for _ in range(self.attack.plan.epochs):
            left, going = iter(range(self.attack.per_epoch(len(self.images)))), True
            while going:
                with forked(self.trainer.stream.seed("dropout", round_) if self.trainer else 0):
                    for _ in range(self.train_step):
                        if next(left, None) is None:
                            going = False
                            break
                        self.learn()
                self.search(round_)
                round_ += 1
        return self.noise

    def learn(self) -> None:
        """A network batch: views of images + noise, of which nothing is cut off."""
        if not self.ssl:
            return
        batch = next(self.updates)
        self.model.train()
        mixed = self.images.floats(batch.index) + self.noise[batch.index]  # type: ignore[attr-defined]
        views = Views(SCALE)
        first, second = (views(mixed, batch.rng) for _ in range(2))  # type: ignore[attr-defined]
        if isinstance(self.model, MocoLoss):
            with torch.no_grad():
                pairs = zip(
                    self.model.branch.parameters(), self.model.slow.parameters(), strict=True
                )
                for fast, slow in pairs:
                    slow.copy_(slow * 0.99 + fast * 0.01)
        value = self.agreement(first, second, shuffle=True)
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()

    def agreement(self, first: Tensor, second: Tensor, shuffle: bool) -> Tensor:
        """Their losses, keys with gradients where the noise is searched."""
        if isinstance(self.model, MocoLoss):
            queries = functional.normalize(self.model.branch(first), dim=1)
            order = torch.randperm(len(second)) if shuffle else torch.arange(len(second))
            with torch.set_grad_enabled(not shuffle):
                keys = functional.normalize(self.model.slow(second[order]), dim=1)[order.argsort()]
            logits = torch.cat(
                [(queries * keys).sum(1, keepdim=True), queries @ self.queue.clone().T], 1
            )
            self.queue[self.pointer : self.pointer + len(keys)] = keys.detach()
            self.pointer = (self.pointer + len(keys)) % len(self.queue)
            return functional.cross_entropy(logits / 0.2, torch.zeros(len(keys), dtype=torch.long))
        assert isinstance(self.model, SimClrLoss)
        parts = [functional.normalize(self.model.branch(v), dim=1) for v in (first, second)]
        out = torch.cat(parts)
        likeness = (out @ out.T / 0.5).exp()
        others = likeness.sum(1) - likeness.diagonal()
        together = ((parts[0] * parts[1]).sum(1) / 0.5).exp().repeat(2)
        return -(together / others).log().mean()

    def search(self, round_: int) -> None:
        """A noise pass over all batches, the network in eval mode, one pair of views a batch."""
        self.model.eval()
        shared = SharedViews(SCALE)
        order = shuffled_order(len(self.images), self.attack.batch_size, self.context)
        for visit in order(self.student, round_):
            x, labels = self.images.floats(visit.rows), self.images.labels[visit.rows]
            noise = self.noise[visit.rows]
            for _ in range(self.steps):
                noise = noise.detach().requires_grad_()
                shown = clipped(x + noise, 0, 1)
                loss = self.csd * separated(noise, labels)
                if self.ssl:
                    first, second = (shared(shown, visit.rng) for _ in range(2))
                    loss = loss + self.ssl * self.agreement(first, second, shuffle=False)
                (slope,) = torch.autograd.grad(loss, noise)
                moved = shown.detach() - EPS / 10 * slope.sign()
                noise = (moved - x).clamp(-EPS, EPS)
            self.noise[visit.rows[: visit.keep]] = noise[: visit.keep]


@pytest.mark.parametrize(
    "settings",
    [
        "epochs=2, train_batches=2, steps=6",
        "epochs=2, train_batches=1, steps=3, ssl=1.0",
        "epochs=2, train_batches=2, steps=2, framework=moco, queue=64",
    ],
)
def test_tue_goes_the_way_of_its_code_from_start_to_end(settings: str) -> None:
    images = saturated(32)
    attack = ATTACKS.make(f"tue(batch_size=16, surrogate=small_cnn, {settings})")
    assert isinstance(attack, Tue)
    context = AttackContext(Stream("originals", ("tue",)))
    start = torch.zeros(32, 3, 16, 16)
    if attack.framework != "moco":
        start = uniform_start(32, images, attack.radius, context)
    ours = attack.propose(images, context)
    theirs = Theirs(attack, images, context, start).run()
    assert float(((ours - theirs).abs() > 1e-6).float().mean()) < 0.005
    assert float((ours - start).abs().mean()) > EPS / 4
    beyond = (images.floats() + ours - 0.5).abs() > 0.5 + 1e-6
    assert float(beyond.float().mean()) > 0.01, "no noise beyond the pixel range to compare"
    assert float(ours.abs().max()) <= EPS + 1e-6


def test_moco_of_tue_says_in_the_plan_what_its_parts_do_not_divide() -> None:
    with pytest.raises(SpecError, match="batch_size is 20, allowed are multiples of splits=8"):
        ATTACKS.make("tue(framework=moco, batch_size=20, queue=40)")
    spec = "photo_digits/tue(framework=moco, batch_size=8192, queue=8192)/none/small_cnn/"
    made = plan([spec + "supervised/quick/0"], None)
    assert made.skips[0].reason == "tue: a batch of 4311 images has no splits=8 equal parts"
