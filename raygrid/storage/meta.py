"""What stands beside the arrays of a store's entry: `meta.json`, written, read and checked."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raygrid.core.hashing import checksum, key_of
from raygrid.storage.results import Json

DIGEST_FIELD = "digest"


def describe(name: str, data: Path, tensors: Mapping[str, Any], facts: Json) -> str:
    """The text of `meta.json` of the entry `name`, with a digest of all that it says."""
    meta = {
        "sha256": checksum(data),
        "bytes": data.stat().st_size,
        "tensors": {k: [str(t.dtype), list(t.shape)] for k, t in tensors.items()},
        "facts": facts,
        "written": time.time(),
    }
    meta = json.loads(json.dumps(meta))  # keys that are no texts become texts
    return json.dumps({**meta, DIGEST_FIELD: _digest(name, meta)}, indent=1, sort_keys=True)


def read_meta(name: str, content: bytes) -> Json:
    """The meta of the entry `name`; raises ValueError, in a few words, if it cannot be one.

    The digest is that of the entry's name too, so an entry in the place of another is found.
    Entries of raygrid before there were digests have none.
    """
    try:
        meta = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("meta.json is no JSON") from None
    if not isinstance(meta, dict):
        raise ValueError(f"meta.json holds a {type(meta).__name__}, not an object")
    kinds = {"sha256": str, "bytes": int, "tensors": dict, "facts": dict}
    for field, kind in kinds.items():
        if not isinstance(meta.get(field), kind):
            raise ValueError(f"meta.json has no {field}")
    if DIGEST_FIELD in meta and meta[DIGEST_FIELD] != _digest(name, meta):
        raise ValueError("meta.json is not as it was written, or is of another entry")
    return meta


def check_tensors(meta: Json, tensors: Mapping[str, Any]) -> None:
    """Raise ValueError unless arrays have the names and shapes that their meta says."""
    said = {name: tuple(entry[1]) for name, entry in meta["tensors"].items()}
    if said != {name: tuple(t.shape) for name, t in tensors.items()}:
        raise ValueError("the arrays are not those that meta.json describes")


def _digest(name: str, meta: Json) -> str:
    """Of an entry's name, arrays and facts; where it was written when does not matter."""
    return key_of([name, meta["sha256"], meta["tensors"], meta["facts"]])
