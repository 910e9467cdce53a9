"""Attacks on a target: the contract, each method's invariants by other means, victims, probes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
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
from raygrid.attacks.common.surrogates import SurrogateRecipe, augmentation
from raygrid.attacks.common.targeted import PolytopeState, TargetedAttack
from raygrid.attacks.convex_polytope import hull_weights, onto_simplex
from raygrid.attacks.feature_collision import FeatureCollision, collide
from raygrid.attacks.htbd import Htbd, one_to_one, overwritten
from raygrid.attacks.witches_brew import mismatch
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.images import Images, Poison
from raygrid.core.seeds import Stream, forked
from raygrid.nn import augment
from raygrid.nn.augment import CropFlip
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import freeze
from raygrid.protocols import PROTOCOLS
from raygrid.protocols.setups import Scene, SetupRule
from raygrid.reports.statistics import mcnemar, paper_error
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact, World, poison_of
from raygrid.trials.artifacts.features import features_for
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.evaluate import log_odds
from raygrid.trials.resolve import resolve
from raygrid.trials.run import run_trial
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


# --- feature collision ---------------------------------------------------------------------------


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


# --- polytopes -----------------------------------------------------------------------------------


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


# --- gradient matching ---------------------------------------------------------------------------


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


def test_brewing_lowers_the_mismatch_and_keeps_the_best_start() -> None:
    made = context()
    small("witches_brew", steps=25, restarts=1).poison(scene().train, made)
    assert made.facts["loss"]["last"] < made.facts["loss"]["first"]
    rates = [small("witches_brew", steps=250).rate(s) for s in (92, 93, 155, 156, 217, 218)]  # type: ignore[attr-defined]
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001, 0.0001])


# --- backdoors -----------------------------------------------------------------------------------


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


# --- statistics ----------------------------------------------------------------------------------


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


# --- through the trial ---------------------------------------------------------------------------

PROTOCOL = "toxic_quick(epochs=6, per_class=16, poisons=8, pretrain_epochs=3)"


def spec(
    attack: str = "clean", learner: str = "linear_probe", defense: str = "none", seed: int = 0
) -> str:
    return f"dots/{attack}/{defense}/small_cnn/{learner}/{PROTOCOL}/{seed}"


Fetch = Callable[[Artifact], Bundle]
TARGET = {"target", "target_hflip", "target_clbd", "target_htbd"}


def test_a_control_answers_the_same_questions(catalog: Catalog, fetch: Fetch) -> None:
    rows = {
        attack: run_trial(resolve(spec(attack), catalog), fetch, TrialContext())
        for attack in ("clean", "bullseye_polytope(steps=3, surrogate=small_cnn)", "patch_dirty")
    }
    assert [r.error for r in rows.values()] == [None] * 3
    clean, bullseye, dirty = (set(r.probes) for r in rows.values())
    assert clean == {"clean_test"} | TARGET
    assert bullseye == clean | {"poison_train"}
    assert dirty == bullseye | {"target_plain", "class_trigger", "all_trigger"}
    probes = rows["patch_dirty"].probes
    assert probes["target"] == probes["target_clbd"]
    assert probes["poison_train"]["n"] == 8
    assert probes["clean_test"]["n"] == 64
    assert probes["class_trigger"]["n"] == 16
    assert probes["all_trigger"]["n"] == 48
    assert all(math.isfinite(probes[name]["logodds"]) for name in TARGET)
    plain = rows["clean"].probes["target"]
    assert plain != dirty  # answers are rows, not sets
    again = run_trial(resolve(spec(), catalog), fetch, TrialContext())
    assert again.probes == rows["clean"].probes


def test_trials_without_a_target_keep_their_questions(catalog: Catalog, fetch: Fetch) -> None:
    result = run_trial(
        resolve("dots/lsp/none/small_cnn/supervised/brief/0", catalog), fetch, TrialContext()
    )
    assert set(result.probes) == {"clean_test"}


def test_availability_attacks_run_before_a_target_too(catalog: Catalog, fetch: Fetch) -> None:
    result = run_trial(resolve(spec("lsp"), catalog), fetch, TrialContext())
    assert result.error is None
    assert result.probes["poison_train"]["n"] == 64


@pytest.mark.parametrize(
    "learner", ["linear_probe", "linear_probe(cache=0)", "finetune", "supervised"]
)
def test_every_kind_of_victim_runs(learner: str, catalog: Catalog, fetch: Fetch) -> None:
    trial = resolve(spec("patch_dirty", learner, "standard"), catalog)
    assert trial.skip() is None
    result = run_trial(trial, fetch, TrialContext())
    assert result.error is None
    assert len(result.history) == 6


def test_set_ups_decide_poisons_and_further_victims_do_not(catalog: Catalog) -> None:
    attack = "bullseye_polytope(surrogate=small_cnn)"
    one, other = (resolve(spec(attack, seed=s), catalog) for s in (0, 1))
    assert one.poison.key != other.poison.key
    assert [s.key for s in one.poison.surrogates] == [s.key for s in other.poison.surrogates]
    again = resolve(spec(attack).replace("poisons=8", "poisons=8, rep=1"), catalog)
    assert again.poison.key == one.poison.key
    assert again.key != one.key
    assert again.streams()["init"] != one.streams()["init"]
    assert one.extractor is not None
    assert one.extractor.key == one.poison.surrogates[0].key, "the attack is white-box"
    gray = resolve(spec(attack).replace("poisons=8", "checkpoint=1, poisons=8"), catalog)
    assert gray.extractor is not None
    assert gray.extractor.key != one.extractor.key
    assert gray.poison.key == one.poison.key
    scratch = resolve(spec(attack, "supervised"), catalog)
    assert scratch.poison.key != one.poison.key, "another cell, another set-up"


def test_features_are_shared_and_recalled_where_nobody_changed_an_image(
    catalog: Catalog, fetch: Fetch
) -> None:
    trials = [
        resolve(spec(a, seed=s, defense="standard"), catalog)
        for a in ("clean", "patch_dirty")
        for s in (0, 1)
    ]
    assert len({t.features.key for t in trials if t.features}) == 1
    trial = trials[2]
    assert trial.features is not None
    bundle, world = fetch(trial.features), World.of(fetch(trial.data), trial.setup)
    poison = poison_of(fetch(trial.poison))
    train, mask = poison.overlay(world.train, 1.0, Stream("ratio"))
    found = features_for(bundle, world, train, CPU)
    assert torch.equal(found.known, ~mask)
    assert (found.train[:, mask] == 0).all()
    whole = features_for(bundle, world, world.train, CPU)
    assert bool(whole.known[~mask].all()), "only a base may be new"
    assert torch.equal(whole.train[:, ~mask], found.train[:, ~mask])


def test_frozen_extractors_stay_bit_for_bit(catalog: Catalog, fetch: Fetch) -> None:
    from raygrid.trials.run import pretrained, task_of

    for cache_ in (0, 2):
        trial = resolve(spec("patch_dirty", f"linear_probe(cache={cache_})", "standard"), catalog)
        world = World.of(fetch(trial.data), trial.setup)
        parts = pretrained(trial, fetch, world, world.train, CPU)
        task = replace(task_of(trial, world.train, world.train, CPU), **parts)
        before = {k: t.clone() for k, t in task.extractor.state_dict().items()}  # type: ignore[union-attr]
        session = trial.learner.start(task)
        for epoch in range(3):
            session.epoch(epoch)
            session.classifier().train()
        for name, value in task.extractor.state_dict().items():  # type: ignore[union-attr]
            assert torch.equal(value, before[name])


def test_kept_features_give_the_victim_that_new_ones_give(catalog: Catalog, fetch: Fetch) -> None:
    """The store's features against those computed by the trial itself, one augmented pass each."""
    from raygrid.trials.run import pretrained, task_of

    trial = resolve(spec("patch_dirty", "linear_probe(cache=2)", "standard"), catalog)
    world = World.of(fetch(trial.data), trial.setup)
    train, _ = poison_of(fetch(trial.poison)).overlay(world.train, 1.0, Stream("ratio"))
    parts = pretrained(trial, fetch, world, train, CPU)
    task = replace(task_of(trial, train, world.train, CPU), **parts)
    alone = replace(parts["kept"], known=torch.zeros(len(train), dtype=torch.bool), tests={})
    ours = trial.learner.start(task)
    theirs = trial.learner.start(replace(task, kept=alone))
    for one, other in zip(ours.features, theirs.features, strict=True):  # type: ignore[attr-defined]
        assert torch.allclose(one, other, atol=1e-5)
    assert ours.epoch(0)["train_loss"] == pytest.approx(theirs.epoch(0)["train_loss"], rel=1e-4)
    assert world.scene is not None
    groups = world.scene.groups(world.test, world.scene.triggers["clbd"])
    for images in (world.test, *groups.values()):
        assert images.fingerprint in parts["kept"].tests
        shown = [trial.learner.shown(s, images, trial.defense.view)[0] for s in (ours, theirs)]
        one, other = (s.floats(slice(None)) for s in shown)
        assert torch.allclose(one, other, atol=1e-5)


