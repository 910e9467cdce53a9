"""D-VAE beside its authors' code: yuyi-sd/D-VAE@9d62e4c.

The networks are those of configs/models/resnet.py (ResNet18DVAE and ResNet18VAE that end after 7 or
15 convolutions), the losses, the training and the two passes those of main_vae_disentangle.py with
the settings of configs/cifar10/resnet18DVAE.yaml and some_scripts.sh, where `--use_y` switches the
use of y off, so that perturbations are decoded from z and the label's map. All in our own words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.defenses.base import FitContext
from raygrid.defenses.dvae import DVae
from raygrid.nn.trainer import Trainer
from raygrid.nn.vae import VaeFit, VaeSize
from raygrid.nn.vae.fitting import fit, fresh_autoencoder, objective
from raygrid.nn.vae.networks import AutoEncoder
from tests.conftest import seeded
from tests.defenses.toys import smooth

LATE = VaeFit(VaeSize(8), 1.0, 60).late


Sizes = tuple[int, int, int]
"""Inputs, outputs and kernel of a transposed convolution."""
IDLE: Sizes = (0, 0, 0)
"""In the place of one: `Standard` and a ReLU."""


class Block(nn.Module):
    """Two convolutions of 3 x 3 and what came in, put through one of 1 x 1 where sizes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        around = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.around = nn.Sequential(*([] if same else around))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inner)) + self.around(x))


class Standard(nn.Module):
    """Each channel of an image to mean 0 and variance 1, in training and afterwards."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt()


def stem(convolutions: int, share: int) -> nn.Sequential:
    """A ResNet-18 up to the first block of its second stage (7), or of its fourth (15)."""
    widths = [width // share for width in (64, 128, 256, 512)]
    first = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    blocks = [Block(widths[0], widths[0]), Block(widths[0], widths[0])]
    for before, after in pairwise(widths):
        blocks += [Block(before, after, 2), Block(after, after)]
    return nn.Sequential(*first, *blocks[: (convolutions - 1) // 2])


def decoder(convolutions: int, share: int) -> nn.Sequential:
    """Transposed convolutions by their sizes; a kernel of 4 doubles the side."""
    shallow: list[Sizes] = [(128, 64, 4), (64, 64, 3), IDLE, (64, 32, 3), IDLE, (32, 3, 3)]
    deep: list[Sizes] = [
        (512, 256, 4),
        (256, 128, 3),
        IDLE,
        (128, 64, 4),
        (64, 32, 3),
        IDLE,
        (32, 3, 4),
    ]
    layers: list[nn.Module] = []
    for inputs, outputs, kernel in shallow if convolutions == 7 else deep:
        if not kernel:
            layers += [Standard(), nn.ReLU()]
            continue
        wide = outputs if outputs == 3 else outputs // share
        layers.append(nn.ConvTranspose2d(inputs // share, wide, kernel, 2 if kernel == 4 else 1, 1))
    return nn.Sequential(*layers)


@dataclass
class Found:
    """What the network of the code gives: `rec, mu, log_var, perturbation`."""

    features: Tensor
    mean: Tensor
    log_var: Tensor
    z: Tensor
    image: Tensor
    perturbation: Tensor


class Theirs(nn.Module):
    """The network of the code, with the weights of one of ours copied into it."""

    def __init__(self, ours: AutoEncoder) -> None:
        super().__init__()
        plan = self.plan = ours.plan
        self.convolutions, share = 15 if plan.deep else 7, plan.shrink
        channels, latent = (512 if plan.deep else 128) // share, 256 // share
        self.encoder = stem(self.convolutions, share)
        self.mean = nn.Conv2d(channels, latent, 1)
        self.log_var = nn.Conv2d(channels, latent, 1)
        self.project = nn.Conv2d(latent, channels, 1)
        self.decoder = decoder(self.convolutions, share)
        if plan.classes:
            self.embedding = nn.Embedding(plan.classes, ours.table[0].numel())
            self.branch = decoder(self.convolutions, share)
        self.to(ours.mean.weight.dtype)
        with torch.no_grad():
            for _, mine, yours in self.pairs(ours):
                copied(yours, mine)
            if plan.classes:
                self.embedding.weight.copy_(ours.table.flatten(1))

    def pairs(self, ours: AutoEncoder) -> list[tuple[str, nn.Module, nn.Module]]:
        """Parts that are the same here and in a network of ours, but for the maps of labels."""
        names = ["encoder", "mean", "log_var", "project", "decoder"]
        names += ["branch"] if self.plan.classes else []
        return [(name, self.get_submodule(name), ours.get_submodule(name)) for name in names]

    def forward(self, x: Tensor, y: Tensor, sample: Tensor) -> Found:
        """sample: standard normal, of the size of the latent."""
        features = self.encoder(x)
        mean, log_var = self.mean(features), self.log_var(features)
        z = self.project(mean + sample * torch.exp(0.5 * log_var))
        image = torch.sigmoid(self.decoder(z))
        if not self.plan.classes:
            return Found(features, mean, log_var, z, image, torch.zeros_like(image))
        maps = self.embedding(y)
        if maps.shape[1] == z.shape[1]:
            maps = maps[:, :, None, None].repeat(1, 1, *z.shape[2:])
        perturbation = self.branch(maps.reshape(z.shape) + z)
        return Found(features, mean, log_var, z, image, perturbation)


def state(module: nn.Module) -> list[Tensor]:
    """Weights and running statistics, one after the other."""
    return [value for value in (*module.parameters(), *module.buffers()) if value.dim()]


def copied(source: nn.Module, target: nn.Module) -> None:
    for value, here in zip(state(source), state(target), strict=True):
        assert value.shape == here.shape
        here.copy_(value)


def terms(found: Found, x: Tensor) -> dict[str, Tensor]:
    """The four terms of the code's loss."""
    mean, log_var = found.mean, found.log_var
    rate = (-0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(dim=1)).mean(dim=(0, 1, 2))
    both = (found.image + found.perturbation).clamp(0, 1)
    return {
        "image": functional.mse_loss(found.image, x),
        "both": functional.mse_loss(both, x),
        "rate": rate,
        "size": functional.mse_loss(found.perturbation, torch.zeros_like(x)),
    }


