"""GPU shares, what they are decided by, and the simulated schedule."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raygrid.api.run_grid import Options
from raygrid.architectures import ARCHITECTURES
from raygrid.cli.plan import PlanStatus, plan_json, plan_text
from raygrid.core.device import CONTEXT_MB
from raygrid.core.errors import SpecError, StoreError
from raygrid.core.speed import CPU
from raygrid.engine.costs.estimate import Measured, trial_seconds
from raygrid.engine.costs.gpu_share import GPU_CARDS, GPU_SHARES, MEMORY_MARGIN, Sharing, too_large
from raygrid.engine.costs.profiles import Profile, Profiles, ProfileStore, footprints, gpu_of, kind
from raygrid.engine.costs.simulate import Fleet, Rooms, Waiting, play
from raygrid.engine.grid import Plan, plan
from raygrid.engine.schedule import Agenda, Job
from raygrid.learners import LEARNERS
from raygrid.storage.bucket import ObjectStore
from raygrid.storage.mirrored import MirroredStore
from raygrid.storage.store import Store
from raygrid.trials.trial import Trial
from tests import plugin

assert plugin.CARD
NETS = ("small_cnn", "resnet18", "resnet50", "densenet121")


def trial_of(spec: str) -> Trial:
    return plan([spec], None).trials[0]


def cifar(architecture: str, learner: str = "supervised") -> Trial:
    return trial_of(f"cifar10/clean/standard/{architecture}/{learner}/tp/0")


def measured(
    trial: Trial, memory_mb: float = 100, device: str = "NVIDIA A10G", **use: float
) -> Any:
    profiles = Profiles()
    facts = {"status": "done", "device": device, "memory_mb": memory_mb, **use}
    profiles.learn(trial, facts)
    return profiles


def share(profiles: Profiles, trial: Trial, gpu: str = "A10G") -> float:
    return Sharing(profiles, gpu).share(trial)


@pytest.mark.parametrize("gpu", ["T4", "A10G", "H100", "GeForce-RTX-5090"])
@pytest.mark.parametrize("net", NETS)
def test_shares_tile_a_gpu(net: str, gpu: str) -> None:
    assert share(Profiles(), cifar(net), gpu) in GPU_SHARES
    assert share(measured(cifar(net), 3000, gpu), cifar(net), gpu) in GPU_SHARES


def test_a_measured_trial_fits_its_share() -> None:
    trial = cifar("small_cnn")
    for megabytes in (100, 1500, 2800, 5000, 9000, 15_000):
        part = share(measured(trial, megabytes), trial)
        assert (
            part == 1.0
            or part * GPU_CARDS["A10G"].memory_gb * 1024 >= MEMORY_MARGIN * megabytes + CONTEXT_MB
        )
    assert share(measured(trial, 100), trial) == 1 / 8
    assert share(measured(trial, 9000), trial) == 1 / 2
    assert share(measured(trial, 9000, "NVIDIA H100 80GB HBM3"), trial, "H100") == 1 / 4


def test_profiles_learn_the_most_from_finished_gpu_trials_alone() -> None:
    trial = cifar("resnet18")
    profiles = measured(trial, 9000, device="cpu (x86_64, 1 thread)")
    assert profiles.known == {}
    profiles.learn(trial, {"status": "failed", "device": "NVIDIA A10G", "memory_mb": 9000})
    assert profiles.known == {}
    for megabytes in (4000, 5000, 3000):
        profiles.learn(trial, {"status": "done", "device": "A10G", "memory_mb": megabytes})
    assert profiles.find("A10G", kind(trial)).memory_mb == 5000
    assert profiles.find("A10G", kind(cifar("resnet50", "simclr"))).memory_mb == 0


@pytest.mark.parametrize("together", [1, 2, 4, 8])
def test_throughput_limits_sharing_where_memory_does_not(together: int) -> None:
    """Whatever the rule by FLOPs says of the network, and however busy the card looks."""
    for net in NETS:
        trial = cifar(net)
        alone = measured(trial, together=together, utilization=0.99, gpu_share=1.0)
        assert share(alone, trial) == 1 / together
        assert share(measured(trial, 15_000, together=together), trial) == 1.0


def test_a_kind_knows_the_defenses_that_act_in_training() -> None:
    def named(defense: str) -> str:
        return kind(trial_of(f"cifar10/clean/{defense}/resnet18/supervised/tp/0"))

    plain = "resnet18/supervised/128/32"
    assert named("standard") == named("none") == named("jpeg") == plain
    assert named("ueraser_max(repeats=5)") == f"{plain}/ueraser_max"
    assert named("jpeg+cutout") == f"{plain}/cutout"
    assert named("ueraser_max(repeats=2)") not in (plain, named("ueraser_max"))
    heavy = trial_of("cifar10/clean/ueraser_max/resnet18/supervised/tp/0")
    assert share(Profiles(), heavy) > share(Profiles(), cifar("resnet18"))


def test_a_kind_that_ran_out_of_memory_gets_more_from_then_on() -> None:
    sharing = Sharing(Profiles(), "A10G")
    trial, other = cifar("small_cnn"), cifar("small_cnn", "simclr")
    before = sharing.share(other)
    for least in (1 / 4, 1 / 2, 1.0, 1.0):
        sharing.ran_out(trial, sharing.share(trial))
        assert sharing.share(trial) == least
    assert sharing.share(other) == before
    assert sharing.outgrown == 4
    sharing.profiles.learn(trial, {"device": "A10G", "memory_mb": 100})
    assert sharing.share(trial) == 1.0


def test_so_many_to_a_gpu_as_the_user_says() -> None:
    for count in (1, 2, 4, 8):
        sharing = Sharing(Profiles(), "A10G", count)
        assert {sharing.share(cifar(net)) for net in NETS} == {1 / count}
    sharing.ran_out(cifar("small_cnn"), 1 / 8)
    assert sharing.share(cifar("small_cnn")) == 1 / 4
    with pytest.raises(SpecError, match="per_gpu is 3, allowed are 1, 2, 4, 8"):
        Options(per_gpu=3)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A10G", "A10G"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 5090", "GeForce-RTX-5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("cpu (x86_64, 1 thread)", ""),
    ],
)
def test_gpus_are_called_as_ray_calls_them(device: str, name: str) -> None:
    assert gpu_of(device) == name
    accelerators = pytest.importorskip("ray._private.accelerators.nvidia_gpu")
    theirs = accelerators.NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type
    assert not name or theirs(device) == name


def test_the_store_keeps_profiles_for_other_grids_and_drivers(store: Store, tmp_path: Path) -> None:
    """Two drivers that saw different things; a third reads the most of both."""
    small, large = cifar("small_cnn"), cifar("resnet50")
    remote = MirroredStore((tmp_path / "bucket").as_uri(), tmp_path / "cache")
    for place in (store, remote):
        first, second = ProfileStore(place), ProfileStore(place)
        one, two = first.load(), second.load()
        assert (one.known, two.known) == ({}, {})
        one.learn(small, {"device": "NVIDIA A10G", "memory_mb": 700, "utilization": None})
        one.learn(large, {"device": "Tesla T4", "memory_mb": 9000})
        two.learn(small, {"device": "A10G", "memory_mb": 500, "together": 4})
        two.ran_out(large, "T4", 0.25)
        first.save(one)
        second.save(two)
        found = ProfileStore(place).load()
        assert found.find("A10G", kind(small)) == Profile(memory_mb=700, together=4)
        assert found.find("T4", kind(large)) == Profile(memory_mb=9000, least=0.5)
        assert found.find("H100", kind(large)) == Profile(memory_mb=9000), "memory alone goes over"


def test_what_is_no_profile_is_passed_over(store: Store) -> None:
    folder = store.root / "profiles"
    folder.mkdir()
    (folder / "A10G.json").write_text(
        '{"a/b/1/2": {"memory_mb": 5, "together": NaN, "x": 1}, "c": 3}'
    )
    (folder / "T4.json").write_text('{"a/b/1/2": {"memory')
    profile_store = ProfileStore(store)
    profiles = profile_store.load()
    assert profiles.known == {"A10G": {"a/b/1/2": Profile(memory_mb=5)}}
    profiles.merge("T4", "a/b/1/2", least=0.5)
    profile_store.save(profiles)
    assert ProfileStore(store).load().find("T4", "a/b/1/2").least == 0.5


def test_profiles_that_cannot_be_kept_stop_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any) -> None:
        raise StoreError("the bucket is away")

    profile_store, profiles = ProfileStore(store, every=0.0), Profiles()
    profiles.merge("T4", "a/b/1/2", memory_mb=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "write", away)
        profile_store.tick(profiles)
    assert "profiles are not kept: the bucket is away" in caplog.text
    profile_store.tick(profiles)
    assert ProfileStore(store).load().known == profiles.known


def test_without_gpus_nothing_of_one_is_asked_for() -> None:
    assert Sharing(Profiles()).share(cifar("resnet18")) == 0.0


def test_an_artifact_gets_a_gpu_if_it_needs_one() -> None:
    trial = trial_of("cifar10/tap/jpeg/resnet18/supervised/tp/0")
    sharing = Sharing(Profiles(), "A10G")
    shares = {a.kind: sharing.share(a) for a in plan([trial.spec], None).artifacts}
    assert shares == {"dataset": 0.0, "surrogate": 0.5, "poison": 0.5, "purified": 0.0}
    trained = trial_of("cifar10/lsp/dvae/resnet18/supervised/dvae/0").purified
    assert trained is not None
    assert sharing.share(trained) == 0.5


def test_a_cluster_of_several_kinds_counts_as_the_smallest() -> None:
    pytest.importorskip("ray")
    from raygrid.engine.ray.resources import gpu_kind

    assert gpu_kind({"CPU": 8.0}) == ""
    assert gpu_kind({"CPU": 8.0, "GPU": 1.0}) == "A10G"
    both = {"GPU": 2.0, "accelerator_type:L40S": 1.0, "accelerator_type:T4": 1.0}
    assert gpu_kind(both) == "T4"


PICTURES = "imagenet100/clean/standard/resnet18/supervised/dvae/0"


def test_a_plan_says_beforehand_which_gpu_is_too_small() -> None:
    made = plan([PICTURES, "cifar10/clean/standard/resnet18/supervised/dvae/0"], None)
    (large, *_) = (t for t in made.trials if t.dataset.id == "imagenet100")
    profiles = Profiles()
    profiles.merge("A10G", kind(large), memory_mb=40_000.0)
    held = 3 * large.dataset.image_size**2 * large.dataset.train_size / 2**20
    (found,) = too_large(made.trials, "A10G", profiles)
    assert (found.what, found.name, found.count, found.gpu) == ("trial", kind(large), 1, "A10G")
    taken = 40_000 - held if held > 22.5 * 1024 / 2 else 40_000
    assert found.needed == pytest.approx((MEMORY_MARGIN * taken + CONTEXT_MB) / 1024)
    assert too_large(made.trials, "H200", profiles) == []
    assert too_large(made.trials, "an unknown card", profiles) == []
    state = PlanStatus(profiles=profiles, fleet=Fleet.parse("8xA10G"))
    said = f"note: a trial of {kind(large)} needs"
    assert said in plan_text(made, state)
    assert "A10G has 22.5: it will fail; take a larger GPU" in plan_text(made, state)
    assert plan_json(made, state)["fleet"]["too_large"] == [
        {"what": "trial", "name": kind(large), "count": 1, "needed": found.needed, "gpu": "A10G"}
    ]
    cores = PlanStatus(profiles=profiles, fleet=Fleet.parse("8xCPU"))
    assert "will fail" not in plan_text(made, cores)


def test_a_plan_says_beforehand_which_poison_is_too_large_for_a_gpu() -> None:
    """EM keeps the pictures and float32 noise of each there, D-VAE the pictures."""
    specs = [f"imagenet100/em/dvae/resnet18/supervised/dvae/{seed}" for seed in (0, 1)]
    made = plan([*specs, "cifar10/em/dvae/resnet18/supervised/dvae/0"], None)
    works = [*made.trials, *made.artifacts]
    pictures = 3 * 224**2 * made.trials[0].dataset.train_size / 2**30
    (poison,) = too_large(works, "A10G", Profiles())
    assert (poison.what, poison.name, poison.count) == ("artifact", "poison em on imagenet100", 2)
    assert poison.needed == pytest.approx(5 * pictures + CONTEXT_MB / 1024)
    assert [each.name.split()[0] for each in too_large(works, "T4", Profiles())] == [
        "poison",
        "purified",
    ]
    assert too_large(works, "H200", Profiles()) == []
    said = (
        f"note: 2 artifacts such as poison em on imagenet100 need {poison.needed:.1f} GiB each, "
        "one A10G has 22.5: they will fail; take a larger GPU"
    )
    state = PlanStatus(fleet=Fleet.parse("8xA10G"))
    assert said in plan_text(made, state).splitlines()
    (large,) = plan_json(made, state)["fleet"]["too_large"]
    assert (large["what"], large["name"], large["count"]) == ("artifact", poison.name, 2)
    there = PlanStatus(
        fleet=Fleet.parse("8xA10G"), made={a.key: [] for a in made.artifacts if a.kind == "poison"}
    )
    assert "they will fail" not in plan_text(made, there)


def test_an_artifact_that_holds_much_of_a_gpu_gets_all_of_it() -> None:
    pictures, small = (
        plan([f"{data}/lsp/dvae/resnet18/supervised/dvae/0"], None).artifacts
        for data in ("imagenet100", "cifar10")
    )
    sharing = Sharing(Profiles(), "A10G")
    assert [sharing.share(a) for a in pictures if a.kind == "purified"] == [1.0]
    assert [sharing.share(a) for a in small if a.kind == "purified"] == [1 / 2]
    assert [Sharing(Profiles(), "H200").share(a) for a in pictures if a.gpu][-1] == 1 / 2


@pytest.mark.parametrize("gpu", ["A10G", "L40S"])
def test_a_training_set_that_is_too_large_for_a_gpu_comes_in_batches(gpu: str) -> None:
    """19 GB of pictures are on the larger card alone, and a trial fits both."""
    made = plan([PICTURES], None)
    assert too_large(made.trials, gpu, Profiles()) == []


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
        job.seconds = known.get(job.key, 1.0)
    agenda.divide(slots=1)  # it orders them anew

    def seconds(job: Job, share: float) -> float:
        return known.get(job.key, 1.0)

    line = play(agenda, Fleet(cpus=2), seconds=seconds, start=0.0)
    making = sum(not artifact.instant for artifact in naps(4).artifacts)
    assert line.makespan == pytest.approx(making + 6.0)
    assert line.work == pytest.approx(making + 12.0)
    assert line.packed == {1.0: 4}


def test_what_the_longest_way_begins_with_is_taken_first() -> None:
    """The surrogate of TAP takes less time than EM's poison, with what comes after it more."""
    specs = [f"cifar10/{name}/none/resnet18/supervised/tp/0" for name in ("clean", "lsp", "tap")]
    specs += [spec.replace("clean", name) for name in ("em", "rem") for spec in specs[:1]]
    agenda = Agenda(plan(specs, None).trials, lambda a: a.kind == "dataset")
    taken = list(iter(agenda.take, None))
    assert [job.label.split(" on ")[0] for job in taken] == [
        *("poison rem", "surrogate resnet18", "poison em", "poison lsp"),
        specs[0],
    ]
    seconds = {job.label: job.seconds for job in taken}
    assert seconds["surrogate resnet18 on cifar10"] < seconds["poison em on cifar10"]
    agenda.finish(taken[1].key)
    assert [job.label for job in iter(agenda.take, None)] == ["poison tap on cifar10"]


