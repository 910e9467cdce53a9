"""Defenses, learners, networks, trials: on a device what they are on a CPU, bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images
from raygrid.core.options import Options
from raygrid.core.seeds import forked
from raygrid.core.spec import Part
from raygrid.defenses import DEFENSES
from raygrid.defenses.chain import Chain
from raygrid.engine.grid import plan
from raygrid.engine.worker import Worker
from raygrid.learners import LEARNERS
from raygrid.learners.base import Task
from raygrid.nn.networks import to_device
from raygrid.storage.checkpoints import pack, unpack
from raygrid.storage.store import Store
from raygrid.trials import evaluate, run
from raygrid.trials.catalog import Catalog
from raygrid.trials.run import placed
from tests import plugin
from tests.conftest import toy
from tests.defenses.test_defenses import TRAINED
from tests.defenses.toys import FITTED, HEAVY, acting, given
from tests.defenses.toys import small as defense_of
from tests.device.pretend import CPU, DEVICE, Log, OnDevice
from tests.learners.toys import small as learner_of
from tests.learners.toys import task_of, tensors_of

assert plugin.CARD
ATTENTION = {"vit_small", "small_vit", "cait_small", "small_cait"}
"""Their attention is one kernel on a CPU and three products elsewhere, which round otherwise."""
SWISH = {"efficientnet_b0"}
"""The gradient of SiLU is one kernel on a CPU and a formula elsewhere, which rounds otherwise; in
float32 by as much as the gradients are that batch norm makes 0, so they are asked in float64."""
LARGE = {
    *("resnet50", "resnet34", "densenet121", "airbench", "resnet34_strided", "googlenet"),
    *("vgg19", "small_airbench", "dla34", "dpn92", "efficientnet_b0", "pnasnet5"),
    *("preact_resnet18", "regnetx_200mf", "resnext29", "shufflenetv2"),
}
PURIFIERS = [pytest.param(n, marks=[pytest.mark.slow] * (n in HEAVY)) for n in acting("purify")]


def same(one: object, other: object) -> bool:
    """The same tensors, whatever they are on."""
    left, right = ({k: t.cpu() for k, t in tensors_of(x).items()} for x in (one, other))
    return left.keys() == right.keys() and all(torch.equal(t, right[k]) for k, t in left.items())


def task_on(device: torch.device, images: Images, **changes: Any) -> Task:
    """The toy task with its images on the device, and its pre-trained extractor."""
    task = task_of(images.to(device), **changes)
    assert task.extractor is not None
    return replace(task, extractor=task.extractor.to(device))


@pytest.mark.parametrize("name", PURIFIERS)
def test_a_purifier(name: str, log: Log, moved: list[int]) -> None:
    """One that has the whole set there at once says so, for a plan to know what it takes."""
    purifier, images = defense_of(name), toy(32, 32, 10)
    context = given(name, images, 0)
    there, here = (
        purifier.purify(images, replace(context, device=device)).pixels.cpu()
        for device in (CPU, DEVICE)
    )
    assert (purifier.holds >= 1) == (len(images) in moved), moved
    apart = (here.int() - there.int()).abs()
    if name in HEAVY:  # their U-Nets have attention too
        assert apart.max() <= 2
        assert (apart > 0).float().mean() < 0.02
    else:
        assert torch.equal(here, there)
    assert not log.drawn


@pytest.mark.parametrize("name", [n for n in TRAINED if n not in FITTED])
def test_a_defense_in_training(name: str, log: Log) -> None:
    defense = defense_of(name)
    learner = "simclr" if defense.learners == "views" else "supervised"
    images = toy(48, 32, 10)
    states = []
    for device in (CPU, DEVICE):
        task = task_on(device, images, defense=Chain((defense,)))
        session = learner_of(learner).start(task)
        session.epoch(0)
        states.append(session.state_dict())
    assert all(isinstance(p, OnDevice) for p in session.classifier().parameters())
    assert same(*states)
    assert not log.drawn


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_its_checkpoint_and_its_probe(name: str, log: Log) -> None:
    """What is written on a device is read there and on a CPU; questions come from the host."""
    images, tests = toy(48), toy(20, seed=3)
    states, scores = [], []
    for device in (CPU, DEVICE):
        session = learner_of(name).start(task_on(device, images))
        session.epoch(0)
        packed = pack({"session": session.state_dict()})
        other = learner_of(name).start(task_on(device, images))
        other.load_state_dict(unpack(packed)["session"])
        for one in (session, other):
            one.epoch(1)
        assert same(session.state_dict(), other.state_dict())
        view = Chain.make((Part("standard"),)).view
        probe = evaluate.Probed("t", tests.beside(device), view, odds=True)
        models = (session.classifier(), session.finish())
        scores.append([evaluate.ask(model, [probe]) for model in models])
        states.append(session.state_dict())
    assert same(*states)
    assert scores[0] == scores[1]
    assert not log.drawn


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in ARCHITECTURES]
)
def test_a_network(name: str, log: Log) -> None:
    """Loss and gradients of a step in float32.

    Of one network without masks, which a device draws itself.
    """
    kind, images = ARCHITECTURES.tiny(name), toy(2, 32, 10)
    found = []
    for device in (CPU, DEVICE):
        network = to_device(kind.build(10, 32, 0), device, kind.convolutional)
        if name in SWISH:
            for module in network.modules():
                if isinstance(module, StochasticDepth | nn.Dropout):
                    module.p = 0.0
        here = images.to(device)
        with forked(1, device):
            x = here.floats()
            if name in SWISH:
                network, x = network.double(), x.double()
            loss = nn.functional.cross_entropy(network(x), here.labels)
        loss.backward()
        grads = [p.grad.cpu() for p in network.parameters() if p.grad is not None]
        found.append([loss.detach().cpu(), *grads])
    equal = close if name in ATTENTION | SWISH else torch.equal
    assert all(equal(a, b) for a, b in zip(*found, strict=True))
    assert not log.drawn


def close(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Up to rounding in float32, by the size of the whole tensor."""
    return float((one - two).abs().max()) <= 1e-4 * float(one.abs().max()) + 1e-7


