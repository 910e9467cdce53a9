"""RoCL: an adversarial third view for contrastive learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES, Defense, Pair
from raygrid.nn.contrastive.losses import nt_xent
from raygrid.nn.pgd import Ball, frozen
from raygrid.nn.steps import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.nn.contrastive.base import Framework


@DEFENSES.register("rocl")
@dataclass(frozen=True, kw_only=True)
class RoCl(Defense):
    """Adds a view x: the first one moved so that it agrees least with the second.

    From a + U(-radius, radius), clipped, `steps` sign steps up the loss over (x, b) within the
    linf ball around a, in eval mode. With SimCLR the loss is NT-Xent over all three, summed over
    the two positives of an anchor, plus `weight` times that of (x, b), which are embedded once
    more as a batch of their own; gradients reach an embedding as an anchor alone, in the steps
    too. Other frameworks have no loss over three views: theirs of (a, b) plus theirs of (x, b),
    slow parts moving once.
    """

    card = Card(
        paper="Kim, Tack, Hwang 2020 (RoCL); Liu et al. (Transferable Availability Poisoning), "
        "table 8, who call it AdvCL",
        code="Kim-Minseon/RoCL@b6d5185",
        published={
            "cifar10/clean/rocl/resnet18/simclr/tp/0": 0.8122,
            "cifar10/em/rocl/resnet18/simclr/tp/0": 0.8085,
            "cifar10/tap/rocl/resnet18/simclr/tp/0": 0.7928,
            "cifar10/tue/rocl/resnet18/simclr/tp/0": 0.7947,
            "cifar10/aap(targeted=true)/rocl/resnet18/simclr/tp/0": 0.7483,
            "cifar10/tp/rocl/resnet18/simclr/tp/0": 0.7241,
        },
        cost="5 times SimCLR",
        notes="Liu et al. cite this paper for the name AdvCL (reference 17) and print no "
        "settings; the AdvCL of Fan et al. 2021 is advcl. Losses and steps are the code's. Version "
        "1 let gradients through both sides of the similarities (as good as the same direction, "
        "twice the length, steps that end elsewhere in up to a tenth of the pixels) and took the "
        "last term from the embeddings of the three views. The code trains with LARS at a batch of "
        "512 on two GPUs, whose last term compares the images of a GPU alone; here the learner's "
        "own optimizer, loss scale and batch, so that the rows of a protocol differ in the defense "
        "alone. Its own clean accuracy is 0.8371. Other learners than simclr: raygrid's own form",
    )
    version: ClassVar[int] = 2
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({},)
    learners: ClassVar[Literal["all", "supervised", "views"]] = "views"

    radius: float = 8 / 255  # largest change of a channel value, in [0, 1]
    steps: int = 7  # of the inner maximization
    step: float = 0.007  # size of one, in [0, 1]
    weight: float = 1 / 256  # of the loss over the adversarial and the second view alone

    def __post_init__(self) -> None:
        Ball(self.radius, self.steps, self.step)  # refuses its own parameters
        require(self.weight >= 0, f"weight is {self.weight}, allowed are numbers from 0")

    @property
    def cost(self) -> float:
        """Two thirds of a training pass for each step, five views and one target, over two."""
        return (2 * self.steps / 3 + 5 + 1 / 3) / 2

    def contrast(self, framework: Framework, batch: Batch, views: Pair) -> Tensor:
        from raygrid.nn.contrastive.pairs import SimClrLoss

        a, b = views
        x = self.perturb(framework, a, b, batch)
        if not isinstance(framework, SimClrLoss):
            moved: Tensor = framework(x, b, batch.y, move=False)
            return framework(a, b, batch.y) + moved
        n, temperature = len(a), framework.temperature
        # First the pair, then the three: in this order running statistics take the batches in.
        pair, three = (
            nt_xent(framework.embed(torch.cat(seen)), n, temperature, one_sided=True)
            for seen in ((x, b), (a, b, x))
        )
        return framework.factor * (2 * three + self.weight * pair)

    def perturb(self, framework: Framework, a: Tensor, b: Tensor, batch: Batch) -> Tensor:
        """Images (n, C, H, W) in [0, 1] within `radius` of a that agree least with b.

        The framework is left as it was.
        """
        from raygrid.nn.contrastive.pairs import SimClrLoss

        ball = Ball(self.radius, self.steps, self.step)
        start = ball.inside(a, batch.rng)
        with frozen(framework):
            if not isinstance(framework, SimClrLoss):
                return ball.climb(lambda x: framework(x, b, batch.y, move=False), a, start)
            with torch.no_grad():
                target = framework.embed(b)

            def loss(x: Tensor) -> Tensor:
                z = torch.cat([framework.embed(x), target])
                return nt_xent(z, len(a), framework.temperature, one_sided=True)

            return ball.climb(loss, a, start)
