"""Defenses beside the rules of their authors' code, on the same images, weights and draws.

Every expectation is worked out from what the named file at the named commit does; no text of it is
taken over.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.networks.split_norm import SplitNorm, routed
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream, forked
from raygrid.defenses import DEFENSES
from raygrid.defenses.advcl import (
    ADVERSARIAL,
    BENIGN,
    CLUSTER_HEADS,
    LABELED,
    AdvCl,
    embed,
    high_pass,
)
from raygrid.defenses.avatar import Avatar
from raygrid.defenses.base import FitContext
from raygrid.defenses.rocl import RoCl
from raygrid.nn.augment import CropFlip, Views
from raygrid.nn.contrastive.base import Branch
from raygrid.nn.contrastive.losses import LossScale
from raygrid.nn.contrastive.pairs import SimClrLoss
from raygrid.nn.diffusion import Predictor
from raygrid.nn.diffusion.files import SCORE_SDE
from raygrid.nn.pgd import frozen
from raygrid.nn.steps import Batch
from tests.conftest import seeded, toy

CPU = torch.device("cpu")
EPS = 8 / 255


# RoCL: Kim-Minseon/RoCL@b6d5185, attack_lib.py (RepresentationAdv), loss.py, rocl_train.py

EPSILON, ALPHA, STEPS = 0.0314, 0.007, 7  # argument.py


def framework(scale: LossScale = "none", norm: bool = False) -> SimClrLoss:
    """Temperature 0.5 and a head of two layers; its buffers are away from their start."""
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    with forked(0):
        middle = [nn.BatchNorm1d(32), nn.ReLU()] if norm else [nn.ReLU()]
        head = nn.Sequential(nn.Linear(network.width, 32), *middle, nn.Linear(32, 8))
    made = SimClrLoss(Branch(network, head, "fp32"), temperature=0.5, scale=scale)
    made.embed(toy(16, seed=9).floats())
    return made


def loss_of_the_code(outputs: Tensor, views: int, sides: int = 1) -> Tensor:
    """NT-Xent from a matrix of exponentials whose columns have no gradient (sides=2: they do)."""
    unit = outputs / (outputs.norm(dim=1, keepdim=True) + 1e-8)
    columns = unit if sides == 2 else unit.detach()
    shares = (unit @ columns.T / 0.5).exp() * (1 - torch.eye(len(unit)))
    losses = -(shares / (shares.sum(1, keepdim=True) + 1e-8) + 1e-8).log()
    n, total = len(unit) // views, torch.zeros(())
    for i in range(views):
        for j in range(views):
            if i != j:
                total = total + losses[i * n : (i + 1) * n, j * n : (j + 1) * n].diagonal().sum()
    return total / len(unit)


def attack_of_the_code(made: SimClrLoss, a: Tensor, b: Tensor, start: Tensor, sides: int) -> Tensor:
    """Steps up the loss over (x, b) in eval mode: into the range, then into the ball."""
    x = start
    with frozen(made):
        for _ in range(STEPS):
            x = x.detach().requires_grad_()
            value = loss_of_the_code(made.branch(torch.cat([x, b])), 2, sides)
            (slope,) = torch.autograd.grad(value, x)
            moved = (x.detach() + ALPHA * slope.sign()).clamp(0, 1)
            x = torch.max(torch.min(moved, a + EPSILON), a - EPSILON)
    return x


def start_of_the_code(a: Tensor, rng: torch.Generator) -> Tensor:
    return (a + (torch.rand(a.shape, generator=rng) * 2 - 1) * EPSILON).clamp(0, 1)


def batch(x: Tensor, seed: int) -> Batch:
    index = torch.arange(len(x))
    return Batch(x, index % 4, index, seeded(seed), 0)


def rocl(steps: int) -> RoCl:
    made = DEFENSES.make(f"rocl(radius={EPSILON}, steps={steps})")
    assert isinstance(made, RoCl)
    return made


def practiced(made: SimClrLoss, updates: int = 20) -> SimClrLoss:
    """The same after some updates: before, it tells no images apart, and all gradients are one."""
    x, rng, views = toy(64, signal=60.0).floats(), seeded(0), Views()
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
    for _ in range(updates):
        optimizer.zero_grad()
        made(views(x, rng), views(x, rng), torch.arange(64)).backward()
        optimizer.step()
    return made


def test_the_steps_of_rocl_are_those_of_its_code() -> None:
    made, x = practiced(framework()), toy(24, signal=60.0, seed=1).floats()
    a, b = (Views()(x, seeded(seed)) for seed in (1, 2))
    ours = rocl(STEPS).perturb(made, a, b, batch(a, 3))
    start = start_of_the_code(a, seeded(3))
    theirs, both = (attack_of_the_code(made, a, b, start, sides) for sides in (1, 2))
    assert float(((ours - theirs).abs() > 1e-6).float().mean()) < 0.005
    assert float(((both - theirs).abs() > 1e-6).float().mean()) > 0.01, "the sides are all one"
    assert float((ours - start).abs().mean()) > 0.01


def test_a_training_step_of_rocl_is_that_of_its_code() -> None:
    """The loss of (x, b) as a batch of its own, over 256, then that of all three views."""
    mine = framework()
    yours = copy.deepcopy(mine)
    a, b = toy(24, seed=1).floats(), toy(24, seed=2).floats()
    loss = rocl(0).contrast(mine, batch(a, 3), (a, b))
    loss.backward()
    x = start_of_the_code(a, seeded(3))
    pair = loss_of_the_code(yours.branch(torch.cat([x, b])), 2) / 256
    wanted = loss_of_the_code(yours.branch(torch.cat([a, b, x])), 3) + pair
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    assert_equal_after(mine, yours)


def assert_equal_after(mine: SimClrLoss, yours: SimClrLoss) -> None:
    """Gradients of all weights and running statistics."""
    assert_same_slopes(mine, yours)
    for one, other in zip(mine.buffers(), yours.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def assert_same_slopes(mine: SimClrLoss, yours: SimClrLoss) -> None:
    """Gradients of all weights, to a share of the largest of a tensor."""
    slopes = [(p.grad, q.grad) for p, q in zip(mine.parameters(), yours.parameters(), strict=True)]
    for ours, theirs in slopes:
        if theirs is not None:
            assert ours is not None
            assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.abs().max()) + 1e-6
    assert sum(theirs is not None for _, theirs in slopes) > 8


# AdvCL: LijieFan/AdvCL@24cb7a6, pretraining_advCL.py (AttackPGD, train), losses.py (SupConLoss),
# models/resnet_cifar_multibn_ensembleFC.py


def four_views(made: SimClrLoss, moved: Tensor, benign: list[Tensor]) -> Tensor:
    """Each view through the encoder by itself; its temperature over 0.07 times the mean loss."""
    views = [embed(made, moved, ADVERSARIAL), *(embed(made, view, BENIGN) for view in benign)]
    n, z = len(moved), torch.cat(views)
    positive = torch.eye(n).repeat(4, 4) - torch.eye(4 * n)
    logits = z @ z.T / 0.5
    logits = logits - logits.max(1, keepdim=True).values.detach()
    shares = logits - (logits.exp() * (1 - torch.eye(4 * n))).sum(1, keepdim=True).log()
    return -(0.5 / 0.07) * ((positive * shares).sum(1) / positive.sum(1)).mean()


CLUSTERS = torch.stack([torch.arange(24) % 2, torch.arange(24) % 5], 1)


def five_heads(made: SimClrLoss, moved: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of the heads' losses; of images it takes the sum while it climbs."""
    with routed(made, LABELED):
        features = made.branch.network.features(moved)
    heads = made.get_submodule(CLUSTER_HEADS).heads
    assert isinstance(heads, nn.ModuleList)
    losses = [
        nn.functional.cross_entropy(head(features), CLUSTERS[: len(moved), i], reduction=reduction)
        for i, head in enumerate(heads)
    ]
    return torch.stack(losses).mean()


