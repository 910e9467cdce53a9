"""Networks of timm by their names there, unchanged: victims that start from its weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.errors import SpecError, in_one_line, unknown
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Card, Combination, require


@ARCHITECTURES.register("timm")
@dataclass(frozen=True, kw_only=True)
class Timm(Architecture):
    """A network of timm by its name there, such as `resnet18.a1_in1k`, stem and strides unchanged.

    Its weights are drawn as timm draws them. `pretrained(weights=timm)` starts from those that timm
    keeps under the name, if they are on this machine.
    """

    card = Card(
        paper="Wightman 2019, PyTorch Image Models",
        code="timm, the installed version",
        notes="made for 224 pixels and more, where most shrink an image to a thirty-second: on "
        "32 pixels little is left of it. Transformers are built for the images' side, and take "
        "only weights for that side",
    )
    gflop: ClassVar[float] = 0.0741
    megabytes: ClassVar[float] = 44.7

    model: str = "resnet18"  # with or without a tag of weights

    def __post_init__(self) -> None:
        if self.model != type(self).__dataclass_fields__["model"].default:
            object.__setattr__(self, "gflop", cost_of(self.model))

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        net = created(self.model, image_size)
        with torch.no_grad():
            width = net.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1]
        return net.train(), int(width)

    def skip(self, combination: Combination) -> str | None:
        return super().skip(combination) or side_fault(self.model, combination.image_size)


def created(model: str, side: int) -> Any:
    """A network of timm without its head, for images of `side` pixels where it has to know."""
    import timm

    try:
        return timm.create_model(model, num_classes=0, img_size=side)
    except TypeError:  # it takes any side, and no such argument
        return timm.create_model(model, num_classes=0)


@lru_cache
def side_fault(model: str, side: int) -> str | None:
    """Why a network of timm does not take images of this side, tried on shapes alone."""
    try:
        with torch.device("meta"):
            shape = created(model, side).eval()(torch.zeros(2, 3, side, side)).shape
    except (RuntimeError, ValueError, AssertionError) as error:
        return f"timm's {model} takes no images of {side} pixels: {in_one_line(error)}"
    return None if len(shape) == 2 else f"timm's {model} gives no features but {tuple(shape)}"


@lru_cache
def cost_of(model: str) -> float:
    """The gflop of a pass over 32 pixels, counted on shapes; SpecError for a name unknown there."""
    import timm

    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # it misses Triton
    from torch.utils.flop_counter import FlopCounterMode

    names = timm.list_models()
    name, _, tag = model.partition(".")
    if name not in names:
        raise SpecError(_near(unknown("network of timm", name, names)))
    tags = [known.partition(".")[2] for known in timm.list_pretrained(name)]
    require(not tag or tag in tags, unknown(f"weights of timm's {name}", tag, tags))
    settings = timm.get_pretrained_cfg(name)
    side = settings.input_size[-1] if settings else 224
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        created(model, side).eval()(torch.empty(1, 3, side, side))
    return counter.get_total_flops() / 1e9 * (32 / side) ** 2


def _near(said: str) -> str:
    """The same without the list of a thousand names that are known."""
    return said.partition("; known:")[0] + "; known: those of timm.list_models()"
