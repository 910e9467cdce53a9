"""Poisoned training sets without training: make, look at, write and read them.

<folder>/manifest.json             spec, key, sizes of the change, checksum
<folder>/train.npz | train.pt      arrays `pixels` and `labels`, or
<folder>/<class>/<row>.png         one picture an image
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from raygrid.attacks.base import Attack, size_of_change
from raygrid.attacks.common.arrays import load_array, load_class_folders
from raygrid.core.budget import Budget
from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, Poison, fingerprint
from raygrid.protocols.setups import Scene
from raygrid.protocols.setups.triples import Triple
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact, World, mix, poison_of
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve

Fetch = Callable[[Artifact], Bundle]
Form = Literal["png", "npz", "pt"]
MANIFEST = "manifest.json"
VICTIM = ("supervised", "quick")  # never trained: a spec is complete only with a victim


@dataclass(frozen=True)
class Poisoned:
    """A training set under an attack, with where it comes from.

    clean: before; images: after, at the poison ratio. mask: bool (N,) of `clean`, rows that the
    attacker touched. spec: `dataset/attack@ratio/seed`. key: of the poison in the store.
    triple: the poisons alone where the attack is made for a set-up.
    """

    clean: Images
    images: Images
    mask: Tensor
    attack: Attack
    spec: str
    key: str
    triple: Triple | None = None

    @property
    def replaced(self) -> bool:
        """Whether the touched rows are still there (`withheld` takes them away)."""
        return len(self.clean) == len(self.images)

    @property
    def limit(self) -> Budget | None:
        """The attack's budget for images of this size; None if it does not perturb."""
        return None if self.attack.limit is None else self.attack.limit_at(self.clean.shape[-1])


def make(
    text: str,
    catalog: Catalog,
    fetch: Fetch,
    seed: int = 0,
    victim: tuple[str, str] = VICTIM,
) -> Poisoned:
    """Make or load the poisoned set that `dataset/attack[@ratio]` names.

    The poison is the one that a grid with this dataset, attack and seed uses. victim: learner and
    protocol, which decide the set-up of an attack on a target. Raises SpecError for a faulty text
    or an attack that cannot be made for the dataset.
    """
    behind = f"/none/small_cnn/{victim[0]}/{victim[1]}/{seed}"
    trial = resolve(text + behind, catalog)
    reason = trial.attack.skip(trial.cell())
    if reason:
        raise SpecError(f"{text}: {reason}")
    world, poison = World.of(fetch(trial.data), trial.setup), poison_of(fetch(trial.poison))
    images, mask = mix(world, poison, trial.poison, trial.spec.poison_ratio)
    spec = trial.spec
    ratio = "" if spec.poison_ratio == 1.0 else f"@{spec.poison_ratio!r}"
    name = f"{spec.dataset}/{spec.attack}{ratio}/{seed}"
    triple = triple_of(world.scene, poison) if trial.attack.on_target and world.scene else None
    return Poisoned(world.train, images, mask, trial.attack, name, trial.poison.key, triple)


def triple_of(scene: Scene, poison: Poison) -> Triple:
    """The poisons of a set-up in the form of the benchmark's files."""
    target = scene.setup.target
    return Triple(
        poison.pixels,
        poison.labels,
        scene.setup.bases,
        scene.target[0],
        target.true_label,
        poison.trigger,
    )


def inspect(poisoned: Poisoned) -> dict[str, Any]:
    """What there is to know about a poisoned set, as JSON values.

    size: mean and largest change of the touched images by norm (linf, l2 in the pixel range [0, 1],
    l0 in pixels). distinct: how many different changes there are. unchanged: touched images
    without any change. by_class: touched images of each class.
    """
    clean, rows = poisoned.clean, poisoned.mask
    touched = torch.bincount(clean.labels[rows], minlength=clean.classes)
    facts: dict[str, Any] = {
        "spec": poisoned.spec,
        "key": poisoned.key,
        "images": len(poisoned.images),
        "shape": list(clean.shape),
        "classes": clean.classes,
        "poisoned": int(rows.sum()),
        "by_class": touched.tolist(),
    }
    if not poisoned.replaced or not bool(rows.any()):
        return facts
    before, after = clean.pixels[rows], poisoned.images.pixels[rows]
    sizes = {norm: size_of_change(before, after, norm) for norm in ("linf", "l2", "l0")}
    facts["size"] = {n: {"mean": float(s.mean()), "max": float(s.max())} for n, s in sizes.items()}
    facts["unchanged"] = int((sizes["l0"] == 0).sum())
    facts["distinct"] = _distinct(before, after)
    return facts


def _distinct(before: Tensor, after: Tensor) -> int:
    change = (after.short() - before.short()).numpy()
    return len({hashlib.sha256(row.tobytes()).digest() for row in change})