def advcl(steps: int) -> tuple[AdvCl, SimClrLoss]:
    defense = DEFENSES.make(f"advcl(steps={steps}, flip=true, ce_weight=0.2)")
    assert isinstance(defense, AdvCl)
    made = framework(scale="base007", norm=True)
    defense.prepare(made, {"clusters": CLUSTERS})
    return defense, made


def climbed(
    made: SimClrLoss, x0: Tensor, benign: list[Tensor], starts: tuple[Tensor, Tensor], steps: int
) -> tuple[Tensor, Tensor]:
    """Both copies, by the gradients of one sum of losses; the network is in training mode.

    From U(-8, 8) levels off, not cut off; steps of 2 levels; into the ball, then the range.
    """
    copies = starts
    for _ in range(steps):
        shown = [one.detach().requires_grad_() for one in copies]
        total = four_views(made, shown[0], benign) + 0.2 * five_heads(made, shown[1], "sum")
        slopes = torch.autograd.grad(total, shown)
        first, second = (
            (one.detach() + 2 / 255 * slope.sign()).clamp(x0 - EPS, x0 + EPS).clamp(0, 1)
            for one, slope in zip(shown, slopes, strict=True)
        )
        copies = first, second
    return copies


def two_starts(x0: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    first, second = (x0 + (torch.rand(x0.shape, generator=rng) * 2 - 1) * EPS for _ in range(2))
    return first, second


def taken_with(made: SimClrLoss, which: int) -> list[Tensor]:
    """Running statistics of one of the encoder's sets of batch norms."""
    groups = [m.norms[which] for m in made.modules() if isinstance(m, SplitNorm)]
    return [value for norm in groups for value in norm.buffers() if value.dim()]


def test_the_steps_of_advcl_are_those_of_its_code() -> None:
    """In training mode: by the statistics of the batch, which running ones keep on the way."""
    defense, mine = advcl(5)
    yours = copy.deepcopy(mine)
    x0, a, b = (toy(24, signal=60.0, seed=seed).floats() for seed in (0, 1, 2))
    benign, rng = [a, b, high_pass(x0, 8.0)], seeded(3)
    ours = (
        defense.perturb(mine, x0, torch.cat(benign), rng),
        defense.mislead(mine, x0, torch.arange(24), rng),
    )
    theirs = climbed(yours, x0, benign, two_starts(x0, seeded(3)), 5)
    still = climbed(copy.deepcopy(yours).eval(), x0, benign, two_starts(x0, seeded(3)), 5)
    for one, other, other_mode in zip(ours, theirs, still, strict=True):
        assert float(((one - other).abs() > 1e-6).float().mean()) < 0.005
        assert float(((other_mode - other).abs() > 1e-6).float().mean()) > 0.3
        assert float((one - x0).abs().mean()) > 0.5 * EPS
    for which in (ADVERSARIAL, LABELED):
        for one, other in zip(taken_with(mine, which), taken_with(yours, which), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_training_step_of_advcl_is_that_of_its_code(steps: int) -> None:
    """One batch norm of the head for all four views, one of the encoder for each kind."""
    defense, mine = advcl(steps)
    yours = copy.deepcopy(mine)
    x, a, b = (toy(24, signal=60.0, seed=seed).floats() for seed in (0, 1, 2))
    loss = defense.contrast(mine, batch(x, 3), (a, b))
    loss.backward()
    rng = seeded(3)
    x0 = CropFlip(2)(x, rng)
    benign = [a, b, high_pass(x0, 8.0)]
    moved, misled = climbed(yours, x0, benign, two_starts(x0, rng), steps)
    wanted = four_views(yours, moved, benign) + 0.2 * five_heads(yours, misled)
    wanted.backward()
    torch.testing.assert_close(loss, wanted)
    assert_same_slopes(mine, yours)
    # Statistics of the benign views and of the head move once for all steps, there in each.
    for which in (ADVERSARIAL, LABELED, *([] if steps else [BENIGN])):
        for one, other in zip(taken_with(mine, which), taken_with(yours, which), strict=True):
            torch.testing.assert_close(one, other)


# AVATAR: hmdolatabadi/AVATAR@978df2e, runners/diffpure_sde.py, AVATAR_sanitization.py;
# lafeat/apbench@9a6fb91, defense/diffusion; torchsde 0.2, whose fixed step of `euler` is 1e-3


def noise_network() -> Callable[[Tensor, Tensor], Tensor]:
    """Some network of images and labels from 0 to 999 that looks for noise."""
    with forked(1):
        layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 3, 1))
    layers.requires_grad_(False)

    def found(x: Tensor, labels: Tensor) -> Tensor:
        share = (labels / 999).view(-1, 1, 1, 1)
        return (0.6 + share) * layers(x) + 0.5 * x

    return found


