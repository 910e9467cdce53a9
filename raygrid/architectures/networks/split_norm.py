"""Several sets of batch norms in one network, for images of different distributions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class Route:
    """Which set of batch norms is in use, for all of a network; `usual`: outside of `routed`."""

    def __init__(self, usual: int) -> None:
        self.usual = self.which = usual


class SplitNorm(nn.Module):
    """Copies of a batch norm, of which images go through one."""

    def __init__(self, norm: nn.Module, count: int, route: Route) -> None:
        super().__init__()
        self.norms = nn.ModuleList([norm, *(copy.deepcopy(norm) for _ in range(count - 1))])
        self.route = route

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norms[self.route.which](x)
        return out


def split_norms(model: nn.Module, count: int, usual: int) -> None:
    """Put `count` copies in the place of every batch norm; set `usual` is in use from here on."""
    route = Route(usual)
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    for name in [name for name, module in model.named_modules() if isinstance(module, kinds)]:
        parent, _, leaf = name.rpartition(".")
        norm = SplitNorm(model.get_submodule(name), count, route)
        setattr(model.get_submodule(parent), leaf, norm)


@contextmanager
def routed(model: nn.Module, which: int) -> Iterator[None]:
    """Send images through one set of batch norms; afterwards through the usual one."""
    routes = [m.route for m in model.modules() if isinstance(m, SplitNorm)]
    for route in routes:
        route.which = which
    try:
        yield
    finally:
        for route in routes:
            route.which = route.usual
