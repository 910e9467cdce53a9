"""Growing a small poison to the whole training set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.disentangled import Disentangled
from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.nn.context import FitContext
from raygrid.nn.vae import in_chunks, marked

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("dvae_grow")
@dataclass(frozen=True, kw_only=True)
class DVaeGrow(Disentangled):
    """A D-VAE fitted to a few poisoned images perturbs all others.

    `share` of the training set, drawn at random, is poisoned by the base attack and stays as it
    is. Each clean image becomes Q(x + p(x, label)); Q clips and rounds to uint8.
    """

    card = Card(
        paper="Yu et al. 2024 (D-VAE), table 7",
        code="yuyi-sd/D-VAE@9d62e4c (main_vae_disentangle.py, dataset.py)",
        published={
            "cifar10/dvae_grow(base=em_remrepo)/standard/resnet18/supervised/dvae/0": 0.1009,
            "cifar10/dvae_grow(base=lsp)/standard/resnet18/supervised/dvae/0": 0.1558,
            "cifar10/dvae_grow(base=lsp, share=0.08)/standard/resnet18/supervised/dvae/0": 0.1763,
            "cifar10/dvae_grow(base=ops)/standard/resnet18/supervised/dvae/0": 0.2059,
        },
        needs="the base attack's poison",
        cost="the base attack; 46 epochs of standard training with steps=matched, on a GPU more: "
        "the host draws the latent",
        notes="the paper does not say how long the network is fitted to so few images: `epochs` "
        "takes as many passes over them as over a whole set, `matched` as many updates. The "
        "poisoned images are those of the base attack on the whole set. The code cuts images off "
        "to whole levels, here they are rounded",
    )
    tiny: ClassVar[Mapping[str, Scalar]] = {"base": "lsp", "epochs": 1, "shrink": 8, "share": 0.25}

    grown: ClassVar[bool] = True

    share: float = 0.01  # of the training set that the base attack poisons
    steps: Literal["epochs", "matched"] = "epochs"  # how long the D-VAE is fitted

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.share < 1, f"share is {self.share}, allowed are numbers between 0 and 1")

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        fit_context = self.fit_context(context)
        seed = self._seed(images, fit_context)
        context.facts["seed_images"] = len(seed)
        poisoned = self.original(images, context)
        few = poisoned.rows(seed)
        matched = self._updates(len(images)) // self._updates(len(few))
        repeats = matched if self.steps == "matched" else 1
        network = self.network(few, fit_context.part("fit"), repeats)
        after = fit_context.part("perturbation")
        grown = in_chunks(network, images.pixels, images.labels, after, marked)
        grown[seed] = few.pixels
        return grown

    def skip(self, combination: Combination) -> str | None:
        return self._too_few(combination.train_size) or super().skip(combination)

    def _too_few(self, images: int) -> str | None:
        count = round(self.share * images)
        if count >= 2:
            return None
        return f"share {self.share} of {images} images is {count}, 2 are needed"

    def _seed(self, images: Images, fit_context: FitContext) -> Tensor:
        """The rows that the base attack poisons, int64."""
        count = round(self.share * len(images))
        if fault := self._too_few(len(images)):
            raise DataError(fault)
        order = torch.randperm(len(images), generator=fit_context.stream.generator("seed"))
        return order[:count].sort().values

    def _updates(self, images: int) -> int:
        """Of the network in one epoch over this many images."""
        return max(1, images // self.batch_size)
