"""Disentangled perturbations in place of those that they were found in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.disentangled import Disentangled
from raygrid.core.images import Images
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card
from raygrid.nn.vae import in_chunks, perturbation

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("dvae_recon")
@dataclass(frozen=True, kw_only=True)
class DVaeRecon(Disentangled):
    """Clean images plus what a D-VAE takes for the perturbation of their poisoned versions.

    If a victim of it knows the original poison and no clean images, the D-VAE has found what
    poisons.
    """

    card = Card(
        paper="Yu et al. 2024 (D-VAE), section 4.2 and table 1",
        code="yuyi-sd/D-VAE@9d62e4c (main_vae_disentangle.py, dataset.py)",
        published={
            "cifar10/dvae_recon(base=em_remrepo)/standard/resnet18/supervised/dvae/0": 0.0965,
            "cifar10/dvae_recon(base=lsp)/standard/resnet18/supervised/dvae/0": 0.1534,
            "cifar10/dvae_recon(base=ops)/standard/resnet18/supervised/dvae/0": 0.1873,
        },
        needs="the base attack's poison",
        cost="the base attack and 46 epochs of standard training; on a GPU the host's draws of the "
        "latent take longer than that",
        notes="the accuracy on the original poison (91 to 100 %) is in `raygrid evaluate sets`. "
        "The code cuts images off to whole levels, here they are rounded",
    )
    holds: ClassVar[float] = 1.0
    tiny: ClassVar[Mapping[str, Scalar]] = {"base": "lsp", "epochs": 1, "shrink": 8}

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        poisoned, fit_context = self.original(images, context), self.fit_context(context)
        network = self.network(poisoned, fit_context.part("fit"))
        after = fit_context.part("perturbation")
        return in_chunks(network, poisoned.pixels, poisoned.labels, after, perturbation)