def test_no_gpu_is_overfull_and_packing_shortens_a_run() -> None:
    whole = [cifar("resnet50", "simclr")]
    specs = [f"cifar10/clean/standard/small_cnn/supervised/tp/{seed}" for seed in range(64)]
    trials = plan(specs, None).trials

    def run(fleet: Fleet, profiles: Profiles) -> float:
        agenda = Agenda(trials, lambda a: True)
        return play(agenda, fleet, profiles, seconds=lambda job, share: 100.0, start=0.0).makespan

    assert run(Fleet.parse("2xA10G"), Profiles()) == pytest.approx(64 / 16 * 100)
    crowded = measured(trials[0], 20_000)
    assert run(Fleet.parse("2xA10G"), crowded) == pytest.approx(64 / 2 * 100)
    assert run(replace(Fleet.parse("2xA10G"), per_gpu=4), Profiles()) == pytest.approx(800)
    assert share(Profiles(), whole[0]) == 1.0


def test_a_card_computes_no_more_for_many_than_for_one() -> None:
    """Four to a GPU took a quarter of the time and the money, whatever they computed."""

    def hours(network: str, per_gpu: int) -> float:
        specs = [f"cifar10/clean/standard/{network}/supervised/dvae/{seed}" for seed in range(16)]
        fleet = replace(Fleet.parse("1xA10G"), per_gpu=per_gpu)
        agenda = Agenda(plan(specs, None).trials, lambda a: True, fleet.speed)
        return play(agenda, fleet, start=0.0).makespan

    alone = hours("resnet18", 1)
    assert [hours("resnet18", count) for count in (2, 4, 8)] == pytest.approx([alone] * 3, rel=0.02)
    small = hours("small_cnn", 1)  # waits for its launches: company costs it nothing
    assert hours("small_cnn", 8) == pytest.approx(small / 8, rel=0.02)


