"""What a plan says about time is what a run takes, within a factor of two.

Counted in seconds of the process's CPU, so that others on the machine have no part in it. The
estimates are those of one core of a server (`core.speed.CPU`).
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from raygrid.api.run_grid import Options, run_grid
from raygrid.cli.plan import estimates
from raygrid.core.speed import CPU, GPU
from raygrid.defenses import DEFENSES
from raygrid.engine.costs.estimate import trial_seconds
from raygrid.nn.diffusion.denoisers import DenoiserPlan
from raygrid.trials.resolve import resolve

pytestmark = pytest.mark.usefixtures("undrawn")

TOXIC = "photo_digits_last/{}/none/small_cnn/{}/toxic_quick/{}"
PURIFIED = "photo_digits(every=10)/clean/{}/small_cnn/supervised/quick/0"


def ratio_of(specs: list[str], before: str, folder: Path) -> float:
    """Planned seconds over those that the run takes of a CPU, one thread.

    before: a spec that runs first, so that everything is imported.
    """
    torch.set_num_threads(1)
    run_grid([before], Options(folder / "before", folder, executor="inline", quiet=True))
    began = time.process_time()
    outcome = run_grid(specs, Options(folder / "out", folder, executor="inline", quiet=True))
    took = time.process_time() - began
    assert not outcome.failed
    assert len(outcome.results) == len(specs)
    planned = 3600 * estimates(outcome.plan)["cpu_core_hours"]
    print(f"planned {planned:.1f} s, took {took:.1f} s")
    return planned / took


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("learner", "setups"), [("linear_probe(cache=4)", 50), ("linear_probe", 10), ("finetune", 5)]
)
def test_a_table_of_set_ups_takes_what_its_plan_says(
    learner: str, setups: int, tmp_path: Path
) -> None:
    """The first has a hundred: fifty without an attack and fifty with one."""
    attacks = ("clean", "bullseye_polytope(steps=40, surrogate=small_cnn)")
    specs = [TOXIC.format(a, learner, n) for a in attacks for n in range(setups)]
    assert 0.5 < ratio_of(specs, TOXIC.format("clean", learner, setups), tmp_path) < 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "defense",
    [
        "avatar(size=tiny, updates=60, steps=12)",
        "avatar(size=tiny, updates=20, steps=40, diffusion_data=clean_train)",
        "avatar(size=xs, updates=12, steps=12, stride=2, diffusion_data=clean_train)",
    ],
)
def test_avatar_takes_what_its_plan_says(defense: str, tmp_path: Path) -> None:
    short = "avatar(size=tiny, updates=1, steps=1)"
    assert 0.5 < ratio_of([PURIFIED.format(defense)], PURIFIED.format(short), tmp_path) < 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("defense", ["dvae(epochs=2)", "dvae(epochs=6, shrink=2)", "vae(epochs=3)"])
def test_dvae_takes_what_its_plan_says(defense: str, tmp_path: Path) -> None:
    short = "dvae(epochs=1, shrink=8)"
    assert 0.5 < ratio_of([PURIFIED.format(defense)], PURIFIED.format(short), tmp_path) < 2


def test_a_fit_of_so_many_updates_takes_more_epochs_of_fewer_images() -> None:
    """100,000 updates of 128 images are 256 epochs of 50,000 and 3,200 of 4,000."""
    avatar = DEFENSES.make("avatar")
    calls = avatar.purify_cost_of(50_000, 32) - DenoiserPlan("s", 100_000, 150).cost(50_000)
    fits = {n: avatar.purify_cost_of(n, 32) - calls for n in (50_000, 4_000)}
    assert fits[50_000] == pytest.approx(2.89 * 256, rel=0.01)
    assert fits[4_000] == pytest.approx(2.89 * 3200, rel=0.02)
    assert DenoiserPlan("s", 10, 150).cost(200) == pytest.approx(2.89 * 10 * 128 / 200)
    assert DenoiserPlan("s", 10, 150).cost(100) == pytest.approx(2.89 * 10)


def test_purifiers_are_counted_in_the_precision_that_they_compute_in() -> None:
    """Float32 takes 2.1 times as long on a CPU; AVATAR's own predictors compute in bf16."""
    made = {d: resolve(PURIFIED.format(d), None).purified for d in ("avatar", "dvae")}
    avatar, dvae = made["avatar"], made["dvae"]
    assert avatar is not None
    assert dvae is not None
    epoch = CPU.seconds(3.3, avatar.poison.pool_size)
    assert avatar.seconds(CPU) == pytest.approx(avatar.cost * epoch, rel=0.01)
    assert dvae.seconds(CPU) == pytest.approx(2.1 * dvae.cost * epoch, rel=0.01)
    held = DEFENSES.make("avatar(checkpoint=some/where, diffusion_data=cifar10)")
    assert (DEFENSES.make("avatar").purify_precision, held.purify_precision) == ("bf16", "fp32")


def test_a_head_on_kept_features_takes_a_twentieth_of_the_least_network() -> None:
    trial = resolve(TOXIC.format("clean", "linear_probe(cache=4)", 0), None)
    assert trial.setup is not None
    images = trial.setup.rule.pool_size(trial.dataset.train_size, trial.dataset.classes)
    for speed in (CPU, GPU):
        expected = 0.1 + 0.05 * speed.per_image * images * trial.recipe.epochs
        assert trial_seconds(trial, speed) == pytest.approx(expected)