def test_features_are_kept_under_the_augmentation_of_the_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = resolve(spec(defense="standard"), None)
    plain = resolve(spec(defense="none"), None)
    own, bare = trial.features, plain.features
    assert own is not None
    assert bare is not None
    assert (own.augmentation, bare.augmentation) == (trial.dataset.augmentation, "none")
    elsewhere = {trial.dataset.id: "crop_flip"}
    monkeypatch.setattr(type(trial.protocol), "augmentations", elsewhere)
    other = resolve(spec(defense="standard"), None).features
    assert other is not None
    assert other.augmentation == "crop_flip" != own.augmentation
    assert len({own.key, bare.key, other.key}) == 3
    assert plain.features == bare


def test_kept_features_refuse_what_acts_on_images() -> None:
    trial = resolve(spec(learner="linear_probe(cache=2)", defense="cutout"), None)
    assert "use cache=0" in str(trial.skip())
    free = resolve(spec(learner="linear_probe(cache=0)", defense="cutout"), None)
    assert free.skip() is None


def test_the_rates_are_those_of_the_benchmark() -> None:
    protocol = PROTOCOLS.make("just_how_toxic")
    head = protocol.recipe("linear_probe", "cifar10", 32)
    assert [head.rate(e) for e in (0, 29, 30, 39)] == pytest.approx([0.01, 0.01, 0.001, 0.001])
    whole = protocol.recipe("supervised", "cifar10", 32)
    rates = [whole.rate(e) for e in (99, 100, 149, 150)]
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001])
    assert (head.epochs, whole.epochs, head.weight_decay) == (40, 200, 2e-4)
    cifar, tiny = (protocol.pretraining(d) for d in ("cifar100", "tinyimagenet_first"))
    assert cifar is not None
    assert tiny is not None
    assert (cifar.epochs, cifar.milestones) == (400, (200, 300, 350))
    assert (tiny.epochs, tiny.milestones) == (200, (100, 150))
    adam = PROTOCOLS.make("just_how_toxic(optimizer=adam)").recipe("supervised", "cifar10", 32)
    assert adam.optimizer == "adam"


