"""What an architecture is."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Combination, Method, Registry
from raygrid.core.seeds import forked

if TYPE_CHECKING:
    from raygrid.architectures.networks.network import Network


@dataclass(frozen=True, kw_only=True)
class Architecture(Method):
    """Builds a network for a number of classes and an image size.

    sizes: smallest and largest image side that it takes; multiple: the side must divide by it.
    convolutional: trained in bf16 and channels_last; others stay in float32.
    gflop: forward cost of one 32x32 image, for estimates. megabytes: its weights at 10 classes, for
    estimates too; 0: not known, they are counted.
    stand_in: the small network of the same family that stands for it on a CPU.
    """

    sizes: ClassVar[tuple[int, int]] = (16, 224)
    multiple: ClassVar[int] = 1
    convolutional: ClassVar[bool] = True
    gflop: ClassVar[float] = 1.0
    megabytes: ClassVar[float] = 0.0
    stand_in: ClassVar[str] = "small_cnn"

    @abstractmethod
    def body(self, image_size: int) -> tuple[nn.Module, int]:
        """The network without normalization and head, and the width of its features."""

    def build(self, classes: int, image_size: int, seed: int) -> Network:
        """A fresh network whose weights are a function of `seed` alone."""
        from raygrid.architectures.networks.network import Network

        with forked(seed):
            body, width = self.body(image_size)
            return Network(body, width, classes)

    def adapt(self, network: Network, images: Images, seed: int) -> None:
        """Change a fresh network, normalization included, after its training set; no labels.

        images: what the network will be trained on, on any device. seed: the network's.
        """

    def skip(self, combination: Combination) -> str | None:
        side = combination.image_size
        low, high = self.sizes
        if not low <= side <= high:
            return f"{self.id} takes images of {low} to {high} pixels, not {side}"
        if side % self.multiple:
            return f"{self.id} takes image sides divisible by {self.multiple}, not {side}"
        return None


class NetworkSize(NamedTuple):
    """Bytes of a network's state, and the width of its features."""

    nbytes: int
    width: int


def weights_nbytes(architecture: Architecture, classes: int, side: int) -> int:
    """About the bytes of a network's weights; known without torch where nothing is changed."""
    if architecture.megabytes and not architecture.part().params:
        return int(1e6 * architecture.megabytes)
    return network_size(architecture, classes, side).nbytes


@lru_cache
def network_size(architecture: Architecture, classes: int, side: int) -> NetworkSize:
    """The size of a network for images of `side` pixels; it is built without memory."""
    with torch.device("meta"):
        network = architecture.build(classes, side, 0)
    state = network.state_dict().values()
    nbytes = sum(value.numel() * value.element_size() for value in state)
    return NetworkSize(nbytes, network.width)


def plain_init(net: nn.Module) -> None:
    """Draw all weights again by each layer's own default rule."""
    for module in net.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def fan_out_init(net: nn.Module, seed: int) -> None:
    """Draw the weights of all convolutions again: normal, sd sqrt(2 / (outputs * height * width)).

    Kaiming initialization by fan-out, with which torchvision and the contrastive codes start; the
    default of the layers themselves has a spread 2.45 times smaller. Frozen weights stay.
    """
    with forked(seed), torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
                drawn = torch.empty(module.weight.shape)
                nn.init.kaiming_normal_(drawn, mode="fan_out", nonlinearity="relu")
                module.weight.copy_(drawn)


ARCHITECTURES: Registry[Architecture] = Registry(
    "architecture",
    Architecture,  # type: ignore[type-abstract]
)
