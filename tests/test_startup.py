"""What the quick commands load: a person who asks for a list does not wait for torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from raygrid.core.lazy import Library, no_grad
from raygrid.engine.grid import Plan
from raygrid.reports.tables.kinds import KINDS
from raygrid.tracking.status import StatusFile

HEAVY = (
    *("torch", "torchvision", "ray", "mlflow", "lightly", "timm", "kornia", "diffusers"),
    *("scipy", "sklearn", "matplotlib", "PIL"),
)
ROW = {
    "spec": "photo_digits/clean/standard/small_cnn/supervised/quick/0",
    "key": "0" * 32,
    "status": "done",
    "final_acc": 0.8125,
    "peak_acc": 0.875,
}


def loaded(code: str, folder: Path) -> set[str]:
    """The libraries of HEAVY, numpy and pandas that a fresh interpreter has after some code."""
    names = (*HEAVY, "numpy", "pandas")
    tail = f"; import sys; print(*(n for n in {names} if n in sys.modules), file=sys.stderr)"
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code + tail],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split()) if done.stderr.strip() else set()


def ran(folder: Path, *words: str) -> set[str]:
    """What a command loads; it has to succeed."""
    code = (
        f"from raygrid.cli.main import main; code = main({list(words)!r}); "
        "assert code == 0, f'exit status {code}'"
    )
    return loaded(code, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty working directory but for one row of results and the state of a run."""
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "results.jsonl").write_text(json.dumps(ROW) + "\n")
    state = StatusFile(runs)
    state.started(Plan(), [])
    state.close(interrupted=False)
    return tmp_path


def test_the_package_loads_nothing_heavy(folder: Path) -> None:
    assert loaded("import raygrid; raygrid.TrialSpec, raygrid.ATTACKS", folder) == set()


def test_help_loads_nothing_heavy(folder: Path) -> None:
    code = (
        "from raygrid.cli.main import parser; text = parser().format_help(); assert 'plan' in text"
    )
    assert loaded(code, folder) == set()


@pytest.mark.parametrize("words", [("list",), ("list", "attacks", "--json")], ids=" ".join)
def test_a_list_of_all_methods_loads_nothing_heavy(folder: Path, words: tuple[str, ...]) -> None:
    assert ran(folder, *words) == set()


def test_the_state_of_a_run_loads_nothing_heavy(folder: Path) -> None:
    assert ran(folder, "status") == set()


def test_a_plan_without_data_loads_nothing_heavy(folder: Path) -> None:
    specs = [
        "cifar10/em/standard/resnet18/supervised/quick/0",
        "cifar10/lsp/advcl/vit_small/simclr/tp/0",
        "cifar100/tap/avatar+jpeg/senet18/supervised/quick/0",
        "imagenet100/dc/ueraser_max/densenet121/supervised/quick/0",
    ]
    assert ran(folder, "plan", *specs, "--json") == set()


def test_the_tables_load_nothing_heavy(folder: Path) -> None:
    """In one process: a kind that loaded something would show it at the end as well."""
    code = (
        f"from raygrid.cli.main import main; kinds = {list(KINDS)}; "
        "codes = [main(['table', kind]) for kind in kinds]; assert not any(codes), codes"
    )
    assert loaded(code, folder) == set()


def test_a_library_is_the_module_once_it_is_used() -> None:
    code = (
        "import copy, pickle, sys; from raygrid.core.lazy import Library; json = Library('wave');"
        "assert 'wave' not in sys.modules and 'wave' in repr(json) and 'wave' not in sys.modules;"
        "assert json.open is __import__('wave').open and 'open' in dir(json);"
        "assert pickle.loads(pickle.dumps(json)) is sys.modules['wave']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_library_hands_changes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    toy: Any = ModuleType("toy_of_this_test")  # its own, since it is left changed
    toy.said = "before"
    monkeypatch.setitem(sys.modules, toy.__name__, toy)
    stands_for = Library(toy.__name__)
    stands_for.said = "after"
    assert (toy.said, stands_for.said) == ("after", "after")
    del stands_for.said
    assert not hasattr(toy, "said")
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = stands_for.nothing_of_this_name


def test_no_gradients_inside_of_a_function() -> None:
    import torch

    @no_grad
    def enabled(value: int, more: int = 0) -> tuple[bool, int]:
        return torch.is_grad_enabled(), value + more

    assert enabled(1, more=2) == (False, 3)
    assert enabled.__name__ == "enabled"
    assert torch.is_grad_enabled()
