"""Deep layer aggregation, with strides for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card, Combination


@ARCHITECTURES.register("dla34")
@dataclass(frozen=True, kw_only=True)
class Dla34(Architecture):
    """DLA-34, whose stages are joined as trees: 15,232,314 parameters for 10 classes."""

    card = Card(
        paper="Yu et al. 2018",
        code="timm dla34, 3x3 stem and first two strides 1, as in kuangliu/pytorch-cifar",
        notes="kuangliu's network, which APBench carries but trains in none of its tables, is "
        "another one: in a stage of two levels a block stands beside a smaller tree that two "
        "blocks follow, and the root joins what these four give, not what comes in; shortcuts are "
        "halved by a 1x1 convolution of stride 2, not by a max-pool before one (16,291,386 "
        "parameters). 224-pixel images keep timm's own stem and strides",
    )
    gflop: ClassVar[float] = 1.82
    megabytes: ClassVar[float] = 61
    stand_in: ClassVar[str] = "small_resnet"

    def skip(self, combination: Combination) -> str | None:
        """Its trees join what max-pools and strides of 2 halve, which is the same for even sides
        alone: three times, and twice more in timm's own stem."""
        multiple = 8 if combination.image_size < 112 else 32
        if combination.image_size % multiple:
            return (
                f"{self.id} takes image sides divisible by {multiple}, not {combination.image_size}"
            )
        return super().skip(combination)

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        import timm

        net = timm.create_model("dla34", num_classes=0)
        if image_size < 112:
            net.base_layer[0] = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            net.level1[0].stride = (1, 1)
            net.level2.tree1.conv1.stride = (1, 1)
            net.level2.downsample = nn.Identity()
        plain_init(net)
        return net, net.num_features
