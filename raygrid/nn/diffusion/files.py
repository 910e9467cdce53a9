"""Files of weights that others trained: of score-SDE and of guided-diffusion."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from raygrid.core.errors import DataError
from raygrid.nn.diffusion import ddpmpp, guided
from raygrid.nn.diffusion.ddpmpp import DDPMPP
from raygrid.nn.diffusion.guided import GUIDED
from raygrid.nn.diffusion.paths import require_there, unloadable
from raygrid.nn.diffusion.process import NOISE_STEPS, Predictor, in_parts
from raygrid.nn.diffusion.unets import DiffusionUNet, Family, Layout
from raygrid.nn.networks import freeze

_WIDTH = 4  # position of the first convolution, whose outputs are the width of a network


@dataclass(frozen=True)
class WeightsSource:
    """Whose networks these are. label: what they are told of step i.

    side: of the images that they take, if that is always the same: others are resized to it and
    back, down to the side `least`.
    """

    name: str
    family: Family
    layouts: tuple[Layout, ...]
    label: Callable[[int], float]
    side: int | None = None
    least: int = 0


SCORE_SDE = WeightsSource(
    "score-SDE", DDPMPP, ddpmpp.DDPMPP_LAYOUTS, lambda i: 999 * (i + 1) / NOISE_STEPS
)
GUIDED_DIFFUSION = WeightsSource(
    "guided-diffusion", GUIDED, guided.GUIDED_LAYOUTS, float, guided.GUIDED_SIDE, 112
)


def of_file(checkpoint: str, side: int, device: torch.device) -> Predictor:
    """The predictor of a file; raises DataError if it cannot be read or does not fit."""
    held = held_by(checkpoint, side)
    network = held.network.to_empty(device="cpu")
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), held.weights, strict=True):
            parameter.copy_(weight)
    return of_network(network.to(device), held.source, held.side)


@dataclass(frozen=True)
class Held:
    """What a file holds: its network, without weights, for images of `side` pixels; its weights."""

    source: WeightsSource
    network: DiffusionUNet
    weights: Sequence[Tensor]
    side: int


def held_by(checkpoint: str, side: int) -> Held:
    """What a file holds for images of `side` pixels; raises DataError unless it fits."""
    require_there(checkpoint)
    source, weights = _weights(checkpoint)
    taken = source.side or side
    if not source.least <= side <= taken:
        sides = f"{source.least} to {taken}"
        raise DataError(f"{checkpoint} of {source.name} takes images of {sides} pixels, not {side}")
    network = _network(checkpoint, source, [tuple(weight.shape) for weight in weights], taken)
    return Held(source, network, weights, taken)


def of_network(network: DiffusionUNet, source: WeightsSource, side: int) -> Predictor:
    """A published network as a noise predictor."""
    freeze(network)

    @torch.no_grad()
    def noise(x: Tensor, i: int) -> Tensor:
        labels = torch.full((len(x),), source.label(i), device=x.device)
        return in_parts(network, x, labels)

    return Predictor(noise, side)


def _weights(checkpoint: str) -> tuple[WeightsSource, list[Tensor]]:
    """Whose file it is, and the weights in their order: of score-SDE's the averaged ones."""
    try:
        mapped = zipfile.is_zipfile(checkpoint)  # files of before torch 1.6 are read as a whole
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise unloadable(checkpoint, error) from error
    state = state if isinstance(state, Mapping) else {}
    averages = state.get("ema")
    shadow = averages.get("shadow_params") if isinstance(averages, Mapping) else None
    source, found = SCORE_SDE, list(shadow or ())
    if "input_blocks.0.0.weight" in state:
        source, found = GUIDED_DIFFUSION, list(state.values())
    if not found or not all(isinstance(weight, torch.Tensor) for weight in found):
        needed = "averaged weights of score-SDE (ema, shadow_params) or those of guided-diffusion"
        raise DataError(f"{checkpoint} has no {needed}")
    return source, found


def _network(
    checkpoint: str, source: WeightsSource, shapes: Sequence[tuple[int, ...]], side: int
) -> DiffusionUNet:
    """The network whose parameters have these shapes, without memory; raises DataError."""
    first = shapes[_WIDTH] if len(shapes) > _WIDTH else ()
    if len(first) == 4 and first[0] >= 4:
        for layout in source.layouts:
            with torch.device("meta"), suppress(ValueError):  # of a width that cannot be grouped
                network = DiffusionUNet(source.family, layout, side, first[0])
                if [tuple(p.shape) for p in network.parameters()] == list(shapes):
                    return network
    raise DataError(
        f"{checkpoint} is no network of {source.name} for {side} pixels that is known here: its "
        f"{len(shapes)} arrays have other shapes"
    )
