"""Weights that a user gives for a network: a file of them, or those that timm has on this machine.

Nothing is ever downloaded here, and no code in a file is run.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raygrid.architectures.base import Architecture
from raygrid.architectures.timm import Timm
from raygrid.core.errors import DataError, in_one_line
from raygrid.core.hashing import content_of
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

FROM_TIMM = "timm"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_AROUND = ("state_dict", "model_state_dict", "model", "network", "net")
_HEADS = ("head.", "fc.", "linear.", "classifier.", "last_linear.")
_UNREADABLE = (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError)

Moments = tuple[tuple[float, ...], tuple[float, ...]]
Normalization = Literal["auto", "imagenet", "half", "none"]
MOMENTS: Mapping[str, Moments] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of each channel in [0, 1], by the names that users give."""


@dataclass(frozen=True)
class GivenWeights:
    """Where weights lie, and how the network that has them normalizes its images.

    source: a file, or `timm`. normalization: a name in `MOMENTS`; `auto` is what the file itself
    says (as networks that a trial left do), what timm says of its own, and else that of ImageNet.
    """

    source: str
    normalization: Normalization = "auto"

    def path(self, architecture: Architecture) -> Path:
        """The file with the weights of this architecture; raises DataError if it is not there."""
        if self.source == FROM_TIMM:
            return _kept_by_timm(architecture)
        path = Path(self.source)
        if not path.is_file():
            raise DataError(f"weights {path} is not there, or no file")
        if path.suffix not in WEIGHT_SUFFIXES:
            raise DataError(f"weights {path} is no file of {', '.join(WEIGHT_SUFFIXES)}")
        return path

    def content(self, architecture: Architecture) -> str:
        """Names the bytes of the file, wherever it lies; empty if it is not there."""
        try:
            path = self.path(architecture)
        except DataError:
            return ""
        return content_of(path, [path])

    def fault(self, architecture: Architecture, side: int) -> str | None:
        """What is wrong with it for images of `side` pixels, None if nothing is."""
        try:
            path = self.path(architecture)
        except DataError as error:
            return str(error)
        return _misfit(path, architecture, side, path.stat().st_mtime_ns)

    def state(self, architecture: Architecture, classes: int, side: int) -> dict[str, Tensor]:
        """The state of a whole network with these weights and a head that is drawn anew.

        Raises DataError that names the first layer that does not fit.
        """
        path = self.path(architecture)
        found = _named(_read(path))
        body = body_weights(found, path, architecture, side)
        network = architecture.build(classes, side, 0)
        network.normalize_by(*self._moments(found, path, architecture))
        state = network.state_dict()
        for name, value in body.items():
            state[name].copy_(value)
        return dict(state)

    def _moments(
        self, found: Mapping[str, Tensor], path: Path, architecture: Architecture
    ) -> Moments:
        """The mean and sd by which the network with these weights normalizes."""
        if self.normalization != "auto":
            return MOMENTS[self.normalization]
        own = [found.get(f"normalize.{name}") for name in ("mean", "std")]
        if own[0] is not None and own[1] is not None:
            mean, std = (tuple(value.flatten().tolist()) for value in own if value is not None)
            if len(mean) != 3 or len(std) != 3 or not all(sd > 0 for sd in std):
                raise DataError(f"{path}: normalize.mean and normalize.std are not of 3 channels")
            return mean, std
        if self.source == FROM_TIMM:
            settings = _settings(architecture)
            return tuple(settings.mean), tuple(settings.std)
        return MOMENTS["imagenet"]


@lru_cache(maxsize=64)
def _misfit(path: Path, architecture: Architecture, side: int, changed: int) -> str | None:
    """Asked once for all trials; changed: when the file was written."""
    try:
        body_weights(_named(_read(path)), path, architecture, side)
    except DataError as error:
        return str(error)
    return None