def test_rows_of_one_card_tell_nothing_of_another_with_a_longer_name() -> None:
    trial = cifar("resnet18", "supervised")
    row = {"status": "done", "device": "NVIDIA L40S", "epochs_run": 1, "seconds": 1e6}
    l4, l40s = (Fleet.parse(f"1x{name}").speed for name in ("L4", "L40S"))
    assert not Measured.of([trial], {trial.key: row}, l4).factors
    assert Measured.of([trial], {trial.key: row}, l40s).factors


def test_a_plan_says_what_a_fleet_makes_of_it(tmp_path: Path) -> None:
    fleet = Fleet.parse("8xA10G", price=1.5)
    found = plan_json(naps(16), PlanStatus(known=False, fleet=fleet))["fleet"]
    assert found["trials_per_device"] == {"8": 16}
    assert found["cost"] == pytest.approx(8 * 1.5 * found["makespan_hours"], abs=0.01)
    assert "on 8 x A10G" in plan_text(naps(16), PlanStatus(known=False, fleet=fleet))
    assert GPU_CARDS["H200"].memory_gb > GPU_CARDS["A10G"].memory_gb


def test_what_earlier_runs_measured_corrects_the_plan() -> None:
    trials = naps(16).trials
    base = plan_json(naps(16), PlanStatus(fleet=Fleet.parse("1xCPU")))["fleet"]["makespan_hours"]
    rows = {
        trials[0].key: {
            "status": "done",
            "device": "cpu (x86_64, 1 thread)",
            "seconds": 1000.0,
            "epochs_run": trials[0].recipe.epochs,
        }
    }
    slow = plan_json(naps(16), PlanStatus(rows=rows, fleet=Fleet.parse("1xCPU")))["fleet"]
    assert slow["makespan_hours"] == pytest.approx(15 * 1000 / 3600, rel=0.02)
    assert slow["makespan_hours"] > 10 * base


