"""Trials that answer the questions behind printed numbers, run once a process."""

from __future__ import annotations

import pytest

from raygrid.reproduce.questions import FinishedTrials
from tests.conftest import nothing_drawn
from tests.reproduce.evidence import run_evidence


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> FinishedTrials:
    with nothing_drawn():
        return run_evidence(tmp_path_factory.mktemp("evidence"))
