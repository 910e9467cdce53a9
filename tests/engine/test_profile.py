"""What trials take of a GPU, measured on a cluster before a grid runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from raygrid.api.run_grid import Options, make_plan
from raygrid.engine.costs.gpu_share import Sharing
from raygrid.engine.costs.profiles import Profile, Profiles, kind
from raygrid.trials.trial import Trial
from tests import plugin
from tests.engine.toys import trials_of

ray = pytest.importorskip("ray")

from raygrid.engine.ray.profile import (  # noqa: E402
    LEAST_TRIALS_MEASURED,
    on_worker,
    profile_kinds,
    unprofiled,
)
from raygrid.engine.ray.worker import WorkerConfig  # noqa: E402

assert plugin.CARD
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves processes to be waited for
ROW = {"status": "done", "device": "NVIDIA A10G", "gpu_share": 1.0}


def several(
    architecture: str, count: int = LEAST_TRIALS_MEASURED, defense: str = "standard"
) -> list[Trial]:
    where = f"{defense}/{architecture}/supervised/dvae"
    return trials_of(*(f"cifar10/clean/{where}/{seed}" for seed in range(count)))


def test_one_trial_of_each_unknown_kind_and_the_cheapest() -> None:
    trials = [*several("resnet18", defense="at"), *several("resnet18"), *several("vgg11", 1)]
    chosen = unprofiled(trials, Profiles(), "A10G")
    wanted = [several("resnet18", defense="at")[0], several("resnet18")[0]]
    assert [str(t.spec) for t in chosen] == [str(t.spec) for t in wanted]
    known = Profiles({"A10G": {kind(t): Profile(memory_mb=1, together=2) for t in wanted}})
    known.merge("A10G", kind(several("vgg11")[0]), memory_mb=1)  # from a row: memory alone
    assert unprofiled(trials, known, "A10G") == []
    assert unprofiled(several("vgg11"), known, "A10G") == several("vgg11")[:1]
    assert unprofiled(trials, known, "T4") == chosen


def canned(spec: str, worker_config: WorkerConfig) -> dict[str, Any]:
    """Instead of a GPU, which is not here: what one might say."""
    assert ray.get_runtime_context().get_assigned_resources()["GPU"] == 1
    if "vgg11" in spec:
        raise torch.OutOfMemoryError("out of memory")
    return {**ROW, "memory_mb": 3000.0, "together": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A node that says it has an A10G."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    card = {"accelerator_type:A10G": 1}
    ray.init(
        address="local", num_cpus=1, num_gpus=1, resources=card, include_dashboard=False, **quiet
    )
    yield
    ray.shutdown()


SETUP = WorkerConfig(Options(), {}, "0")


@pytest.mark.cluster
def test_what_is_measured_decides_the_share(
    cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    trials = [*several("resnet18"), *several("vgg11")]
    profiles, notes = Profiles(), list[str]()
    with caplog.at_level(logging.WARNING):
        assert profile_kinds(trials, profiles, SETUP, notes.append, how=canned) == 1
    assert notes == ["measuring 2 kinds of trials on A10G"]
    assert profiles.known["A10G"][kind(trials[0])] == Profile(memory_mb=3000.0, together=2)
    assert Sharing(profiles, "A10G").share(trials[0]) == 1 / 2
    assert "vgg11/supervised/128/32 was not measured on A10G" in caplog.text
    again = profile_kinds(several("resnet18"), profiles, SETUP, notes.append, how=canned)
    assert again == 0
    assert len(notes) == 1  # known now: nothing is asked


@pytest.mark.slow
def test_a_worker_measures_the_trial_that_it_is_told(tmp_path: Path) -> None:
    spec = "dots/clean/standard/small_cnn/supervised/quick(epochs=1)/0"
    made, _, catalog = make_plan([spec], Options(out=tmp_path))
    setup = WorkerConfig(Options(imports=("tests.plugin",)), catalog.contents, "0")
    row = on_worker(str(made.trials[0].spec), setup)
    assert row["status"] == "done"
    assert row["memory_mb"] > 10


def stuck(spec: str, worker_config: WorkerConfig) -> dict[str, Any]:
    import time

    time.sleep(600)
    return {}


@pytest.mark.cluster
def test_a_measurement_that_takes_too_long_is_given_up(cluster: None) -> None:
    profiles = Profiles()
    waited = profile_kinds(several("resnet18"), profiles, SETUP, print, patience=0.5, how=stuck)
    assert waited == 0
    assert profiles.known == {}
    task = ray.remote(num_gpus=1)(lambda: "free")
    assert ray.get(task.remote(), timeout=30) == "free"  # and its GPU is free again


@pytest.mark.cluster
def test_where_no_gpu_is_known_nothing_is_measured(
    cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert profile_kinds(several("resnet18"), Profiles(), SETUP, print, how=canned) == 0
