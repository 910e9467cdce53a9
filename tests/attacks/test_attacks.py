"""What every attack must hold, by being registered (Appendix C of the attack specification)."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raygrid.architectures.networks.network import Network
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack, AttackContext, ScopedAttack
from raygrid.attacks.common.gradient import GradientAttack
from raygrid.attacks.common.surrogate_training import train_surrogate
from raygrid.attacks.common.surrogates import SurrogateRecipe
from raygrid.core.budget import Budget
from raygrid.core.enforcement import enforce, size_of_change
from raygrid.core.errors import DataError, DivergedError, SpecError
from raygrid.core.images import Images, Poison, fingerprint
from raygrid.core.literals import Scalar
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part
from raygrid.nn.networks import freeze
from tests.conftest import toy

_FOLDER = tempfile.TemporaryDirectory()
_NOISE = Path(_FOLDER.name) / "noise.npy"
np.save(_NOISE, np.random.default_rng(0).integers(-8, 9, (64, 3, 16, 16), dtype=np.int8))


GIVEN: dict[str, dict[str, Scalar]] = {"file": {"path": str(_NOISE)}}  # no attack has a file itself


def small(name: str) -> Attack:
    return ATTACKS.tiny(Part.of(name, **GIVEN.get(name, {})))


_TRAINED: dict[tuple[SurrogateRecipe, str], nn.Module] = {}


def surrogate(recipe: SurrogateRecipe, images: Images) -> nn.Module:
    """A network of the caller's own, trained once for all tests that ask for the same."""
    key = recipe, fingerprint(images.pixels, images.labels)
    if key not in _TRAINED:
        stream = Stream("surrogate", ("toy", 0))
        _TRAINED[key] = freeze(train_surrogate(recipe, images, stream, torch.device("cpu")))
    return copy.deepcopy(_TRAINED[key])


def craft_for(attack: Attack, images: Images, seed: int = 0, **kwargs: object) -> AttackContext:
    """A working place with surrogates trained for the toy world."""
    networks = {recipe.name: surrogate(recipe, images) for recipe in attack.needs()}
    return AttackContext(Stream("poison", ("toy", attack.id, seed)), surrogates=networks, **kwargs)  # type: ignore[arg-type]


class Killed(Exception):
    """The process dies."""


class Notebook:
    """Progress in memory that dies right after a given number of checkpoints."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.dies_after = dies_after
        self.saves = 0
        self.kept: tuple[dict[str, torch.Tensor], dict[str, object]] | None = None
        self.reports: list[tuple[int, int]] = []

    def report(self, done: int, total: int, **facts: float) -> None:
        self.reports.append((done, total))

    def save(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, object]) -> None:
        # The way to a file and back: JSON facts, tensors without their neighbors in memory.
        copies = {k: v.detach().cpu().clone() for k, v in tensors.items()}
        self.kept = (copies, json.loads(json.dumps(facts)))
        self.saves += 1
        if self.saves == self.dies_after:
            raise Killed

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, object]] | None:
        return self.kept


# The attacks that perturb every image: `clean` and `withheld` have no budget.
# Those on a target perturb a few: see test_targeted.py.
AVAILABILITY = [
    name for name in ATTACKS if small(name).limit is not None and not ATTACKS[name].on_target
]


@dataclasses.dataclass(frozen=True)
class Made:
    """A poison of the toy world, and what it was made of."""

    attack: Attack
    images: Images
    context: AttackContext
    progress: Notebook
    poison: Poison


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest) -> Made:
    """Made once for all tests of an attack, which pytest runs one after another."""
    attack, images, progress = small(request.param), toy(), Notebook()
    context = craft_for(attack, images, progress=progress)
    return Made(attack, images, context, progress, attack.poison(images, context))


@pytest.mark.parametrize("made", AVAILABILITY, indirect=True)
def test_the_contract(made: Made, images: Images) -> None:
    attack, poison = made.attack, made.poison
    assert poison.pixels.dtype == torch.uint8
    assert poison.pixels.shape == images.pixels.shape
    assert torch.equal(poison.labels, images.labels)
    assert torch.equal(made.images.pixels, images.pixels), "the input was written to"
    assert not torch.equal(poison.pixels, images.pixels), "nothing was perturbed"
    assert attack.limit is not None
    limit = attack.limit_at(images.shape[-1])
    size = size_of_change(images.pixels, poison.pixels, limit.norm).max()
    slack = 0.5 * (images.pixels[0].numel() ** 0.5) / 255 if limit.norm == "l2" else 1e-6
    assert size <= limit.value + slack
    other = attack.poison(images, craft_for(attack, images, seed=1))
    assert torch.equal(poison.pixels, other.pixels) != attack.seeded, "the seed decides the bytes"
    for key, untouched in craft_for(attack, images).surrogates.items():
        module = made.context.surrogates[key]
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        state = untouched.state_dict()
        for tensor_name, tensor in module.state_dict().items():
            assert torch.equal(tensor, state[tensor_name]), f"{key}.{tensor_name} was changed"


DIFFERENTIATING = [n for n in AVAILABILITY if issubclass(ATTACKS[n], GradientAttack)]
FROZEN = [n for n in DIFFERENTIATING if n not in ("dc", "gue")]  # classifiers never in eval mode


@pytest.mark.parametrize(
    ("name", "when"), [(n, "always") for n in DIFFERENTIATING] + [(n, "frozen") for n in FROZEN]
)
def test_a_network_that_gives_no_numbers_makes_no_noise(
    name: str, when: str, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign of NaN is 0: images would pass for poisons that the attack never touched."""
    attack = small(name)
    context = craft_for(attack, images)
    features = Network.features

    def lost(network: Network, x: torch.Tensor) -> torch.Tensor:
        broken = when == "always" or not network.training
        return features(network, x) * (torch.nan if broken else 1.0)

    monkeypatch.setattr(Network, "features", lost)
    with pytest.raises(DivergedError, match="diverged"):
        attack.poison(images, context)


