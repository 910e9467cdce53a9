"""A poisoned training set written to files, and read back.

<folder>/manifest.json             spec, key, sizes of the change, checksum
<folder>/train.npz | train.pt      arrays `pixels` and `labels`, or
<folder>/<class>/<row>.png         one picture an image, or
<folder>/data/*.parquet            the same for Hugging Face's `datasets`, with a card in README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

from raygrid.core.errors import DataError, in_one_line
from raygrid.core.images import Images, Poison, fingerprint
from raygrid.core.lazy import np, torch
from raygrid.storage.array_files import load_array
from raygrid.storage.parquet import Pictures, write_pictures
from raygrid.storage.published_arrays import load_class_folders, load_published
from raygrid.trials.artifacts.poison import poison_bundle
from raygrid.trials.catalog import Catalog
from raygrid.trials.dataset_card import dataset_card
from raygrid.trials.poisons import Poisoned, inspect, trial_behind

ExportForm = Literal["png", "npz", "pt", "parquet"]


MANIFEST = "manifest.json"


def export(poisoned: Poisoned, folder: Path, form: ExportForm = "png") -> Path:
    """Write a poisoned set with its manifest into a new or empty folder; returns the manifest.

    Every form can be put on the grid again with the attack `file`, if no image was withheld.
    """
    if form not in get_args(ExportForm):
        raise DataError(f"form is {form!r}, allowed are {', '.join(get_args(ExportForm))}")
    check_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images = poisoned.images
    every = bool(poisoned.mask.all())
    manifest = {
        **inspect(poisoned),
        "form": form,
        "rows": "all" if every else poisoned.mask.nonzero().squeeze(1).tolist(),
        "checksum": fingerprint(images.pixels, images.labels),
    }
    if form == "parquet":
        _write_parquet(poisoned, folder, manifest)
    else:
        {"png": _write_png, "npz": _write_npz, "pt": _write_pt}[form](images, folder)
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


def check_new(folder: Path) -> None:
    """Raise DataError unless `folder` is an empty folder or is not there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not empty; export into a new folder")


def _write_png(images: Images, folder: Path) -> None:
    from PIL import Image

    digits = len(str(images.classes - 1))
    for label in range(images.classes):
        (folder / f"{label:0{digits}d}").mkdir()
    pictures = images.pixels.permute(0, 2, 3, 1).numpy()
    for row, label in enumerate(images.labels.tolist()):
        Image.fromarray(pictures[row]).save(folder / f"{label:0{digits}d}" / f"{row:06d}.png")


def _write_parquet(poisoned: Poisoned, folder: Path, manifest: dict[str, Any]) -> None:
    images, rows = poisoned.images, torch.arange(len(poisoned.clean))
    kept = rows if poisoned.replaced else rows[~poisoned.mask]
    pixels = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    pictures = Pictures(pixels, images.labels.numpy(), kept.numpy())
    files = write_pictures(folder, pictures, images.classes)
    (folder / "README.md").write_text(dataset_card(manifest, len(files)), encoding="utf-8")


def _write_npz(images: Images, folder: Path) -> None:
    pixels, labels = images.pixels.numpy(), images.labels.numpy()
    np.savez(folder / "train.npz", pixels=pixels, labels=labels)


def _write_pt(images: Images, folder: Path) -> None:
    torch.save({"pixels": images.pixels, "labels": images.labels}, folder / "train.pt")


def read_export(folder: Path) -> tuple[Images, dict[str, Any]]:
    """An exported set and its manifest; raises DataError if files and checksum do not agree."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        form, classes, checksum = manifest["form"], manifest["classes"], manifest["checksum"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder} has no readable {MANIFEST}: {in_one_line(error)}") from None
    if form == "png":
        pixels, labels, names = load_class_folders(folder)
        order = torch.tensor([int(name) for name in names if name.isdecimal()]).argsort()
        pixels, labels = pixels[order], labels[order]
    elif form == "parquet":
        held = load_published(folder)
        assert held.labels is not None
        pixels, labels = held.values, held.labels
    else:
        path = folder / f"train.{form}"
        pixels, labels = load_array(path, "pixels"), load_array(path, "labels")
    if fingerprint(pixels, labels) != checksum:
        raise DataError(f"the files in {folder} are not those that its {MANIFEST} describes")
    return Images(pixels, labels, classes, checksum), manifest


def adopt(folder: Path, text: str, catalog: Catalog, seed: int = 0) -> str:
    """Put an exported poison into the store under the key that making it has; returns the key.

    text: `dataset/attack`, as in `poisons.make`, whose errors it raises, and DataError unless the
    files are those of the manifest, all images are poisoned, and the attack at these data has the
    manifest's key.
    """
    images, manifest = read_export(folder)
    artifact = trial_behind(text, catalog, seed).poison
    if manifest.get("key") != artifact.key:
        raise DataError(
            f"{folder} was exported as {manifest.get('spec')} with the key {manifest.get('key')}; "
            f"{text}/{seed} has {artifact.key} here: other parameters, data or version"
        )
    marks = manifest.get("marks", [])  # of older exports nobody knows
    if not isinstance(marks, list) or not all(isinstance(mark, str) for mark in marks):
        raise DataError(f"marks in {folder / MANIFEST} is {marks!r}, allowed is a list of texts")
    if manifest.get("rows") != "all" or artifact.attack.on_target:
        raise DataError(f"{folder} does not hold the whole poison; export it at ratio 1")
    poison = Poison(torch.arange(len(images)), images.pixels, images.labels)
    facts = {"label": artifact.label, "seconds": 0.0, "attack": {}, "marks": marks}
    facts |= {"size": manifest.get("size", {}), "adopted": manifest["checksum"]}
    catalog.store.put(artifact.kind, artifact.key, poison_bundle(poison, facts))
    return artifact.key