def solved_by_the_code(
    x: Tensor, steps: int, network: Callable[[Tensor, Tensor], Tensor], rng: torch.Generator
) -> Tensor:
    """Noise in by the discrete schedule, out again by Euler's method on the reverse equation.

    Time runs from 1 - steps / 1000 up to 1 - 1e-5 in float32, in steps of 1e-3, and the last one is
    as long as what is left. The network is told 999 times the time that is left.
    """
    kept = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)[steps - 1]
    z = x * kept.sqrt() + torch.randn(x.shape, generator=rng) * (1 - kept).sqrt()
    now, end = torch.linspace(1 - steps / 1000, 1 - 1e-5, 2)
    while now < end:
        after = torch.minimum(now + 1e-3, end)
        left = 1 - now
        beta = 0.1 + left * (20 - 0.1)
        sd = (1 - (2 * (-0.25 * left**2 * (20 - 0.1) - 0.5 * left * 0.1)).exp()).sqrt()
        score = -network(z, (left * 999).expand(len(z))) / sd
        forward = -0.5 * beta * z - beta * score  # drift of the reverse equation, for time down
        increment = torch.randn(z.shape, generator=rng) * (after - now).sqrt()
        z = z - forward * (after - now) + beta.sqrt() * increment
        now = after
    return z


