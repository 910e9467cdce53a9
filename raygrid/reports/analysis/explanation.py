"""Where a network looks: Grad-CAM and Shapley values, by captum."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from raygrid.core.errors import DataError, SpecError, unknown
from raygrid.core.images import Images
from raygrid.core.lazy import nn, np, torch
from raygrid.core.seeds import Stream, forked
from raygrid.reports.analysis.records import Victim

if TYPE_CHECKING:
    from torch import Tensor

EXPLANATION_SAMPLES = {"gradient": 200, "sampling": 25}
"""Points of expected gradients, and orders of patches."""


def need_captum() -> None:
    """Raise SpecError if captum is not installed."""
    if importlib.util.find_spec("captum") is None:
        raise SpecError("needs the package captum: uv run --extra figures, or pip install captum")


def grad_cam(victim: Victim, x: Tensor, y: Tensor, layer: str = "") -> Tensor:
    """Grad-CAM maps float32 (n, H, W), each stretched to [0, 1]; all zero where nothing counts.

    ReLU of the sum over channels of the layer's output, weighted by the spatial mean of the
    gradient of the score of class y. x: float32 (n, C, H, W) in [0, 1]; y: int64 (n,).
    layer: a module's name in the network, e.g. `body.layer3`; by default the last block of a
    convolutional network whose map has more than a pixel. Raises DataError for a layer that is not
    there or makes no map.
    """
    need_captum()
    from captum.attr import LayerAttribution, LayerGradCam

    network, x = victim.network, x.to(victim.device)
    module = find_layer(victim, layer, x[:1])
    with torch.enable_grad():
        x = x.clone().requires_grad_(True)  # the weights have no gradients to follow
        target = y.to(x.device)
        maps = LayerGradCam(network, module).attribute(x, target, relu_attributions=True)
    large = LayerAttribution.interpolate(maps.detach(), x.shape[-2:], "bilinear")
    return _stretched(large.squeeze(1).float().cpu())


def _stretched(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp_min(1e-12), 0.0)


def find_layer(victim: Victim, layer: str, x: Tensor) -> nn.Module:
    """The module of that name, or the last block that makes a feature map; raises DataError."""
    modules = dict(victim.network.named_modules())
    kind = victim.trial.architecture
    if layer and layer not in modules:
        raise DataError(f"{kind.id}: " + unknown("layer", layer, filter(None, modules)))
    if not layer and not kind.convolutional:
        raise DataError(f"{kind.id} has no feature maps: Grad-CAM needs a convolutional network")
    maps = _map_makers(victim.network, x)
    whole = [name for name in maps if not _inside_a_block(name, modules)] or maps
    if layer and layer not in maps:
        raise DataError(f"layer {layer} of {kind.id} makes no feature map; {whole[-1]} does")
    return modules[layer or whole[-1]]


def _inside_a_block(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a module is a part of something other than a plain chain, e.g. of a residual block.

    What happens there is no result of the network: an expansion, one of several branches.
    """
    parts = name.split(".")
    above = (".".join(parts[:end]) for end in range(2, len(parts)))  # from below `body` on
    return any(type(modules[each]) is not nn.Sequential for each in above)


def _map_makers(network: nn.Module, x: Tensor) -> list[str]:
    """Names of modules with an output (n, channels, h, w) of more than a pixel, in their order."""
    found: list[str] = []

    def note(name: str) -> None:
        def hook(module: nn.Module, inputs: object, out: object) -> None:
            if isinstance(out, torch.Tensor) and out.dim() == 4 and out.shape[-1] > 1:
                found.append(name)

        hooks.append(modules[name].register_forward_hook(hook))

    modules, hooks = dict(network.named_modules()), list[torch.utils.hooks.RemovableHandle]()
    for name in modules:
        if name.startswith("body."):
            note(name)
    try:
        with torch.no_grad():
            network(x)
    finally:
        for handle in hooks:
            handle.remove()
    if not found:
        raise DataError("the network has no module that makes a feature map")
    return found


def shapley(
    victim: Victim,
    x: Tensor,
    y: Tensor,
    estimator: Literal["gradient", "sampling"] = "gradient",
    samples: int | None = None,
    baseline: Literal["zero", "mean"] = "zero",
) -> Tensor:
    """Shapley values of pixels for the score of class y, float32 (n, H, W), summed over channels.

    gradient: expected gradients (GradientShap) over 100 random clean training images and `samples`
    points, 200 by default. sampling: of patches of 4 x 4 pixels over `samples` orders, 25 by
    default, against `baseline`: a black image, or the mean of the clean training images; the
    values of an image add up to the difference of both scores. Draws are always the same.
    """
    need_captum()
    from captum.attr import GradientShap, ShapleyValueSampling

    x, y = x.to(victim.device), y.to(victim.device)
    samples = EXPLANATION_SAMPLES[estimator] if samples is None else samples
    stream = Stream("shapley", (samples,))
    with forked(stream.seed("draws"), victim.device), _forked_numpy(stream.seed("numpy")):
        if estimator == "gradient":
            order = torch.randperm(len(victim.clean), generator=stream.generator("baselines"))
            black = victim.clean.rows(order[:100]).to(victim.device).floats()
            method = GradientShap(victim.network)
            parts = [
                method.attribute(one, black, n_samples=samples, stdevs=0.0, target=label)
                for one, label in zip(x.split(1), y.split(1), strict=True)
            ]
            values = torch.cat(parts)
        else:
            values = ShapleyValueSampling(victim.network).attribute(
                x,
                baselines=mean_image(victim.clean).to(x.device) if baseline == "mean" else 0,
                target=y,
                n_samples=samples,
                feature_mask=patches(x.shape[-1]).to(x.device),
            )
            values = values / _patch_pixels(x)
    return values.detach().sum(1).float().cpu()


def mean_image(images: Images) -> Tensor:
    """The mean of all images, float32 (1, C, H, W) in [0, 1]."""
    total = images.pixels.sum(0, keepdim=True, dtype=torch.int64)
    return total.double().div_(255 * len(images)).float()


@contextmanager
def _forked_numpy(seed: int) -> Iterator[None]:
    """captum takes no generator: it draws from the global ones, which are put back afterwards."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)


def patches(side: int) -> Tensor:
    """Number of the patch of 4x4 pixels that each pixel is in, int64 (1, 1, side, side)."""
    at = torch.arange(side) // 4
    return (at[:, None] * (int(at[-1]) + 1) + at).view(1, 1, side, side)


def _patch_pixels(x: Tensor) -> Tensor:
    """How many values of an image share the patch of each pixel: captum repeats their sum."""
    mask = patches(x.shape[-1]).to(x.device)
    return x.shape[1] * torch.bincount(mask.flatten())[mask]
