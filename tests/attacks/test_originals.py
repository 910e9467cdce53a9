"""Attacks beside the rules of their authors' code, written down anew, on the same tensors.

Every expectation is worked out from what the named file at the named commit does; no text of it is
taken over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.networks.network import Network, Normalize
from raygrid.attacks import ATTACKS
from raygrid.attacks.aap import Aap
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.adaptive import luminance
from raygrid.attacks.common.generators import batch_accuracy
from raygrid.attacks.common.luv import to_luv, to_rgb
from raygrid.attacks.common.surrogates import augmentation
from raygrid.attacks.common.transfer import TransferAttack
from raygrid.attacks.dc import JUDGED_AT_ONCE
from raygrid.attacks.em_remrepo import EmRemRepo
from raygrid.attacks.functional import Change, Functional, identity_table, look_up
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.nn.augment import CropFlip
from raygrid.nn.networks import freeze
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch
from raygrid.protocols import PROTOCOLS
from tests.conftest import toy

MEAN, SD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def surrogate(images: Images, mean: tuple[float, ...] = MEAN) -> Network:
    """A frozen network with drawn weights that normalizes its input."""
    network = ARCHITECTURES.make("small_cnn").build(images.classes, images.shape[-1], 3)
    network.normalize = Normalize(mean, SD)
    return freeze(network)


# AAP and the protocol `aue`: EhanW/AUE-AAP@64fb25f, utils.py (cosine_annealing)


def risen_cosine(epoch: int, epochs: int, top: float, end: float, warmup: int = 10) -> float:
    """The rate of an epoch: its share of the warm-up, then half a cosine over what is left."""
    if epoch < warmup:
        return top * (epoch + 1) / warmup
    done = (epoch - warmup) / (epochs - warmup)
    return end + (top - end) * (1 + math.cos(math.pi * done)) / 2


@pytest.mark.parametrize("learner", ["aap", "supervised", "simclr", "byol", "moco", "simsiam"])
def test_rates_of_aap_and_aue_rise_to_their_full_height(learner: str) -> None:
    top = {"byol": 1.0, "moco": 0.3, "simsiam": 0.1}.get(learner, 0.5)
    made, epochs = _recipe(learner)
    assert made.epochs == epochs
    for epoch in range(epochs):
        expected = risen_cosine(epoch, epochs, top, 1e-6)
        assert made.rate(epoch) == pytest.approx(expected, rel=1e-9), epoch
    assert made.rate(9) == made.rate(10) == top


def _recipe(learner: str) -> tuple[Recipe, int]:
    if learner == "aap":
        attack = ATTACKS.make("aap")
        assert isinstance(attack, Aap)
        return attack.recipe.recipe, 40
    epochs = 200 if learner == "supervised" else 1000
    return PROTOCOLS.make("aue").recipe(learner, "cifar10", 32), epochs


# TAP, PGD-n and MI-FGSM: lhfowl/adversarial_poisons@a1d58d8, village/materials (datasets.py,
# diff_data_augmentation.py) and village/shop/forgemaster_base.py


@dataclass
class Forge:
    """The crafting loop: everything in normalized units, images shifted after normalization."""

    network: Network
    clean: Tensor
    wanted: Tensor
    eps: float
    tau: float

    def __post_init__(self) -> None:
        self.mean, self.sd = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, SD))
        self.inputs = (self.clean - self.mean) / self.sd

    def gradient(self, delta: Tensor, draws: Tensor) -> Tensor:
        """Of the mean loss of the wanted class, in the normalized perturbation."""
        delta = delta.clone().requires_grad_()
        side = delta.shape[-1]
        axis = torch.linspace(-1, 1, side)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        reach = torch.linspace(0, 1, side)[side // 4]
        shifts = (draws[:, :2] - 0.5) * 2 * reach
        across, down = columns + shifts[:, :1, None], rows + shifts[:, 1:2, None]
        across = torch.where(draws[:, 2, None, None] > 0.5, -across, across)
        seen = nn.functional.grid_sample(
            self.inputs + delta, torch.stack([across, down], -1), align_corners=True
        )
        logits = self.network.head(self.network.body(seen))
        loss = nn.functional.cross_entropy(logits, self.wanted)
        return torch.autograd.grad(loss, delta)[0]

    def project(self, delta: Tensor) -> Tensor:
        limit = self.eps / self.sd
        delta = torch.maximum(torch.minimum(delta, limit), -limit)
        low, high = -self.mean / self.sd - self.inputs, (1 - self.mean) / self.sd - self.inputs
        return torch.maximum(torch.minimum(delta, high), low)

    def pgd(self, delta: Tensor, draws: list[Tensor]) -> Tensor:
        for drawn in draws:
            signs = self.gradient(delta, drawn).sign()
            delta = self.project(delta - signs * self.eps / self.sd * self.tau)
        return delta * self.sd

    def mompgd(self, delta: Tensor, draws: list[Tensor]) -> Tensor:
        """Momentum SGD on signs at one rate for all channels, the mean of those of `pgd`."""
        rate, delta = float((self.eps / self.sd * self.tau).mean()), delta.clone()
        optimizer = torch.optim.SGD([delta], lr=rate, momentum=0.9)
        falls = [len(draws) // d for d in (2.667, 1.6, 1.142)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls)
        for drawn in draws:
            delta.grad = self.gradient(delta, drawn).sign()
            optimizer.step()
            schedule.step()
            delta.copy_(self.project(delta))
        return delta * self.sd


@pytest.mark.parametrize(
    ("part", "loop"),
    [
        ("tap(steps=12, surrogate=small_cnn)", "pgd"),
        ("pgd(steps=12, surrogate=small_cnn)", "pgd"),
        (
            "mifgsm(variant=mompgd, momentum=0.9, steps=12, step=0.05, start=normal, "
            "augmentation=affine_shift, surrogate=small_cnn)",
            "mompgd",
        ),
    ],
)
def test_the_tap_family_crafts_as_its_code_does(part: str, loop: str) -> None:
    images, attack = toy(48), ATTACKS.make(part)
    assert isinstance(attack, TransferAttack)
    network, rows = surrogate(images), torch.arange(48)
    context = AttackContext(Stream("originals"), surrogates={"tap40": network})
    ours = attack.pixels(images, context)
    draws = []
    for step in range(12):
        drawn = context.stream.rows(["augmentation", step], rows, (3,), "uniform")
        # Theirs mirrors above 1/2 and after the shift, ours below it and before.
        moved = torch.where(drawn[:, 2:] < 0.5, 1 - drawn[:, :1], drawn[:, :1])
        draws.append(torch.cat([moved, drawn[:, 1:2], 1 - drawn[:, 2:]], 1))
    wanted = (images.labels + 1) % images.classes
    forge = Forge(network, images.floats(), wanted, 8 / 255, 0.05)
    start = attack.first(images.floats(), rows, context) / forge.sd
    theirs = to_uint8(images.floats() + getattr(forge, loop)(start, draws))
    change = (ours.short() - theirs.short()).abs()
    # Signs of gradients near zero may differ by rounding; with a black border a third differs.
    assert float((change > 0).float().mean()) < 0.003
    assert float((ours != images.pixels).float().mean()) > 0.5


def test_surrogates_of_tap_are_shifted_after_they_are_normalized() -> None:
    """A picture of the mean color alone stays what it is, whatever the shift; black is not."""
    images = toy(16)
    network = surrogate(images)
    shift = augmentation("affine_shift", network)
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    even = mean.expand(16, 3, 32, 32)
    torch.testing.assert_close(shift(even, torch.Generator().manual_seed(0)), even)
    x, rng = images.floats(), torch.Generator().manual_seed(0)
    seen = network.normalize(shift(x, rng))
    network.normalize = nn.Identity()
    plain = augmentation("affine_shift", network)
    sd = torch.tensor(SD).view(1, 3, 1, 1)
    expected = plain((x - mean) / sd, torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)
    assert (expected == 0).any(), "no shift left a border"


# Functional attacks: cassidylaidlaw/ReColorAdv@c030c00, recoloradv/perturbations.py and
# color_transformers.py, mister_ed/adversarial_perturbations.py (SequentialPerturbation.forward)


class Layers:
    """Recoloring, flow and noise as layers that each constrain themselves whenever applied."""

    def __init__(self, change: Change) -> None:
        self.table, self.flow, self.noise = (
            t.detach().clone() for t in (change.table, change.flow, change.noise)
        )
        self.flow0 = change.flow0

    def color(self, x: Tensor) -> Tensor:
        self.constrain_color()
        return to_rgb(look_up(self.table, to_luv(x)))

    def constrain_color(self) -> None:
        inside = self.table.clamp(0, 1).flatten(3)
        inside = to_luv(to_rgb(inside)).view_as(self.table)
        start = identity_table(inside.device)
        self.table = (inside - start).clamp(-0.06, 0.06) + start

    def move(self, x: Tensor) -> Tensor:
        self.constrain_flow()
        return nn.functional.grid_sample(x, self.flow, align_corners=True)

    def constrain_flow(self) -> None:
        self.flow = (self.flow.clamp(-1, 1) - self.flow0).clamp(-0.05, 0.05) + self.flow0

    def add(self, x: Tensor) -> Tensor:
        self.make_valid(x)
        self.constrain_noise()
        return x + self.noise

    def make_valid(self, x: Tensor) -> None:
        self.noise = self.noise + (x + self.noise).clamp(0, 1) - (x + self.noise)

    def constrain_noise(self) -> None:
        self.noise = self.noise.clamp(-8 / 255, 8 / 255)

    def forward(self, x: Tensor) -> Tensor:
        self.constrain_color()
        self.constrain_flow()
        self.constrain_noise()
        moved = self.move(self.color(x))
        self.make_valid(moved)
        self.add(moved)
        return self.add(self.move(self.color(x)))


def test_functional_attacks_project_as_often_as_their_code() -> None:
    images = toy(8)
    attack = ATTACKS.make("functional(parts=csd)")
    assert isinstance(attack, Functional)
    x, rng = images.floats(), torch.Generator().manual_seed(0)
    change = Change(attack, x)
    with torch.no_grad():
        for values, size in ((change.table, 0.1), (change.flow, 0.1), (change.noise, 0.1)):
            values.add_(torch.randn(values.shape, generator=rng), alpha=size)
    layers = Layers(change)
    with torch.no_grad():
        theirs, ours = layers.forward(x), change.apply()
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    torch.testing.assert_close(change.table, layers.table, atol=2e-5, rtol=0)
    torch.testing.assert_close(change.noise, layers.noise, atol=2e-5, rtol=0)
    before = layers.table
    layers.constrain_color()
    assert (layers.table - before).abs().max() > 1e-3, "once more would have changed nothing"


# SEP-FA-VR: Sizhe-Chen/SEP@02519d8, ens_feature_svre.py (the loop variable of the outer loop is
# still at the last checkpoint where the inner one takes its class means)


def class_features(network: Network, images: Images) -> Tensor:
    features = network.features(images.floats())
    return torch.stack([features[images.labels == k].mean(0) for k in range(images.classes)])


@pytest.mark.parametrize("last_means", [True, False])
def test_inner_gradients_of_sep_take_the_means_of_the_last_checkpoint(last_means: bool) -> None:
    images, steps, inner = toy(32), 3, 4
    members = [ARCHITECTURES.make("small_cnn").build(4, 16, seed) for seed in range(3)]
    part = (
        f"sep(checkpoints=3, steps=3, inner_steps=4, surrogate=small_cnn, last_means={last_means}"
    )
    attack = ATTACKS.make(f"{part})".lower())
    networks = freeze(nn.ModuleList(members))
    context = AttackContext(Stream("originals"), surrogates={"sep120": networks})
    ours = attack.pixels(images, context)
    x, targets = images.floats(), (images.labels + 2) % 4
    means = [class_features(m, images) for m in members]

    def gradient(k: int, at: Tensor, wanted: Tensor) -> Tensor:
        at = at.detach().clone().requires_grad_()
        loss = nn.functional.mse_loss(members[k].features(at), wanted[targets])
        return torch.autograd.grad(loss, at)[0]

    def move(at: Tensor, total: Tensor) -> Tensor:
        moved = at - total.sign() / 255
        return torch.minimum(torch.maximum(moved, x - 8 / 255), x + 8 / 255).clamp(0, 1)

    z = x
    for step in range(steps):
        outer = [gradient(k, z, means[k]) for k in range(3)]
        average, v, total = sum(outer) / 3, z, torch.zeros_like(z)
        rng = context.stream.generator("member", step)
        for k in torch.randint(3, (inner,), generator=rng).tolist():
            wanted = means[-1] if last_means else means[k]
            total = total + gradient(k, v, wanted) - (outer[k] - average)
            v = move(v, total)
        z = move(z, total)
    assert float((ours != to_uint8(z)).float().mean()) < 0.005
    assert float((ours != images.pixels).float().mean()) > 0.5


# EM of the REM code: fshp971/robust-unlearnable-examples@adf2060, attacks/pgd_attacker.py and
# generate_em.py (pixels there are from -1/2 to 1/2)


def test_remade_em_keeps_noise_within_the_pixels_it_was_made_for() -> None:
    images = toy(32)
    attack = ATTACKS.make("em_remrepo(surrogate=small_cnn)")
    assert isinstance(attack, EmRemRepo)
    network, rng = surrogate(images), torch.Generator().manual_seed(5)
    rows = torch.arange(32)
    ours = attack.noise(network, Batch(images.floats(), images.labels, rows, rng, 0))
    rng = torch.Generator().manual_seed(5)
    x = CropFlip(2)(images.floats(), rng) - 0.5
    # random start, then ten times: against the sign, into the ball, into the box
    z = x + 2 * (torch.rand(x.shape, generator=rng) - 0.5) * 8 / 255
    z = ((z - x).clamp(-8 / 255, 8 / 255) + x).clamp(-0.5, 0.5)
    for _ in range(10):
        z = z.detach().requires_grad_()
        loss = nn.functional.cross_entropy(network(z + 0.5), images.labels)
        (slope,) = torch.autograd.grad(loss, z)
        z = z.detach() - slope.sign() * 1.6 / 255
        z = ((z - x).clamp(-8 / 255, 8 / 255) + x).clamp(-0.5, 0.5)
    kept = (z - x).mul(255).round()
    assert float((ours.mul(255).round() != kept).float().mean()) < 0.005
    assert (x == -0.5).any(), "no black pixel to go below"
    assert (x.add(ours).abs() <= 0.5 + 1e-6).all()


# DC: kingfengji/DeepConfuse@1f49274, CIFAR/models/vgg.py and CIFAR/train.py (test)


def test_the_classifier_of_dc_sees_the_world_through_two_numbers() -> None:
    """Its layers, counted by hand: eight convolutions, 1x1 to two channels, linear 2 -> 10."""
    network = ARCHITECTURES.make(ATTACKS.make("dc").surrogate).build(10, 32, 0)  # type: ignore[attr-defined]
    widths = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    shapes = [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in convolutions]
    assert shapes == [*((a, b, 3) for a, b in pairwise(widths)), (512, 2, 1)]
    assert all(m.bias is not None for m in convolutions)
    assert (network.head.in_features, network.head.out_features) == (2, 10)
    plain = ARCHITECTURES.make("vgg11").build(10, 32, 0)
    plain.load_state_dict({**plain.state_dict(), **_layers(network)})
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    narrow = convolutions[-1]
    with torch.no_grad():
        expected = nn.functional.linear(plain.features(x), narrow.weight.flatten(1), narrow.bias)
        torch.testing.assert_close(network.features(x), expected)


def _layers(network: Network) -> dict[str, Tensor]:
    return {k: v for k, v in network.state_dict().items() if k.startswith("body.0.")}


def test_dc_judges_with_the_statistics_of_its_test_batches() -> None:
    """A network whose running statistics are off is right by those of each batch."""

    class Sorter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1, affine=False)
            self.norm.running_mean.fill_(-50.0)  # type: ignore[union-attr]

        def forward(self, x: Tensor) -> Tensor:
            (value,) = self.norm(x.mean((1, 2, 3))[:, None]).unbind(1)
            return torch.stack([-value, value], 1)

    # Two batches of 600, the second brighter: only by its own mean each is sorted rightly.
    labels = torch.arange(2).repeat(600)
    levels = 40 + 40 * labels + 100 * (torch.arange(1200) >= 600)
    images = Images(levels.byte().view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone(), labels, 2)
    assert batch_accuracy(Sorter(), images, JUDGED_AT_ONCE) == 1.0
    assert batch_accuracy(Sorter(), images.rows(torch.arange(300, 900)), JUDGED_AT_ONCE) == 0.5
    network = Sorter().eval()
    assert (network(images.floats()).argmax(1) == 1).all(), "in eval mode it calls all one class"


# MI-FGSM itself: dongyp13/Non-Targeted-Adversarial-Attacks, attack_iter.py (as Dong et al. 2018
# print it); which program the poisoning paper ran is not known


def test_classic_momentum_is_that_of_its_authors() -> None:
    images = toy(32)
    attack = ATTACKS.make("mifgsm(surrogate=small_cnn)")
    assert isinstance(attack, TransferAttack)
    network = surrogate(images)
    ours = attack.pixels(images, AttackContext(Stream("originals"), surrogates={"tap40": network}))
    x, wanted, total = images.floats(), (images.labels + 1) % images.classes, torch.zeros(1)
    z = x
    for _ in range(10):
        z = z.detach().requires_grad_()
        loss = nn.functional.cross_entropy(network(z), wanted)
        (slope,) = torch.autograd.grad(loss, z)
        total = total + slope / slope.abs().mean((1, 2, 3), keepdim=True)
        z = (z.detach() - 8 / 2550 * total.sign()).clamp(x - 8 / 255, x + 8 / 255).clamp(0, 1)
    assert float((ours != to_uint8(z)).float().mean()) < 0.005
    assert float((ours != images.pixels).float().mean()) > 0.5


# HYPO under l2: TLMichael/Delusive-Adversary@8f033e0, attacks/step.py (L2Step) and adv.py


def test_hypocritical_l2_steps_are_those_of_the_code() -> None:
    images, eps = toy(32), 0.5
    how = "surrogate=small_cnn, steps=20, step=0.2, precision=fp32"
    attack = ATTACKS.make(f"hypo(budget=l2:0.5, {how})")
    assert isinstance(attack, TransferAttack)
    network, x = surrogate(images), images.floats()
    known = {"delusive150": network}
    ours = attack.propose(images, AttackContext(Stream("originals"), surrogates=known))
    z = x
    for _ in range(20):
        z = z.detach().requires_grad_()
        loss = nn.functional.cross_entropy(network(z), images.labels)
        (slope,) = torch.autograd.grad(loss, z)
        length = slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        moved = z.detach() - slope / (length + 1e-10) * 0.2 * eps
        z = ((moved - x).renorm(p=2, dim=0, maxnorm=eps) + x).clamp(0, 1)
    theirs = to_uint8(z)
    assert float((ours.short() - theirs.short()).abs().max()) <= 1
    assert float((ours != theirs).float().mean()) < 0.01
    assert float((z - x).flatten(1).norm(dim=1).min()) > 0.9 * eps


# Class-wise patterns without published code: Sandoval-Segura et al. 2022, by other means


@pytest.mark.parametrize("n", [1, 4, 16, 64])
def test_regions_are_kronecker_products(n: int) -> None:
    images, root = toy(40), math.isqrt(n)
    attack = ATTACKS.make(f"regions(n={n}, values=uniform)")
    context = AttackContext(Stream("originals"))
    ours = attack.propose(images, context)
    values = torch.rand(4, 3 * n, generator=context.stream.generator("patterns")) * 2 - 1
    blocks = torch.ones(16 // root, 16 // root)
    patterns = torch.stack([torch.kron(c, blocks) for c in values.view(-1, root, root)])
    expected = patterns.view(4, 3, 16, 16)[images.labels] * 8 / 255
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_low_frequencies_are_the_inverse_transform_of_scipy(n: int) -> None:
    fft = pytest.importorskip("scipy.fft")
    images, context = toy(40), AttackContext(Stream("originals"))
    ours = ATTACKS.make(f"low_frequency(n={n})").propose(images, context)
    generator = context.stream.generator("patterns")
    drawn = torch.randn(4, 3, n, n, generator=generator, dtype=torch.float64)
    whole = nn.functional.pad(drawn, (0, 16 - n, 0, 16 - n)).numpy()
    waves = torch.from_numpy(fft.idctn(whole, axes=(2, 3), norm="ortho"))
    waves = waves / waves.abs().amax((1, 2, 3), keepdim=True) * 8 / 255
    torch.testing.assert_close(ours, waves[images.labels].float())


# What a defended victim sees: lafeat/apbench@9a6fb91 turns images gray by torchvision's rule


def test_the_gray_that_noise_is_made_against_is_torchvisions() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    x = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = functional.rgb_to_grayscale(x, num_output_channels=3)
    torch.testing.assert_close(luminance(x, torch.Generator()), expected, atol=1e-6, rtol=0)
