"""GPU shares and the simulated schedule."""

from __future__ import annotations

from pathlib import Path

import pytest

from raygrid.errors import SpecError
from raygrid.grid import Plan, plan
from raygrid.packing import CARDS, CONTEXT_MB, LADDER, ROOM, Profiles, Sharing, kind
from raygrid.report import Look, plan_json, plan_text
from raygrid.resolve import Trial
from raygrid.schedule import Agenda, Job
from raygrid.simulate import Fleet, play
from tests import plugin

assert plugin.CARD
NETS = ("small_cnn", "resnet18", "resnet50", "densenet121")


def trial_of(spec: str) -> Trial:
    return plan([spec], None).trials[0]


def cifar(architecture: str, learner: str = "supervised") -> Trial:
    return trial_of(f"cifar10/clean/standard/{architecture}/{learner}/tp/0")


def measured(trial: Trial, memory_mb: float, device: str = "NVIDIA A10G") -> Profiles:
    profiles = Profiles()
    profiles.learn(trial, {"status": "done", "device": device, "memory_mb": memory_mb})
    return profiles


@pytest.mark.parametrize("memory_gb", [16, 24, 80])
@pytest.mark.parametrize("net", NETS)
def test_shares_tile_a_gpu(net: str, memory_gb: float) -> None:
    assert Profiles().share(cifar(net), memory_gb) in LADDER
    assert measured(cifar(net), 3000).share(cifar(net), memory_gb) in LADDER


def test_a_measured_trial_fits_its_share() -> None:
    trial = cifar("small_cnn")
    for megabytes in (100, 1500, 2800, 5000, 9000, 15_000):
        share = measured(trial, megabytes).share(trial, 24)
        assert share == 1.0 or share * 24 * 1024 >= ROOM * megabytes + CONTEXT_MB
    assert measured(trial, 100).share(trial, 24) == 1 / 8
    assert measured(trial, 9000).share(trial, 24) == 1 / 2
    assert measured(trial, 9000).share(trial, 80) == 1 / 4


def test_profiles_learn_the_most_from_finished_gpu_trials_alone() -> None:
    trial = cifar("resnet18")
    profiles = measured(trial, 9000, device="cpu (x86_64, 1 thread)")
    assert profiles.memory_mb == {}
    profiles.learn(trial, {"status": "failed", "device": "NVIDIA A10G", "memory_mb": 9000})
    assert profiles.memory_mb == {}
    for megabytes in (4000, 5000, 3000):
        profiles.learn(trial, {"status": "done", "device": "A10G", "memory_mb": megabytes})
    assert profiles.memory_mb == {kind(trial): 5000}
    assert kind(cifar("resnet18", "simclr")) not in profiles.memory_mb


def test_without_gpus_nothing_of_one_is_asked_for() -> None:
    assert Sharing(Profiles(), 0.0).share(cifar("resnet18")) == 0.0


def test_an_artifact_gets_a_gpu_if_it_needs_one() -> None:
    trial = trial_of("cifar10/tap/jpeg/resnet18/supervised/tp/0")
    shares = {
        a.kind: Sharing(Profiles(), 24.0).share(a) for a in plan([trial.spec], None).artifacts
    }
    assert shares == {"dataset": 0.0, "surrogate": 0.5, "poison": 0.5, "purified": 0.0}
    trained = trial_of("cifar10/lsp/dvae/resnet18/supervised/dvae/0").purified
    assert trained is not None
    assert Sharing(Profiles(), 24.0).share(trained) == 0.5


@pytest.mark.parametrize(
    ("text", "hint"), [("8", "8xA10G"), ("0xT4", "8xA10G"), ("8xA1OG", "A10G")]
)
def test_a_fleet_that_is_none_is_refused(text: str, hint: str) -> None:
    with pytest.raises(SpecError, match=hint):
        Fleet.parse(text)
    with pytest.raises(SpecError, match="price"):
        Fleet.parse("8xA10G", price=-1)


def naps(count: int) -> Plan:
    return plan([f"dots/clean/none/small_cnn/sleeper/brief/{seed}" for seed in range(count)], None)


def lengths(seconds: list[float]) -> dict[str, float]:
    return dict(zip((t.key for t in naps(len(seconds)).trials), seconds, strict=True))


def test_the_longest_go_first_and_the_clock_is_right() -> None:
    """4, 3, 3, 2 on two cores: 4 + 2 and 3 + 3, after the dataset's second."""
    known = lengths([2.0, 3.0, 4.0, 3.0])
    agenda = Agenda(naps(4).trials, lambda a: False)
    for job in agenda.jobs.values():
        if job.trial is not None:
            job.rank = known[job.key]
    agenda._ready = [(-job.rank, job.key) for job in agenda.jobs.values() if not job.needs]

    def seconds(job: Job) -> float:
        return known.get(job.key, 1.0)

    line = play(agenda, Fleet(cpus=2), seconds=seconds, start=0.0)
    making = sum(not artifact.instant for artifact in naps(4).artifacts)
    assert line.makespan == pytest.approx(making + 6.0)
    assert line.work == pytest.approx(making + 12.0)
    assert line.packed == {1.0: 4}


def test_no_gpu_is_overfull_and_packing_shortens_a_run() -> None:
    whole = [cifar("resnet50", "simclr")]
    specs = [f"cifar10/clean/standard/small_cnn/supervised/tp/{seed}" for seed in range(64)]
    trials = plan(specs, None).trials

    def run(fleet: Fleet, profiles: Profiles) -> float:
        agenda = Agenda(trials, lambda a: True)
        return play(agenda, fleet, profiles, seconds=lambda job: 100.0, start=0.0).makespan

    assert run(Fleet.parse("2xA10G"), Profiles()) == pytest.approx(64 / 16 * 100)
    crowded = measured(trials[0], 20_000)
    assert run(Fleet.parse("2xA10G"), crowded) == pytest.approx(64 / 2 * 100)
    assert Profiles().share(whole[0]) == 1.0


def test_a_plan_says_what_a_fleet_makes_of_it(tmp_path: Path) -> None:
    fleet = Fleet.parse("8xA10G", price=1.5)
    found = plan_json(naps(16), Look(known=False, fleet=fleet))["fleet"]
    assert found["trials_per_device"] == {"8": 16}
    assert found["cost"] == pytest.approx(8 * 1.5 * found["makespan_hours"], abs=0.01)
    assert "on 8 x A10G" in plan_text(naps(16), Look(known=False, fleet=fleet))
    assert CARDS["H200"].memory_gb > CARDS["A10G"].memory_gb


def test_what_earlier_runs_measured_corrects_the_plan() -> None:
    trials = naps(16).trials
    base = plan_json(naps(16), Look(fleet=Fleet.parse("1xCPU")))["fleet"]["makespan_hours"]
    rows = {
        trials[0].key: {
            "status": "done",
            "device": "cpu (x86_64, 1 thread)",
            "seconds": 1000.0,
            "epochs_run": trials[0].recipe.epochs,
        }
    }
    slow = plan_json(naps(16), Look(rows=rows, fleet=Fleet.parse("1xCPU")))["fleet"]
    assert slow["makespan_hours"] == pytest.approx(15 * 1000 / 3600, rel=0.02)
    assert slow["makespan_hours"] > 10 * base
