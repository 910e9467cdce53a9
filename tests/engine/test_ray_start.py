"""A Ray that does not start: once more, and then in this process where nobody asked for Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.core.errors import ClusterError, DeviceError, StartError, StoreError
from raygrid.engine.events import Listener
from tests import plugin

assert plugin.CARD
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("undrawn")]
ray = pytest.importorskip("ray")
SPEC = "dots/clean/none/small_cnn/sleeper/brief/0"
WHY = "The current node timed out during startup. This could happen because ..."


class Notes(Listener):
    """Remembers lines for a person."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray was asked to start with; it times out each time, as it does on a busy machine."""
    found: list[dict[str, Any]] = []

    def init(**facts: Any) -> None:
        found.append(facts)
        raise Exception(f"{WHY}\nmore")

    monkeypatch.setattr(ray, "init", init)
    return found


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(out=tmp_path / "out", data=tmp_path, imports=("tests.plugin",))


def test_a_ray_that_was_not_asked_for_by_name_is_done_without(
    starts: list[dict[str, Any]], options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    outcome = run_grid([SPEC], options, notes)
    assert [row.status for row in outcome.results] == ["done"]
    assert len(starts) == 2, "it was tried once more"
    assert f"Ray does not start ({WHY}); trying once more" in caplog.text
    (line,) = notes.lines
    assert line == (
        f"Ray does not start on this machine: {WHY}; running in this process, one job after the "
        "other"
    )


@pytest.mark.parametrize("change", [{"executor": "ray"}, {"deadline": 60.0}], ids=str)
def test_a_ray_that_was_asked_for_is_one_error(
    starts: list[dict[str, Any]], options: Options, change: dict[str, Any]
) -> None:
    with pytest.raises(StartError, match="Ray does not start on this machine") as caught:
        run_grid([SPEC], replace(options, **change))
    assert isinstance(caught.value, ClusterError)
    assert "\n" not in str(caught.value)
    assert len(starts) == 2


@pytest.mark.cluster
def test_a_gpu_that_torch_does_not_see_is_an_error_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raygrid.engine.ray.executor import connected
    from raygrid.engine.ray.worker import LOGICAL_GPUS

    monkeypatch.delenv(LOGICAL_GPUS)
    said = r"^GPUs that Ray counts for this process on .+: 1, but torch .+ sees none there"
    with (
        pytest.raises(DeviceError, match=said),
        connected(cpus=1, gpus=1, out=tmp_path),
    ):
        pytest.fail("it begins to work")
    assert not ray.is_initialized()


def wrapped(first: Exception) -> None:
    """Raise an error as Tune does whose callback raised one: inside another, inside a third."""
    try:
        try:
            raise first
        except Exception:
            raise RuntimeError("Traceback of the callback") from None
    except RuntimeError as error:
        raise ValueError("the run failed") from error


def test_an_error_that_is_meant_for_a_person_is_freed_of_those_around_it() -> None:
    from raygrid.engine.ray.executor import unwrapped

    with pytest.raises(StoreError, match="the disk is full"), unwrapped():
        wrapped(StoreError("the disk is full"))
    with pytest.raises(ValueError, match="the run failed"), unwrapped():
        wrapped(OSError("something else"))
