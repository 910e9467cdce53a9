"""What a file or folder of a poison is, before it is used: form, entries, ranges, size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.attacks.base import AttackContext
from raygrid.attacks.file import NEAR_CLEAN, File
from raygrid.core.enforcement import facts_of_change
from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream
from raygrid.storage.array_files import load_entries
from raygrid.storage.parquet import parquet_files
from raygrid.storage.pictures import subfolders
from raygrid.storage.published_arrays import (
    Published,
    load_class_folders,
    load_published,
)
from raygrid.trials.export import MANIFEST, read_export

if TYPE_CHECKING:
    from torch import Tensor


def look_into(path: Path, entry: str = "", clean: Images | None = None) -> dict[str, Any]:
    """What there is to know of a file or folder that the attack `file` may take, as JSON values.

    form; entries with shape, type and range; how many labels and rows by name; guess: what
    `content=auto` takes it for, or why it does not. With the clean images also `size`, the mean and
    largest change by norm, and what using it would mark. Of an export of raygrid also its spec and
    key; its files are compared with its checksum. Raises DataError for what cannot be read.
    """
    if not path.exists():
        raise DataError(f"{path} is not there")
    facts: dict[str, Any] = {"path": str(path), "form": _form(path)}
    if (path / MANIFEST).is_file():
        _, manifest = read_export(path)
        named = ("spec", "key", "form", "checksum")
        facts["export"] = {name: manifest.get(name) for name in named}
    if path.is_dir() or parquet_files(path):
        found = load_published(path)
        facts["entries"] = {"": _entry(found.values)}
    else:
        entries = load_entries(path)
        facts["entries"] = {name: _entry(value) for name, value in entries.items()}
        shaped = [value for value in entries.values() if value.ndim >= 3]
        if not entry and len(entries) > 1 and len(shaped) != 1:
            names = ", ".join(entries)
            return {**facts, "guess": f"nothing yet: name the entry that is meant, of {names}"}
        found = load_published(path, entry)
    facts["labels"] = 0 if found.labels is None else len(found.labels)
    facts["rows"] = 0 if found.rows is None else len(found.rows)
    facts["guess"] = _guess(found)
    return facts if clean is None else {**facts, **_against(path, entry, clean)}


def _form(path: Path) -> str:
    """In words, what the attack `file` reads it as."""
    if parquet_files(path):
        return f"{len(parquet_files(path))} Parquet files"
    if path.is_file():
        return f"{path.suffix.lower().removeprefix('.') or 'a file without a suffix'} file"
    try:
        load_class_folders(path)
    except DataError:
        return "folder of pictures"
    return f"{len(subfolders(path))} class folders of pictures"


def _entry(value: Tensor) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "shape": list(value.shape),
        "type": str(value.dtype).removeprefix("torch."),
    }
    real = not value.is_complex() and value.dtype != torch.bool and value.numel() > 0
    return {**facts, "range": [value.min().item(), value.max().item()]} if real else facts


def _guess(found: Published) -> str:
    """What the values alone say."""
    values = found.values
    if values.dtype == torch.uint8:
        return "images"
    if values.is_complex() or values.dtype == torch.bool or not values.numel():
        return "neither images nor a perturbation"
    step = 1.0 if values.is_floating_point() else 1 / 255
    least, most = float(values.min()) * step, float(values.max()) * step
    if least < 0:
        return "perturbation" if max(-least, most) <= 1 else "perturbation of another scale"
    if most <= NEAR_CLEAN:
        return "perturbation"
    return "images or a perturbation: say content=images or content=perturbation"


def _against(path: Path, entry: str, clean: Images) -> dict[str, Any]:
    """What it does to the clean images; in the place of the guess the fault where it does not."""
    attack = File(path=str(path), entry=entry)
    context = AttackContext(Stream("inspect", ()), torch.device("cpu"))
    try:
        after = attack.pixels(clean, context)
    except DataError as error:
        return {"guess": str(error)}
    return {**facts_of_change(clean.pixels, after), "marks": context.marks}
