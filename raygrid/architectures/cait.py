"""A small class-attention transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.registry import Card

if TYPE_CHECKING:
    from torch import nn


@ARCHITECTURES.register("cait_small")
@dataclass(frozen=True, kw_only=True)
class CaitSmall(Architecture):
    """64 patches, 6 layers among patches, then 2 in which a class token reads them.

    Width 512, 6 talking heads of 64, MLPs of width 256, branches scaled by 0.1 at the start, each
    layer left out with probability 0.05 in training. 8,488,522 parameters for 10 classes.
    """

    card = Card(
        paper="Touvron et al. 2021; Qin et al. 2024, table 7: 71.96 % on clean CIFAR-10",
        code="lafeat/apbench@9a6fb91; lucidrains/vit-pytorch",
        notes="timm's Cait asks for heads that divide the width; its cait_s24 has 46 million "
        "parameters. The rate that APBench trained it with is not published. Its code leaves out "
        "layers at test time too, once for each batch, which is a fault: drop_at_test=true is what "
        "its printed numbers belong to, the default tests the whole network. As in its code, no "
        "dropout on attention weights; version 1 had 0.1 there",
    )
    version: ClassVar[int] = 2
    sizes: ClassVar[tuple[int, int]] = (16, 64)
    multiple: ClassVar[int] = 8
    convolutional: ClassVar[bool] = False
    gflop: ClassVar[float] = 0.955
    megabytes: ClassVar[float] = 34
    stand_in: ClassVar[str] = "small_cait"

    drop_at_test: bool = False  # whether layers are left out at test time too

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from raygrid.architectures.networks.cait import PUBLISHED_CAIT, Cait

        return Cait(image_size, PUBLISHED_CAIT, self.drop_at_test), PUBLISHED_CAIT.dim


@ARCHITECTURES.register("small_cait")
@dataclass(frozen=True, kw_only=True)
class SmallCait(Architecture):
    """The layers of cait_small, 2 and 1, with 16 patches, width 64, 4 heads of 16."""

    version: ClassVar[int] = 2
    card = Card(paper="Touvron et al. 2021, the layers; the network is raygrid's own")
    sizes: ClassVar[tuple[int, int]] = (16, 64)
    multiple: ClassVar[int] = 8
    convolutional: ClassVar[bool] = False
    gflop: ClassVar[float] = 0.00245
    megabytes: ClassVar[float] = 0.359
    stand_in: ClassVar[str] = "small_cait"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from raygrid.architectures.networks.cait import SMALL_CAIT, Cait

        return Cait(image_size, SMALL_CAIT), SMALL_CAIT.dim