def export(poisoned: Poisoned, folder: Path, form: Form = "png") -> Path:
    """Write a poisoned set with its manifest into a new or empty folder; returns the manifest.

    Every form can be put on the grid again with the attack `file`, if no image was withheld.
    """
    if form not in get_args(Form):
        raise DataError(f"form is {form!r}, allowed are {', '.join(get_args(Form))}")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DataError(f"{folder} is not empty; export into a new folder")
    images = poisoned.images
    writers = {"png": _write_png, "npz": _write_npz, "pt": _write_pt}
    writers[form](images, folder)
    every = bool(poisoned.mask.all())
    manifest = {
        **inspect(poisoned),
        "form": form,
        "rows": "all" if every else poisoned.mask.nonzero().squeeze(1).tolist(),
        "checksum": fingerprint(images.pixels, images.labels),
    }
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    return path


def _write_png(images: Images, folder: Path) -> None:
    from PIL import Image

    digits = len(str(images.classes - 1))
    for label in range(images.classes):
        (folder / f"{label:0{digits}d}").mkdir()
    pictures = images.pixels.permute(0, 2, 3, 1).numpy()
    for row, label in enumerate(images.labels.tolist()):
        Image.fromarray(pictures[row]).save(folder / f"{label:0{digits}d}" / f"{row:06d}.png")


def _write_npz(images: Images, folder: Path) -> None:
    pixels, labels = images.pixels.numpy(), images.labels.numpy()
    np.savez(folder / "train.npz", pixels=pixels, labels=labels)


def _write_pt(images: Images, folder: Path) -> None:
    torch.save({"pixels": images.pixels, "labels": images.labels}, folder / "train.pt")


def read_export(folder: Path) -> tuple[Images, dict[str, Any]]:
    """An exported set and its manifest; raises DataError if files and checksum do not agree."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        form, classes, checksum = manifest["form"], manifest["classes"], manifest["checksum"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise DataError(f"{folder} has no readable {MANIFEST}: {error}") from None
    if form == "png":
        pixels, labels, names = load_class_folders(folder)
        order = torch.tensor([int(name) for name in names if name.isdecimal()]).argsort()
        pixels, labels = pixels[order], labels[order]
    else:
        path = folder / f"train.{form}"
        pixels, labels = load_array(path, "pixels"), load_array(path, "labels")
    if fingerprint(pixels, labels) != checksum:
        raise DataError(f"the files in {folder} are not those that its {MANIFEST} describes")
    return Images(pixels, labels, classes, checksum), manifest


def gallery(poisoned: Poisoned, path: Path, classes: int = 10) -> Path:
    """Draw one touched image a class: clean, the change stretched to the full range, poisoned.

    Gray is no change. Writes a picture whose kind follows the suffix of `path`; draws the first
    `classes` classes that have a touched image. Raises DataError if there is none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _examples(poisoned, classes)
    before = poisoned.clean.pixels[rows].permute(0, 2, 3, 1).float() / 255
    after = poisoned.images.pixels[rows].permute(0, 2, 3, 1).float() / 255
    lines = {"clean": before, "change": stretch(after - before), "poisoned": after}
    figure = Figure(figsize=(0.9 * len(rows) + 0.6, 3.2))
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(rows), squeeze=False)
    for line, (name, pictures) in zip(axes, lines.items(), strict=True):
        for axis, picture, row in zip(line, pictures, rows.tolist(), strict=True):
            axis.imshow(picture.numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if name == "clean":
                axis.set_title(f"class {int(poisoned.clean.labels[row])}", fontsize=7)
        line[0].set_ylabel(name, fontsize=8)
    figure.suptitle(poisoned.spec, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _examples(poisoned: Poisoned, classes: int) -> Tensor:
    """The first touched row of each of the first classes, int64."""
    if not poisoned.replaced or not bool(poisoned.mask.any()):
        raise DataError(f"{poisoned.spec} has no changed image to draw")
    touched = poisoned.mask.nonzero().squeeze(1)
    labels = poisoned.clean.labels[touched]
    present = labels.unique()[:classes]
    return torch.stack([touched[labels == label][0] for label in present])


Normalization = Literal["minmax", "symmetric", "gain"]


def stretch(change: Tensor, how: Normalization = "symmetric", gain: float = 1.0) -> Tensor:
    """Changes float (n, ...) as pictures in [0, 1].

    minmax: each from its smallest to its largest value. symmetric: each over its largest absolute
    value, 0.5 is none. gain: 0.5 + gain * change for all of them, clipped. No change is gray.
    """
    if how == "gain":
        return (0.5 + gain * change).clamp(0, 1)
    flat = change.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    if how == "symmetric":
        high = flat.abs().amax(1)
        low = -high
    low, high = (end.view(-1, *[1] * (change.dim() - 1)) for end in (low, high))
    return torch.where(high > low, (change - low) / (high - low).clamp_min(1e-12), 0.5)