TRIALS = {
    "dots/lsp@0.5/cutmix/small_cnn/supervised/quick(epochs=2)/0": ("weights", "predictions"),
    "dots/clean/standard/small_cnn/simclr/quick(epochs=1)/0": ("features",),
}


@pytest.mark.parametrize("spec", TRIALS)
def test_a_trial_and_what_it_leaves(spec: str, tmp_path: Path, log: Log) -> None:
    rows, stores = [], []
    for device in (CPU, DEVICE):
        store = Store(tmp_path / device.type)
        (trial,) = plan([spec], Catalog(store, tmp_path)).trials
        result = Worker(store, Options(out=tmp_path, data=tmp_path, keep=TRIALS[spec]), device).run(
            trial
        )
        assert result.status == "done", result.error
        rows.append(json.loads(json.dumps(result.row())))
        stores.append(store)
    assert list(apart(*rows)) == []
    for kind in TRIALS[spec]:
        left = [store.get(kind, trial.key) for store in stores]
        assert same(*(bundle.tensors for bundle in left if bundle is not None)), kind
    assert not log.drawn


OF_THE_RUN = ("seconds", "finished", "memory_mb", "device", "utilization", "gpu_share", "started")


def apart(one: Any, two: Any, path: str = "") -> Iterator[str]:
    """Where two rows differ in more than the machine and the clock."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted(one.keys() | two.keys()):
            if not any(word in key for word in OF_THE_RUN):
                yield from apart(one.get(key), two.get(key), f"{path}/{key}")
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for number, pair in enumerate(zip(one, two, strict=True)):
            yield from apart(*pair, f"{path}/{number}")
    elif path.endswith("/train_loss"):  # summed in float32 on a device, in float64 on a CPU
        if one != pytest.approx(two, rel=1e-6):
            yield path
    elif one != two and not (isinstance(one, float) and math.isnan(one) and math.isnan(two)):
        yield f"{path}: {one!r}, {two!r}"


def test_a_set_that_stays_on_the_host_gives_the_same_batches(log: Log) -> None:
    images = toy(48)
    weights, peaks = [], []
    for there in (images.to(DEVICE), images.beside(DEVICE)):
        log.reset()
        held = log.live
        session = learner_of("supervised").start(replace(task_on(DEVICE, images), train=there))
        session.epoch(0)
        weights.append(session.state_dict())
        peaks.append(log.peak - held)
    assert same(*weights)
    assert not images.beside(DEVICE).resident
    assert peaks[0] > 0


def test_half_of_the_memory_is_for_images(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes more stays on the host, its labels on the device."""
    images = toy(48)
    for share, resident in ((1.0, False), (2.0, True)):
        limit = share * images.pixels.nbytes
        monkeypatch.setattr(run, "memory_limit", lambda device, limit=limit: limit)
        put = placed(images, DEVICE)
        assert (put.device, put.resident) == (DEVICE, resident)
        assert torch.equal(put.floats(slice(3, 9)).cpu(), images.floats(slice(3, 9)))


def test_the_device_refuses_what_cuda_refuses(log: Log) -> None:
    """A device that lets everything pass proves nothing."""
    from tests.device.pretend import Mixed

    x, ints = torch.ones(2, 2, device=DEVICE), torch.ones(2, 2, dtype=torch.int64, device=DEVICE)
    with pytest.raises(Mixed, match="CPU tensors"):
        x + torch.ones(2, 2)
    with pytest.raises(Mixed, match="generator"):
        torch.rand(2, device=DEVICE, generator=torch.Generator())
    with pytest.raises(Mixed, match="int64"):
        ints @ ints
    with pytest.raises(Mixed):
        torch.arange(4)[torch.tensor([1], device=DEVICE)]
    log.reset()
    assert (x + 1).sum().item() == 8
    assert sum(log.syncs.values()) == 1
    torch.rand(2, device=DEVICE)
    assert sum(log.drawn.values()) == 1
    before = log.live
    large = torch.empty(1000, device=DEVICE)
    assert log.live - before == 4000 <= log.peak
    del large
    assert log.live == before


def test_every_defense_is_in_these_tests() -> None:
    covered = {*TRAINED, *FITTED, *acting("purify"), *(n for n in DEFENSES if DEFENSES[n].derived)}
    assert covered >= set(DEFENSES)
