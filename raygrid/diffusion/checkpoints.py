"""Noise predictors that others trained: of diffusers, score-SDE and guided-diffusion."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from raygrid.diffusion import ddpmpp, guided
from raygrid.diffusion.ddpmpp import DDPMPP
from raygrid.diffusion.denoisers import of_unet
from raygrid.diffusion.guided import GUIDED
from raygrid.diffusion.process import STEPS, Predictor
from raygrid.diffusion.unets import Family, Layout, UNet
from raygrid.errors import DataError
from raygrid.store import content_of
from raygrid.training import freeze

FILES = (".pt", ".pth")
"""Suffixes of the checkpoints of score-SDE and guided-diffusion."""

_SCHEDULE = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "num_train_timesteps": STEPS,
    "prediction_type": "epsilon",
}
_CLASS = "UNet2DModel"
_WIDTH = 4  # position of the first convolution, whose outputs are the width of a network


def of_diffusers(checkpoint: str) -> bool:
    """Whether it takes diffusers to load it."""
    return Path(checkpoint).suffix not in FILES


def content(checkpoint: str) -> str:
    """Names the bytes of a file or folder; everything else names itself."""
    path = Path(checkpoint)
    if not checkpoint or not path.exists():
        return checkpoint
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return content_of(path, files)


def fault(checkpoint: str, side: int) -> str | None:
    """What is wrong with it for images of `side` pixels, as far as its settings show."""
    if _on_hub(checkpoint):
        return _hub_fault(checkpoint, side)
    if not Path(checkpoint).exists():
        return f"checkpoint {checkpoint} is not there"
    return _misfit(checkpoint, side) if of_diffusers(checkpoint) else None


@lru_cache(maxsize=64)
def _hub_fault(checkpoint: str, side: int) -> str | None:
    """Asked once: where the hub is out of reach an answer takes a minute."""
    return _misfit(checkpoint, side)


def _misfit(checkpoint: str, side: int) -> str | None:
    try:
        _checked(checkpoint, side)
    except DataError as error:
        return str(error)
    return None


def _on_hub(checkpoint: str) -> bool:
    """Whether it is an id there: nothing here has this name, and it does not look like a place."""
    named = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", checkpoint) is not None
    return named and of_diffusers(checkpoint) and not Path(checkpoint).exists()


def loaded(checkpoint: str, side: int, device: torch.device) -> Predictor:
    """The predictor of a checkpoint; raises DataError if it cannot be loaded or does not fit.

    checkpoint: a folder or hub id of diffusers (a U-Net or a whole pipeline), a file of score-SDE
    (DDPM++, continuous, variance-preserving), whose averaged weights are taken, or that of
    guided-diffusion for ImageNet (256 pixels, unconditional).
    """
    if (reason := fault(checkpoint, side)) is not None:
        raise DataError(reason)
    if of_diffusers(checkpoint):
        return _of_diffusers(checkpoint, side, device)
    return _of_file(checkpoint, side, device)


# --- diffusers -----------------------------------------------------------------------------------


def _of_diffusers(checkpoint: str, side: int, device: torch.device) -> Predictor:
    from diffusers import UNet2DModel

    folder = _checked(checkpoint, side)
    try:
        network = UNet2DModel.from_pretrained(checkpoint, subfolder=folder, low_cpu_mem_usage=False)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise _unloadable(checkpoint, error) from error
    return of_unet(network.to(device), side)


def _checked(checkpoint: str, side: int) -> str | None:
    """The folder of its U-Net, None if that is at the top.

    Raises DataError that says what in its settings does not fit.
    """
    alone = _settings(checkpoint, "config.json")
    found = alone or _settings(checkpoint, "unet/config.json")
    if found is None:
        where = "it or the hub cannot be reached, or it" if _on_hub(checkpoint) else "it"
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
        if _on_hub(checkpoint):
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError

            try:
                path = Path(hf_hub_download(checkpoint, name))
            except EntryNotFoundError:  # or out of reach, and not kept from an earlier time
                return None
        return dict(json.loads(path.read_text())) if path.is_file() else None
    except (OSError, ValueError, TypeError) as error:
        raise _unloadable(checkpoint, error) from error


def _unloadable(checkpoint: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return DataError(f"checkpoint {checkpoint} cannot be loaded: {reason}")


# --- files of score-SDE and of guided-diffusion --------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Whose networks these are. label: of step i. sides: least and most of images, 0 for any.

    side: of what the network takes, if that is always the same; images are resized to it and back.
    """

    name: str
    family: Family
    layouts: tuple[Layout, ...]
    label: Callable[[int], float]
    side: int | None = None
    least: int = 0


SCORE_SDE = Source("score-SDE", DDPMPP, ddpmpp.LAYOUTS, lambda i: 999 * (i + 1) / STEPS)
GUIDED_DIFFUSION = Source("guided-diffusion", GUIDED, guided.LAYOUTS, float, guided.SIDE, 112)


def _of_file(checkpoint: str, side: int, device: torch.device) -> Predictor:
    source, weights = _weights(checkpoint)
    taken = source.side or side
    if not source.least <= side <= taken:
        sides = f"{source.least} to {taken}"
        raise DataError(f"{checkpoint} of {source.name} takes images of {sides} pixels, not {side}")
    network = _network(checkpoint, source, [tuple(weight.shape) for weight in weights], taken)
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), weights, strict=True):
            parameter.copy_(weight)
    return of_network(network.to(device), source, taken)


def of_network(network: UNet, source: Source, side: int) -> Predictor:
    """A published network as a noise predictor."""
    freeze(network)

    @torch.no_grad()
    def noise(x: Tensor, i: int) -> Tensor:
        out: Tensor = network(x, torch.full((len(x),), source.label(i), device=x.device))
        return out

    return Predictor(noise, side)


def _weights(checkpoint: str) -> tuple[Source, list[Tensor]]:
    """Whose file it is, and the weights in their order: of score-SDE's the averaged ones."""
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise _unloadable(checkpoint, error) from error
    state = state if isinstance(state, Mapping) else {}
    averages = state.get("ema")
    shadow = averages.get("shadow_params") if isinstance(averages, Mapping) else None
    source, found = SCORE_SDE, list(shadow or ())
    if "input_blocks.0.0.weight" in state:
        source, found = GUIDED_DIFFUSION, list(state.values())
    if not found or not all(isinstance(weight, Tensor) for weight in found):
        needed = "averaged weights of score-SDE (ema, shadow_params) or those of guided-diffusion"
        raise DataError(f"{checkpoint} has no {needed}")
    return source, found


def _network(checkpoint: str, source: Source, shapes: Sequence[tuple[int, ...]], side: int) -> UNet:
    """The network whose parameters have these shapes, uninitialized; DataError if there is none."""
    first = shapes[_WIDTH] if len(shapes) > _WIDTH else ()
    if len(first) == 4 and first[0] >= 4:
        for layout in source.layouts:
            with torch.device("meta"), suppress(ValueError):  # of a width that cannot be grouped
                network = UNet(source.family, layout, side, first[0])
                if [tuple(p.shape) for p in network.parameters()] == list(shapes):
                    return network.to_empty(device="cpu")
    raise DataError(
        f"{checkpoint} is no network of {source.name} for {side} pixels that is known here: its "
        f"{len(shapes)} arrays have other shapes"
    )
