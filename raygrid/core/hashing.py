"""Names for contents: digests of files and folders, and the keys of results and artifacts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(root: Path, files: Sequence[Path]) -> str:
    """Names the bytes of a file (`root` itself), or of files below a folder with their places."""
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return _content_of(root, tuple(stats))


@lru_cache(maxsize=64)
def _content_of(root: Path, stats: tuple[tuple[str, int, int], ...]) -> str:
    """Cached by names, sizes and times, since a key is asked for often."""
    if root.is_file():
        return checksum(root)
    digest = hashlib.sha256()
    for name, _, _ in stats:
        file = Path(name)
        digest.update(f"{file.relative_to(root)} {checksum(file)}\n".encode())
    return digest.hexdigest()


def key_of(value: Any) -> str:
    """A content key: 24 hex digits over the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
