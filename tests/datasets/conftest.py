"""Small batch files that pass for CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import pytest

from raygrid.datasets.cifar10 import Cifar10
from tests.datasets.on_disk import Batches


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batches:
    return Batches(tmp_path / "cifar10" / "cifar-10-batches-py", Cifar10, monkeypatch)
