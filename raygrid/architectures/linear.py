"""Classifiers of pixels without convolutions: linear ones, and one with a hidden layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.lazy import nn
from raygrid.core.registry import Card
from raygrid.core.seeds import forked

if TYPE_CHECKING:
    from raygrid.architectures.networks.network import Network


@ARCHITECTURES.register("linear")
@dataclass(frozen=True, kw_only=True)
class Linear(Architecture):
    """Scores W x of the pixels of an image, without bias: softmax regression."""

    card = Card(
        paper="Sandoval-Segura et al. 2023, What Can We Learn from Unlearnable Datasets?",
        code="psandovalsegura/learn-from-unlearnable@605dea2 (orthogonal_projection_step_1.py)",
        notes="what it reaches on a poison is how far classes lie apart along straight lines",
    )
    sizes: ClassVar[tuple[int, int]] = (8, 224)
    convolutional: ClassVar[bool] = False
    gflop: ClassVar[float] = 6.144e-5
    stand_in: ClassVar[str] = "linear"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        return nn.Flatten(), 3 * image_size**2

    def build(self, classes: int, image_size: int, seed: int) -> Network:
        from raygrid.architectures.networks.network import Network

        with forked(seed):
            network = Network(*self.layers(classes, image_size), classes)
            network.head = nn.Linear(network.width, classes, bias=False)
        return network

    def layers(self, classes: int, image_size: int) -> tuple[nn.Module, int]:
        """The body for a number of classes, and the width of its features."""
        return self.body(image_size)


@ARCHITECTURES.register("linear_product")
@dataclass(frozen=True, kw_only=True)
class LinearProduct(Linear):
    """Scores V W x with a W of as many rows as there are classes, both trained, without bias.

    The functions are those of `linear`; gradient descent takes another way to them.
    """

    card = Card(
        paper="Liu, Chen and Zhang 2026, Perturbation-Induced Linearization",
        code="jinlinll/pil@50a2803 (models/linearmodel.py)",
        notes="the surrogate of `pil`; the paper speaks of a linear classifier",
    )
    gflop: ClassVar[float] = 6.164e-5
    stand_in: ClassVar[str] = "linear_product"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        return self.layers(10, image_size)

    def layers(self, classes: int, image_size: int) -> tuple[nn.Module, int]:
        matrix = nn.Linear(3 * image_size**2, classes, bias=False)
        return nn.Sequential(nn.Flatten(), matrix), classes


@ARCHITECTURES.register("two_layer")
@dataclass(frozen=True, kw_only=True)
class TwoLayer(Architecture):
    """A layer of as many hidden units as an image has values, ReLU, then scores."""

    card = Card(
        paper="Zhu, Yu and Gao 2024, Detection and Defense of Unlearnable Examples",
        code="hala64/udp@ec21d72 (model/MLP.py)",
        notes="its hidden layer grows with the fourth power of the image's side",
    )
    sizes: ClassVar[tuple[int, int]] = (8, 64)
    convolutional: ClassVar[bool] = False
    gflop: ClassVar[float] = 0.01894
    stand_in: ClassVar[str] = "linear"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        width = 3 * image_size**2
        return nn.Sequential(nn.Flatten(), nn.Linear(width, width), nn.ReLU()), width
