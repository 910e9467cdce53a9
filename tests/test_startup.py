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
from raygrid.reports.tables.kinds import TABLE_KINDS
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


PLANNED = (
    "cifar10/em/standard/resnet18/supervised/quick/0",
    "cifar10/lsp/advcl/vit_small/simclr/tp/0",
    "cifar100/tap/avatar+jpeg/senet18/supervised/quick/0",
    "imagenet100/dc/ueraser_max/densenet121/supervised/quick/0",
)


def ran(*words: str) -> str:
    """Code that runs a command; it has to succeed."""
    return (
        f"from raygrid.cli.main import main; code = main({list(words)!r}); "
        f"assert code == 0, f'exit status {{code}} of {words[0]}'"
    )


STEPS = {
    "the package": "import raygrid; raygrid.TrialSpec, raygrid.ATTACKS",
    "the help": "from raygrid.cli.main import parser; assert 'plan' in parser().format_help()",
    "a list of all methods": ran("list"),
    "a list of a kind": ran("list", "attacks", "--json"),
    "the state of a run": ran("status"),
    "a plan without data": ran("plan", *PLANNED, "--json"),
    **{f"the table {kind}": ran("table", kind) for kind in TABLE_KINDS},
}
"""Run one after another in one process, since each starts in seconds."""
REPORTING = """
import json, sys
steps, names = json.loads(sys.argv[1])
found = {}
for step, code in steps.items():
    before = {name for name in names if name in sys.modules}
    exec(code)
    found[step] = [name for name in names if name in sys.modules and name not in before]
print(json.dumps(found), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What of HEAVY, numpy and pandas a fresh interpreter loads at each step.

    In a working directory that is empty but for one row of results and the state of a run.
    """
    folder = tmp_path_factory.mktemp("startup")
    runs = folder / "runs"
    runs.mkdir()
    (runs / "results.jsonl").write_text(json.dumps(ROW) + "\n")
    state = StatusFile(runs)
    state.started(Plan(), [])
    state.close(interrupted=False)
    given = json.dumps([STEPS, [*HEAVY, "numpy", "pandas"]])
    done = subprocess.run(
        [sys.executable, "-c", REPORTING, given],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stderr.splitlines()[-1])
    return found


@pytest.mark.parametrize("step", STEPS)
def test_what_is_quick_loads_nothing_heavy(step: str, loaded: dict[str, list[str]]) -> None:
    assert loaded[step] == []


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
