"""Noise predictors that others trained: of diffusers, score-SDE and guided-diffusion."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from raygrid.core.errors import DataError
from raygrid.core.hashing import content_of
from raygrid.core.lazy import torch
from raygrid.nn.diffusion.denoisers import of_unet
from raygrid.nn.diffusion.paths import is_file, require_there, unloadable
from raygrid.nn.diffusion.process import NOISE_STEPS, Predictor

_SCHEDULE = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "num_train_timesteps": NOISE_STEPS,
    "prediction_type": "epsilon",
}
_CLASS = "UNet2DModel"
_asks: ContextVar[bool] = ContextVar("asks", default=True)


def content(checkpoint: str) -> str:
    """Names the bytes of a file or folder; everything else names itself."""
    path = Path(checkpoint)
    if not checkpoint or not path.exists():
        return checkpoint
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return content_of(path, files)


def fault(checkpoint: str, side: int) -> str | None:
    """What is wrong with it for images of `side` pixels, as far as settings and shapes show."""
    path = Path(checkpoint)
    if not _asks.get() and on_hub(checkpoint):
        return None
    return _misfit(checkpoint, side, path.stat().st_mtime_ns if path.exists() else 0)


@contextmanager
def hub_unasked() -> Iterator[None]:
    """A place where the hub is not asked what it has of a checkpoint: nothing is known against it.

    Files and folders of this machine are looked at there as anywhere.
    """
    before = _asks.set(False)
    try:
        yield
    finally:
        _asks.reset(before)


@lru_cache(maxsize=64)
def _misfit(checkpoint: str, side: int, changed: int) -> str | None:
    """Asked once for all trials: a hub that is out of reach takes a minute to say so."""
    from raygrid.nn.diffusion.files import held_by

    try:
        if is_file(checkpoint):
            held_by(checkpoint, side)
        else:
            _checked(checkpoint, side)
    except DataError as error:
        return str(error)
    return None


def on_hub(checkpoint: str) -> bool:
    """Whether it is an id there: nothing here has this name, and it does not look like a place."""
    named = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", checkpoint) is not None
    return named and not is_file(checkpoint) and not Path(checkpoint).exists()


def loaded(checkpoint: str, side: int, device: torch.device) -> Predictor:
    """The predictor of a checkpoint; raises DataError if it cannot be loaded or does not fit.

    checkpoint: a folder or hub id of diffusers (a U-Net or a whole pipeline), a file of score-SDE
    (DDPM++, continuous, variance-preserving), whose averaged weights are taken, or that of
    guided-diffusion for ImageNet (256 pixels, unconditional).
    """
    from raygrid.nn.diffusion.files import of_file

    if is_file(checkpoint):
        return of_file(checkpoint, side, device)
    return _of_diffusers(checkpoint, side, device)


# --- diffusers -----------------------------------------------------------------------------------


def _of_diffusers(checkpoint: str, side: int, device: torch.device) -> Predictor:
    from diffusers import UNet2DModel
    from safetensors import SafetensorError

    folder = _checked(checkpoint, side)
    try:
        network = UNet2DModel.from_pretrained(checkpoint, subfolder=folder, low_cpu_mem_usage=False)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise unloadable(checkpoint, error) from error
    return of_unet(network.to(device), side)


def _checked(checkpoint: str, side: int) -> str | None:
    """The folder of its U-Net, None if that is at the top.

    Raises DataError that says what in its settings does not fit.
    """
    if not on_hub(checkpoint):
        require_there(checkpoint)
    alone = _settings(checkpoint, "config.json")
    found = alone or _settings(checkpoint, "unet/config.json")
    if found is None:
        where = "it or the hub cannot be reached, or it" if on_hub(checkpoint) else "it"
        raise DataError(f"checkpoint {checkpoint} cannot be loaded: {where} has no config.json")
    schedule = _settings(checkpoint, f"{'' if alone else 'scheduler/'}scheduler_config.json") or {}
    for key, value in _SCHEDULE.items():
        if schedule.get(key, value) != value:
            rule = "the schedule is linear from 1e-4 to 0.02 in 1000 steps, the noise predicted"
            raise DataError(f"{checkpoint}: {key} is {schedule[key]}, but {rule}")
    name = found.get("_class_name", _CLASS)
    if name != _CLASS:
        raise DataError(f"{checkpoint} is a {name}, not a {_CLASS}")
    if found.get("sample_size") != side:
        raise DataError(f"{checkpoint} is for {found.get('sample_size')} pixels, not {side}")
    if (found.get("in_channels"), found.get("out_channels")) != (3, 3):
        shape = f"{found.get('in_channels')} channels to {found.get('out_channels')}"
        raise DataError(f"{checkpoint} maps {shape}, not 3 to 3")
    return None if alone else "unet"


def _settings(checkpoint: str, name: str) -> dict[str, Any] | None:
    """A file of settings in a folder or under a hub id; None if it is not there."""
    path = Path(checkpoint) / name
    try:
        if on_hub(checkpoint):
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError

            try:
                path = Path(hf_hub_download(checkpoint, name))
            except EntryNotFoundError:  # or out of reach, and not kept from an earlier time
                return None
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except (OSError, ValueError, TypeError) as error:
        raise unloadable(checkpoint, error) from error