def test_a_plan_says_what_is_there_and_what_is_left() -> None:
    planned = naps(4)
    trials = planned.trials
    fresh = plan_json(planned, PlanStatus())
    assert fresh["there"] == {"trials": 0, "artifacts": 0}
    assert "there already" not in plan_text(planned, PlanStatus())
    cpu = fresh["left"]["cpu_core_hours"]
    assert cpu == pytest.approx(fresh["estimates"]["cpu_core_hours"], rel=0.2)
    rows = {
        t.key: {"status": s} for t, s in zip(trials, ("done", "stopped", "failed"), strict=False)
    }
    made = {artifact.key: ["weak"] for artifact in planned.artifacts}
    state = PlanStatus(rows=rows, made=made)
    found = plan_json(planned, state)
    assert found["there"] == {"trials": 2, "artifacts": len(made)}
    assert found["marks"] == ["weak"]
    left = sum(trial_seconds(trial, CPU) for trial in trials[2:]) / 3600
    assert found["left"]["cpu_core_hours"] == pytest.approx(left, abs=1e-4)
    assert f"there already: 2 trials, {len(made)} artifacts; left: " in plan_text(planned, state)
    assert plan_json(planned, PlanStatus(known=False, rows=rows))["there"]["trials"] == 0


def test_the_fullest_device_with_room_is_taken_and_a_worker_starts_once() -> None:
    """Against looking at every device."""
    draw, rooms = random.Random(0), Rooms(5)
    free, most, held = [1.0] * 5, [0] * 5, list[tuple[int, float]]()
    for _ in range(500):
        part = draw.choice(GPU_SHARES)
        fits = [(room, index) for index, room in enumerate(free) if room >= part]
        assert rooms.largest == max(free)
        if fits and draw.random() < 0.6:
            place, cold = rooms.take(part)
            assert place == min(fits)[1]
            held.append((place, part))
            count = sum(p == place for p, _ in held)
            assert cold == (count > most[place])
            most[place] = max(most[place], count)
            free[place] -= part
        elif held:
            place, part = held.pop(draw.randrange(len(held)))
            rooms.give(place, part)
            free[place] += part


