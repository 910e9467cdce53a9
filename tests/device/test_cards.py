"""What stands in the way on the cards at hand is said in a line, by the plan where it can."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ray")
from raygrid.api.run_grid import check_device
from raygrid.cli.doctor import gpu_check
from raygrid.cli.plan import PlanStatus, plan_json, plan_text
from raygrid.core.device import limit_memory, release
from raygrid.core.errors import DeviceError
from raygrid.core.local_gpus import NO_UTILIZATION, LocalGpu, local_gpus
from raygrid.core.options import Options
from raygrid.engine.costs.gpu_share import Sharing
from raygrid.engine.costs.profiles import Profiles, kind
from raygrid.engine.costs.simulate import Fleet
from raygrid.engine.events import Listener
from raygrid.engine.grid import plan
from raygrid.engine.ray import mps, worker
from raygrid.engine.ray.callbacks import AgendaCallback
from raygrid.engine.ray.profile import rehearsal
from raygrid.engine.schedule import Agenda
from raygrid.engine.worker import Worker, best_device
from raygrid.trials.catalog import Contents
from tests.device.cuda import GIB, Machine, machine
from tests.engine.test_mps import folder, node

assert node  # a fixture
TABLE = """0, NVIDIA A10G, 23028, 22500
1, Tesla T4, 15360, 2048
2, NVIDIA H200, [N/A], [N/A]
"""
SPEC = "cifar10/clean/standard/resnet18/supervised/dvae/0"
HELD = (
    "GPU 1 (Tesla T4) has 2.0 of 15.0 GiB free, this job's share is 15.0 GiB: another process "
    "holds the GPU; end it or hide the GPU with CUDA_VISIBLE_DEVICES"
)


class Heard(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NVIDIA's program in a folder of its own: it prints a file, or fails without one."""
    program, table = tmp_path / "bin" / "nvidia-smi", tmp_path / "table"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nprint(open({str(table)!r}).read(), end='')\n")
    program.chmod(0o755)
    table.write_text(TABLE)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return table


