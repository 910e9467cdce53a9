"""Ray's private names stand in one file, and the installed Ray has every one of them."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError

from raygrid.engine.ray.executor import run_on_ray
from raygrid.engine.ray.private import PRIVATE_ATTRIBUTES, Controller

ROOT = Path(__file__).parents[2] / "raygrid"
FILE = ROOT / "engine" / "ray" / "private.py"
assert run_on_ray  # whose module prepares Ray
OTHERS = sorted({*(ROOT / "engine" / "ray").glob("*.py"), ROOT / "cli" / "doctor.py"} - {FILE})


def has(owner: Any, name: str) -> bool:
    """Whether a module or class has an attribute, or a class gives it to its objects."""
    if hasattr(owner, name):
        return True
    if not inspect.isclass(owner):
        return False
    given = rf"self\.{name}(: [^=]+?)? = "
    with contextlib.suppress(OSError):  # compiled classes have no source, but all their names
        sources = [inspect.getsource(kind) for kind in owner.__mro__ if kind is not object]
        return any(re.search(given, source, re.DOTALL) for source in sources)
    return False


@pytest.mark.parametrize("place", PRIVATE_ATTRIBUTES)
def test_the_installed_ray_has_what_is_needed_of_it(place: str) -> None:
    module, _, path = place.partition(":")
    needs = PRIVATE_ATTRIBUTES[place]
    said = f"Ray {ray.__version__} has no {place}, which {FILE.name} needs: {needs}"
    try:
        owner: Any = importlib.import_module(module)
    except ImportError:
        pytest.fail(said)
    for name in path.split("."):
        assert has(owner, name), said
        owner = getattr(owner, name, owner)


def test_a_name_that_a_new_ray_lacks_is_found_missing() -> None:
    from ray.tune.execution.tune_controller import TuneController

    assert has(TuneController, "_pending_trials")
    assert not has(TuneController, "_waiting_trials")
    assert not has(ray, "_no_such_module")


def private_names(path: Path) -> set[str]:
    """Private attributes of other objects, and modules that are Ray's own, in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")
            found |= set() if own or node.attr.startswith("__") else {node.attr}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ray."):
            names = [node.module, *(alias.name for alias in node.names)]
            found |= {part for name in names for part in name.split(".") if part.startswith("_")}
    return found


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.name)
def test_no_other_file_reaches_into_ray(path: Path) -> None:
    assert private_names(path) == set()


def test_every_private_name_of_the_file_is_listed() -> None:
    listed = {part for place in PRIVATE_ATTRIBUTES for part in re.split(r"[:.]", place)}
    assert private_names(FILE) - listed == set()
    assert {"_pending_trials", "_trial_to_actor", "_private"} <= private_names(FILE)


def test_the_allowed_range_of_ray_is_the_one_that_was_tested() -> None:
    text = (ROOT.parent / "pyproject.toml").read_text()
    assert '"ray[tune,default]>=2.60,<2.61"' in text
    assert ray.__version__.startswith("2.60.")


def test_a_waiting_trial_changes_what_it_asks_for() -> None:
    """Its place is given back, and it waits under the new resources, also after a retry."""
    removed: list[str] = []
    lowered: list[str] = []

    class Trial:
        placement_group_factory = "half"

        def update_resources(self, resources: str) -> None:
            self.placement_group_factory = resources

    trial, used = Trial(), Trial()
    inner = SimpleNamespace(
        _pending_trials={trial, used},
        _pending_trials_list=[],
        _resetting_trials={used},
        _staged_trials={trial},
        _trial_to_actor={trial: "actor"},
        _actor_to_trial={"actor": trial},
        _remove_actor=removed.append,
        _actor_manager=SimpleNamespace(is_actor_started=lambda actor: False),
        _actor_cache=SimpleNamespace(decrease_max=lowered.append),
        _resources_to_pending_trials={"half": {trial}, "whole": set()},
    )
    controller = Controller(SimpleNamespace(_tune_controller=inner))
    for each in (trial, used):
        controller.change_resources(each, "whole")
    controller.sort_pending()
    assert (removed, lowered) == (["actor"], ["half"])
    assert inner._pending_trials_list == [trial]
    assert inner._trial_to_actor == inner._actor_to_trial == {}
    assert inner._resources_to_pending_trials == {"half": set(), "whole": {trial}}
    assert used.placement_group_factory == "half", "a worker is being made ready for it"


@pytest.mark.parametrize("kind", [OutOfMemoryError, NodeDiedError])
def test_a_worker_that_ray_ended_for_want_of_memory_is_a_lost_one(kind: type[Exception]) -> None:
    """Tune knew no such error: it raised one of its own in the driver, and the run was over."""
    told: list[Exception] = []
    worker = SimpleNamespace(actor_id=7, _on_error=lambda actor, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=worker, _on_error=None)
    manager = RayActorManager.__new__(RayActorManager)
    manager._failed_actor_ids = set()
    manager._cleanup_actor = lambda tracked_actor: None
    manager._actor_task_failed(task, kind("the node ran low on memory, out of memory"))
    (error,) = told
    assert isinstance(error, RayActorError)
    assert "out of memory" in str(error)
    assert manager._failed_actor_ids == {7}
    with pytest.raises(RuntimeError, match="unexpected exception: another"):
        manager._actor_task_failed(task, OSError("another"))