@pytest.mark.parametrize(
    ("dataset", "learner", "poisons", "per_class", "patch", "file"),
    [
        ("cifar10", "linear_probe", 25, 250, 5, "cifar10_transfer_learning"),
        ("cifar10", "supervised", 500, None, 5, "cifar10_from_scratch"),
        ("tinyimagenet_last", "linear_probe", 250, None, 8, "tinyimagenet_transfer_learning"),
        ("tinyimagenet", "supervised", 250, None, 8, "tinyimagenet_from_scratch"),
    ],
)
def test_the_four_cells(
    dataset: str, learner: str, poisons: int, per_class: int | None, patch: int, file: str
) -> None:
    protocol = PROTOCOLS.make("just_how_toxic(setups=/somewhere)")
    rule = protocol.setup_rule(dataset, learner == "linear_probe")
    assert rule is not None
    assert (rule.poisons, rule.per_class, rule.patch, rule.file) == (
        poisons,
        per_class,
        patch,
        file,
    )
    trial = resolve(f"{dataset}/clean/standard/vgg16/{learner}/just_how_toxic/0", None)
    assert trial.skip() is None
    assert (trial.extractor is not None) == (learner == "linear_probe")


@pytest.mark.parametrize("dataset", ["cifar10", "tinyimagenet_last", "tinyimagenet"])
def test_crops_have_four_pixels_of_padding_at_every_size(dataset: str) -> None:
    """poisoning-benchmark@97a67ae, learning_module.py: victims, extractors, CLBD's surrogate."""
    learner = "supervised" if dataset == "tinyimagenet" else "linear_probe"
    text = f"{dataset}/clbd(surrogate=vgg11)/standard/vgg11/{learner}/just_how_toxic/0"
    trial = resolve(text, None)
    victim = augment.standard(trial.augmentation, trial.dataset.image_size)
    assert isinstance(victim, CropFlip)
    assert (victim.padding, victim.flip) == (4, True)
    recipes = list(trial.attack.needs())
    if trial.extractor is not None:
        recipes.append(trial.extractor.recipe)
        assert trial.extractor.data.dataset.image_size == trial.dataset.image_size
    side = trial.dataset.image_size
    ramp = torch.arange(1.0, side + 1).expand(512, 1, side, side)
    for recipe in recipes:
        crop = augmentation(recipe.augmentation, nn.Identity())
        moved = crop(ramp, torch.Generator().manual_seed(0))
        empty = (moved == 0).sum(3).amax((1, 2))  # columns of padding, on one side or the other
        rows = (moved == 0).all(3).sum((1, 2))
        assert rows.max() == 4
        assert set(empty[rows == 0].tolist()) == {0, 1, 2, 3, 4}


def test_the_size_axis_keeps_the_share() -> None:
    for count in (5, 10, 50, 500):
        protocol = PROTOCOLS.make(f"just_how_toxic(poisons={count}, setups=/somewhere)")
        rule = protocol.setup_rule("cifar10", True)
        assert rule is not None
        assert (rule.per_class, rule.file) == (10 * count, f"scaling_cifar10_{count}")
    with pytest.raises(SpecError, match="no official set-ups"):
        protocol.setup_rule("photo_digits", True)


@pytest.mark.parametrize(
    ("name", "count"),
    [("alexnet_fc", 1_756_426), ("alexnet_htbd", 20_126_538), ("resnet32_narrow", 464_154)],
)
def test_parameter_counts(name: str, count: int) -> None:
    network = ARCHITECTURES.make(name).build(10, 32, 0)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_a_poison_with_its_trigger_survives_the_store() -> None:
    from raygrid.trials.artifacts import poison_bundle

    poison = small("patch_dirty").poison(scene().train, context())
    again = poison_of(poison_bundle(poison, {}))
    assert isinstance(again, Poison)
    assert again.targets == poison.targets
    assert again.trigger is not None
    assert poison.trigger is not None
    assert torch.equal(again.trigger.pattern, poison.trigger.pattern)
    assert (again.trigger.left, again.trigger.top) == (poison.trigger.left, poison.trigger.top)
    assert isinstance(scene().train, Images)
