"""Targeted attacks: contract, collisions, polytopes, gradient matching, backdoors, statistics."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.networks.network import Network
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.surrogate_training import train_surrogate
from raygrid.attacks.common.surrogates import SurrogateRecipe
from raygrid.attacks.common.targeted import PolytopeState, TargetedAttack
from raygrid.attacks.convex_polytope import hull_weights, onto_simplex
from raygrid.attacks.feature_collision import FeatureCollision, collide
from raygrid.attacks.htbd import Htbd, one_to_one, overwritten
from raygrid.attacks.witches_brew import mismatch
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.seeds import Stream, forked
from raygrid.nn.networks import freeze
from raygrid.nn.recipes import Recipe
from raygrid.protocols.setups import Scene, SetupRule
from raygrid.reports.statistics import mcnemar, paper_error
from raygrid.trials.evaluate import log_odds
from raygrid.trials.resolve import resolve
from tests import plugin
from tests.conftest import toy

assert plugin.CARD
TARGETED = [n for n in ATTACKS if ATTACKS[n].on_target and n != "triples"]
K = 6
CPU = torch.device("cpu")


@cache
def scene(number: int = 0) -> Scene:
    return SetupRule("toy/transfer", K, 20).scene(number, toy(160), toy(40, seed=1))


@cache
def extractor() -> Network:
    recipe = SurrogateRecipe("e", "small_cnn", Recipe(epochs=3, batch_size=32), "none", "data")
    network = train_surrogate(recipe, toy(160), Stream("surrogate"), CPU)
    assert isinstance(network, Network)
    return freeze(network)


def context(seed: int = 0, at: int = 0) -> AttackContext:
    names = ("small_cnn", "tap40", "robust")
    surrogates = {name: extractor() for name in names}
    return AttackContext(Stream("poison", (seed,)), surrogates=surrogates, scene=scene(at))


def small(name: str, **more: object) -> TargetedAttack:
    made = ATTACKS.tiny(name)
    assert isinstance(made, TargetedAttack)
    return replace(made, **more)  # type: ignore[arg-type]


def fresh_state(network: Network | None = None) -> PolytopeState:
    s = scene()
    bases, target = s.train.floats(s.slots), s.target.float() / 255
    return PolytopeState(bases, target, [network or extractor()], 8 / 255)


@pytest.mark.parametrize("name", TARGETED)
def test_the_contract(name: str) -> None:
    attack, s = small(name), scene()
    before = {k: t.clone() for k, t in extractor().state_dict().items()}
    clean = s.train.pixels.clone()
    poison = attack.poison(s.train, context())
    assert torch.equal(poison.indices, s.slots)
    assert poison.pixels.dtype == torch.uint8
    assert poison.pixels.shape == (K, 3, 16, 16)
    assert (poison.labels == s.wanted).all()
    assert poison.targets == (s.setup.target,)
    assert torch.equal(s.train.pixels, clean), "the input was written to"
    change = (poison.pixels.short() - clean[s.slots].short()).abs().flatten(1).amax(1)
    still = int((change == 0).sum())
    if name == "convex_polytope":  # a poison without weight in the hull has no gradient
        assert still < K
    else:
        assert still == 0, "a poison did not move"
    if attack.limit is not None:
        assert int(change.max()) <= 8
    assert (poison.trigger is None) == (attack.pasted == "")
    for key, value in extractor().state_dict().items():
        assert torch.equal(value, before[key]), f"{key} was changed"
    assert not any(p.requires_grad for p in extractor().parameters())
    again = small(name).poison(s.train, context())
    assert torch.equal(poison.pixels, again.pixels)


@pytest.mark.parametrize("name", [n for n in TARGETED if n != "patch_dirty"])
def test_no_budget_no_change(name: str) -> None:
    s = scene()
    poison = small(name, budget=Budget("linf", 0.0)).poison(s.train, context())
    assert torch.equal(poison.pixels, s.train.pixels[s.slots])


@pytest.mark.parametrize("name", TARGETED)
def test_targeted_attacks_need_a_set_up(name: str) -> None:
    trial = resolve(f"photo_digits/{name}/standard/small_cnn/supervised/quick/0", None)
    assert "needs set-ups" in str(trial.skip())
    with pytest.raises(SpecError, match="needs a set-up"):
        small(name).poison(toy(), AttackContext(Stream("poison")))


def test_the_two_clamps_of_a_budget_commute() -> None:
    state = fresh_state()
    x = state.bases + 0.2 * torch.randn(state.bases.shape, generator=Stream("x").generator())
    low, high = state.bases - state.radius, state.bases + state.radius
    one = torch.minimum(torch.maximum(x, low), high).clamp(0, 1)
    other = torch.minimum(torch.maximum(x.clamp(0, 1), low), high)
    assert torch.allclose(state.clip(x), one)
    assert torch.allclose(one, other.clamp(0, 1))


def test_monotone_collision_never_raises_a_loss_and_released_hardly_moves() -> None:
    state = fresh_state()
    attack = FeatureCollision(surrogate="small_cnn", steps=30, step=0.01)
    start = state.clip(0.3 * state.target + 0.7 * state.bases)
    losses = collide(state, start)[0]
    previous = losses
    for steps in (1, 5, 30):
        x, accepted = replace(attack, steps=steps)._monotone(state, start, context())
        now = collide(state, x)[0]
        assert (now <= previous + 1e-6).all()
        assert int(accepted.max()) <= steps
        previous = now
    assert float(previous.mean()) < 0.9 * float(losses.mean())
    _, kept_steps = attack._released(state, 0.3 * state.target + 0.7 * state.bases, context())
    _, moved = attack._monotone(state, start, context())
    assert int(moved.min()) == 30
    assert int(kept_steps.min()) == 1, "no poison is stuck after the first step"


def test_no_watermark_and_no_step_leave_the_bases() -> None:
    s = scene()
    for variant in ("monotone", "released", "penalty"):
        attack = small("feature_collision", steps=0, watermark=0.0, variant=variant)
        assert torch.equal(attack.pixels(s.train, context()), s.train.pixels[s.slots])


def test_collisions_made_together_are_those_made_alone() -> None:
    state = fresh_state()
    attack = FeatureCollision(surrogate="small_cnn", steps=5, step=0.01)
    start = 0.3 * state.target + 0.7 * state.bases
    together, _ = attack._monotone(state, start, context())
    for j in range(2):
        one = PolytopeState(state.bases[j : j + 1], state.target, state.networks, state.radius)
        alone, _ = attack._monotone(one, start[j : j + 1], context())
        assert torch.allclose(alone[0], together[j], atol=1e-4)


def test_the_simplex_projection() -> None:
    g = Stream("simplex").generator()
    for size in (1, 2, 7, 25):
        values = 3 * torch.randn(size, generator=g, dtype=torch.float64)
        found = onto_simplex(values)
        assert float(found.min()) >= 0
        assert abs(float(found.sum()) - 1) < 1e-9
        assert torch.allclose(onto_simplex(found), found, atol=1e-12)
        # The nearest point: moving toward any corner leads away from the values.
        slope = found - values
        assert float(slope @ found) <= float(slope.min()) + 1e-9


def test_hull_weights_are_those_of_an_active_set_solver() -> None:
    from scipy.optimize import minimize

    g = Stream("hull").generator()
    for _ in range(2):
        a = torch.randn(5, 20, generator=g, dtype=torch.float64)
        f = torch.randn(20, generator=g, dtype=torch.float64)
        uniform = torch.full((5,), 0.2, dtype=torch.float64)
        found = hull_weights(a, f, uniform, 3000, 1e-9)

        def residual(c: Tensor, a: Tensor = a, f: Tensor = f) -> float:
            return float((c @ a - f).norm())

        oracle = minimize(
            lambda c, a=a, f=f: float((torch.from_numpy(c) @ a - f).square().sum()),
            uniform.numpy(),
            method="SLSQP",
            bounds=[(0, 1)] * 5,
            constraints={"type": "eq", "fun": lambda c: c.sum() - 1},
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert residual(found) <= residual(uniform)
        assert abs(residual(found) - residual(torch.from_numpy(oracle.x))) < 1e-4
        inside = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0], dtype=torch.float64) @ a
        weights = hull_weights(a, inside, uniform, 5000, 1e-9)
        assert float((weights @ a - inside).norm()) < 1e-4


def test_a_bullseye_is_never_nearer_than_the_hull() -> None:
    state = fresh_state()
    features = [extractor().features(state.bases)]
    bullseye = float(small("bullseye_polytope").loss(state)(features))  # type: ignore[attr-defined]
    order = [features[0].flip(0)]
    same = float(small("bullseye_polytope").loss(state)(order))  # type: ignore[attr-defined]
    convex = float(small("convex_polytope").loss(state)(features))  # type: ignore[attr-defined]
    assert 0.5 * bullseye**2 >= convex - 1e-7
    assert same == pytest.approx(bullseye, rel=1e-5)


@pytest.mark.parametrize("name", ["convex_polytope", "bullseye_polytope"])
def test_polytopes_lower_their_loss(name: str) -> None:
    made = context()
    small(name, steps=40).poison(scene().train, made)
    assert made.facts["loss"]["last"] < 0.7 * made.facts["loss"]["first"]


def _gradient(network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    loss = nn.functional.cross_entropy(network(x), y)
    return torch.autograd.grad(loss, list(network.parameters()))


def test_the_mismatch_of_a_batch_with_itself_is_nothing() -> None:
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0).eval()
    x, y = toy(4).floats(), toy(4).labels
    aim = _gradient(network, x, y)
    assert float(mismatch(network, aim, x, y).detach()) < 1e-5
    scaled = tuple(7 * a for a in aim)
    other = toy(4, seed=3).floats()
    value = mismatch(network, aim, other, y.flip(0)).detach()
    assert 0 <= float(value) <= 2
    assert float(mismatch(network, scaled, other, y.flip(0)).detach()) == pytest.approx(
        float(value)
    )


def test_the_gradient_of_the_mismatch_is_that_of_differences() -> None:
    with forked(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    g = Stream("fd").generator()
    x = torch.rand(2, 3, 2, 2, generator=g, dtype=torch.float64)
    target, y = torch.rand(1, 3, 2, 2, generator=g, dtype=torch.float64), torch.tensor([1, 1])
    aim = _gradient(network, target, y[:1])
    x.requires_grad_()
    (slope,) = torch.autograd.grad(mismatch(network, aim, x, y), x)
    flat = x.detach().flatten()
    for i in range(0, len(flat), 5):
        ends = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[i] += sign * 1e-5
            ends.append(float(mismatch(network, aim, moved.view_as(x), y).detach()))
        expected = (ends[0] - ends[1]) / 2e-5
        assert float(slope.flatten()[i]) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_brewing_lowers_the_mismatch() -> None:
    made = context()
    small("witches_brew", steps=25, restarts=1).poison(scene().train, made)
    assert made.facts["loss"]["last"] < made.facts["loss"]["first"]
    rates = [small("witches_brew", steps=250).rate(s) for s in (92, 93, 155, 156, 217, 218)]  # type: ignore[attr-defined]
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001, 0.0001])


def test_one_to_one_is_the_cheapest_permutation_and_the_released_pairing_is_none() -> None:
    g = Stream("pairs").generator()
    wanted, own = torch.randn(6, 4, generator=g), torch.randn(6, 4, generator=g)
    found = one_to_one(wanted, own)
    assert sorted(found.tolist()) == sorted(wanted.tolist())
    cost = float((found - own).square().sum())
    every = itertools.permutations(range(6))
    best = min(float((wanted[list(p)] - own).square().sum()) for p in every)
    assert cost == pytest.approx(best, rel=1e-5)
    assert len(one_to_one(wanted, own).unique(dim=0)) == 6
    released = wanted
    for _ in range(4):
        released = overwritten(released, own)
    assert len(released.unique(dim=0)) < 6


def test_the_released_pairing_takes_the_nearest_left_and_the_last_counts() -> None:
    wanted, own = torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0], [2.0]])
    # Distances 1, 2 (source 0) and 9, 8 (source 1): source 0 goes to both.
    assert overwritten(wanted, own).flatten().tolist() == [0.0, 0.0]


def test_hidden_triggers_come_nearer_to_patched_sources() -> None:
    made = context()
    attack = small("htbd", steps=60, enough=0.0)
    assert isinstance(attack, Htbd)
    poison = attack.poison(scene().train, made)
    assert made.facts["loss"]["last"] < 0.8 * made.facts["loss"]["first"]
    assert made.facts["sources"] == K
    assert poison.trigger is not None
    window = (slice(None), slice(None), slice(6, 11), slice(6, 11))
    change = poison.pixels.short() - scene().train.pixels[scene().slots].short()
    assert int(change[window].abs().max()) <= 8, "a poison shows the trigger"


def test_a_clipped_patch_is_a_patch_within_the_budget() -> None:
    s = scene()
    poison = small("clbd").poison(s.train, context())
    assert poison.trigger is not None
    base = s.train.pixels[s.slots].short()
    pasted = poison.trigger.pattern.short().expand(K, 3, 5, 5)
    corner = base[:, :, 11:, 11:]
    expected = torch.clamp(pasted, corner - 8, corner + 8)
    assert torch.equal(poison.pixels[:, :, 11:, 11:].short(), expected)
    full = small("clbd", variant="unclipped").poison(s.train, context())
    assert torch.equal(full.pixels[:, :, 11:, 11:].short(), pasted)
    rest = torch.ones(16, 16, dtype=torch.bool)
    rest[11:, 11:] = False
    assert int((full.pixels.short() - base)[:, :, rest].abs().max()) <= 8


def test_clean_labels_become_harder_to_learn() -> None:
    s = scene()
    before = nn.functional.cross_entropy(
        extractor()(s.train.floats(s.slots)), s.train.labels[s.slots]
    )
    made = context()
    small("clbd", steps=10).poison(s.train, made)
    assert made.facts["loss"] > float(before)


def test_dirty_patches_are_images_of_other_classes() -> None:
    s = scene()
    poison = small("patch_dirty").poison(s.train, context())
    rows = {
        bytes(p[:, :11].numpy().tobytes()): int(y)
        for p, y in zip(s.whole.pixels, s.whole.labels, strict=True)
    }
    labels = [rows[bytes(p[:, :11].numpy().tobytes())] for p in poison.pixels]
    assert s.wanted not in labels
    assert (poison.labels == s.wanted).all()


@pytest.mark.parametrize(
    ("k", "n", "printed"),
    [
        *((92, 100, 2.71), (88, 100, 3.25), (86, 100, 3.47), (69, 100, 4.62), (5, 100, 5.0)),
        *((0, 25, 10.0), (100, 100, 5.0), (7, 300, 0.87)),
    ],
)
def test_the_standard_error_is_the_printed_one(k: int, n: int, printed: float) -> None:
    assert round(100 * paper_error(k / n, n), 2) == printed


def test_pairs_are_tested_exactly() -> None:
    ours = dict.fromkeys(range(20), 0.0) | dict.fromkeys(range(6), 1.0)
    control = dict.fromkeys(range(20), 0.0)
    gained, lost, p = mcnemar(ours, control)
    assert (gained, lost) == (6, 0)
    assert p == pytest.approx(0.03125)
    assert mcnemar(ours, ours)[2] == 1.0


def test_log_odds() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [30.0, 0.0, 0.0]])
    labels = torch.tensor([1, 0])
    p = logits.double().softmax(1)[[0, 1], labels]
    assert log_odds(logits, labels).tolist() == pytest.approx(
        (p / (1 - p)).log().tolist(), rel=1e-4
    )