def loss(part: dict[str, Tensor], limit: float, epoch: int) -> Tensor:
    """Of `terms`. limit: 1 in the first round, `--kd` in the second; epoch: counted from 0."""
    rate = part["rate"] if part["rate"] > limit else torch.full_like(part["rate"], limit)
    total = part["image"] + part["both"] + (0.01 if limit > 0.99 else 0.5) * rate
    if epoch > 10:
        size = part["size"]
        total = total + (size if size > 0.002 else torch.full_like(size, 0.002))
    return total


PLANS = {
    "a map for each class": VaeSize(16, 4),
    "a vector for each class": VaeSize(16, 4, spatial=False),
    "of 224 pixels": VaeSize(16, 4, deep=True, spatial=False),
    "without classes": VaeSize(16),
}


def pair(name: str, shrink: int = 1) -> tuple[AutoEncoder, Theirs, Tensor, Tensor]:
    """Both networks in float64, their statistics away from the start, with images and labels."""
    torch.manual_seed(0)
    ours = AutoEncoder(replace(PLANS[name], shrink=shrink)).double()
    x, y = smooth(6, 16).floats().double(), torch.tensor([0, 1, 2, 3, 1, 0])
    with torch.no_grad():
        ours(x.flip(0), y, seeded(1))
        ours.mean.weight.mul_(8)  # a rate above all limits
    return ours, Theirs(ours), x, y


def sample(plan: VaeSize, n: int, rng: torch.Generator) -> Tensor:
    return torch.randn((n, plan.latent, plan.grid, plan.grid), generator=rng)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    off, largest = (ours - theirs).detach().abs().max(), theirs.detach().abs().max()
    assert float(off) <= 1e-9 * float(largest)


@pytest.mark.parametrize(
    ("name", "training"), [*zip(PLANS, (False, True, True, False), strict=True)]
)
def test_the_networks_of_dvae_are_those_of_its_code(name: str, training: bool) -> None:
    ours, theirs, x, y = pair(name)
    seen: dict[str, Tensor] = {}
    for part in ("encoder", "mean", "log_var", "project"):
        ours.get_submodule(part).register_forward_hook(
            lambda _, __, out, part=part: seen.update({part: out})
        )
    parts = ours.train(training)(x, y, seeded(2))
    found = theirs.train(training)(x, y, sample(ours.plan, 6, seeded(2)))
    for part, wanted in (
        ("encoder", found.features),
        ("mean", found.mean),
        ("log_var", found.log_var),
        ("project", found.z),
    ):
        assert_close(seen[part], wanted)
    assert_close(parts.image, found.image)
    if ours.plan.classes:
        assert parts.perturbation is not None
        assert_close(parts.perturbation, found.perturbation)
    for mine, yours in zip(state(ours.encoder), state(theirs.encoder), strict=True):
        assert_close(mine, yours)