def body_weights(
    found: Mapping[str, Tensor], path: Path, architecture: Architecture, side: int
) -> dict[str, Tensor]:
    """The weights of the body by their names in a network; raises DataError for the first misfit.

    found: named as in `Network`. Counters of batch norms may be there or not.
    """
    with torch.device("meta"):
        wanted = architecture.build(10, side, 0).state_dict()
    body = {name: value for name, value in wanted.items() if _counts(name)}
    called = f"{architecture.part()} for {side} pixels"
    for name, value in body.items():
        layer = name.removeprefix("body.")
        if name not in found:
            raise DataError(f"{path} has no layer {layer}, which {called} has")
        theirs, ours = tuple(found[name].shape), tuple(value.shape)
        if theirs != ours:
            raise DataError(f"{path}: layer {layer} has shape {theirs}, in {called} it is {ours}")
        if not bool(torch.isfinite(found[name]).all()):
            raise DataError(f"{path}: layer {layer} has values that are not finite")
    rest = [n.removeprefix("body.") for n in found if _counts(n) and n not in body]
    others = [name for name in rest if not name.startswith(_HEADS)]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise DataError(f"{path} has the layer {others[0]}{more}, which {called} has not")
    return {name: found[name] for name in body}


def _counts(name: str) -> bool:
    return name.startswith("body.") and not name.endswith("num_batches_tracked")


def _named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names that `Network` has; a network without its parts is taken for the body."""
    if all(name.startswith("module.") for name in state):  # of a network on several GPUs
        state = {name.removeprefix("module."): value for name, value in state.items()}
    if any(name.startswith("body.") for name in state):
        return dict(state)
    return {f"body.{name}": value for name, value in state.items()}


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; raises DataError in one line for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        held: Any = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"weights {path} cannot be read: {in_one_line(error)[:200]}") from None
    except _UNREADABLE:  # torch's own words are of many lines, and say how to run the code
        raise DataError(
            f"weights {path} is damaged or holds pickled code, which is never run: save "
            "model.state_dict() instead of the model, or a .safetensors file"
        ) from None
    for name in _AROUND:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
    state = held if isinstance(held, Mapping) else {}
    found = {str(name): v for name, v in state.items() if isinstance(v, torch.Tensor)}
    if not found:
        raise DataError(f"weights {path} is no state dict: it holds no tensors by name")
    return found


def _load(path: Path) -> Any:
    mapped = zipfile.is_zipfile(path)  # files of before torch 1.6 are read as a whole
    with warnings.catch_warnings():
        # What cannot be read raises; what can needs no warning that it might not.
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _settings(architecture: Architecture) -> Any:
    """What timm says of the weights that it keeps under a name; raises DataError."""
    import timm

    if not isinstance(architecture, Timm):
        own = f"timm keeps no weights of {architecture.id}"
        raise DataError(f"{own}: use the architecture timm(model=...), or weights=FILE")
    settings = timm.get_pretrained_cfg(architecture.model)
    if settings is None or not settings.has_weights:
        raise DataError(f"timm keeps no weights of {architecture.model}: use weights=FILE")
    return settings


def _kept_by_timm(architecture: Architecture) -> Path:
    """The file that timm fetched for this name at an earlier time; raises DataError without."""
    from huggingface_hub import try_to_load_from_cache

    settings = _settings(architecture)
    assert isinstance(architecture, Timm)
    names = [settings.hf_hub_filename, "model.safetensors", "pytorch_model.bin"]
    for name in filter(None, names if settings.hf_hub_id else ()):
        found = try_to_load_from_cache(settings.hf_hub_id, name)
        if isinstance(found, str):
            return Path(found)
    if settings.url:
        older = Path(torch.hub.get_dir(), "checkpoints", Path(settings.url).name)
        if older.is_file():
            return older
    model = architecture.model
    fetching = f"timm.create_model({model!r}, pretrained=True)"
    raise DataError(
        f"weights of timm's {model} are not on this machine, and nothing is downloaded unasked: "
        f"fetch them in Python with {fetching}, or give a file, weights=FILE"
    )