@pytest.mark.parametrize("name", [n for n in AVAILABILITY if small(n).units(64)])
def test_any_range_of_units_can_be_made_alone(name: str, images: Images) -> None:
    attack = small(name)
    whole = attack.poison(images, craft_for(attack, images)).pixels
    count = attack.units(len(images))
    cuts = [0, count // 5, count * 5 // 8, count]
    seen = []
    for units in itertools.starmap(range, itertools.pairwise(cuts)):
        part = attack.poison(images, craft_for(attack, images, units=units))
        assert torch.equal(part.pixels, whole[part.indices])
        assert torch.equal(part.labels, images.labels[part.indices])
        if attack.sharded:
            assert torch.equal(part.indices, torch.arange(units.start, units.stop))
        seen.append(part.indices)
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(len(images)))


@pytest.mark.parametrize("name", [n for n in AVAILABILITY if issubclass(ATTACKS[n], ScopedAttack)])
def test_noise_for_a_subset_leaves_the_other_rows_alone(name: str, images: Images) -> None:
    attack = dataclasses.replace(small(name), scope="subset")  # type: ignore[call-arg]
    assert attack.scoped
    owned = torch.arange(64)[torch.arange(64) % 3 > 0]
    part = attack.poison(images, craft_for(attack, images, owned=owned))
    assert torch.equal(part.indices, owned)
    assert not torch.equal(part.pixels, images.pixels[owned])
    whole = attack.poison(images, craft_for(attack, images)).pixels
    assert not torch.equal(part.pixels, whole[owned])
    nobody = craft_for(attack, images, owned=torch.arange(0))
    assert len(attack.poison(images, nobody).indices) == 0
    every = craft_for(attack, images, owned=torch.arange(64))
    assert torch.equal(attack.poison(images, every).pixels, whole)


@pytest.mark.parametrize("name", AVAILABILITY)
def test_no_budget_no_change(name: str, images: Images) -> None:
    nothing = Budget(ATTACKS[name].norms[0], 0.0)
    attack = dataclasses.replace(small(name), budget=nothing)  # type: ignore[call-arg]
    poison = attack.poison(images, craft_for(attack, images))
    assert torch.equal(poison.pixels, images.pixels)


