"""EM, REM, NTGA, LSP beside the rules of their authors' code, on equal images, weights, draws.

Every expectation is worked out from what the named file at the named commit does; no text of it is
taken over.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.classwise import distinct_signs
from raygrid.attacks.common.em_rounds import RoundsAttack
from raygrid.attacks.common.noise import ClassNoise, NoisyBatch, SampleNoise
from raygrid.attacks.common.ntk import KERNELS
from raygrid.attacks.ntga import Ntga, TrainingBlock
from raygrid.attacks.rem import Rem
from raygrid.attacks.tap import TapRemRepo
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.nn.augment import CropFlip
from raygrid.nn.networks import freeze
from raygrid.nn.pgd import Descent
from raygrid.nn.steps import Batch
from tests.attacks.toys import saturated
from tests.conftest import toy

EPS = 8 / 255
CPU = torch.device("cpu")


# EM: HanxunH/Unlearnable-Examples@f347155, toolbox.py (min_min_attack) and perturbation.py


def least_error(
    network: nn.Module, images: Images, noise: Tensor, descent: Descent, up: bool = False
) -> Tensor:
    """Shown in range; each step goes against the sign, what is kept is within the budget alone.

    up: along the sign (min_max_attack).
    """
    x, y = images.floats(), images.labels
    shown, eta = (x + noise).clamp(0, 1), noise
    step = -descent.step if up else descent.step
    for _ in range(descent.steps):
        shown = shown.detach().requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(network(shown), y), shown)
        eta = (shown.detach() - step * slope.sign() - x).clamp(-descent.radius, descent.radius)
        shown = (x + eta).clamp(0, 1)
    return eta


def start_noise(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1) * EPS


def summed(network: nn.Module, shown: NoisyBatch) -> Tensor:
    return nn.functional.cross_entropy(network(shown.z), shown.y, reduction="sum")


@pytest.mark.parametrize("mode", ["sample", "class"])
def test_the_noise_steps_of_em_are_those_of_its_code(mode: str) -> None:
    """Twenty steps of a tenth of the budget for images, one for classes, which take the mean."""
    images, rows = saturated(24), torch.arange(24)
    network = freeze(ARCHITECTURES.make("small_cnn").build(4, 16, 3))
    descent = Descent(EPS, EPS / 10, 20 if mode == "sample" else 1)
    start = start_noise(24 if mode == "sample" else 4, 3, 16, 16)
    if mode == "sample":
        noise = SampleNoise(images, start.clone(), boxed=False)
        theirs = least_error(network, images, start, descent)
    else:
        noise = ClassNoise(images, start.clone(), rule="mean")
        eta = least_error(network, images, start[images.labels], descent)
        means = torch.stack([eta[images.labels == label].mean(0) for label in range(4)])
        theirs = means.clamp(-EPS, EPS)
    rng = torch.Generator().manual_seed(1)
    noise.descend(rows, 24, lambda shown: summed(network, shown), descent, rng)
    assert float(((noise.values - theirs).abs() > 1e-6).float().mean()) < 0.005
    assert float((noise.values - start).abs().mean()) > 0.05 * EPS
    if mode == "sample":
        beyond = (images.floats() + noise.values - 0.5).abs() > 0.5
        assert float(beyond.float().mean()) > 0.02, "no noise beyond the pixel range to compare"


# EM and REM of APBench: lafeat/apbench@9a6fb91, attack/em_poisons.py and rem_poisons.py


@pytest.mark.parametrize("name", ["em_apb", "rem_apb"])
def test_the_noise_of_apbench_is_that_of_its_code(name: str) -> None:
    """Two rounds of five steps of 1.6 levels, in REM from starts that went up by 0.8, to 4."""
    images, rows = saturated(24), torch.arange(24)
    attack = ATTACKS.make(f"{name}(surrogate=small_cnn)")
    assert isinstance(attack, RoundsAttack)
    network = freeze(ARCHITECTURES.make("small_cnn").build(4, 16, 3))
    noise = attack.start(images, AttackContext(Stream("originals")))
    descent = Descent(EPS, 1.6 / 255, 5)
    mine = Descent(attack.radius, attack.step * attack.radius, attack.plan[0])
    theirs = start = torch.zeros(24, 3, 16, 16)
    rng = torch.Generator().manual_seed(1)
    for _ in range(2):
        noise.descend(rows, 24, lambda shown: summed(network, shown), mine, rng)
        if name == "rem_apb":
            start = least_error(network, images, start, Descent(EPS / 2, 0.8 / 255, 5), up=True)
        theirs = least_error(network, images, theirs if name == "em_apb" else start, descent)
    assert float(((noise.values - theirs).abs() > 1e-6).float().mean()) < 0.005
    assert float(theirs.abs().mean()) > 0.2 * EPS


# NTGA: lionelmessi6410/ntga@0bc7308, generate_attack.py (adv_loss) and attacks/; predictions as
# neural_tangents' gradient_descent_mse makes them


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_block_of_ntga_is_that_of_its_code(kernel: str) -> None:
    """One step of the whole budget up the cross-entropy of held-out images, in float64.

    Predictions at time t are K(v, x) K^-1 (1 - exp(-t K / n)) y, n the number of targets, with 1e-4
    of the mean of the diagonal on it. The gradient goes through the matrix exponential. All ten
    iterations there start at the clean images with the whole budget, so they give one result.
    """
    images, size, time = toy(36, 8), 16, 8.0
    attack = ATTACKS.make(f"ntga(kernel={kernel}, block={size}, chunk=5, time={time})")
    assert isinstance(attack, Ntga)
    rows, held = torch.arange(size), torch.arange(size, 36)
    ours = attack.perturbed(TrainingBlock(attack, images, rows, held, CPU))
    x = (images.pixels[rows].double() / 255).requires_grad_()
    v = images.pixels[held].double() / 255
    y = nn.functional.one_hot(images.labels[rows], 4).double()
    gram = KERNELS[kernel](x, x)
    gram = gram + 1e-4 * gram.diagonal().mean() * torch.eye(size)
    learned = torch.eye(size).double() - torch.matrix_exp(-gram * time / y.numel())
    outputs = KERNELS[kernel](v, x) @ torch.linalg.solve(gram, learned @ y)
    loss = nn.functional.cross_entropy(outputs, images.labels[held])
    (slope,) = torch.autograd.grad(loss, x)
    wanted = (x.detach() + EPS * slope.sign()).clamp(0, 1).mul(255).round()
    assert float((ours.double() != wanted).double().mean()) < 1e-3
    assert float((ours != images.pixels[rows]).double().mean()) > 0.9


# LSP: dayu11/Availability-Attacks-Create-Shortcuts@d27ab29, synthetic_perturbations/cifar_train.py
# and util.py; clusters as scikit-learn's make_classification makes them


def clusters(labels: Tensor, classes: int, stream: Stream) -> np.ndarray:
    """Normal points times a matrix of the class, U(-1, 1), around its vertex of a cube of side 20.

    (n, 48), from the draws of `lsp`.
    """
    index = torch.arange(len(labels))
    points = stream.rows("sample", index, (48,)).double().numpy()
    vertices = distinct_signs(classes, 48, stream.generator("centers")).numpy()
    for label in range(classes):
        drawn = torch.rand(48, 48, generator=stream.generator("mixing", label))
        mine = (labels == label).numpy()
        points[mine] = points[mine] @ (2 * drawn.double().numpy() - 1) + 10 * vertices[label]
    return points


def test_the_images_of_lsp_are_those_of_its_code() -> None:
    """Each point a picture of 4 x 4 blocks of 8 pixels, of length 6 / 255 * sqrt(3072), added.

    The code cuts off to whole levels, so that it may lie one level lower: the card says so.
    """
    images = toy(60, 32, 4)
    context = AttackContext(Stream("poison", ("toy", "lsp", 0)))
    ours = ATTACKS.make("lsp").poison(images, context).pixels
    points = clusters(images.labels, 4, context.stream).reshape(-1, 3, 4, 4)
    pictures = np.repeat(np.repeat(points.transpose(0, 2, 3, 1), 8, 2), 8, 1)
    flat = pictures.reshape(60, -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True) * np.sqrt((6 / 255) ** 2 * 3072)
    x = images.pixels.permute(0, 2, 3, 1).numpy() / 255
    exact = np.clip((x + flat.reshape(x.shape)) * 255, 0, 255).transpose(0, 3, 1, 2)
    assert np.abs(ours.numpy() - exact).max() < 0.501
    lower = ours.numpy() - np.floor(exact)
    assert set(np.unique(lower)) == {0.0, 1.0}
    assert 0.4 < lower.mean() < 0.6


# REM and its TAP: fshp971/robust-unlearnable-examples@adf2060, attacks/robust_workers.py,
# generate_robust_em.py, generate_tap.py (pixels there are from -1/2 to 1/2)


def raised(network: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
    """_get_adv_: three steps of 0.8 levels up the loss, within 4 levels and the range."""
    moved = start
    for _ in range(3):
        moved = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(network(moved), y), moved)
        moved = moved.detach() + 0.8 / 255 * slope.sign()
        moved = (x + (moved - x).clamp(-4 / 255, 4 / 255)).clamp(0, 1)
    return moved.detach()


def test_robust_noise_is_that_of_its_code() -> None:
    """The gradient at the adversary's result goes back through crops, copies are summed."""
    images, copies = saturated(12), 2
    attack = ATTACKS.make(f"rem(surrogate=small_cnn, steps=4, copies={copies}, adv_steps=3)")
    assert isinstance(attack, Rem)
    network = freeze(ARCHITECTURES.make("small_cnn").build(4, 16, 3))
    rows, x = torch.arange(12), images.floats()
    rng = torch.Generator().manual_seed(5)
    ours = attack.noise(network, Batch(x, images.labels, rows, rng, 0))
    rng = torch.Generator().manual_seed(5)
    delta = (torch.rand(x.shape, generator=rng) * 2 - 1) * EPS
    for _ in range(4):
        delta = delta.detach().requires_grad_()
        both = (x + delta).clamp(0, 1).repeat(copies, 1, 1, 1)
        seen = CropFlip(2)(both, rng)  # all copies are drawn at once here
        still = seen.detach()
        drawn = (torch.rand(still.shape, generator=rng) * 2 - 1) * 4 / 255
        labels = images.labels.repeat(copies)
        worst = raised(network, still, labels, (still + drawn).clamp(0, 1)).requires_grad_()
        loss = nn.functional.cross_entropy(network(worst), labels)
        (slope,) = torch.autograd.grad(loss, worst)
        (routed,) = torch.autograd.grad((seen * slope).sum(), delta)
        delta = (delta.detach() - 1.6 / 255 * routed.sign()).clamp(-EPS, EPS)
    assert float(((ours - delta).abs() > 1e-6).float().mean()) < 0.005


