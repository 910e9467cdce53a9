"""The notebook runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "experiments" / "tour.ipynb"


def test_every_cell_runs_and_none_holds_an_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    book = json.loads(NOTEBOOK.read_text())
    names: dict[str, Any] = {}
    for number, cell in enumerate(book["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "a notebook is kept without outputs"
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert set(names["run"].df["status"]) == {"done"}
    assert len(names["run"]) == 4
    assert 0 <= names["history"][-1]["test_acc"] <= 1
    assert names["found"].best.paper == "apbench"
