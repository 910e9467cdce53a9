"""The folder of a run whose MLflow database is ready."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def out(tmp_path: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, its name with a space, its database ready."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "my runs"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    return folder