@pytest.mark.parametrize("name", AVAILABILITY)
def test_a_budget_of_another_norm_is_refused(name: str) -> None:
    for norm in {"linf", "l2", "l0"} - set(ATTACKS[name].norms):
        with pytest.raises(SpecError, match=name):
            ATTACKS.make(f"{name}(budget={norm}:1)")


REFUSES = {
    ("file", 24): "has shape",
    ("file", 17): "has shape",
    ("dc", 17): "multiples of 2",
    ("gue", 17): "multiples of 2",
    ("dvae_recon", 17): "divisible by 2",
    ("dvae_grow", 17): "divisible by 2",
}
"""What is said of sides that an attack does not take."""


@pytest.mark.parametrize("name", AVAILABILITY)
@pytest.mark.parametrize(("side", "classes", "n"), [(24, 2, 12), (17, 10, 20)])
def test_other_sizes_and_class_counts(name: str, side: int, classes: int, n: int) -> None:
    images = toy(n, side, classes)
    attack = small(name)
    if (name, side) in REFUSES:
        with pytest.raises((SpecError, DataError), match=REFUSES[name, side]):
            attack.poison(images, craft_for(attack, images))
        return
    poison = attack.poison(images, craft_for(attack, images))
    assert poison.pixels.shape == images.pixels.shape
    assert not torch.equal(poison.pixels, images.pixels)


