"""The benchmark's own set-ups and triggers, read from a folder that the user names.

aks2203/poisoning-benchmark@97a67ae: a checkout (`poison_setups/*.pickle`,
`poison_crafting/triggers/*.png`), or a folder of the same set-ups as JSON: one file each, a list of
`[target class, target index, base class, [base indices]]`, with `triggers/*.png` in it or beside
it. Only files whose content is known are taken. Nothing of them is part of raygrid.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError, unknown
from raygrid.core.lazy import np, torch
from raygrid.storage.pickles import ArrayUnpickler
from raygrid.storage.pictures import as_rgb, opened

if TYPE_CHECKING:
    from torch import Tensor

Entry = tuple[int, int, int, tuple[int, ...]]
"""Target class, index of the target in the test part, base class, rows of the bases."""

_KEYS = ("target class", "target index", "base class", "base indices")
_PATTERNS = {  # sha256 of the decoded pixels, (H, W, C)
    "clbd": "64d64adeef0a29766173ef340b2d9572f21c79f0f7832bc2032b84a64cba661a",
    "htbd": "fb8dacd76faa679858839adc7dbea05ca1a8be79ae265258875e4c09344b6ec1",
}


@cache
def digests() -> dict[str, dict[str, Any]]:
    """The sha256 of the pickle and of the JSON, and K, by file name without suffix."""
    text = (resources.files("raygrid.protocols.setups") / "digests.json").read_text(
        encoding="utf-8"
    )
    known: dict[str, dict[str, Any]] = json.loads(text)
    return known


def digest(name: str) -> str:
    """What names the content of a set-up file, whichever form it is read in."""
    if name not in digests():
        raise DataError(unknown("file of official set-ups", name, digests()))
    return str(digests()[name]["json"])


@cache
def read_official(folder: str, name: str) -> tuple[Entry, ...]:
    """All set-ups of a file; raises DataError if it is not there or not the official one."""
    digest(name)
    home = Path(folder)
    places = [home, home / "targeted_setups", home / "poison_setups"]
    for place in places:
        if (path := place / f"{name}.json").is_file():
            return _entries(json.loads(_checked(path, name, "json")))
        if (path := place / f"{name}.pickle").is_file():
            return _pickled(path, name)
    raise DataError(f"{home} has neither {name}.json nor poison_setups/{name}.pickle")


def _checked(path: Path, name: str, form: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digests()[name][form]:
        raise DataError(f"{path} is not the official file: its sha256 is another one")
    return content


def _pickled(path: Path, name: str) -> tuple[Entry, ...]:
    found = ArrayUnpickler.read(_checked(path, name, "pickle"))
    return _entries([[entry[key] for key in _KEYS] for entry in found])


def _entries(found: Any) -> tuple[Entry, ...]:
    return tuple((int(t), int(i), int(b), tuple(int(r) for r in rows)) for t, i, b, rows in found)


@cache
def patterns(folder: str) -> dict[str, Tensor]:
    """The official patches at their own size, uint8 (3, h, w); raises DataError."""
    home = Path(folder)
    places = [
        home / "triggers",
        home.parent / "triggers",
        home / "poison_crafting" / "triggers",
        home.parent / "poison_crafting" / "triggers",
    ]
    return {name: _pattern(name, places, home) for name in _PATTERNS}


def _pattern(name: str, places: list[Path], home: Path) -> Tensor:
    path = next((p / f"{name}.png" for p in places if (p / f"{name}.png").is_file()), None)
    if path is None:
        raise DataError(f"{home} comes without triggers/{name}.png, in it or beside it")
    with opened(path) as image:
        pixels = np.array(as_rgb(image, path))
    if hashlib.sha256(pixels.tobytes()).hexdigest() != _PATTERNS[name]:
        raise DataError(f"{path} is not the official trigger: its pixels are other ones")
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
