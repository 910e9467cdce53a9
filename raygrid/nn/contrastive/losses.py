"""Losses that lightly does not have, or not in the form of the papers. All in float32."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from raygrid.core.lazy import functional, nn, torch

if TYPE_CHECKING:
    from torch import Tensor

LossScale = Literal["base007", "none"]


def loss_factor(temperature: float, scale: LossScale) -> float:
    """What a loss is multiplied by: T / 0.07 in the code that follows SupContrast, else 1.

    SGD with rate r and decay w on the scaled loss is SGD with rate k r and decay w / k on the
    plain one, so a published rate means nothing without this.
    """
    return temperature / 0.07 if scale == "base007" else 1.0


def nt_xent_of_pairs(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """NT-Xent of Chen et al. 2020, equation 1, over both directions; a, b: (n, dim), any length.

    The sums are lightly's in their order. That one takes the diagonals away by a mask, for whose
    size a GPU is waited for.
    """
    a, b = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
    pairs = ((a, a), (a, b), (b, a), (b, b))
    aa, ab, ba, bb = (torch.einsum("nc,mc->nm", one, two) / temperature for one, two in pairs)
    forth = torch.cat([ab, off_diagonal(aa)], 1)
    back = torch.cat([ba, off_diagonal(bb)], 1)
    labels = torch.arange(len(a), device=a.device).repeat(2)
    return functional.cross_entropy(torch.cat([forth, back]), labels)


def off_diagonal(x: Tensor) -> Tensor:
    """A square matrix (n, n) without its diagonal: (n, n - 1)."""
    n = len(x)
    return x.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


def sup_con(z: Tensor, labels: Tensor, temperature: float, one_sided: bool = False) -> Tensor:
    """Supervised contrastive loss of Khosla et al. 2020 (L_out), a scalar.

    z: float (M, D), rows of unit length, all views of the batch; labels: int64 (M,). one_sided:
    gradients reach a row as an anchor alone, not as one that others are compared with.
    Mean over anchors i of -1/|P(i)| sum over j in P(i) of log softmax_{k != i} (z_i z_k / T) at j,
    P(i) = {j != i, same label}; an anchor without a positive counts as 0.
    """
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    others = z.detach() if one_sided else z
    logits = (z @ others.T / temperature).masked_fill(itself, float("-inf"))
    log_share = functional.log_softmax(logits, 1).masked_fill(itself, 0.0)
    positive = ((labels[:, None] == labels) & ~itself).to(z.dtype)
    return -((positive * log_share).sum(1) / positive.sum(1).clamp_min(1)).mean()


def nt_xent(z: Tensor, images: int, temperature: float, one_sided: bool = False) -> Tensor:
    """NT-Xent over any number of views, a scalar: the other views of an image are its positives.

    z: float (views * images, D), rows of unit length, view by view. Mean over anchors and their
    positives; two views: that of Chen et al. 2020. one_sided: as in `sup_con`.
    """
    ids = torch.arange(images, device=z.device).repeat(len(z) // images)
    return sup_con(z, ids, temperature, one_sided)


def align_uniform(
    a: Tensor, b: Tensor, align: float = 1.0, uniform: float = 1.0, t: float = 2.0
) -> Tensor:
    """Alignment and uniformity of Wang and Isola 2020, a scalar.

    a, b: float (N, D), rows of unit length, two views. align * mean |a_i - b_i|^2
    + uniform * (U(a) + U(b)) / 2, U(z) = log mean over pairs i < j of exp(-t |z_i - z_j|^2).
    """
    spread = (uniformity(a, t) + uniformity(b, t)) / 2
    return align * (a - b).square().sum(1).mean() + uniform * spread


def uniformity(z: Tensor, t: float = 2.0) -> Tensor:
    """U(z): 0 if all rows are equal, lower the wider they spread."""
    rows, cols = torch.triu_indices(len(z), len(z), 1, device=z.device)
    squared = 2 - 2 * (z @ z.T)[rows, cols]
    return torch.logsumexp(-t * squared, 0) - math.log(len(rows))


def cosine_loss(criterion: nn.Module, p: tuple[Tensor, Tensor], z: tuple[Tensor, Tensor]) -> Tensor:
    """Half the sum of `criterion` over predictions of one view and targets of the other."""
    loss: Tensor = (criterion(p[0], z[1]) + criterion(p[1], z[0])) / 2
    return loss
