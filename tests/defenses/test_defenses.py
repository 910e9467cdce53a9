"""What every defense must hold by being registered: shapes, draws, privacy, costs, training."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import itertools
import math
import re
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.registry import Card
from raygrid.core.spec import Part, parse_chain
from raygrid.core.speed import CPU as CPU_CORE
from raygrid.core.speed import DRAW_SECONDS, GPU
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import Defense, FitContext, Pair, Study
from raygrid.defenses.chain import Chain
from raygrid.engine.costs.estimate import trial_seconds
from raygrid.engine.grid import plan
from raygrid.learners.base import Task
from raygrid.nn.contrastive.base import Framework
from raygrid.nn.diffusion import DenoiserPlan, Prior
from raygrid.nn.steps import Batch
from raygrid.storage.store import Bundle
from raygrid.trials import evaluate
from raygrid.trials.artifacts import Artifact, DenoiserArtifact, purify
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.run import run_trial, task_of
from tests.conftest import toy
from tests.defenses.toys import (
    CPU,
    DRAWN,
    FITTED,
    HEAVY,
    acting,
    batch,
    fit_context,
    given,
    on_toys,
    refused,
    rng,
    session,
    small,
    smooth,
)


def shape_of(pixels: Tensor) -> Tensor:
    """What is bright and what is dark: unit vectors (n, H * W)."""
    gray = pixels.mean(1).flatten(1)
    return nn.functional.normalize(gray - gray.mean(1, keepdim=True))


def marked_slow(names: Iterable[str]) -> list[ParameterSet]:
    """As parameters, those that take long marked so."""
    return [pytest.param(n, marks=[pytest.mark.slow] * (n in HEAVY)) for n in names]


@pytest.mark.parametrize("name", marked_slow(acting("purify")))
@pytest.mark.parametrize(
    ("side", "classes", "n"), [(32, 10, 32), (32, 100, 4), (64, 200, 8), (224, 10, 2)]
)
def test_a_purifier_keeps_what_it_must(name: str, side: int, classes: int, n: int) -> None:
    if name in FITTED:
        side, n = {32: 16, 64: 8, 224: 12}[side], 4
    keeps_what_it_must(name, toy(n, side, classes))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FITTED))
@pytest.mark.parametrize(("side", "classes", "n"), [(32, 10, 64), (64, 100, 8), (112, 10, 2)])
def test_a_fitted_purifier_takes_real_sizes(name: str, side: int, classes: int, n: int) -> None:
    keeps_what_it_must(name, toy(n, side, classes))


def keeps_what_it_must(name: str, images: Images) -> None:
    before = images.pixels.clone()
    one, same = (purify(small(name), images, given(name, images)) for _ in range(2))
    assert torch.equal(images.pixels, before), "the input was written to"
    assert torch.equal(one.labels, images.labels)
    assert one.pixels.shape == images.pixels.shape
    assert one.classes == images.classes
    assert torch.equal(one.pixels, same.pixels), "the same stream gave other images"


@pytest.mark.parametrize("name", marked_slow(acting("purify")))
def test_a_purifier_takes_less_than_two_seconds_of_64_images(name: str) -> None:
    """Of one core, once it has imported what it needs: the least of three runs on random noise."""
    purifier, seconds = small(name), []
    noise = torch.randint(256, (64, 3, 32, 32), generator=rng(), dtype=torch.uint8)
    images = Images(noise, torch.arange(64) % 10, 10)
    purifier.purify(images.rows(torch.arange(4)), given(name, images))
    while len(seconds) < 3 and min(seconds, default=2.0) >= 2.0:
        context = given(name, images)
        started = time.process_time()
        purifier.purify(images, context)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 2


@pytest.mark.parametrize("name", [n for n in acting("purify") if n not in FITTED | DRAWN])
def test_a_purifier_keeps_the_order(name: str) -> None:
    images = smooth(32)
    order = torch.randperm(32, generator=rng())
    one = purify(small(name), images, fit_context()).pixels.float()
    likeness = shape_of(one) @ shape_of(images.pixels.float()).T
    kept = (likeness.argmax(1) == torch.arange(32)).float().mean()
    assert kept > 0.9, "images are more like other images' sources"
    shuffled = purify(small(name), images.rows(order), fit_context()).pixels.float()
    assert torch.equal(shuffled, one[order])


@pytest.mark.parametrize("name", marked_slow(sorted(FITTED | DRAWN)))
def test_a_random_purifier_depends_on_the_stream(name: str) -> None:
    images = toy(8, 8)
    one, other = (purify(small(name), images, given(name, images, s)).pixels for s in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", acting("augment"))
@pytest.mark.parametrize(("side", "classes"), [(32, 10), (32, 100), (64, 200)])
def test_an_augmentation_keeps_what_it_must(name: str, side: int, classes: int) -> None:
    x, y = batch(16, side, classes)
    before, labels = x.clone(), y.clone()
    (one, soft), (same, _), (other, _) = (small(name).augment(x, y, rng(s)) for s in (0, 0, 1))
    assert torch.equal(x, before), "the batch was written to"
    assert torch.equal(y, labels), "the labels were written to"
    assert one.shape == x.shape
    assert one.dtype == torch.float32
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, same), "the same generator gave another batch"
    assert not torch.equal(one, other), "another generator gave the same batch"
    assert soft.shape == y.shape
    assert torch.allclose(soft.sum(1), torch.ones(16))
    assert soft.min() >= 0
    if not small(name).mixes:
        hard = y.argmax(1)
        assert torch.equal(small(name).augment(x, hard, rng())[1], hard)


@pytest.mark.parametrize("name", acting("loss"))
@pytest.mark.parametrize(("side", "classes"), [(32, 100), (64, 200)])
def test_a_loss_keeps_what_it_must(name: str, side: int, classes: int) -> None:
    x, y = toy(4, side).floats(), classes - 1 - torch.arange(4)
    before, labels = x.clone(), y.clone()
    networks = [ARCHITECTURES.make("small_cnn").build(classes, side, 0) for _ in range(3)]
    made = [small(name).loss(n, x, y, rng(s)) for n, s in zip(networks, (0, 0, 1), strict=True)]
    assert torch.equal(x, before), "the batch was written to"
    assert torch.equal(y, labels), "the labels were written to"
    (loss, logits), (same, _), (other, _) = made
    assert (loss.shape, logits.shape) == ((), (4, classes))
    assert 0 < loss.item() < math.inf
    assert torch.equal(loss, same), "the same generator gave another loss"
    assert not torch.equal(loss, other), "another generator gave the same loss"
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in networks[0].parameters())


@pytest.mark.parametrize("name", acting("augment"))
def test_every_image_has_its_own_draws(name: str) -> None:
    x, y = batch(1)
    twins = x.expand(8, -1, -1, -1).clone()
    if small(name).mixes:
        twins += torch.linspace(0, 0.05, 8).view(-1, 1, 1, 1)
    changes = small(name).augment(twins.clamp(0, 1), y.expand(8, -1), rng())[0] - twins.clamp(0, 1)
    assert len(changes.flatten(1).unique(dim=0)) > 4


@pytest.mark.parametrize("name", [n for n in DEFENSES if DEFENSES[n].idle])
def test_idle_settings_are_the_identity(name: str) -> None:
    images = toy(16, 32)
    x, y = batch()
    for settings in DEFENSES[name].idle:
        defense = DEFENSES.make(Part.of(name, **settings))
        assert torch.equal(purify(defense, images, fit_context()).pixels, images.pixels)
        moved, labels = defense.augment(x, y, rng())
        assert torch.allclose(moved, x, atol=1e-6)
        assert torch.equal(labels, y)
        network = ARCHITECTURES.make("small_cnn").build(10, 32, 0)
        loss, _ = defense.loss(network, x, y, rng())
        plain, _ = Defense().loss(network, x, y, rng())
        assert torch.equal(loss, plain)


def annotations(hook: str) -> Iterator[str]:
    signature = inspect.signature(getattr(Defense, hook))
    yield from (str(p.annotation) for n, p in signature.parameters.items() if n != "self")


@pytest.mark.parametrize("name", DEFENSES)
def test_no_hook_is_given_the_attack_clean_data_or_the_test_set(name: str) -> None:
    allowed = {
        "purify": ["Images", "FitContext"],
        "augment": ["Tensor", "Tensor", "torch.Generator"],
        "loss": ["nn.Module", "Tensor", "Tensor", "torch.Generator"],
        "contrast": ["Framework", "Batch", "Pair"],
        "study": ["Images", "FitContext"],
        "prepare": ["nn.Module", "Study"],
        "during": ["int"],
        "view": ["Tensor"],
    }
    for hook, kinds in allowed.items():
        assert list(annotations(hook)) == kinds
        own = inspect.signature(getattr(DEFENSES[name], hook)).parameters
        assert list(own) == list(inspect.signature(getattr(Defense, hook)).parameters)
    assert {f.name for f in dataclasses.fields(FitContext)} == {
        "stream",
        "device",
        "seconds",
        "prior",
        "marks",  # empty until the defense says something
        "augmentation",  # the name of the dataset's standard one
    }
    carried = {f.name for f in dataclasses.fields(Task)} | {"pixels", "classes", "fingerprint"}
    assert not carried & {"attack", "poison", "mask", "test", "clean", "val", "targets", "trigger"}


def reachable(*roots: object) -> Iterator[object]:
    """All that can be got at from some objects, but for modules, classes and globals."""
    closed = (type, types.ModuleType, types.BuiltinFunctionType)
    seen: dict[int, object] = {}
    stack = list(roots)
    while stack:
        found = stack.pop()
        if id(found) in seen or isinstance(found, closed):
            continue
        seen[id(found)] = found
        if isinstance(found, types.FunctionType):
            stack.extend((found.__closure__, found.__defaults__, found.__kwdefaults__))
            continue
        stack.extend(gc.get_referents(found))
        if isinstance(found, Tensor):
            stack.extend(vars(found).values())
        yield found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snoop(Defense):
    """Looks at everything that it can reach from what its hooks are given."""

    id = "snoop"
    card = Card(paper="none")
    texts: set[str] = dataclasses.field(default_factory=set)
    sets: list[Tensor] = dataclasses.field(default_factory=list)
    calls: set[str] = dataclasses.field(default_factory=set)

    def look(self, hook: str, *given: object) -> None:
        self.calls.add(hook)
        for found in reachable(*given):
            if isinstance(found, str):
                self.texts.add(found)
            elif isinstance(found, Tensor) and found.dim() == 4 and found.dtype == torch.uint8:
                self.sets.append(found)

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        self.look("purify", images, fit_context)
        return images

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        self.look("augment", x, y, rng)
        return x, y

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        self.look("loss", model, x, y, rng)
        return super().loss(model, x, y, rng)

    def contrast(self, framework: Framework, batch: Batch, views: Pair) -> Tensor:
        self.look("contrast", framework, batch, views)
        return super().contrast(framework, batch, views)

    def study(self, images: Images, fit_context: FitContext) -> Study:
        self.look("study", images, fit_context)
        return {"seen": images.labels}

    def prepare(self, model: nn.Module, study: Study) -> None:
        assert set(study) == {"seen"}
        self.look("prepare", model, study)

    def resolved(self) -> dict[str, Any]:
        return {"id": self.id}


class Primed(Snoop):
    """Looks from within a purifier that starts from a predictor of clean images."""

    @property
    def prior(self) -> Prior:
        return Prior(DenoiserPlan("tiny", 1, 150, False))

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        assert sum(weight.numel() for weight in fit_context.prior.values()) == 267_891
        return super().purify(images, fit_context)


@pytest.mark.parametrize(
    ("attack", "kind", "learner"),
    [
        ("clean", Snoop, "supervised"),
        ("lsp", Snoop, "supervised"),
        ("lsp", Snoop, "simclr"),  # whose encoder is scored and probed with clean images
        pytest.param("lsp", Primed, "supervised", marks=pytest.mark.slow),  # imports diffusers
    ],
)
def test_a_defense_that_looks_finds_no_attack_clean_data_or_test_set(
    attack: str, kind: type[Snoop], learner: str, fetch: Callable[[Artifact], Bundle]
) -> None:
    """It runs as part of a real trial and follows every reference that it is handed."""
    protocol = "quick(epochs=1, probe_data=clean)"
    (made,) = plan([f"photo_digits/{attack}/jpeg/small_cnn/{learner}/{protocol}/0"], None).trials
    snoop = kind()
    trial = on_toys(dataclasses.replace(made, defense=Chain((snoop,))))
    if isinstance(snoop.prior, Prior):
        prior = DenoiserArtifact(trial.data, trial.content, snoop.prior.plan)
        trial = dataclasses.replace(trial, priors=(prior,))
    assert run_trial(trial, fetch, TrialContext()).error is None
    own = "contrast" if trial.learner.views else "loss"
    assert snoop.calls == {"purify", "study", "augment", "prepare", own}
    assert not [t for t in snoop.texts if re.search(r"lsp|poison|clean|test|val\b|train$", t)]
    data = fetch(trial.data).tensors
    bad = fetch(trial.poison).tensors.get("pixels")
    assert snoop.sets, "it was not even given its training set"
    for pixels in snoop.sets:
        assert not torch.equal(pixels, data["test_pixels"])
        if attack != "clean":
            assert torch.equal(pixels, bad)
            assert not torch.equal(pixels, data["train_pixels"])


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("jpeg(quality=0)", "quality is 0, allowed are 1 to 100"),
        ("bdr(bits=9)", "bits is 9"),
        ("gaussian(kernel=2)", "odd"),
        ("gaussian(sigma=0)", "sigma is 0.0"),
        ("random_blur(low=3)", "up to 2.0"),
        ("cutout(length=-1)", "length is -1"),
        ("cutmix(p=2)", "p is 2.0"),
        ("mixup(p=-1)", "p is -1.0"),
        ("at(steps=0)", "steps is 0"),
        ("at(radius=2)", "radius is 2.0"),
        ("at(norm=l2,radius=-1)", "radius is -1"),
        ("at(norm=l2,radius=inf)", "radius: inf is not a finite number"),
        ("at(norm=l1)", "l1"),
        ("early_stopping(mode=best)", "peak_test"),
        ("random_noise(level=2)", "level is 2.0"),
        ("median_filter(kernel=4)", "kernel is 4, allowed are odd"),
        ("ueraser_max(repeats=0)", "repeats is 0"),
        ("ueraser_max(lite_after=-1)", "lite_after is -1"),
        ("ueraser_max(lite_after=soon)", "not of type int"),
        ("advcl(radius=-1)", "radius is -1.0"),
        ("advcl(steps=-1)", "steps is -1"),
        ("advcl(step=0)", "step is 0.0"),
        ("advcl(cutoff=-1)", "cutoff is -1.0"),
        ("advcl(ce_weight=-1)", "ce_weight is -1.0"),
        ("advcl(clusters=2:x)", "clusters is 2:x, allowed are whole numbers"),
        ("advcl(encoder_epochs=0)", "encoder_epochs is 0"),
        ("advcl(encoder=resnet81)", "resnet18"),
        ("rocl(steps=-1)", "steps is -1"),
        ("rocl(weight=-1)", "weight is -1.0"),
        ("at(step=0)", "step is 0.0"),
        ("jpeg(quality=101)", "quality is 101"),
        ("jpeg(quality=high)", "not of type int"),
        ("bdr(bits=0)", "bits is 0"),
        ("mean_filter(kernel=0)", "kernel is 0"),
        ("ueraser_lite(p=2)", "p is 2.0"),
        ("ueraser_lite(jpeg=true)", "before"),
        ("ueraser_lite(strength=2)", "strength is 2.0, allowed are 0 to 1"),
        ("ueraser_max(roughness=0.8)", "roughness is 0.8, allowed are 0 to 0.7"),
        ("ueraser_max(p=-1)", "p is -1.0"),
        ("ueraser_max(tiled=true, two_pass=true)", "tiled and two_pass"),
    ],
)
def test_bad_parameters_are_refused(part: str, says: str) -> None:
    assert says in refused(part)


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("standard", 1),
        ("at", 11),
        ("at(steps=5)", 6),
        ("ueraser_max", 5),
        ("ueraser_max(two_pass=true)", 2.67),
        ("ueraser_lite", 1.1),
        ("advcl", 5),
        ("advcl(ce_weight=0.2)", 8),
        ("rocl", 5),
        ("mixup+at", 11),
    ],
)
def test_costs_are_those_of_the_papers(text: str, cost: float) -> None:
    assert Chain.make(parse_chain(text)).cost == pytest.approx(cost, abs=0.01)


def test_what_a_purifier_costs_is_planned_and_asks_for_a_gpu() -> None:
    spec = "cifar10/lsp/{}/resnet18/supervised/dvae/0"
    plain, *filters = (plan([spec.format(d)], None).trials[0] for d in ("at", "jpeg", "grayscale"))
    assert trial_seconds(plain, GPU) > 5 * trial_seconds(filters[0], GPU)
    for trial in filters:
        assert trial.purified is not None
        assert not trial.purified.gpu
        assert trial.purified.seconds(GPU) < 10
    epoch = GPU.seconds(3.3, 50_000)
    for text, epochs in (("vae", 43), ("dvae", 93), ("dvae_detect", 153), ("avatar", 798)):
        trial = resolve(spec.format(text), None)
        assert trial.purified is not None
        assert trial.purified.gpu
        assert trial.purified.cost == pytest.approx(epochs, rel=0.05)
        drawn = {"vae": 60, "dvae": 120, "dvae_detect": 120}.get(text, 0)  # latents of an image
        draws = 50_000 * drawn * 256 * 16 * 16 * DRAW_SECONDS
        seconds = trial.purified.seconds(GPU)
        assert seconds == pytest.approx(max(epochs * epoch, draws), rel=0.05)
        assert (draws > epochs * epoch) == bool(drawn), "a GPU waits for the host"
        there = CPU_CORE.of_float32 if drawn else CPU_CORE
        alone = there.seconds(3.3, 50_000) * epochs
        assert trial.purified.seconds(CPU_CORE) == pytest.approx(alone, rel=0.05)


def test_only_what_a_latent_takes_is_planned_as_draws() -> None:
    """Fewer channels draw less, a plain code nothing, and the other stage of D-VAE as much again.

    Pictures of 224 pixels have features of stride 8, in the second stage of stride 2.
    """
    made = DEFENSES.make
    assert made(Part.of("vae", shrink=4)).purify_draws(32) == 60 * 64 * 16**2
    assert made(Part.of("vae", width=8)).purify_draws(32) == 0
    assert made(Part.of("dvae", second=False)).purify_draws(32) == 60 * 256 * 16**2
    assert made(Part.of("dvae", epochs=1)).purify_draws(224) == 256 * (28**2 + 112**2)
    assert made(Part.of("jpeg")).purify_draws(32) == 0


def test_a_missing_package_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    made = plan(["photo_digits/lsp/avatar/small_cnn/supervised/quick/0"], None)
    assert "`uv run --extra avatar ...`" in made.skips[0].reason


def shades() -> Images:
    """Four classes by brightness, which no defense but `color_normalize` takes away."""
    labels = torch.arange(64) % 4
    values = 20 + 70 * labels.view(-1, 1, 1, 1) + 8 * torch.randn(64, 3, 16, 16, generator=rng())
    return Images(values.clamp(0, 255).to(torch.uint8), labels, 4)


@pytest.mark.parametrize("defense", ["none", "standard"])
def test_none_trains_on_the_images_as_they_are(defense: str) -> None:
    """Every image in every epoch, bit by bit; standard augmentation shows others each time."""
    spec = f"photo_digits/clean/{defense}/small_cnn/supervised/quick/0"
    (trial,) = plan([spec], None).trials
    images = toy(96, 32, 10)
    task = task_of(trial, images, images, CPU)
    assert (task.augmentation is None) == (defense == "none")
    run = trial.learner.start(task)
    shown: list[Tensor] = []
    rows: list[Tensor] = []
    run.network.register_forward_pre_hook(lambda _, given: shown.append(given[0].detach()))
    step = run.trainer.step
    run.trainer.step = lambda batch: (rows.append(batch.index), step(batch))[1]
    epochs = []
    for epoch in (0, 1):
        shown.clear()
        rows.clear()
        run.epoch(epoch)
        epochs.append(torch.cat(shown)[torch.cat(rows).argsort()])
    assert len(epochs[0]) == len(images), "some images were left out"
    assert torch.equal(*epochs) == (defense == "none")
    assert torch.equal(epochs[0], images.floats()) == (defense == "none")


BLIND = FITTED | {"color_normalize"}
TRAINED = [n for n in DEFENSES if not DEFENSES[n].derived and n not in BLIND]


@pytest.mark.parametrize("name", TRAINED)
def test_a_network_trains_with_every_defense(name: str) -> None:
    images = shades()
    run = session(Chain((small(name),)), purify(small(name), images, fit_context()))
    for epoch in range(16):
        metrics = run.epoch(epoch)
        assert 0 <= metrics["train_acc"] <= 1
    assert evaluate.score(run.finish(), images, small(name).view).acc > 0.5


def test_no_defense_draws_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    x, y = batch()
    for name, hook in itertools.product(set(DEFENSES) - HEAVY, ("purify", "augment")):
        if hook == "purify" and small(name).acts(hook):
            small(name).purify(toy(8, 8), fit_context())
        elif small(name).acts(hook):
            small(name).augment(x, y, rng())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_defense_that_overrides_no_hook_is_refused_as_it_is_registered() -> None:
    """With its hook misspelled it was measured as `standard`, under a name of its own."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Blurry(Defense):
        """Blurs, or so it says."""

        card = Card(paper="x")

        def purfy(self, images: Images, fit_context: FitContext) -> Images:
            return images

    with pytest.raises(SpecError, match="it overrides none of study, prepare, purify, augment"):
        DEFENSES.register("blurry")(Blurry)
    assert "blurry" not in DEFENSES
