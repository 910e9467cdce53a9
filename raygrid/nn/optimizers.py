"""From a recipe to an optimizer, its parameters in the recipe's groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raygrid.core.lazy import torch
from raygrid.nn.recipes import Group, Recipe

if TYPE_CHECKING:
    from torch import nn


def grouped(module: nn.Module, recipe: Recipe) -> list[tuple[Group | None, list[nn.Parameter]]]:
    """The trainable parameters by the first group that takes them; None: the recipe's own rates.

    Groups without parameters are left out. A group of Muon's takes no vectors.
    """
    found: dict[Group | None, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            taking = (g for g in recipe.groups if g.takes(name))
            fit = (g for g in taking if parameter.dim() > 1 or not g.orthogonal)
            found.setdefault(next(fit, None), []).append(parameter)
    return list(found.items())


def make_optimizer(
    groups: list[tuple[Group | None, list[nn.Parameter]]], recipe: Recipe
) -> torch.optim.Optimizer:
    """The recipe's optimizer over these groups of parameters, in their order; fused if it can."""
    params = [_options(group, params) for group, params in groups]
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    sgd = {**common, "momentum": recipe.momentum, "nesterov": recipe.nesterov}
    if recipe.optimizer == "muon":
        from raygrid.nn.muon import Muon  # an optimizer of torch's kind loads torch

        return Muon(params, **sgd)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(params, **sgd, fused=True)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[recipe.optimizer](params, **common, fused=True)


def _options(group: Group | None, params: list[nn.Parameter]) -> dict[str, Any]:
    if group is None:
        return {"params": params}
    own = {"params": params, "momentum": group.momentum, "weight_decay": group.weight_decay}
    return {**own, "orthogonal": True} if group.orthogonal else own


def restore_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay optimizer state out as its parameters are.

    Stored tensors come back contiguous; the fused optimizers walk parameter and state in memory
    order and would pair the wrong entries of a channels_last parameter.
    """
    for param, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == param.shape:
                state[name] = torch.empty_like(param).copy_(value)
