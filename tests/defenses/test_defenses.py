"""What every defense must hold by being registered, and each one against an oracle of its own."""

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
from pathlib import Path
from typing import Any

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.registry import Card
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part, parse_chain
from raygrid.core.speed import GPU
from raygrid.datasets.base import Dataset, Split
from raygrid.defenses import DEFENSES
from raygrid.defenses.at import AdversarialTraining
from raygrid.defenses.base import Defense, FitContext, Pair, Study
from raygrid.defenses.chain import Chain
from raygrid.defenses.cutmix import Cutmix
from raygrid.defenses.cutout import Cutout
from raygrid.defenses.early_stopping import EarlyStopping
from raygrid.defenses.mixup import Mixup
from raygrid.defenses.random_blur import blur_each
from raygrid.engine.costs.estimate import trial_seconds
from raygrid.engine.grid import plan
from raygrid.learners import LEARNERS
from raygrid.learners.base import Session, Task
from raygrid.nn import augment
from raygrid.nn.contrastive.base import Framework
from raygrid.nn.diffusion import BridgePlan, DenoiserPlan, Prior, fitted, fitted_bridge
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import Batch
from raygrid.storage.checkpoints import NoProgress
from raygrid.storage.store import Bundle
from raygrid.trials import evaluate
from raygrid.trials.artifacts import Artifact, DatasetArtifact, DenoiserArtifact, purify
from raygrid.trials.context import TrialContext
from raygrid.trials.derive import derive_row
from raygrid.trials.resolve import resolve
from raygrid.trials.result import Result
from raygrid.trials.run import run_trial, task_of
from raygrid.trials.trial import Trial
from tests.conftest import toy

CPU = torch.device("cpu")

# Purifiers that fit a network: at 224 pixels they take too long, and one epoch shows no picture.
FITTED = {name for name in DEFENSES if DEFENSES.tiny(name).purify_cost > 0}
# Settings with which other code acts than with the defaults.
VARIANTS = ("cutmix(box=batch)", "ueraser_lite(static=true)")
DRAWN = {"ueraser_lite(static=true)"}  # purifiers that change each image in a way of its own
HEAVY = {"avatar", "bridgepure", "eclipse"}  # imports diffusers, which takes seconds


def small(text: str) -> Defense:
    return DEFENSES.tiny(text)


def fit_context(seed: int = 0) -> FitContext:
    return FitContext(Stream("purify", ("toy", seed)), CPU)


def given(name: str, images: Images, seed: int = 0) -> FitContext:
    """What a grid gives a purifier: with a network that was fitted to a few images if it asks."""
    plan, few = small(name).prior, images.rows(torch.arange(min(4, len(images))))
    if isinstance(plan, Prior):
        weights = fitted(plan.plan, few, fit_context())
    elif isinstance(plan, BridgePlan):
        weights = fitted_bridge(plan, few, few, fit_context(), NoProgress())
        weights["rows"] = torch.arange(0)
    else:
        return fit_context(seed)
    return dataclasses.replace(fit_context(seed), prior=weights)


def rng(seed: int = 0) -> torch.Generator:
    return Stream("batch", (seed,)).generator()


