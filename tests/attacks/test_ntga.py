"""NTGA: kernels beside those of wide networks, gradient flow and steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.ntk import BIAS_VARIANCE, KERNELS, RIDGE, WEIGHT_VARIANCE, GradientFlow
from raygrid.attacks.ntga import Ntga, TrainingBlock
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from tests.attacks.toys import CPU
from tests.conftest import toy


def test_the_kernels_are_symmetric_and_positive() -> None:
    x = toy(12).floats().double()
    for kernel in KERNELS.values():
        gram = kernel(x, x)
        torch.testing.assert_close(gram, gram.T)
        assert torch.linalg.eigvalsh(gram).min() > 0


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_are_those_of_wide_networks(name: str) -> None:
    """The tangent kernel of finite networks, averaged over draws of their weights."""
    x = toy(2, side=8, classes=2).floats().double()
    draws = torch.stack([finite_kernel(name, x, seed) for seed in range(16)])
    mean, error = draws.mean(0), draws.std(0) / len(draws) ** 0.5
    exact = KERNELS[name](x, x)
    assert ((mean - exact).abs() < 3.5 * error).all(), f"{mean} +- {error}, exact {exact}"
    assert (error / mean < 0.05).all()


def finite_kernel(name: str, x: Tensor, seed: int, width: int = 128) -> Tensor:
    """Products of all parameter gradients of a random network, mean over outputs, (n, n)."""
    rng = torch.Generator().manual_seed(seed)
    params: list[Tensor] = []

    def drawn(*shape: int) -> Tensor:
        params.append(torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_())
        return params[-1]

    def scaled(weight: Tensor) -> Tensor:
        return weight * (WEIGHT_VARIANCE / weight[0].numel()) ** 0.5

    def convolved(h: Tensor) -> Tensor:
        weight, bias = drawn(width, h.shape[1], 5, 5), drawn(width)
        total = max((-(-h.shape[-1] // 2) - 1) * 2 + 5 - h.shape[-1], 0)
        low, high = total // 2, total - total // 2
        h = nn.functional.pad(h, (low, high, low, high))
        return nn.functional.conv2d(h, scaled(weight), bias * BIAS_VARIANCE**0.5, stride=2)

    def dense(h: Tensor, outputs: int) -> Tensor:
        return h @ scaled(drawn(outputs, h.shape[1])).T + drawn(outputs) * BIAS_VARIANCE**0.5

    if name == "cnn":
        h = convolved(convolved(x).relu()).relu().flatten(1)
        h = dense(dense(dense(h, width), width), 1)
    else:
        h = x.flatten(1)
        for outputs in (width, width, width, width, 32):
            h = dense(h, outputs).erf()
    total = torch.zeros(len(x), len(x), dtype=torch.float64)
    for outputs in h.T:
        rows = [torch.autograd.grad(out, params, retain_graph=True) for out in outputs]
        flat = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        total += flat @ flat.T / h.shape[1]
    return total


def test_long_training_is_kernel_regression() -> None:
    gram = torch.tensor([[3.0, 1.0, 0.5], [1.0, 2.0, 0.3], [0.5, 0.3, 1.0]]).double()
    targets = torch.eye(3).double()
    ridged = gram + RIDGE * 2 * torch.eye(3)
    expected = torch.linalg.solve(ridged, targets)
    torch.testing.assert_close(GradientFlow(gram, targets, 1e9).weights, expected)
    early = GradientFlow(gram, targets, 1e-6).weights  # the first moment: rate times targets
    torch.testing.assert_close(early, targets * 1e-6 / 9, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gradient_is_that_of_finite_differences(kernel: str) -> None:
    images = toy(20, side=8)
    attack = ATTACKS.make(f"ntga(kernel={kernel}, block=8, chunk=3, time=50)")
    assert isinstance(attack, Ntga)
    block = TrainingBlock(attack, images, torch.arange(8), torch.arange(8, 20), CPU)
    _, gradient = block.slope(block.x, 0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        way = torch.randn(block.x.shape, generator=generator, dtype=torch.float64)
        ends = [block.slope(block.x + h * way, 0)[0][0] for h in (1e-5, -1e-5)]
        slope = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close((gradient * way).sum(), slope, rtol=1e-3, atol=1e-6)


def test_ntga_takes_whole_steps_and_every_image_once(images: Images) -> None:
    attack = ATTACKS.make("ntga(block=16)")
    assert isinstance(attack, Ntga)
    context = AttackContext(Stream("poison"))
    blocks = attack.blocks(images, context)
    assert torch.cat([rows for rows, _ in blocks]).sort().values.tolist() == list(range(64))
    assert all(not set(rows.tolist()) & set(held.tolist()) for rows, held in blocks)
    change = attack.pixels(images, context).short() - images.pixels.short()
    middle = (images.pixels >= 8) & (images.pixels <= 247)
    assert set(change[middle].unique().tolist()) <= {-8, 0, 8}


def test_ntga_raises_the_held_out_loss_more_than_random_signs() -> None:
    images = toy(160)
    attack = ATTACKS.make("ntga(block=96, time=4000)")
    assert isinstance(attack, Ntga)
    rows, held = attack.blocks(images, AttackContext(Stream("poison")))[0]
    block = TrainingBlock(attack, images, rows, held, CPU)
    signs = torch.randn(block.x.shape, generator=torch.Generator().manual_seed(0)).sign()
    ours = attack.perturbed(block).double() / 255
    random = (block.x + signs * 8 / 255).clamp(0, 1)
    noisy, poisoned = (-float(block.slope(z, 0)[0][0]) for z in (random, ours))
    assert poisoned > noisy + 0.05 * len(held)
