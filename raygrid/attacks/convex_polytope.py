"""Convex polytope: the target lies in the convex hull of the poisons' features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS
from raygrid.attacks.common.polytope import Polytope, PolytopeLoss
from raygrid.attacks.common.targeted import PolytopeState
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("convex_polytope")
@dataclass(frozen=True, kw_only=True)
class ConvexPolytope(Polytope):
    """Descends the squared distance of the target to the hull, relative to the target's length.

    Before every step the best weights of the hull are found for each extractor, from those of the
    step before; the step then takes them as given.
    """

    card = Card(
        paper="Zhu et al. 2019 (Transferable Clean-Label Poisoning), section 3",
        code="zhuchen03/ConvexPolytopePosioning@bb3959d; aks2203/poisoning-benchmark@97a67ae",
        published={
            "cifar10/convex_polytope/standard/resnet18/linear_probe/just_how_toxic/0": 0.33,
        },
        needs="extractors that the protocol pre-trains",
        cost="1 forward and 1 backward pass a step and base, and small quadratic programs",
        notes="the weights' step is 1 / largest eigenvalue; the code estimates and halves it. The "
        "original runs 4,000 steps at 25.5/255 with dropout left on",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "steps": 100, "inner": 200}
    tiny: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "steps": 4, "inner": 50}
    effort: ClassVar[frozenset[str]] = Polytope.effort | {"inner"}

    inner: int = 10_000  # most steps on the weights before each step on the images
    tolerance: float = 1e-6  # relative change of the weights that ends them

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tolerance >= 0, f"tolerance is {self.tolerance}, allowed are numbers from 0")
        require(self.inner >= 1, f"inner is {self.inner}, allowed are whole numbers from 1")

    def loss(self, state: PolytopeState) -> PolytopeLoss:
        count = len(state.bases)
        weights = [torch.full((count,), 1 / count, dtype=torch.float64) for _ in state.networks]

        def total(features: list[Tensor]) -> Tensor:
            loss = features[0].new_zeros(())
            for place, (own, wanted) in enumerate(zip(features, state.targets, strict=True)):
                start = weights[place]
                weights[place] = hull_weights(
                    own.detach(), wanted[0], start, self.inner, self.tolerance
                )
                mixed = weights[place].to(own) @ own
                loss = loss + 0.5 * (wanted[0] - mixed).square().sum() / wanted.square().sum()
            return loss

        return total


def hull_weights(
    features: Tensor, wanted: Tensor, start: Tensor, most: int, tolerance: float
) -> Tensor:
    """Weights float64 (K,) on the simplex that bring `weights @ features` near `wanted`.

    Projected gradient from `start`; features (K, width), wanted (width,). In float64 on the CPU.
    """
    a, f = features.double().cpu(), wanted.double().cpu()
    gram, mixed = a @ a.T, a @ f
    step = 1 / torch.linalg.eigvalsh(gram)[-1].clamp_min(1e-12)
    weights = start
    for _ in range(most):
        moved = onto_simplex(weights - step * (gram @ weights - mixed))
        change = (moved - weights).norm() / weights.norm()
        weights = moved
        if float(change) < tolerance:
            break
    return weights


def onto_simplex(values: Tensor) -> Tensor:
    """The nearest point with entries from 0 that sum to 1 (Duchi et al. 2008); float (K,)."""
    ordered = values.sort(descending=True).values
    surplus = ordered.cumsum(0) - 1
    ranks = torch.arange(1, len(values) + 1, dtype=values.dtype)
    last = int((ordered * ranks > surplus).sum()) - 1
    return (values - surplus[last] / (last + 1)).clamp_min(0)