def test_the_driver_tells_of_cards_without_torch(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose memory it does not tell is left out; so are hidden ones."""
    cards = local_gpus()
    assert [(card.index, card.name) for card in cards] == [(0, "NVIDIA A10G"), (1, "Tesla T4")]
    assert (cards[1].total, cards[1].free) == (15.0, 2.0)
    assert [card.held(1.0) for card in cards] == [None, HELD]
    assert cards[1].held(1 / 4) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 7")
    assert [card.index for card in local_gpus()] == [1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    driver.unlink()
    assert local_gpus() == []
    monkeypatch.setenv("PATH", "")
    assert local_gpus() == []


def test_a_plan_says_what_stands_in_the_way_here(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan([SPEC], None)
    name, profiles = kind(made.trials[0]), Profiles()
    profiles.merge("T4", name, memory_mb=20_000.0)
    here = [LocalGpu(0, "NVIDIA H200", 140.4, 140.0), LocalGpu(1, "Tesla T4", 15.0, 2.0)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    state = PlanStatus(profiles=profiles, here=here)
    notes = [line[6:] for line in plan_text(made, state).splitlines() if line.startswith("note: ")]
    large = (
        f"a trial of {name} needs 23.0 GiB, one T4 has 15.0: it will fail; take a larger GPU or a "
        "smaller batch"
    )
    assert notes == [HELD, large, NO_UTILIZATION]
    assert plan_json(made, state)["marks"] == notes
    elsewhere = PlanStatus(profiles=profiles, here=here, fleet=Fleet.parse("8xCPU"))
    assert "note: " not in plan_text(made, elsewhere)
    assert "note: " not in plan_text(made, PlanStatus(profiles=profiles))


@pytest.mark.parametrize("nvml", [True, False])
def test_a_run_here_says_once_that_nobody_counts(nvml: bool) -> None:
    heard = Heard()
    with machine(Machine(nvml=nvml, busy={0: [10]})) as cards:
        check_device(best_device(), heard)
        assert heard.notes == ([] if nvml else [NO_UTILIZATION])
        cards.free = 5 * GIB
        with pytest.raises(DeviceError, match=r"5\.0 of 22\.0 GiB free, this job.s share is 22\.0"):
            check_device(best_device(), heard)


@dataclass
class Tune:
    config: dict[str, Any]


def test_a_run_on_ray_says_it_once_too() -> None:
    heard, made = Heard(), plan([SPEC, SPEC[:-1] + "1"], None)
    sharing = Sharing(Profiles(), "A10G")
    book = AgendaCallback(Agenda(made.trials, lambda a: True), heard, sharing, lambda keys: None)
    facts = {"status": "done", "device": "NVIDIA A10G", "memory_mb": 1500.0, "gpu_share": 0.5}
    for trial, busy in zip(made.trials, (0.5, None), strict=True):
        report = {"metrics": "{}", "taken": json.dumps({**facts, "utilization": busy})}
        for _ in range(2):
            book.on_trial_result(0, [], Tune({"key": trial.key}), report)
        assert heard.notes == ([] if busy else [NO_UTILIZATION])
    assert sharing.profiles.find("A10G", kind(made.trials[0])).memory_mb == 1500.0


@dataclass
class Asked(Machine):
    """Notes which daemon CUDA would have found whenever it was asked anything."""

    daemons: list[str | None] = field(default_factory=list)

    def call(self, name: str) -> None:
        self.daemons.append(os.environ.get(mps.PIPES_VARIABLE))
        super().call(name)


@pytest.mark.parametrize("share", [1 / 4, 1.0])
def test_a_worker_uses_mps_before_cuda_is_asked_anything(
    share: float, node: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has asked the driver stays outside of MPS; one with a whole card needs none.

    Then come its part of the memory and a look at what is free. Ray's word for the share is the
    only thing that is replaced.
    """
    monkeypatch.setenv(mps.PIPES_VARIABLE, "")
    monkeypatch.delenv(mps.PIPES_VARIABLE)
    monkeypatch.setattr(worker, "gpu_share", lambda: share)
    (trial,) = plan([SPEC], None).trials
    setup = worker.WorkerConfig(Options(out=tmp_path, data=tmp_path), Contents({}), "")
    with machine(Asked(free=GIB)) as cards:
        with pytest.raises(DeviceError, match="another process holds the GPU"):
            worker._do(trial, None, setup)
        assert isinstance(cards, Asked)
        found = str(folder(tmp_path)) if share < 1 else None
        assert set(cards.daemons) == {found}
        taken = dict(cards.fractions)
        limit_memory(best_device(), share)
        assert taken == cards.fractions


@pytest.mark.parametrize("share", [1 / 8, 1.0])
def test_a_job_whose_gpu_torch_does_not_see_says_so(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU it would hold its part of the card for days."""
    monkeypatch.delenv(worker.LOGICAL_GPUS)
    monkeypatch.setattr(worker, "gpu_share", lambda: share)
    (trial,) = plan([SPEC], None).trials
    setup = worker.WorkerConfig(Options(out=tmp_path, data=tmp_path), Contents({}), "")
    found = rf"^GPUs that Ray counts for this process on .+: {share:g}, but torch 2.+ sees none"
    with machine(Machine(visible=())):
        with pytest.raises(DeviceError, match=found):
            worker._do(trial, None, setup)
        with pytest.raises(DeviceError, match=r": 1, but torch 2.+ sees none"):
            rehearsal(SPEC, setup.contents, setup.options)


@pytest.mark.parametrize("share", [0.0, 1 / 2])
def test_a_job_without_a_part_of_a_gpu_leaves_cards_alone_that_it_sees(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray hides them only where it was told to before it started."""
    used: list[torch.device] = []

    def stand_in(config: worker.WorkerConfig, device: torch.device) -> Worker:
        used.append(device)
        raise InterruptedError

    monkeypatch.setattr(worker, "gpu_share", lambda: share)
    monkeypatch.setattr(worker, "worker_for", stand_in)
    (trial,) = plan([SPEC], None).trials
    setup = worker.WorkerConfig(Options(out=tmp_path, data=tmp_path), Contents({}), "")
    with machine(Machine()) as cards:
        with pytest.raises(InterruptedError):
            worker._do(trial, None, setup)
        assert (used, bool(cards.calls)) == (
            ([torch.device("cuda", 0)], True) if share else ([torch.device("cpu")], False)
        )


def test_doctor_names_the_cards_that_compute_bf16_in_software() -> None:
    """Their trials run, and take many times what a plan says."""
    new, old = ("NVIDIA A10G", (8, 6)), ("Tesla T4", (7, 5))
    mixed = gpu_check([new, old, old], nvml=True)
    assert mixed.state == "note"
    assert "3 GPU: NVIDIA A10G, Tesla T4; Tesla T4: no bf16 in hardware" in mixed.text
    assert gpu_check([new], nvml=True).state == "ok"
    alone = gpu_check([new], nvml=False)
    assert (alone.state, "raygrid[gpu]" in alone.text, "bf16" in alone.text) == (
        "note",
        True,
        False,
    )


def test_a_process_that_has_not_used_its_card_has_nothing_to_give_back() -> None:
    """torch resets no counts before a card is used: measuring a kind of trial failed each time."""
    with machine(Machine(initialized=False)) as cards:
        release(torch.device("cuda", 0))
        assert cards.calls == []
    with machine(Machine()) as cards:
        release(torch.device("cuda", 0))
        assert {"empty", "reset"} <= set(cards.calls)
