"""Checkpoints as users name them: whether they are files, and what to say if they are not."""

from __future__ import annotations

from pathlib import Path

from raygrid.core.errors import DataError


def is_file(checkpoint: str) -> bool:
    """Whether it is named as one of these."""
    return Path(checkpoint).suffix in (".pt", ".pth")


def require_there(checkpoint: str) -> None:
    """Raise DataError unless there is a file or folder of this name."""
    if not Path(checkpoint).exists():
        raise DataError(f"checkpoint {checkpoint} is not there")


def unloadable(checkpoint: str, error: Exception) -> DataError:
    """What to raise if the weights or settings of a checkpoint cannot be read."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return DataError(f"checkpoint {checkpoint} cannot be loaded: {reason}")