def batch(n: int = 16, side: int = 32, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Floats and class weights, as the learner hands them to `augment`."""
    images = toy(n, side, classes)
    return images.floats(), nn.functional.one_hot(images.labels, classes).float()


def smooth(n: int, side: int = 32) -> Images:
    """Images with structure at all scales, as photographs have."""
    noise = [torch.rand(n, 3, s, s, generator=rng(s)) for s in (2, 4, 8, 16, side)]
    sizes = (0.4, 0.3, 0.2, 0.1, 0.05)
    layers = [
        a * nn.functional.interpolate(x, size=side, mode="bilinear")
        for a, x in zip(sizes, noise, strict=True)
    ]
    return Images(to_uint8(torch.stack(layers).sum(0)), torch.arange(n) % 10, 10)


def shape_of(pixels: Tensor) -> Tensor:
    """What is bright and what is dark: unit vectors (n, H * W)."""
    gray = pixels.mean(1).flatten(1)
    return nn.functional.normalize(gray - gray.mean(1, keepdim=True))


def acting(hook: str) -> list[str]:
    return [text for text in (*DEFENSES, *VARIANTS) if small(text).acts(hook)]


def marked_slow(names: Iterable[str]) -> list[ParameterSet]:
    """As parameters, those that take long marked so."""
    return [pytest.param(n, marks=[pytest.mark.slow] * (n in HEAVY)) for n in names]


# --- contracts -----------------------------------------------------------------------------------


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
        ("at(norm=l2,radius=inf)", "radius is inf"),
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
    with pytest.raises(SpecError) as caught:
        DEFENSES.make(part)
    assert says in str(caught.value)


# --- chains --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("at+at", "several loss hooks"),
        ("early_stopping+early_stopping", "several derived"),
        ("none+jpeg", "stands alone"),
    ],
)
def test_impossible_chains_are_refused(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Chain.make(parse_chain(text))


def test_a_chain_acts_in_order() -> None:
    x, y = batch()
    chain = Chain.make(parse_chain("cutout+mixup"))
    assert chain.mixes
    draws = rng()
    by_hand = Mixup().augment(*Cutout().augment(x, y, draws), draws)
    assert torch.equal(chain.augment(x, y, rng())[0], by_hand[0])


# --- purifiers that break ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broken(Defense):
    """Returns what it is given, for these tests."""

    id = "broken"
    card = Card(paper="none")
    wrong: Callable[[Images], object]

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        return self.wrong(images)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda i: i.with_pixels(i.pixels[:, :, :8]), r"images \(64, 3, 8, 16\), expected \(64, 3"),
        (lambda i: i.with_pixels(i.pixels.float()), "torch.float32"),
        (lambda i: i.rows(torch.arange(3)), r"images \(3, 3, 16, 16\)"),
        (lambda i: dataclasses.replace(i, labels=1 - i.labels), "changed labels"),
        (lambda i: i.with_pixels(to_uint8(i.floats() * float("nan"))), "NaN"),
        (lambda i: i.pixels, "returned Tensor, expected Images"),
    ],
)
def test_a_broken_purifier_is_one_clear_error(
    wrong: Callable[[Images], object], says: str, images: Images
) -> None:
    with pytest.raises(DataError, match=f"broken.*{says}"):
        purify(Broken(wrong=wrong), images, fit_context())


# --- batch augmentations against closed forms ----------------------------------------------------


def test_random_blur_is_torchvisions_for_each_sigma() -> None:
    from torchvision.transforms.v2.functional import gaussian_blur

    x, _ = batch(4)
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0])
    for image, one, out in zip(x, sigma.tolist(), blur_each(x, sigma, 3), strict=True):
        assert torch.allclose(gaussian_blur(image, [3, 3], [one, one]), out, atol=1e-5)


def test_cutout_masks_one_rectangle_of_the_right_size() -> None:
    x = torch.rand(2000, 3, 32, 32, generator=rng()).clamp_min(0.01)
    out, _ = Cutout().augment(x, torch.zeros(2000).long(), rng(1))
    gone = (out == 0).all(1)
    assert torch.equal(gone, (out == 0).any(1)), "channels have different masks"
    assert torch.equal(out[~gone[:, None].expand_as(out)], x[~gone[:, None].expand_as(x)])
    rows, cols = gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(gone.flatten(1).sum(1), rows * cols), "not a rectangle"
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (8, 16, 8, 16)
    # A center c in 0..31 leaves 16 rows but for those beyond the borders: 14 on average.
    side = sum(min(c + 8, 32) - max(c - 8, 0) for c in range(32)) / 32
    assert gone.float().mean() == pytest.approx((side / 32) ** 2, abs=0.005)
    assert (side / 32) ** 2 == pytest.approx(0.1914, abs=5e-5)


@pytest.mark.parametrize(("side", "length"), [(32, 16), (64, 32), (224, 16)])
def test_cutout_length_by_image_side(side: int, length: int) -> None:
    out, _ = Cutout().augment(torch.ones(200, 1, side, side), torch.zeros(200).long(), rng())
    assert (out == 0).any(3).squeeze(1).sum(1).max() == length


def levels(n: int, side: int = 16) -> tuple[Tensor, Tensor]:
    """Image i is constant i / n, its label class i: pixels and labels can be read off."""
    values = torch.arange(n) / n
    return values.view(-1, 1, 1, 1).expand(n, 3, side, side).clone(), torch.eye(n)


@pytest.mark.parametrize("box", ["inside", "clipped", "batch"])
def test_cutmix_labels_are_counted_pixels(box: str) -> None:
    n = 64
    x, y = levels(n)
    out, soft = DEFENSES.make(f"cutmix(box={box})").augment(x, y, rng())
    counts = torch.stack([(out == v).float().mean((1, 2, 3)) for v in x[:, 0, 0, 0]], 1)
    assert torch.allclose(counts.sum(1), torch.ones(n)), "a pixel has a value of no image"
    assert torch.allclose(soft, counts, atol=1e-6)
    pasted = 1 - soft.diagonal()
    assert box == "batch" or 0.2 < pasted.mean() < 0.5
    if box == "inside":  # whole squares only: the side is the root of the area
        sides = (pasted * 256).sqrt()
        assert torch.allclose(sides, sides.round(), atol=1e-3)


def test_cutmix_boxes_are_as_large_as_they_should_be() -> None:
    n, side = 4000, 16
    x, y = levels(n, side)
    _, soft = Cutmix().augment(x, y, rng())
    exact = sum((((k + 1) / side) ** 2 - (k / side) ** 2) * (k / side) ** 2 for k in range(side))
    assert 1 - soft.diagonal().mean() == pytest.approx(exact, abs=0.015)


def test_mixup_weighs_labels_as_pixels() -> None:
    n = 64
    x, y = levels(n)
    out, soft = Mixup().augment(x, y, rng())
    assert torch.allclose(out[:, 0, 0, 0], soft @ (torch.arange(n) / n), atol=1e-6)
    assert (soft > 0).sum(1).max() <= 2
    weights = soft.diagonal()
    assert weights.min() < 0.1
    assert weights.max() > 0.9
    assert weights.mean() == pytest.approx(0.5, abs=0.12)


def test_mixing_happens_with_its_probability() -> None:
    x, y = levels(2000, 4)
    for name in ("cutmix", "mixup"):
        soft = DEFENSES.make(f"{name}(p=0.5)").augment(x, y, rng())[1]
        mixed = (soft.diagonal() < 1).float().mean()
        empty = 1 / 16 if name == "cutmix" else 0.0  # boxes of no pixel: u < (1 / 4)^2
        assert mixed == pytest.approx(0.5 * (1 - empty), abs=0.04)


@pytest.mark.parametrize(
    ("kind", "low", "high", "sd"),
    [("uniform", -8, 8, 16 / 12**0.5), ("positive", 0, 8, 8 / 12**0.5), ("gaussian", -99, 99, 8)],
)
def test_noise_has_its_range_and_spread(kind: str, low: float, high: float, sd: float) -> None:
    x = torch.full((64, 3, 32, 32), 0.5)
    out, _ = DEFENSES.make(f"random_noise(kind={kind})").augment(x, torch.zeros(64), rng())
    change = (out - x) * 255
    assert low - 1e-3 <= change.min()
    assert change.max() <= high + 1e-3
    assert change.std() == pytest.approx(sd, rel=0.02)
    assert change.mean() == pytest.approx(4 if kind == "positive" else 0, abs=0.1)


# --- costs --------------------------------------------------------------------------------------


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
        seconds = trial.purified.seconds(GPU)
        assert seconds / epoch == pytest.approx(epochs, rel=0.05)


def test_a_missing_package_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    made = plan(["photo_digits/lsp/avatar/small_cnn/supervised/quick/0"], None)
    assert "raygrid[avatar]" in made.skips[0].reason


# --- adversarial training ------------------------------------------------------------------------


class Linear(nn.Module):
    """A linear classifier of pixels: the worst case in a ball has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(2, 3 * 64, generator=rng(7)))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