def denoised(images: Images, defense: Avatar) -> Tensor:
    """What the defense makes of images with `noise_network`, uint8."""
    network = noise_network()

    def noise(x: Tensor, i: int) -> Tensor:
        return network(x, torch.full((len(x),), SCORE_SDE.label(i)))

    context = FitContext(Stream("purify", ("toy", 0)), CPU)
    return defense.denoised(images, Predictor(noise, 16), context).pixels


@pytest.mark.parametrize(("steps", "centered"), [(100, True), (60, False)])
def test_avatar_goes_all_the_way_of_its_code(steps: int, centered: bool) -> None:
    """100 steps as in AVATAR's own code, 60 on images that are doubled only as in APBench's."""
    images = toy(8, 16)
    made = DEFENSES.make(f"avatar(steps={steps}, centered={centered})".lower())
    assert isinstance(made, Avatar)
    ours = denoised(images, made)
    rng = Stream("purify", ("toy", 0)).generator("denoise", 0)
    x = images.floats()
    shown = (x - 0.5) * 2 if centered else x * 2
    z = solved_by_the_code(shown, steps, noise_network(), rng)
    out = (z + 1) * 0.5 if centered else z / 2
    change = (ours.int() - to_uint8(out).int()).abs()
    assert int(change.max()) <= 1
    assert float(change.float().mean()) < 1e-3, "values between two levels are rounded differently"
    assert float((ours.int() - images.pixels.int()).abs().float().mean()) > 5
    # AVATAR's own file cuts to whole levels and lets what is beyond wrap around: the card says so.
    wrapped = (out * 255).floor().remainder(256)
    beyond = (out < 0) | (out * 255 >= 256)
    inside = (ours - wrapped)[~beyond]
    assert set(inside.unique().tolist()) <= {0.0, 1.0}
    assert float(beyond.float().mean()) > 0.001


# CutOut and MixUp: lafeat/apbench@9a6fb91, util.py (Cutout, loss_mix), train.py; kornia 0.6.12
# mix/mixup.py, which that pins


def test_cutout_is_that_of_its_code() -> None:
    """16 x 16 around a drawn pixel, cut off by the border, image by image; there after ToTensor."""
    x = toy(40, 32).floats()
    ours, _ = DEFENSES.make("cutout").augment(x, torch.zeros(40).long(), seeded(4))
    rng = seeded(4)
    rows, cols = (torch.randint(0, 32, (40, 1), generator=rng).flatten().tolist() for _ in "yx")
    theirs = x.clone()
    for image, y, at in zip(theirs, rows, cols, strict=True):
        image[:, max(y - 8, 0) : min(y + 8, 32), max(at - 8, 0) : min(at + 8, 32)] = 0
    assert torch.equal(ours, theirs)


def test_mixup_is_that_of_its_code() -> None:
    """Images with shares l of others, and (1 - l) of the own loss plus l of the others'."""
    images = toy(40)
    x, y = images.floats(), images.labels
    soft = nn.functional.one_hot(y, 4).float()
    mixed, weights = DEFENSES.make("mixup").augment(x, soft, seeded(4))
    rng = seeded(4)
    other = torch.randperm(40, generator=rng)
    share = 1 - torch.rand((2, 40), generator=rng)[0]
    by_image = share.view(-1, 1, 1, 1)
    torch.testing.assert_close(mixed, x * (1 - by_image) + x[other] * by_image)
    logits = torch.randn(40, 4, generator=rng)
    own, others = (
        nn.functional.cross_entropy(logits, labels, reduction="none") for labels in (y, y[other])
    )
    wanted = ((1 - share) * own + share * others).mean()
    torch.testing.assert_close(nn.functional.cross_entropy(logits, weights), wanted)
