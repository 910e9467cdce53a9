"""Opening a store by path or URL."""

from __future__ import annotations

from pathlib import Path

from raygrid.store import Store


def open_store(where: str | Path) -> Store:
    """A local store; the URL of an object store needs `RemoteStore`."""
    return Store(where)