class Witness(Linear):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x.detach().clone())
        return super().forward(x)


@pytest.mark.parametrize("settings", [{}, {"step": 0.1, "radius": 0.05}])
def test_pgd_starts_from_gaussian_noise_and_takes_sign_steps(settings: dict[str, float]) -> None:
    """The start may lie outside the ball and outside [0, 1]; what follows may not."""
    at, model = AdversarialTraining(steps=3, **settings), Witness()
    x = torch.rand(16, 3, 8, 8, generator=rng())
    y = torch.arange(16) % 2
    found = at.perturb(model, x, y, rng(1))
    start = x + at.step * torch.randn(x.shape, generator=rng(1))
    assert torch.equal(model.shown[0], start)
    assert (start - x).abs().max() > 3 * at.step
    assert start.min() < 0
    uphill = (model.weight[1 - y] - model.weight[y]).detach().sign().view_as(x)
    for after in (*model.shown[1:], found):
        start = (start + at.step * uphill).clamp(x - at.radius, x + at.radius).clamp(0, 1)
        assert torch.equal(after, start)
    assert len(model.shown) == 3


def test_adversarial_images_alone_are_trained_on() -> None:
    """Loss, logits, gradients and batch statistics are those of the adversarial batch."""
    x, y = batch(32)
    hard, at = y.argmax(1), AdversarialTraining(steps=2)
    trained, expected, plain = (
        ARCHITECTURES.make("small_cnn").build(10, 32, 0).train() for _ in range(3)
    )
    loss, logits = at.loss(trained, x, hard, rng(3))
    scores = expected(at.perturb(expected, x, hard, rng(3)))
    assert torch.equal(logits, scores)
    assert torch.equal(loss, nn.functional.cross_entropy(scores, hard))
    assert not torch.equal(scores, plain(x))
    changed = []
    for (name, one), two, other in zip(
        trained.named_buffers(), expected.buffers(), plain.buffers(), strict=True
    ):
        assert torch.equal(one, two), name
        changed.append(not torch.equal(one, other))
    assert any(changed), "clean images have the same statistics, and the test says nothing"
    loss.backward()
    nn.functional.cross_entropy(scores, hard).backward()
    for one, two in zip(trained.parameters(), expected.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.equal(one.grad, two.grad)


def test_pgd_finds_the_worst_case_of_a_linear_model() -> None:
    x = torch.rand(16, 3, 8, 8, generator=rng())
    y = torch.arange(16) % 2
    model = Linear()
    found = AdversarialTraining().perturb(model, x, y, rng(1))
    uphill = (model.weight[1 - y] - model.weight[y]).detach().sign().view_as(x)
    assert torch.allclose(found, (x + 8 / 255 * uphill).clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("settings", ["", "(step=1.6/255)", "(steps=5)", "(radius=0.031)"])
def test_pgd_stays_in_its_ball_and_leaves_the_model_alone(settings: str) -> None:
    at = DEFENSES.make(f"at{settings}")
    assert isinstance(at, AdversarialTraining)
    x, y = batch(32)
    network = ARCHITECTURES.make("small_cnn").build(10, 32, 0).train()
    network(x)  # buffers away from their start
    network.head.bias.requires_grad_(False)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    moved = at.perturb(network, x, y, rng())
    assert (moved - x).abs().max() <= at.radius + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert not moved.requires_grad
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    unfrozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert unfrozen == ["head.bias"]
    network.eval()
    loss = nn.functional.cross_entropy
    assert loss(network(moved), y) > loss(network(x), y)


def as_the_code_has_it(model: Witness, x: Tensor, y: Tensor, noise: Tensor, at: Any) -> Tensor:
    """The L2 steps of lafeat/apbench@9a6fb91 (madrys.py), image by image, in float64."""
    moved = []
    for image, label, drawn in zip(x.double(), y, noise.double(), strict=True):
        uphill = (model.weight[1 - label] - model.weight[label]).detach().double().view_as(image)
        here = image + at.step * drawn / drawn.norm()
        for _ in range(at.steps):
            change = here + at.step * uphill / uphill.norm() - image
            here = (image + change * min(1.0, at.radius / float(change.norm()))).clamp(0, 1)
        moved.append(here)
    return torch.stack(moved)


@pytest.mark.parametrize("settings", ["", ",radius=0.5,step=0.1", ",radius=2,step=0.7,steps=3"])
def test_l2_steps_are_those_of_the_benchmark(settings: str) -> None:
    """For a linear model the gradient's direction is known: away from the own class's weights."""
    at, model = DEFENSES.make(f"at(norm=l2{settings})"), Witness()
    assert isinstance(at, AdversarialTraining)
    x = torch.rand(16, 3, 8, 8, generator=rng())
    y = torch.arange(16) % 2
    found = at.perturb(model, x, y, rng(1))
    noise = torch.randn(x.shape, generator=rng(1))
    start = (model.shown[0] - x).flatten(1)
    assert torch.allclose(start.norm(dim=1), torch.full((16,), at.step), rtol=1e-4)
    wanted = as_the_code_has_it(model, x, y, noise, at)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-6)
    lengths = (found - x).flatten(1).norm(dim=1)
    assert lengths.max() <= at.radius * (1 + 1e-5)
    assert lengths.min() > 0.5 * at.radius, "the ball is used"


def test_the_norm_changes_the_key_of_no_earlier_trial() -> None:
    plain, same, other = (DEFENSES.make(f"at{n}") for n in ("", "(norm=linf)", "(norm=l2)"))
    assert set(plain.resolved()) == {"id", "version", "radius", "steps", "step"}
    assert same.resolved() == plain.resolved()
    assert other.resolved() == {**plain.resolved(), "norm": "l2"}


# --- early stopping ------------------------------------------------------------------------------


# Every image set peaks in an epoch of its own, which a later epoch only equals.
EPOCHS = [
    {"train_loss": 1.0, "test_acc": t, "val_acc": v, "poison_val_acc": p}
    for t, v, p in [
        (0.2, 0.5, 0.6),
        (0.4, 0.9, 0.7),
        (0.6, 0.8, 0.8),
        (0.6, 0.9, 1.0),
        (0.5, 0.7, 1.0),
    ]
]


@pytest.mark.parametrize(("mode", "epoch"), [("clean_val", 1), ("peak_test", 2), ("poison_val", 3)])
def test_every_mode_selects_the_first_best_epoch_of_its_own_images(mode: str, epoch: int) -> None:
    defense = DEFENSES.make(f"early_stopping(mode={mode})")
    assert defense.select(EPOCHS) == epoch
    assert defense.select(EPOCHS[:1]) == 0


def test_the_test_set_alone_is_asked_by_default() -> None:
    assert EarlyStopping().select([{"test_acc": 0.1}, {"test_acc": 0.3}]) == 1


ES = "photo_digits/lsp/early_stopping{}/small_cnn/supervised/quick{}/0"


def test_early_stopping_is_planned_on_the_trained_trial() -> None:
    made = plan(
        [ES.format("", ""), "photo_digits/lsp/jpeg+early_stopping/small_cnn/supervised/quick/0"],
        None,
    )
    assert [str(t.spec).split("/")[2] for t in made.trials] == ["standard", "jpeg"]
    assert [t.bases for t in made.derived] == [(t.spec,) for t in made.trials]


@pytest.mark.parametrize(
    ("mode", "field"), [("clean_val", "validation"), ("poison_val", "holdout")]
)
def test_modes_without_held_out_images_are_skipped(mode: str, field: str) -> None:
    made = plan([ES.format(f"(mode={mode})", "")], None)
    assert not made.trials
    assert f"quick({field}=0.1)" in made.skips[0].reason
    assert not plan([ES.format(f"(mode={mode})", f"({field}=0.1)")], None).skips


@pytest.mark.parametrize(
    ("mode", "field"), [("clean_val", "validation"), ("poison_val", "holdout")]
)
def test_what_must_not_know_the_test_set_refuses_patience(mode: str, field: str) -> None:
    """Patience counts epochs since the peak on the test set: the epochs to choose from leak it."""
    protocol = f"({field}=0.1, patience=3)"
    for chain in ("early_stopping", "jpeg+early_stopping"):
        made = plan([ES.format(f"(mode={mode})", protocol).replace("early_stopping", chain)], None)
        assert not made.trials
        assert f"(mode={mode}) must not know the test set" in made.skips[0].reason
        assert "patience" in made.skips[0].reason
    assert not plan([ES.format("", protocol)], None).skips, "peak_test knows it by its name"


def test_derived_rows_come_from_their_bases() -> None:
    (trial,) = plan([ES.format("", "")], None).derived
    accuracies = [0.3, 0.7, 0.7, 0.4]
    history = [{"train_loss": 1.0, "test_acc": a} for a in accuracies]
    base = Result("spec", "key", history=history, last_acc=0.4, final_acc=0.4, seconds=9.0)
    row = derive_row(trial, [base])
    assert (row.final_acc, row.derived_from, row.key) == (0.7, "key", trial.key)
    assert (row.seconds, row.selected_epoch, row.winner) == (0, 2, None)
    assert base.final_acc == 0.4, "the base row was written to"
    failed = derive_row(trial, [Result("spec", "key", status="failed", error="why")])
    assert (failed.status, failed.error, failed.final_acc) == ("failed", "why", None)
    assert failed.selected_epoch is None


@pytest.mark.parametrize(("mode", "epoch"), [("clean_val", 2), ("peak_test", 3), ("poison_val", 4)])
def test_all_that_a_derived_row_measures_is_of_the_selected_epoch(mode: str, epoch: int) -> None:
    """Counts as well as shares; what was measured after the last epoch alone is not there."""
    fields = "(holdout=0.1, validation=0.1)"
    (trial,) = plan([ES.format(f"(mode={mode})", fields)], None).derived
    sizes = {"clean_test": 10, "val": 10, "poison_val": 10, "original": 100, "clean_train": 7}
    last = {name: {"k": 0, "n": n, "acc": 0.0, "loss": 9.0} for name, n in sizes.items()}
    history = [
        {
            **said,
            **{"original_acc": (28 + e) / 100, "original_loss": e, "original_logodds": -e},
            **{"clean_train_acc": e / 7, "clean_train_loss": e + 0.5},
            **{f"{name}_loss": e + 0.25 for name in ("test", "val", "poison_val")},
        }
        for e, said in enumerate(EPOCHS)
    ]
    later = {"confusion": {"k": 1, "n": 2, "acc": 0.5, "loss": 1.0}}
    base = Result("spec", "key", history=history, probes=last | later, last_acc=0, final_acc=0)
    row = derive_row(trial, [base])
    e, said = epoch - 1, EPOCHS[epoch - 1]
    counted = {"k": 28 + e, "n": 100, "acc": (28 + e) / 100, "loss": e, "logodds": -e}
    expected: dict[str, dict[str, float]] = {
        "original": counted,  # 29 / 100 * 100 is a little less than 29
        "clean_train": {"k": e, "n": 7, "acc": e / 7, "loss": e + 0.5},
    }
    for name, short in (("clean_test", "test"), ("val", "val"), ("poison_val", "poison_val")):
        acc = said[f"{short}_acc"]
        expected[name] = {"k": round(10 * acc), "n": 10, "acc": acc, "loss": e + 0.25}
    assert row.probes == expected
    assert row.selected_epoch == epoch
    assert row.final_acc == row.last_acc == said["test_acc"]
    assert base.probes == last | later, "the base row was written to"
    assert (base.selected_epoch, base.final_acc) == (None, 0)


class ToySet(Dataset):
    """500 toy images."""

    id = "toy"
    classes, image_size, train_size, test_size = 4, 16, 500, 100
    augmentation = "none"

    def source(self, root: Path) -> str:
        return "toy"

    def load(self, root: Path) -> Split:
        return Split(toy(500, signal=12), toy(100, signal=12, seed=1))


def on_toys(trial: Trial) -> Trial:
    """The same trial on the toy set."""
    data = DatasetArtifact(ToySet(), "toy", trial.protocol.validation)
    return dataclasses.replace(trial, dataset=ToySet(), data=data)


def test_iss_is_the_best_of_its_members() -> None:
    made = plan(["photo_digits/lsp/iss/small_cnn/supervised/quick/0"], None)
    names = [str(t.spec).split("/")[2] for t in made.trials]
    assert names == ["bdr", "grayscale", "jpeg"]
    (trial,) = made.derived
    assert trial.bases == tuple(t.spec for t in made.trials)
    rows = [
        Result(str(t.spec), t.key, last_acc=a, final_acc=a, history=[{"test_acc": 0.9}])
        for t, a in zip(made.trials, (0.3, 0.7, 0.7), strict=True)
    ]
    row = derive_row(trial, rows)
    assert (row.final_acc, row.derived_from) == (0.7, made.trials[1].key)
    assert row.selected_epoch is None, "every member counts by its last epoch"
    assert row.winner == "grayscale"
    rows[2].status = "failed"
    row = derive_row(trial, rows)
    assert (row.status, row.derived_from, row.winner) == ("failed", made.trials[2].key, None)


def test_iss_reduces_bits_as_it_is_told() -> None:
    specs = [
        f"photo_digits/lsp/{d}/small_cnn/supervised/quick/0" for d in ("iss", "iss(bdr=float)")
    ]
    ours, theirs = plan(specs, None).derived
    assert [base.chain for base in ours.bases] == ["bdr", "grayscale", "jpeg"]
    assert [base.chain for base in theirs.bases] == ["bdr(variant=float)", "grayscale", "jpeg"]
    for trial in (ours, theirs):
        (said,) = trial.resolved()["defense"]
        assert said["members"][0]["variant"] == said["bdr"]
        assert [member["id"] for member in said["members"]] == ["bdr", "grayscale", "jpeg"]
    assert ours.key != theirs.key
    with pytest.raises(SpecError, match="did you mean 'float'"):
        DEFENSES.make("iss(bdr=floats)")


def test_iss_stands_in_the_place_of_its_member() -> None:
    made = plan(["photo_digits/lsp/iss+cutout/small_cnn/supervised/quick/0"], None)
    names = [str(t.spec).split("/")[2] for t in made.trials]
    assert names == ["bdr+cutout", "grayscale+cutout", "jpeg+cutout"]


def test_derived_trials_are_skipped_with_their_bases() -> None:
    with_patience = "photo_digits/lsp/iss/small_cnn/supervised/quick(patience=3)/0"
    assert "final accuracies" in plan([with_patience], None).skips[0].reason


def test_held_out_parts_are_scored_and_not_trained_on(fetch: Callable[[Artifact], Bundle]) -> None:
    protocol = "quick(epochs=20, validation=0.1, holdout=0.2)"
    specs = [
        f"photo_digits/lsp/early_stopping(mode={mode})/small_cnn/supervised/{protocol}/0"
        for mode in ("clean_val", "poison_val", "peak_test")
    ]
    made = plan(specs, None)
    (trial,) = made.trials
    result = run_trial(on_toys(trial), fetch, TrialContext())
    assert result.error is None
    assert result.probes["val"]["n"] == 50
    assert result.probes["poison_val"]["n"] == 90
    # The shortcut is learned, so poisoned held-out images are no warning.
    last = result.history[-1]
    assert last["poison_val_acc"] > last["val_acc"] + 0.2
    rows = {t.defense.derived.mode: derive_row(t, [result]) for t in made.derived}
    best = {mode: row.final_acc for mode, row in rows.items()}
    assert best["peak_test"] == result.peak_acc
    assert rows["peak_test"].selected_epoch == result.peak_epoch
    assert best["clean_val"] <= best["peak_test"]
    for row in rows.values():
        assert row.probes.keys() == result.probes.keys()
        assert row.probes["clean_test"]["acc"] == row.final_acc
        assert all(found["k"] / found["n"] == found["acc"] for found in row.probes.values())


# --- through the learner -------------------------------------------------------------------------


def session(chain: Chain, images: Images, epochs: int = 3) -> Session:
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make("small_cnn"),
        recipe=Recipe(epochs=epochs, batch_size=16, lr=0.05, schedule="constant"),
        defense=chain,
        streams={k: Stream(k) for k in ("init", "data")},
        augmentation=augment.standard("crop_flip", 16),
        normalization=None,
    )
    return LEARNERS.make("supervised").start(task)


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


def test_adversarial_training_with_mixed_labels() -> None:
    run = session(Chain.make(parse_chain("mixup+at(steps=2)")), toy(32))
    assert math.isfinite(run.epoch(0)["train_loss"])


def test_no_defense_draws_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    x, y = batch()
    for name, hook in itertools.product(set(DEFENSES) - HEAVY, ("purify", "augment")):
        if hook == "purify" and small(name).acts(hook):
            small(name).purify(toy(8, 8), fit_context())
        elif small(name).acts(hook):
            small(name).augment(x, y, rng())
    assert torch.equal(torch.random.get_rng_state(), before)
