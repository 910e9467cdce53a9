"""Contrastive attacks beside the rules of their authors' code, on the same tensors.

Every expectation is worked out from what the named file at the named commit does; no text of it is
taken over.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import fan_out_init
from raygrid.attacks import ATTACKS
from raygrid.attacks.aue import Aue, PlainClassNoise
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.em_rounds import RoundsAttack
from raygrid.attacks.common.free_noise import LooseNoise
from raygrid.attacks.common.noise import NoisyBatch
from raygrid.attacks.common.students import contrastive_loss, fresh
from raygrid.attacks.cp import Cp
from raygrid.attacks.tue import EpochStudent, Tue, passes_of
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream, forked
from raygrid.nn.augment import Views
from raygrid.nn.contrastive.base import Branch
from raygrid.nn.contrastive.byol import ByolLoss
from raygrid.nn.contrastive.moco import MocoLoss
from raygrid.nn.networks import freeze
from raygrid.nn.pgd import Descent, frozen
from tests.attacks.toys import saturated
from tests.conftest import toy

EPS = 8 / 255


def branch(seed: int = 0) -> Branch:
    network = ARCHITECTURES.make("small_cnn(width=8)").build(4, 16, seed)
    with forked(seed):
        return Branch(network, nn.Linear(32, 8), "fp32")


# Encoders: kaiwenzha/contrastive-poisoning@628838c resnet.py, TrustMLRG/TransPoison@2d08a9c
# resnet.py, lafeat/apbench@9a6fb91 nets/resnet_us.py; torchvision's ResNet for AUE-AAP and TUE


def test_convolutions_start_by_fan_out() -> None:
    network = ARCHITECTURES.make("resnet18").build(10, 32, 0)
    fan_out_init(network, 1)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            expected = (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            values = module.weight.detach()
            assert float(values.std()) == pytest.approx(expected, rel=0.1)
            assert abs(float(values.mean())) < 5 * expected / values.numel() ** 0.5
            assert float(values.abs().max()) > 2.5 * expected, "uniform, not normal"
    held = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    first = next(m for m in held.modules() if isinstance(m, nn.Conv2d))
    first.weight.requires_grad_(False)
    before = first.weight.clone()
    fan_out_init(held, 1)
    assert torch.equal(first.weight, before)


def test_attacks_with_students_start_by_fan_out() -> None:
    images, context = toy(8), AttackContext(Stream("originals"))
    pairs = zip(
        fresh("resnet18", images, context, fan_out=True).modules(),
        ARCHITECTURES.make("resnet18").build(4, 16, 0).modules(),
        strict=True,
    )
    for made, plain in pairs:
        if isinstance(made, nn.Conv2d) and made.in_channels == made.out_channels:
            ratio = float(made.weight.detach().std() / plain.weight.detach().std())  # type: ignore[operator]
            assert ratio == pytest.approx(6**0.5, rel=0.03)  # sqrt(2 / n) to sqrt(1 / (3 n))


# lafeat/apbench@9a6fb91: attack/basic/em_utils.py draws by fan-out, rem_utils.py does not


@pytest.mark.parametrize(("name", "expected"), [("em_apb", 0.0417), ("rem_apb", 0.0240)])
def test_the_networks_of_apbenchs_attacks_start_as_in_its_code(name: str, expected: float) -> None:
    attack = ATTACKS.make(f"{name}(surrogate=resnet18)")
    assert isinstance(attack, RoundsAttack)
    images, context = toy(8, side=32), AttackContext(Stream("originals"))
    network = attack.student(attack.start(images, context), context).module
    wide = [
        m.weight
        for m in network.modules()
        if isinstance(m, nn.Conv2d) and m.weight.shape == (128, 64, 3, 3)
    ]
    assert [float(w.detach().std()) for w in wide] == pytest.approx([expected], rel=0.02)


# CP: kaiwenzha/contrastive-poisoning@628838c, README.md: SimCLR's poison is of epoch 160 of 200


def test_the_noise_of_simclr_is_taken_before_the_end() -> None:
    kept = {
        text: ATTACKS.make(f"cp({text})").kept_epoch  # type: ignore[attr-defined]
        for text in ("epochs=200", "framework=moco", "framework=byol", "epochs=1", "kept=200")
    }
    assert list(kept.values()) == [160, 200, 200, 1, 200]
    with pytest.raises(SpecError, match="kept is 201, allowed are whole numbers from 1 to epochs="):
        ATTACKS.make("cp(kept=201)")


def test_noise_that_is_taken_early_is_that_of_the_longer_schedule() -> None:
    """Two epochs of five are those that five epochs begin with, not a training of two."""
    images, context = toy(32), AttackContext(Stream("originals"))
    how = "framework=moco, start=uniform, surrogate=small_cnn, batch_size=16, queue=32, steps=1"

    def noise(more: str) -> Tensor:
        return ATTACKS.make(f"cp({how}, {more})").pixels(images, context)

    early, whole, short = map(noise, ("epochs=5, kept=2", "epochs=5", "epochs=2"))
    assert not torch.equal(early, whole)
    assert not torch.equal(early, short), "its rate has fallen further"
    assert torch.equal(early, noise("epochs=5, kept=2"))


# AUE: EhanW/AUE-AAP@64fb25f, aue.py (dynamic_strength, error_minimizing)


def test_schedules_of_aue_run_over_its_epochs_counted_from_one() -> None:
    for schedule, strengths in (
        ("increasing", {1: 1 / 60, 30: 0.5, 60: 1.0}),
        ("annealing", {1: 59 / 60, 30: 0.5, 60: 0.0}),
        ("constant", {1: 0.6, 60: 0.6}),
    ):
        attack = ATTACKS.make(f"aue(schedule={schedule})")
        assert isinstance(attack, Aue)
        for epoch, strength in strengths.items():
            views = attack.views(epoch - 1)
            assert views.scale[0] == pytest.approx(1 - 0.9 * strength), (schedule, epoch)
            assert views.brightness == pytest.approx(0.4 * strength), (schedule, epoch)


def test_class_wise_aue_adds_its_noise_without_clipping() -> None:
    images, descent = saturated(), Descent(EPS, EPS / 10, 4)
    network = freeze(ARCHITECTURES.make("small_cnn").build(4, 16, 3))
    rng = torch.Generator().manual_seed(0)
    start = (torch.rand(4, 3, 16, 16, generator=rng) * 2 - 1) * EPS
    ours = PlainClassNoise(images, start.clone())

    def loss(shown: NoisyBatch) -> Tensor:
        return functional.cross_entropy(network(shown.z), shown.y)

    index = torch.arange(24)
    ours.descend(index, 24, loss, descent, rng)
    theirs = start.clone()
    for _ in range(4):
        theirs.requires_grad_()
        value = functional.cross_entropy(
            network(images.floats() + theirs[images.labels]), images.labels
        )
        (slope,) = torch.autograd.grad(value, theirs)
        theirs = (theirs.detach() - EPS / 10 * slope.sign()).clamp(-EPS, EPS)
    assert float(((ours.values - theirs).abs() > 1e-6).float().mean()) < 0.005
    assert ours.shown(index).min() < 0
    assert ours.shown(index).max() > 1


# TUE: renjie3/TUE@6b3752b, ssl_perturbation.py (sample_wise_perturbation), moco_utils.py


def walked(batches: int, train_step: int) -> list[int]:
    """Network batches before each noise pass of an epoch: the loop asks until nothing is left."""
    source: Iterator[int] = iter(range(batches))
    counts, going = [], True
    while going:
        taken = 0
        for _ in range(train_step):
            if next(source, None) is None:
                going = False
                break
            taken += 1
        counts.append(taken)
    return counts


@pytest.mark.parametrize(
    ("framework", "per_epoch", "train_step", "epochs"),
    [("simclr", 98, 20, 40), ("moco", 97, 100, 200), ("simsiam", 98, 25, 50)],
)
def test_tue_makes_as_many_noise_passes_as_its_commands(
    framework: str, per_epoch: int, train_step: int, epochs: int
) -> None:
    attack = ATTACKS.make(f"tue(framework={framework})")
    assert isinstance(attack, Tue)
    assert attack.per_epoch(50_000) == per_epoch
    assert attack.rounds(50_000) == epochs * len(walked(per_epoch, train_step)) == 200


@pytest.mark.parametrize(
    ("batches", "train_step"), [(98, 20), (97, 100), (100, 20), (5, 5), (3, 1)]
)
def test_rounds_of_tue_end_with_its_epochs(batches: int, train_step: int) -> None:
    plan = walked(batches, train_step)
    assert passes_of(batches, train_step) == len(plan)
    student = EpochStudent("ssl", nn.Identity(), lambda s: s.z.sum(), Descent(1, 1, 1))
    student.per_epoch = batches
    spans = [student.batches_of(r, train_step) for r in range(3 * len(plan))]
    assert [count for _, count in spans] == plan * 3
    starts = [0]
    for count in plan * 3:
        starts.append(starts[-1] + count)
    assert [first for first, count in spans if count] == [
        s for s, count in zip(starts, plan * 3, strict=False) if count
    ]


def test_keys_of_noise_steps_enter_the_queue_as_the_still_network_sees_them() -> None:
    images = toy(8)
    attack = ATTACKS.make("tue(framework=moco, batch_size=8, queue=24, surrogate=small_cnn)")
    assert isinstance(attack, Tue)
    with forked(0):
        model = attack.model(ARCHITECTURES.make("small_cnn").build(4, 16, 0))
    assert isinstance(model, MocoLoss)
    a, b = images.floats(), images.floats().flip(3)
    model(a, b, images.labels)  # a training step, so that batch statistics are not the first ones
    weights = [p.clone() for p in model.slow.parameters()]
    buffers = [t.clone() for t in model.slow.buffers()]
    bank = model.queue.bank.clone()
    with frozen(model):
        model(a, b, images.labels, move=False, dual=True)
        keys = functional.normalize(model.slow(b), dim=1)
    torch.testing.assert_close(model.queue.bank[8:16], keys.detach())
    assert torch.equal(model.queue.bank[:8], bank[:8])
    assert torch.equal(model.queue.bank[16:], bank[16:])
    assert all(map(torch.equal, weights, model.slow.parameters()))
    assert all(map(torch.equal, buffers, model.slow.buffers()))
    with frozen(model):
        model(a[:5], b[:5], images.labels[:5], move=False, dual=True)
    assert int(model.queue.bank_ptr) == 16, "five keys would not have filled the queue evenly"


# CP: kaiwenzha/contrastive-poisoning@628838c, model.py, main.py, cl_algs.py


def test_the_target_of_cp_moves_between_the_two_directions() -> None:
    images = toy(8)
    with forked(0):
        model = ByolLoss(branch(), nn.Linear(8, 8), 0.7, updates=2)
    with torch.no_grad():
        for p in model.branch.parameters():
            p.add_(0.05)
    a, b = images.floats(), images.floats().flip(3)
    online, target = copy.deepcopy(model.branch), copy.deepcopy(model.target)
    predictor = copy.deepcopy(model.predictor)

    def move() -> None:
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.copy_(slow * 0.7 + fast * 0.3)

    losses = []
    for seen, other in ((a, b), (b, a)):
        move()
        with torch.no_grad():
            wanted = target(other)
        likeness = functional.cosine_similarity(predictor(online(seen)), wanted, dim=-1)
        losses.append(-likeness.mean() / 2)
    theirs = losses[0] + losses[1]
    ours = model(a, b, images.labels)
    torch.testing.assert_close(ours, theirs)
    for mine, one in zip(model.target.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(mine, one)


def test_cp_normalizes_by_the_spread_within_images() -> None:
    """Half of each image at 255 - k, half at k: its sd is (255 - 2 k) / 2 levels."""
    pixels = torch.zeros(2, 3, 16, 16)
    for image, levels in enumerate(((0, 20, 40), (60, 80, 100))):
        for channel, low in enumerate(levels):
            pixels[image, channel] = low
            pixels[image, channel, :8] = 255 - low
    images = Images(pixels.byte(), torch.arange(2), 2)
    cp = ATTACKS.make("cp")
    assert isinstance(cp, Cp)
    means, sds = cp.moments(images)
    assert means == pytest.approx([0.5] * 3)
    assert sds == pytest.approx([(255 - 60) / 510, (255 - 100) / 510, (255 - 140) / 510])


def clipped(values: Tensor, low: float, high: float) -> Tensor:
    """torch.clamp with gradients at the ends themselves too, as PyTorch 1.8 of that code had it."""
    inside = (values >= low) & (values <= high)
    return values.clamp(low, high).detach() + (values - values.detach()) * inside


@pytest.mark.parametrize("framework", ["simclr", "moco", "byol"])
def test_the_noise_steps_of_cp_are_those_of_its_code(framework: str) -> None:
    """Eval mode, two augmented views of the clipped sum, signs into the budget alone."""
    images = saturated()
    attack = ATTACKS.make(
        f"cp(framework={framework}, batch_size=24, queue=48, surrogate=small_cnn)"
    )
    assert isinstance(attack, Cp)
    with forked(0):
        model = attack.model(ARCHITECTURES.make("small_cnn").build(4, 16, 0))
    model(images.floats(), images.floats().flip(3), images.labels)
    rng = torch.Generator().manual_seed(0)
    start = (torch.rand(24, 3, 16, 16, generator=rng) * 2 - 1) * EPS
    ours, views = LooseNoise(images, start.clone()), Views()
    loss = partial(contrastive_loss, model, views, move=False, dual=True)
    steps, step, rows = 4, EPS / 10, torch.arange(24)
    with frozen(model):
        ours.descend(rows, 24, loss, Descent(EPS, step, steps), torch.Generator().manual_seed(1))
        drawn = torch.Generator().manual_seed(1)
        delta = (start / EPS).clone()
        for _ in range(steps):
            delta = delta.detach().requires_grad_()
            mixed = clipped(images.floats() + EPS * clipped(delta, -1, 1), 0, 1)
            first, second = views(mixed, drawn), views(mixed, drawn)
            value = model(first, second, images.labels, move=False, dual=True)
            (slope,) = torch.autograd.grad(value, delta)
            delta = (delta.detach() - 0.1 * slope.sign()).clamp(-1, 1)
    change = (ours.values - EPS * delta).abs() > 1e-6
    assert float(change.float().mean()) < 0.005
    beyond = (images.floats() + ours.values - 0.5).abs() > 0.5
    assert float(beyond.float().mean()) > 0.02, "no noise beyond the pixel range to compare"
