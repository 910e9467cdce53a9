"""The benchmark's own format of a crafted trial, read without running anything, and written.

One folder a set-up, three pickles (aks2203/poisoning-benchmark, how_to.md):

    poisons.pickle        [(picture, label), ...]
    base_indices.pickle   [row of the training set, ...]
    target.pickle         (picture, label), with a trigger (picture, label, patch, [left, top]);
                          the first release had the bare picture

Pictures are Pillow's, a patch is a float tensor (3, p, p) in [0, 1]. Reading admits numbers, plain
containers and stand-ins for pictures and tensors that hold bytes; all else is refused.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raygrid.core.errors import DataError
from raygrid.core.hashing import content_of
from raygrid.core.images import Trigger
from raygrid.core.lazy import np, torch
from raygrid.storage.pickles import ArrayUnpickler

if TYPE_CHECKING:
    from torch import Tensor

TRIPLE_FILES = ("poisons.pickle", "base_indices.pickle", "target.pickle")
TripleCheck = Literal["exact", "official_9"]
CHECK_LEVELS: dict[str, int] = {"exact": 0, "official_9": 1}
"""Levels over the budget that a check lets pass: the benchmark's evaluator allows 9 for 8."""


@dataclass(frozen=True)
class Triple:
    """One crafted trial.

    pixels: uint8 (K, 3, H, W); labels, bases: int64 (K,), rows of the whole training set.
    target: uint8 (3, H, W), never patched; target_label: None in the first release's form.
    """

    pixels: Tensor
    labels: Tensor
    bases: Tensor
    target: Tensor
    target_label: int | None
    trigger: Trigger | None = None

    def check(self, clean: Tensor, levels: int, rule: TripleCheck = "exact") -> None:
        """Compare with the bases, uint8 (K, 3, H, W), in whole levels; raises DataError."""
        allowed = levels + CHECK_LEVELS[rule]
        change = (self.pixels.short() - clean.short()).abs().flatten(1).amax(1)
        worst = int(change.max())
        if worst > allowed:
            row = int(change.argmax())
            raise DataError(
                f"poison {row} changes a pixel of base {int(self.bases[row])} by {worst} levels, "
                f"allowed are {allowed}"
            )


class _Picture:
    """What a pickled Pillow image holds; nothing is decoded."""

    mode = ""
    size = (0, 0)
    data = b""

    def __setstate__(self, state: Any) -> None:
        _, self.mode, self.size, _, self.data = state[:5]

    def pixels(self) -> Tensor:
        """uint8 (3, H, W); raises DataError for anything but RGB."""
        width, height = self.size
        if self.mode != "RGB" or len(self.data) != 3 * width * height:
            raise DataError(f"a picture is {self.mode} of {len(self.data)} bytes, expected RGB")
        values = torch.frombuffer(bytearray(self.data), dtype=torch.uint8)
        return values.view(height, width, 3).permute(2, 0, 1).contiguous()


def _again(cls: type, base: type, state: Any) -> Any:
    """`copyreg._reconstructor` for pictures alone."""
    if cls is not _Picture or base is not object or state is not None:
        raise pickle.UnpicklingError("refuses copyreg._reconstructor of anything but a picture")
    return _Picture()


def _bytes(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes: as text in latin-1."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refuses bytes in {encoding}")
    return text.encode("latin-1")


def _storage(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *more: Any) -> Tensor:
    empty = torch.empty(0, dtype=storage.dtype)
    return empty.set_(storage._untyped_storage, offset, tuple(size), tuple(stride))


class TripleUnpickler(ArrayUnpickler):
    """Admits pictures and tensors besides numbers, arrays and plain containers."""

    admitted: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("PIL.Image", "Image"): _Picture,
        ("PIL.PngImagePlugin", "PngImageFile"): _Picture,
        ("copyreg", "_reconstructor"): _again,
        ("copy_reg", "_reconstructor"): _again,
        ("builtins", "object"): object,
        ("__builtin__", "object"): object,
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch.storage", "_load_from_bytes"): _storage,
        ("_codecs", "encode"): _bytes,
    }


def read_triples(folder: Path) -> Triple:
    """The crafted trial in a folder; raises DataError that names the file and what is wrong."""
    poisons, bases, target = (_load(folder / name) for name in TRIPLE_FILES)
    try:
        pixels = torch.stack([picture.pixels() for picture, _ in poisons])
        labels = torch.tensor([int(label) for _, label in poisons])
        rows = torch.tensor([int(row) for row in bases])
        parts = target if isinstance(target, tuple | list) else (target,)
        shown, *rest = parts
        label = int(rest[0]) if rest else None
        trigger = _trigger(rest[1], rest[2]) if len(rest) > 1 else None
        triple = Triple(pixels, labels, rows, shown.pixels(), label, trigger)
    except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise DataError(
            f"{folder} does not hold poisons of the benchmark's form: {error}"
        ) from None
    if len(rows) != len(pixels):
        raise DataError(f"{folder} has {len(pixels)} poisons and {len(rows)} base indices")
    if trigger is not None:
        trigger.apply(triple.target[None])  # it must lie inside the image
    return triple


def triples_content(path: Path) -> str:
    """Names the bytes of all trials in a folder; raises DataError if there are none."""
    found = sorted(p for name in TRIPLE_FILES for p in path.glob(f"*/{name}"))
    if not found:
        raise DataError(f"{path} has no folders with {TRIPLE_FILES[0]}")
    return content_of(path, found)


def _load(path: Path) -> Any:
    try:
        return TripleUnpickler.read(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a pickle fails in many ways
        raise DataError(f"{path} is not a pickle of pictures and numbers: {error}") from None


def _trigger(patch: Any, place: Any) -> Trigger:
    values = torch.as_tensor(np.asarray(patch)).float() * 255
    levels = values.round()
    if values.dim() != 3 or float((values - levels).abs().max()) > 0.01:
        raise DataError("the patch is not made of whole levels from 0 to 255, (3, p, p)")
    left, top = (int(v) for v in place)
    return Trigger(levels.clamp(0, 255).to(torch.uint8), left, top)


def write_triple(triple: Triple, folder: Path) -> None:
    """Write a crafted trial as the benchmark reads it, into a new or empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DataError(f"{folder} is not empty; export into a new folder")
    pictures = [_picture(pixels) for pixels in triple.pixels]
    target: Any = _picture(triple.target)
    if triple.target_label is not None:
        target = (target, triple.target_label)
        if triple.trigger is not None:
            pattern = triple.trigger.pattern.float() / 255
            target = (*target, pattern, [triple.trigger.left, triple.trigger.top])
    contents = (
        list(zip(pictures, triple.labels.tolist(), strict=True)),
        triple.bases.numpy(),
        target,
    )
    for name, content in zip(TRIPLE_FILES, contents, strict=True):
        with (folder / name).open("wb") as file:
            pickle.dump(content, file)


def _picture(pixels: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
