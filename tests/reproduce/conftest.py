"""Trials that answer the questions behind printed numbers, run once a process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raygrid.reproduce.questions import FinishedTrials
from tests.conftest import nothing_drawn
from tests.reproduce.evidence import run_evidence


@pytest.fixture(scope="session")
def evidence(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedTrials:
    out = tmp_path_factory.mktemp("evidence") / "out"
    shutil.copytree(finished, out)
    with nothing_drawn():
        return run_evidence(out)