def test_smaller_jobs_pass_those_that_do_not_fit() -> None:
    waiting = Waiting()
    for rank, part in ((3.0, 1.0), (2.0, 0.5), (1.0, 0.5)):
        waiting.add(Job(str(rank), rank=rank), part)
    assert waiting.next(0.25) is None
    assert waiting.next(0.5) == 0.5
    assert waiting.next(1.0) == 1.0
    assert [waiting.pop(0.5).rank, waiting.pop(0.5).rank] == [2.0, 1.0]


def test_common_kinds_have_a_counted_footprint_until_one_was_measured() -> None:
    trial = cifar("resnet18")
    counted = footprints()[kind(trial)]
    assert 500 < counted < 2000  # MB; 11 million parameters, 128 images of 32 pixels
    assert Profiles().find("A10G", kind(trial)).memory_mb == counted
    known = measured(trial, 3000)
    assert known.find("A10G", kind(trial)).memory_mb == 3000
    assert known.find("T4", kind(trial)).memory_mb == 3000  # another card knows better than none


def test_footprints_are_of_kinds_that_can_be_planned() -> None:
    assert len(footprints()) >= 20
    for name, megabytes in footprints().items():
        architecture, learner, batch, size = name.split("/")
        assert architecture in ARCHITECTURES
        assert learner in LEARNERS
        assert int(batch) > 0
        assert int(size) > 0
        assert megabytes > 100


def test_larger_networks_and_more_views_have_larger_footprints() -> None:
    made = footprints()
    small, middle, large = (made[f"resnet{n}/supervised/128/32"] for n in (18, 34, 50))
    assert small < middle < large
    assert made["resnet18/simclr/512/32"] > 3 * small  # four times the images, twice the views
