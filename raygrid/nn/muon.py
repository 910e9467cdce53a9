"""Muon: steps along orthogonalized gradient matrices, with plain SGD beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5; they send every singular value in (0, 1] into about [0.7, 1.2]
within five steps."""


def orthogonalize(matrix: Tensor, steps: int = 3) -> Tensor:
    """The matrix with its singular values moved toward 1, by a Newton-Schulz iteration.

    matrix: float (rows, columns); a zero matrix stays zero. steps: of the quintic iteration; few
    leave small singular values small. Singular vectors stay those of the matrix. Computed in
    float32. Jordan et al. 2024 (Muon).
    """
    a, b, c = QUINTIC
    # The iteration multiplies by a Gram matrix; that of the shorter side is the smaller one.
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).float()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov's or plain momentum; groups with `orthogonal` set take Muon's step.

    Muon's step: the weight is scaled to the norm sqrt(rows), then it moves by `lr` along the
    orthogonalized momentum, as a matrix of one row for each output channel. Weight decay has no
    effect on such a group. The other groups do what `torch.optim.SGD` does.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "orthogonal": False,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step for every parameter that has a gradient; a closure is not taken."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        if group["orthogonal"]:
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm().clamp_min(1e-12))
            matrix = self._momentum(parameter, parameter.grad, group).flatten(1)
            parameter.sub_(orthogonalize(matrix).view(parameter.shape), alpha=group["lr"])
            return
        gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
        parameter.sub_(self._momentum(parameter, gradient, group), alpha=group["lr"])

    def _momentum(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient after momentum."""
        if not group["momentum"]:
            return gradient
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.clone(gradient)
        else:
            state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        buffer: Tensor = state["momentum_buffer"]
        return gradient.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
