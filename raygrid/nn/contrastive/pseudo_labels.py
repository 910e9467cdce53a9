"""Pseudo-labels: clusters of features that SimCLR learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.architectures import ARCHITECTURES
from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import functional, np, torch
from raygrid.core.seeds import forked
from raygrid.nn.augment import Views
from raygrid.nn.context import FitContext
from raygrid.nn.networks import untrained
from raygrid.nn.recipes import Recipe, precision_of
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.nn.contrastive.pairs import SimClrLoss


@dataclass(frozen=True)
class Clustering:
    """How images are clustered. architecture, recipe: of the encoder, trained on them by SimCLR.

    centers: how many clusters, for each labeling. flip: whether its views may be mirrored.
    """

    centers: tuple[int, ...]
    architecture: str
    recipe: Recipe
    flip: bool = True

    def labels(self, images: Images, fit_context: FitContext) -> Tensor:
        """The cluster of each image in each labeling, int64 (N, labelings) on the CPU.

        Raises DataError if there are more clusters than images.
        """
        most = max(self.centers)
        if most > len(images):
            raise DataError(f"{most} clusters of {len(images)} images: ask for fewer clusters")
        features = self.features(images, fit_context.part("encoder")).cpu().numpy()
        seed = fit_context.stream.seed("clusters") % 2**32
        return torch.stack([k_means(features, k, seed) for k in self.centers], 1)

    def features(self, images: Images, fit_context: FitContext) -> Tensor:
        """What an encoder makes of the images that it was trained on, unit rows (N, D)."""
        images = images.to(fit_context.device)
        framework = self._framework(images, fit_context)
        views = Views(flip=self.flip)

        def step(batch: Batch) -> Step:
            loss = framework(*(views(batch.x, batch.rng) for _ in range(2)), batch.y)
            return Step(loss, torch.zeros((), device=loss.device), len(batch.y))

        trainer = Trainer(framework, step, images, self.recipe, fit_context.stream)
        for epoch in range(self.recipe.epochs):
            trainer.epoch(epoch)
        framework.eval()
        with torch.no_grad():
            rows = torch.arange(len(images), device=fit_context.device).split(1000)
            found = torch.cat([framework.branch.features(images.floats(r)) for r in rows])
        return functional.normalize(found, dim=1)

    def _framework(self, images: Images, fit_context: FitContext) -> SimClrLoss:
        """Fresh, with the head and the loss of the contrastive protocols."""
        from raygrid.nn.contrastive.base import with_mlp
        from raygrid.nn.contrastive.pairs import SimClrLoss

        kind = ARCHITECTURES.make(self.architecture)
        network = untrained(kind, images, fit_context.stream.seed("init"), fit_context.device)
        with forked(fit_context.stream.seed("heads")):
            branch = with_mlp(network, precision_of(self.recipe, kind.convolutional))
        return SimClrLoss(branch, 0.5, "base007").to(fit_context.device)


def k_means(features: np.ndarray, centers: int, seed: int) -> Tensor:
    """The nearest of `centers` centers for each row (N, D), int64 (N,)."""
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(centers, random_state=seed, n_init=3).fit_predict(features)
    return torch.from_numpy(found).long()
