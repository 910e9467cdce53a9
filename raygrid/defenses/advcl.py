"""AdvCL: adversarial training for contrastive learning, with pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.defenses.base import DEFENSES, Defense, FitContext, Pair, Study
from raygrid.nn.augment import CropFlip, flips
from raygrid.nn.contrastive.losses import nt_xent
from raygrid.nn.contrastive.pseudo_labels import Clustering
from raygrid.nn.pgd import Ball, fixed, uniform
from raygrid.nn.steps import Batch
from raygrid.protocols import PROTOCOLS

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.nn.contrastive.base import Framework
    from raygrid.nn.contrastive.pairs import SimClrLoss

BENIGN, ADVERSARIAL, LABELED = 0, 1, 2
CLUSTER_HEADS = "cluster_heads"


@DEFENSES.register("advcl")
@dataclass(frozen=True, kw_only=True)
class AdvCl(Defense):
    """SimCLR over four views: its own two, a high-pass filtered and an adversarial one.

    The last two start from a crop x0 of the image. Filtered: without the spatial frequencies
    less than `cutoff` from zero, not clipped. Adversarial: from x0 + U(-radius, radius), `steps`
    sign steps up the loss over all four views within the linf ball around x0. With `ce_weight`:
    plus that much cross-entropy, mean over linear heads that predict clusters of the training set,
    on a second adversarial copy of x0 that climbs it. Each adversarial copy has batch norms of its
    own in the encoder; those of the first are the ones that features are taken with afterwards.
    Every view is a batch of its own. Steps are taken in training mode: images are normalized by
    their batch, and running statistics know what is met on the way.
    """

    card = Card(
        paper="Fan et al. 2021 (AdvCL)",
        code="LijieFan/AdvCL@24cb7a6",
        cost="5 times SimCLR with 5 steps; 8 with pseudo-labels, and a SimCLR training for these",
        notes="what Liu et al. (Transferable Availability Poisoning, table 8) print as AdvCL is "
        "Kim, Tack, Hwang 2020 by their reference 17: see rocl, which has the numbers. The code "
        "weighs pseudo-labels by 0.2; its clusters come from a model of ImageNet and the clean "
        "training set, here from SimCLR on the very set that is defended, and they are off by "
        "default. Benign views are embedded once for all steps, there anew in each, which shows in "
        "running statistics that no feature is taken with. There a batch norm sees each GPU's "
        "share of a batch. Its head has batch norm, one for all views: simclr(batch_norm=true). "
        "1,000 epochs of `tp` are the longest trials there are; `tp_grid` has 200. Version 4 took "
        "its steps in eval mode; version 3 had the three benign views in one batch, a batch norm "
        "of the head for each kind, and starts that were cut off to the pixel range; frequencies "
        "at a distance of just the cutoff stay from there on, as in the code",
    )
    holds: ClassVar[float] = 1.0
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({},)
    version: ClassVar[int] = 5
    learners: ClassVar[Literal["all", "supervised", "views"]] = "views"

    radius: float = 8 / 255  # largest change of a channel value, in [0, 1]
    steps: int = 5  # of the inner maximization
    step: float = 2 / 255  # size of one, in [0, 1]
    cutoff: float = 8.0  # radius of the frequencies that are taken out, in cycles per image
    flip: bool | None = None  # whether images may be mirrored; none: where the dataset's may
    ce_weight: float = 0.0  # of the pseudo-labels
    clusters: str = "2:10:50:100:500"  # how many, for each head
    encoder: str = "resnet18"  # architecture whose features are clustered
    encoder_epochs: int = 200  # of its SimCLR training

    def __post_init__(self) -> None:
        Ball(self.radius, self.steps, self.step)  # refuses its own parameters
        require(self.cutoff >= 0, f"cutoff is {self.cutoff}, allowed are numbers from 0")
        require(self.ce_weight >= 0, f"ce_weight is {self.ce_weight}, allowed are numbers from 0")
        each = self.clusters.split(":")
        require(
            all(k.isdecimal() and int(k) >= 2 for k in each),
            f"clusters is {self.clusters}, allowed are whole numbers from 2 with ':' between them",
        )
        epochs = self.encoder_epochs
        require(epochs >= 1, f"encoder_epochs is {epochs}, allowed are whole numbers from 1")
        ARCHITECTURES.make(self.encoder)

    @property
    def centers(self) -> tuple[int, ...]:
        return tuple(int(k) for k in self.clusters.split(":"))

    @property
    def cost(self) -> float:
        """Views embedded, with one gradient each, over the two of SimCLR."""
        return (self.steps + 5 + (self.steps + 1 if self.ce_weight else 0)) / 2

    @property
    def study_cost(self) -> float:
        return 2 * ARCHITECTURES.make(self.encoder).gflop / 1.11 * self.encoder_epochs

    def study_nbytes(self, images: int) -> int:
        return 8 * images * len(self.centers) if self.acts("study") else 0

    @property
    def ball(self) -> Ball:
        return Ball(self.radius, self.steps, self.step)

    def acts(self, hook: str) -> bool:
        return super().acts(hook) and (hook != "study" or self.ce_weight > 0)

    def study(self, images: Images, fit_context: FitContext) -> Study:
        """`clusters`: int64 (N, heads)."""
        recipe = PROTOCOLS.make("tp").recipe("simclr", "", images.shape[-1])
        recipe = recipe.in_epochs(self.encoder_epochs)
        flip = flips(fit_context.augmentation) if self.flip is None else self.flip
        how = Clustering(self.centers, self.encoder, recipe, flip)
        return {"clusters": how.labels(images, fit_context)}

    def prepare(self, model: nn.Module, study: Study) -> None:
        """Give every batch norm of the encoder its twins, and a framework its heads."""
        from raygrid.architectures.networks.split_norm import split_norms
        from raygrid.nn.contrastive.base import Framework
        from raygrid.nn.contrastive.cluster_heads import ClusterHeads

        encoder = model.branch.network if isinstance(model, Framework) else model
        split_norms(encoder, 3 if self.ce_weight else 2, ADVERSARIAL)
        if isinstance(model, Framework) and "clusters" in study:
            heads = ClusterHeads(study["clusters"], model.branch.network.width)
            model.add_module(CLUSTER_HEADS, heads)

    def contrast(self, framework: Framework, batch: Batch, views: Pair) -> Tensor:
        from raygrid.nn.contrastive.pairs import SimClrLoss

        assert isinstance(framework, SimClrLoss), "`skip` keeps other learners away"
        flip = batch.flips if self.flip is None else self.flip
        x0 = CropFlip(batch.x.shape[-1] // 8, flip)(batch.x, batch.rng)
        benign = torch.cat([*views, high_pass(x0, self.cutoff)])
        moved = self.perturb(framework, x0, benign, batch.rng)
        shown = [(moved, ADVERSARIAL), *((view, BENIGN) for view in benign.split(len(x0)))]
        z = torch.cat([embed(framework, view, norms) for view, norms in shown])
        loss = framework.factor * nt_xent(z, len(x0), framework.temperature)
        if not self.ce_weight:
            return loss
        misled = self.mislead(framework, x0, batch.index, batch.rng)
        return loss + self.ce_weight * predict(framework, misled, batch.index)

    def perturb(
        self, framework: SimClrLoss, x0: Tensor, benign: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Images (n, C, H, W) in [0, 1] within `radius` of x0 that agree least with `benign`.

        benign: (m n, C, H, W), m views of the same images one after the other. Weights and modes
        are left as they were; in training mode every pass moves the running statistics of its set.
        """
        start = x0 + uniform(x0, self.radius, rng)
        if not self.steps:
            return start
        with fixed(framework):
            # These do not move and statistics of a batch are its own, so that once is enough: only
            # running statistics that no feature is taken with would know of the other times.
            with torch.no_grad():
                views = benign.split(len(x0))
                others = torch.cat([embed(framework, view, BENIGN) for view in views])

            def loss(moved: Tensor) -> Tensor:
                z = torch.cat([embed(framework, moved, ADVERSARIAL), others])
                return nt_xent(z, len(x0), framework.temperature)

            return self.ball.climb(loss, x0, start)

    def mislead(
        self, framework: SimClrLoss, x0: Tensor, index: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Images (n, C, H, W) in [0, 1] within `radius` of x0 whose clusters are missed most."""
        start = x0 + uniform(x0, self.radius, rng)
        with fixed(framework):
            return self.ball.climb(lambda moved: predict(framework, moved, index), x0, start)

    def skip(self, combination: Combination) -> str | None:
        if combination.views and combination.learner.id != "simclr":
            return f"{self.id} is made for the learner simclr, not {combination.learner.id}"
        most = max(self.centers)
        if self.ce_weight and most > combination.train_size:
            return f"{self.id} asks for {most} clusters of {combination.train_size} images"
        return super().skip(combination)


def high_pass(x: Tensor, cutoff: float) -> Tensor:
    """Images (n, C, H, W) without the frequencies less than `cutoff` cycles per image from zero."""
    rows, cols = (torch.fft.fftfreq(n, 1 / n, device=x.device) for n in x.shape[-2:])
    keep = rows[:, None].square() + cols.square() >= cutoff**2
    return torch.fft.ifft2(torch.fft.fft2(x) * keep).real


def embed(framework: SimClrLoss, x: Tensor, norms: int) -> Tensor:
    """Unit projections float32 (n, dim) through one of the sets of batch norms."""
    from raygrid.architectures.networks.split_norm import routed

    with routed(framework, norms):
        return framework.embed(x)


def predict(framework: SimClrLoss, x: Tensor, index: Tensor) -> Tensor:
    """Cross-entropy of the clusters of images number `index`, mean over heads, a scalar."""
    from raygrid.architectures.networks.split_norm import routed

    with routed(framework, LABELED):
        features = framework.branch.features(x)
    loss: Tensor = framework.get_submodule(CLUSTER_HEADS)(features, index)
    return loss
