"""Poisons in the forms in which people publish them, each with a report or repository that has it.

Every form holds the same noise or the same pictures, so each has to give the same training set.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.storage.published_arrays import content_hash, load_published
from tests.conftest import toy

N, SIDE, CLASSES = 12, 16, 3
CLEAN = toy(N, SIDE, CLASSES)
NOISE = np.random.default_rng(2).integers(-9, 10, (N, 3, SIDE, SIDE)).astype(np.int8)
POISONED = np.clip(CLEAN.pixels.numpy().astype(int) + NOISE, 0, 255).astype(np.uint8)
LABELS = CLEAN.labels.numpy()
ORDER = np.argsort(LABELS, kind="stable")  # class by class


def applied(path: Path, images: Images = CLEAN, **settings: Any) -> tuple[np.ndarray, list[str]]:
    """The pixels that the attack `file` makes, and its marks."""
    context = AttackContext(Stream("poison"))
    attack = ATTACKS["file"](path=str(path), **settings)  # type: ignore[call-arg]
    return attack.poison(images, context).pixels.numpy(), context.marks


def png(row: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(POISONED[row].transpose(1, 2, 0)).save(content, "PNG")
    return content.getvalue()


def saved(path: Path, value: Any) -> Path:
    if path.suffix.lower() == ".npy":
        with path.open("wb") as file:
            np.save(file, value)
    elif path.suffix.lower() == ".pkl":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path)
    return path


def tensor(value: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(value))


FLOATS = NOISE.astype(np.float32) / 255
FORMS: dict[str, tuple[str, Any]] = {
    "int8 pickle (fshp971/robust-unlearnable-examples)": ("x.pkl", NOISE),
    "numpy array in .pt": ("x.pt", FLOATS),
    "dict with labels": ("x.pt", {"delta": tensor(FLOATS), "targets": tensor(LABELS)}),
    "tuple of perturbation and labels": ("x.pt", (tensor(FLOATS), tensor(LABELS))),
    "list of tensors": ("x.pt", [tensor(f) for f in FLOATS]),
    "list of batches": ("x.pt", [tensor(FLOATS[:6]), tensor(FLOATS[6:])]),
    "parameter": ("x.pth", torch.nn.Parameter(tensor(FLOATS))),
    "sparse": ("x.pt", tensor(FLOATS).to_sparse()),
    "suffix in capitals": ("x.NPY", NOISE),
    "big-endian": ("x.npy", FLOATS.astype(">f4")),
    "big-endian integers": ("x.npy", NOISE.astype(">i2")),
    "uint16 images": ("x.npy", POISONED.astype(np.uint16)),
    "uint32 images": ("x.npy", POISONED.astype(">u4")),
    "float images, channels last": (
        "x.npy",
        POISONED.transpose(0, 2, 3, 1).astype(np.float32) / 255,
    ),
    "int64 images (lafeat/apbench#1)": ("x.npy", POISONED.astype(np.int64)),
    "pairs of picture and label": ("x.pkl", [(png(i), int(LABELS[i])) for i in range(N)]),
    "class order (wxldragon/DUNE)": ("x.pkl", [(png(i), int(LABELS[i])) for i in ORDER]),
    "class order of floats": (
        "x.pkl",
        [(POISONED[i].astype(np.float32) / 255, int(LABELS[i])) for i in ORDER],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_gives_the_same_poison(tmp_path: Path, form: str) -> None:
    name, value = FORMS[form]
    pixels, marks = applied(saved(tmp_path / name, value))
    assert np.array_equal(pixels, POISONED)
    assert bool(marks) == ("class order" in form), "what was assumed is said, nothing else"


ASSUMED = ["file: names of pictures were taken for rows in the dataset's order"]


@pytest.mark.parametrize("above", ["", "data", "c10/data"])
def test_flat_folders_are_named_by_row(tmp_path: Path, above: str) -> None:
    """As lhfowl/adversarial_poisons, ImageShortcutSqueezing's data/TAP/ and lafeat/apbench@9a6fb91
    (attack/*_poisons.py: `<attack>_poisons/<dataset>/data/<row>.png`) write them."""
    home = tmp_path / "lsp_poisons" / above
    home.mkdir(parents=True)
    for row in range(N):
        (home / f"{row}.png").write_bytes(png(row))
    (home / "._0.png").touch()
    pixels, marks = applied(tmp_path / "lsp_poisons")
    assert np.array_equal(pixels, POISONED)
    assert marks == ASSUMED
    (home / "3.png").rename(home / "12.png")
    with pytest.raises(DataError, match="not the rows 0 to 11"):
        applied(tmp_path / "lsp_poisons")
    (home / "12.png").rename(home / "three.png")
    with pytest.raises(DataError, match="must be named by training row"):
        applied(tmp_path / "lsp_poisons")


def test_rows_that_were_counted_in_another_order_are_refused(tmp_path: Path) -> None:
    """Names are rows of the official files; here the dataset lies in class folders."""
    for row in range(N):
        (tmp_path / f"{row}.png").write_bytes(png(row))
    in_folders = CLEAN.rows(torch.from_numpy(np.roll(ORDER, 5)))
    with pytest.raises(DataError, match=r"^\d of 12 pictures .* counted in another order"):
        applied(tmp_path, in_folders)
    pixels, marks = applied(tmp_path, in_folders, content="images")
    assert np.array_equal(pixels, POISONED), "who says so gets them as they are"
    assert marks == ASSUMED


def test_class_folders_may_be_called_by_number(tmp_path: Path) -> None:
    """`<attack>_poisons/imagenet100/<label>/<row>.png` of the same code: 10 sorts before 2."""
    labels = torch.arange(N)
    images = Images(CLEAN.pixels, labels, N)
    for row in range(N):
        (tmp_path / str(row)).mkdir()
        (tmp_path / str(row) / f"{row}.png").write_bytes(png(row))
    pixels, marks = applied(tmp_path, images)
    assert np.array_equal(pixels, POISONED)
    assert marks == []
    sorted_names = torch.tensor([int(row) for row in sorted(map(str, range(N)))]).argsort()
    assert np.array_equal(applied(tmp_path, Images(CLEAN.pixels, sorted_names, N))[0], POISONED)
    with pytest.raises(DataError, match="the classes of 2 entries"):
        applied(tmp_path, Images(CLEAN.pixels, torch.from_numpy(swapped(labels.numpy())), N))


def test_a_folder_of_arrays_names_the_file_that_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"has no class folders with pictures \(.*\)$"):
        content_hash(tmp_path)
    path = saved(tmp_path / "train.pt", tensor(POISONED))
    hint = f"; give a file of arrays in it as the path: {path}"
    for look in (content_hash, load_published):
        with pytest.raises(DataError) as caught:
            look(tmp_path)
        assert str(caught.value).startswith(f"{tmp_path} has no class folders with pictures (")
        assert str(caught.value).endswith(hint)
    with pytest.raises(DataError, match=r"gone is not there$"):
        content_hash(tmp_path / "gone")


@pytest.mark.parametrize("shape", [(1, 3, SIDE, SIDE), (3, SIDE, SIDE), (SIDE, SIDE, 3)])
def test_one_perturbation_is_for_all_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    level = np.full(shape, 5, np.int8)
    pixels, _ = applied(saved(tmp_path / "x.npy", level))
    assert np.array_equal(pixels, np.clip(CLEAN.pixels.numpy().astype(int) + 5, 0, 255))


BRIGHT = np.full((N, 3, SIDE, SIDE), 0.8, np.float32)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (BRIGHT, "from 0.8 to 0.8 of the pixel range, which may be images or a perturbation"),
        ((BRIGHT * 255).astype(np.int16), "say content=images or content=perturbation"),
        (BRIGHT[:CLASSES], "say content=images or content=perturbation"),
        (POISONED.astype(np.float32) / 127.5 - 1, "images normalized to -1 to 1"),
        (NOISE.reshape(N, -1), r"has shape .12, 768., expected .12 or 3, 3, 16, 16."),
        (NOISE[..., :8, :8], "has shape .12, 3, 8, 8."),
    ],
    ids=["floats", "integers", "by class", "normalized", "flat rows", "patches"],
)
def test_what_could_be_two_things_is_not_guessed(tmp_path: Path, value: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        applied(saved(tmp_path / "x.npy", value))


def test_what_is_called_a_perturbation_is_one(tmp_path: Path) -> None:
    pixels, _ = applied(saved(tmp_path / "x.npy", BRIGHT), content="perturbation")
    assert np.array_equal(pixels, np.clip(CLEAN.pixels.numpy() + np.round(0.8 * 255), 0, 255))
    small = saved(tmp_path / "small.npy", np.abs(NOISE))
    expected = np.clip(CLEAN.pixels.numpy().astype(int) + np.abs(NOISE), 0, 255)
    assert np.array_equal(applied(small)[0], expected), "small values are no images"


def swapped(labels: np.ndarray) -> np.ndarray:
    other = labels.copy()
    other[[0, 1]] = other[[1, 0]]
    return other


def test_labels_that_are_not_the_datasets_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", (tensor(FLOATS), tensor(swapped(LABELS))))
    with pytest.raises(DataError, match="the classes of 2 entries"):
        applied(path)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ("4/255", "8 of 12 images were clipped to 4/255; the largest change was 8/255"),
        ("l2:0.5", "8 of 12 images were clipped to l2:0.5; the largest change was l2:0.86"),
    ],
)
@pytest.mark.parametrize("images", [False, True], ids=["perturbation", "images"])
def test_clipping_to_a_budget_is_counted(
    tmp_path: Path, budget: str, says: str, images: bool
) -> None:
    gray = Images(torch.full((N, 3, SIDE, SIDE), 100, dtype=torch.uint8), CLEAN.labels, CLASSES)
    levels = np.zeros((N, 3, SIDE, SIDE), np.int8)
    levels[:8] = 8
    path = saved(tmp_path / "x.npy", (levels + 100).astype(np.uint8) if images else levels)
    attack = ATTACKS.make(f"file(budget={budget})")
    pixels, marks = applied(path, gray, budget=attack.limit)
    assert [mark for mark in marks if says in mark] == marks
    assert len(marks) == 1
    change = (pixels.astype(int) - 100)[:8]
    assert change.max() == 4 if budget == "4/255" else 0 < np.linalg.norm(change[0]) / 255 < 0.61
    assert applied(path, gray)[1] == []


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize("value", [Evil(), [Evil()], np.array([Evil()], dtype=object)])
@pytest.mark.parametrize("name", ["x.pkl", "x.pt"])
def test_pickles_run_nothing(
    tmp_path: Path, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="pickled code, which is never run"):
        applied(saved(tmp_path / name, value))
    assert not (tmp_path / "evil").exists()