@pytest.mark.parametrize("made", AVAILABILITY, indirect=True)
def test_a_generation_made_again_or_killed_and_resumed_has_the_same_bytes(made: Made) -> None:
    attack, images, pixels, saves = (
        made.attack,
        made.images,
        made.poison.pixels,
        made.progress.saves,
    )
    assert all(0 < done <= total for done, total in made.progress.reports)
    if not saves:
        assert not isinstance(attack, GradientAttack), "long, but keeps nothing"
        assert torch.equal(attack.poison(images, craft_for(attack, images)).pixels, pixels)
    for after in {1, (saves + 1) // 2, saves} if saves else ():
        again = craft_for(attack, images, progress=Notebook(after))
        with pytest.raises(Killed):
            attack.poison(images, again)
        assert torch.equal(attack.poison(images, again).pixels, pixels), f"killed after {after}"
        assert again.facts == made.context.facts


@pytest.mark.parametrize(
    "name", [n for n in AVAILABILITY if issubclass(ATTACKS[n], GradientAttack) and n != "dc"]
)
def test_estimates_count_the_passes(
    name: str, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes through networks, three for one in training, two for one to the pixels."""
    settings = {"max_rounds": 1} if "max_rounds" in ATTACKS[name].__dataclass_fields__ else {}
    attack = dataclasses.replace(small(name), **settings)  # type: ignore[arg-type]
    context = craft_for(attack, images)
    total, features = 0, Network.features

    def counted(network: Network, x: torch.Tensor) -> torch.Tensor:
        nonlocal total
        weight = (3 if network.training else 2) if torch.is_grad_enabled() else 1
        total += weight * len(x)
        return features(network, x)

    monkeypatch.setattr(Network, "features", counted)
    attack.poison(images, context)
    expected = total / len(images)
    if name == "functional":  # color tables cost more than the network and are no passes
        assert attack.passes(len(images)) > expected
    else:
        assert attack.passes(len(images)) == pytest.approx(expected, rel=0.25)


def test_clean_is_an_empty_poison(images: Images) -> None:
    poison = ATTACKS.make("clean").poison(images, AttackContext(Stream("poison")))
    assert len(poison.indices) == 0
    mixed, mask = poison.overlay(images, 1.0, Stream("ratio"))
    assert torch.equal(mixed.pixels, images.pixels)
    assert not mask.any()


@dataclass(frozen=True, kw_only=True)
class Proposer(Attack):
    """Proposes what it is told to."""

    id = "proposer"
    budget: Budget = Budget("linf", 8 / 255)
    given: Any = None

    def propose(self, images: Images, context: AttackContext) -> torch.Tensor:
        return self.given(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda i: i.pixels.long() + 3, r"int64 \(64, 3, 16, 16\); allowed are tensors \(n, 3, 16"),
        (lambda i: i.floats()[:, :1], r"float32 \(64, 1, 16, 16\); allowed are"),
        (lambda i: i.floats()[0], r"float32 \(3, 16, 16\); allowed are"),
        (lambda i: i.floats().numpy(), "a ndarray; allowed are tensors"),
        (lambda i: None, "a NoneType; allowed are"),
        (lambda i: i.floats()[:1], r"1 images, wanted are 64\Z"),
        (lambda i: torch.cat([i.floats(), i.floats()]), r"128 images, wanted are 64\Z"),
    ],
)
def test_a_proposal_of_another_kind_or_form_is_refused(
    given: object, says: str, images: Images
) -> None:
    attack = Proposer(given=given)
    with pytest.raises(DataError, match=f"proposer proposes {says}"):
        attack.pixels(images, craft_for(attack, images))


@dataclass(frozen=True, kw_only=True)
class Optional(Attack):
    """Has a budget that may be none, which it leaves to the base class to hold."""

    id = "optional"
    norms = ("linf", "l2")
    budget: Budget | None = Budget("linf", 8 / 255)

    def propose(self, images: Images, context: AttackContext) -> torch.Tensor:
        return images.floats()


@dataclass(frozen=True, kw_only=True)
class Unlimited(Optional):
    """The same whose pixels are its own affair."""

    def pixels(self, images: Images, context: AttackContext) -> torch.Tensor:
        return images.pixels // 2


@dataclass(frozen=True, kw_only=True)
class Bare(Attack):
    """Has no budget, and nobody has filed it."""

    id = "bare"

    def propose(self, images: Images, context: AttackContext) -> torch.Tensor:
        return images.floats()


def test_an_attack_without_a_budget_is_told_that_it_perturbs_nothing(images: Images) -> None:
    """It gave back the clean images, which stood in tables as poisoned."""
    says = "budget is none: nothing would change; allowed are budgets of linf and l2, and the attac"
    with pytest.raises(SpecError, match=says):
        Optional(budget=None)
    own = Unlimited(budget=None)
    assert torch.equal(own.pixels(images, craft_for(own, images)), images.pixels // 2)
    with pytest.raises(SpecError, match="bare has no budget, without which nothing changes: budge"):
        Bare().pixels(images, AttackContext(Stream("poison")))


def test_enforce_holds_every_norm() -> None:
    clean = torch.full((2, 3, 4, 4), 250, dtype=torch.uint8)
    wild = torch.full((2, 3, 4, 4), 0.9)
    linf = enforce(clean, -wild, Budget("linf", 8 / 255))
    assert (clean.short() - linf.short()).unique().tolist() == [8]
    l2 = enforce(clean, -wild, Budget("l2", 1.0))
    assert (size_of_change(clean, l2, "l2") - 1.0).abs().max() < 0.02
    with pytest.raises(SpecError, match="16 pixels"):
        enforce(clean, -wild, Budget("l0", 1))
    with pytest.raises(DivergedError, match="noise diverged: its sum is nan"):
        enforce(clean, wild * float("nan"), Budget("linf", 8 / 255))


def test_pixels_beyond_an_l2_budget_are_shrunk_and_others_stay() -> None:
    clean = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    proposed = clean.clone()
    proposed[0, 0, 0, 0] += 51  # 0.2, which the budget allows
    proposed[1] += 102  # 0.4 in 48 values: 2.77
    held = enforce(clean, proposed, Budget("l2", 1.0))
    assert torch.equal(held[0], proposed[0])
    assert (held[1].short() - 100).unique().tolist() == [37]  # 255 / sqrt(48) = 36.8


def test_ratios_are_nested(images: Images) -> None:
    poison = ATTACKS.make("lsp").poison(images, AttackContext(Stream("poison")))
    masks = [poison.overlay(images, r, Stream("ratio"))[1] for r in (0.2, 0.4, 0.8, 1.0)]
    assert [int(m.sum()) for m in masks] == [12, 25, 51, 64]
    for small_mask, large_mask in itertools.pairwise(masks):
        assert not (small_mask & ~large_mask).any()
    mixed, mask = poison.overlay(images, 0.4, Stream("ratio"))
    assert torch.equal(mixed.pixels[~mask], images.pixels[~mask])
    assert torch.equal(mixed.pixels[mask], poison.pixels[mask])