def test_targeted_poisons_of_the_rem_code_are_those_of_that_code() -> None:
    """Uniform start; the image with noise cut off, cropped and mirrored; noise in the budget."""
    images, steps = saturated(16), 12
    part = f"tap_remrepo(surrogate=small_cnn, steps={steps}, step=0.05, batch_size=16)"
    attack = ATTACKS.make(part)
    assert isinstance(attack, TapRemRepo)
    network = freeze(ARCHITECTURES.make("small_cnn").build(4, 16, 3))
    context = AttackContext(Stream("originals"), surrogates={"rem40k": network})
    ours = attack.propose(images, context)
    rows, x, wanted = torch.arange(16), images.floats(), (images.labels + 1) % 4
    delta = (context.stream.rows("start", rows, (3, 16, 16), "uniform") * 2 - 1) * EPS
    for step in range(steps):
        delta = delta.detach().requires_grad_()
        padded = nn.functional.pad((x + delta).clamp(0, 1), (2, 2, 2, 2))
        seen = []
        draws = context.stream.rows(["augmentation", step], rows, (3,), "uniform")
        for image, (down, right, mirrored) in zip(padded, draws.tolist(), strict=True):
            top, left = int(down * 5), int(right * 5)
            cut = image[:, top : top + 16, left : left + 16]
            seen.append(cut.flip(2) if mirrored < 0.5 else cut)
        loss = nn.functional.cross_entropy(network(torch.stack(seen)), wanted)
        (slope,) = torch.autograd.grad(loss, delta)
        delta = (delta.detach() - 0.05 * EPS * slope.sign()).clamp(-EPS, EPS)
    assert float((ours != to_uint8(x + delta)).float().mean()) < 0.005
    assert ((x + delta - 0.5).abs() > 0.5).any(), "no noise beyond the pixel range to compare"