@pytest.mark.parametrize(("limit", "epoch"), [(1.0, 10), (3.0, 11), (0.5, 11), (1e6, 11)])
def test_the_loss_of_dvae_and_its_gradients_are_those_of_its_code(limit: float, epoch: int) -> None:
    """1e6: a rate below its limit, which pulls at nothing."""
    ours, theirs, x, y = pair("a map for each class", shrink=4)
    parts = ours(x, y, seeded(2))
    found = theirs(x, y, sample(ours.plan, 6, seeded(2)))
    each = terms(found, x)
    assert_close(parts.rate, each["rate"])
    assert 3 < each["rate"].item() < 1e6
    assert each["size"].item() > 0.002
    mine, yours = objective(parts, x, limit, epoch >= LATE), loss(each, limit, epoch)
    assert_close(mine, yours)
    mine.backward()
    yours.backward()
    slopes = {"table": (ours.table.grad, theirs.embedding.weight.grad)}
    for name, here, there in theirs.pairs(ours):
        both = zip(here.named_parameters(), there.parameters(), strict=True)
        slopes |= {f"{name}.{part}": (q.grad, p.grad) for (part, p), q in both}
    largest = max(float(wanted.abs().max()) for _, wanted in slopes.values() if wanted is not None)
    for name, (got, wanted) in slopes.items():
        assert got is not None, name
        assert wanted is not None, name
        off = float((got.flatten() - wanted.flatten()).abs().max())
        assert off <= 1e-9 * max(float(wanted.abs().max()), 1e-6 * largest), name


def round_of_the_code(network: Theirs, batches: Trainer, limit: float, epochs: int) -> None:
    """Adam at 0.005, by a cosine over the epochs, gradients no longer than 5."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005, weight_decay=0.0)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs, eta_min=0.0)
    network.train()
    for epoch in range(epochs):
        for batch in batches.batches(epoch):
            optimizer.zero_grad()
            found = network(batch.x, batch.y, sample(network.plan, len(batch.y), batch.rng))
            loss(terms(found, batch.x), limit, epoch).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
        falling.step()
    network.eval()


def stored(x: Tensor) -> Tensor:
    """Cut off to whole levels, as an array of uint8."""
    return (255 * x).clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def taken_off(network: Theirs, images: Images, context: FitContext) -> Tensor:
    x, noise = images.floats(), sample(network.plan, len(images), context.stream.generator(0))
    return (x - network(x, images.labels, noise).perturbation).clamp(0, 1)


def assert_trained_alike(ours: AutoEncoder, theirs: Theirs, start: Theirs) -> None:
    """All weights to a share of their change, but for biases that `Standard` takes out again.

    Those have no gradient but rounding, of which Adam makes steps as long as any.
    """
    pairs = zip(theirs.named_parameters(), start.parameters(), strict=True)
    change = {name: float((p - q).detach().abs().max()) for (name, p), q in pairs}
    weights = dict(theirs.named_parameters())
    off = {"embedding.weight": ours.table.flatten(1) - weights["embedding.weight"]}
    for part, mine, yours in theirs.pairs(ours):
        for (name, p), q in zip(mine.named_parameters(), yours.parameters(), strict=True):
            off[f"{part}.{name}"] = p - q
    assert off.keys() == weights.keys()
    idle = {f"{part}.{layer}.bias" for part in ("decoder", "branch") for layer in (1, 4)}
    for name in off.keys() - idle:
        assert change[name] > 0.01, name
        assert float(off[name].detach().abs().max()) < 1e-3 * change[name], name


def test_dvae_purifies_as_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both rounds, 13 epochs of two batches each: all weights and the stored images of both."""
    images = Images(smooth(12, 8).pixels, torch.arange(12) % 4, 4)
    ours: list[AutoEncoder] = []

    def spy(how: VaeFit, images: Images, context: FitContext) -> AutoEncoder:
        ours.append(fit(how, images, context))
        return ours[-1]

    monkeypatch.setattr("raygrid.defenses.dvae.fit", spy)
    context = FitContext(Stream("purify", ("toy", 0)), torch.device("cpu"))
    dvae = DVae(epochs=13, batch_size=6, shrink=8, quant="trunc")
    purified = dvae.purify(images, context)

    shown = images
    for number, (limit, part) in enumerate(((1.0, "fit1"), (3.0, "fit2"))):
        how = VaeFit(ours[number].plan, limit, 13, batch_size=6)
        fresh, batches = fresh_autoencoder(how, shown, context.part(part))
        network, start = Theirs(fresh), Theirs(fresh)
        round_of_the_code(network, batches, limit, 13)
        assert_trained_alike(ours[number], network, start)
        x = taken_off(network, shown, context.part(f"stage{number + 1}"))
        if number == 0:
            shown = shown.with_pixels(stored(x))
    noise = sample(network.plan, 12, context.part("reconstruct").stream.generator(0))
    theirs = stored(network(x, shown.labels, noise).image.detach())
    change = (purified.pixels.int() - theirs.int()).abs()
    assert int(change.max()) <= 1
    assert float(change.float().mean()) < 0.002
    assert float((purified.pixels.int() - images.pixels.int()).abs().float().mean()) > 10
