"""The layers of class-attention transformers."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

_DROP, _LAYER_DROP, _SCALE = 0.1, 0.05, 0.1


class CaitSize(NamedTuple):
    """Patches to a side, width of tokens, heads and their width, width of MLPs, layers."""

    side: int
    dim: int
    heads: int
    head_dim: int
    hidden: int
    patch_layers: int
    class_layers: int


PUBLISHED_CAIT, SMALL_CAIT = CaitSize(8, 512, 6, 64, 256, 6, 2), CaitSize(4, 64, 4, 16, 64, 2, 1)


class Cait(nn.Module):
    """Images (N, 3, H, H) to the class token (N, dim)."""

    def __init__(self, image_size: int, size: CaitSize, drop_at_test: bool = False) -> None:
        super().__init__()
        self.drop_at_test = drop_at_test
        self.patch = image_size // size.side
        self.embed = nn.Linear(3 * self.patch**2, size.dim)
        self.place = nn.Parameter(torch.randn(1, size.side**2, size.dim))
        self.token = nn.Parameter(torch.randn(1, 1, size.dim))
        self.drop = nn.Dropout(_DROP)
        self.patch_layers = nn.ModuleList(_Layer(size) for _ in range(size.patch_layers))
        self.class_layers = nn.ModuleList(_Layer(size) for _ in range(size.class_layers))
        self.norm = nn.LayerNorm(size.dim)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2))
        patches = self.drop(patches + self.place)
        rng = _drawn_from(x) if self.drop_at_test and not self.training else None
        for layer in self._present(self.patch_layers, rng):
            patches = layer(patches)
        token = self.token.expand(len(x), -1, -1)
        for layer in self._present(self.class_layers, rng):
            token = layer(token, patches)
        out: Tensor = self.norm(token[:, 0])
        return out

    def _present(self, layers: nn.ModuleList, rng: torch.Generator | None) -> list[nn.Module]:
        """The layers of this pass: a random, non-empty choice in training, else all by default."""
        if not self.training and not self.drop_at_test:
            return list(layers)
        draws = torch.rand(len(layers), generator=rng)
        draws[draws.argmax()] = 1.0
        return [m for m, draw in zip(layers, draws.tolist(), strict=True) if draw >= _LAYER_DROP]


def _drawn_from(x: Tensor) -> torch.Generator:
    """Draws that are a function of the images, so that a test gives the same whenever it is run."""
    first = x[0].detach().float().cpu().contiguous().numpy()
    return torch.Generator().manual_seed(zlib.crc32(first.tobytes()))


class _Layer(nn.Module):
    """Attention of tokens (N, T, dim) over themselves and others (N, S, dim), then an MLP."""

    def __init__(self, size: CaitSize) -> None:
        super().__init__()
        dim, self.heads, self.scale = size.dim, size.heads, size.head_dim**-0.5
        inner = size.heads * size.head_dim
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, inner, bias=False)
        self.key_value = nn.Linear(dim, 2 * inner, bias=False)
        self.talk_before = nn.Parameter(torch.randn(size.heads, size.heads))
        self.talk_after = nn.Parameter(torch.randn(size.heads, size.heads))
        self.out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(_DROP))
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, size.hidden),
            nn.GELU(),
            nn.Dropout(_DROP),
            nn.Linear(size.hidden, dim),
            nn.Dropout(_DROP),
        )
        self.scales = nn.ParameterList(torch.full((dim,), _SCALE) for _ in range(2))

    def forward(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        tokens = self.norm(x)
        context = tokens if others is None else torch.cat([tokens, others], dim=1)
        x = x + self._attend(tokens, context) * self.scales[0]
        out: Tensor = x + self.mlp(x) * self.scales[1]
        return out

    def _attend(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        keys_values = self.key_value(context).unflatten(2, (2, self.heads, -1))
        k, v = keys_values.permute(2, 0, 3, 1, 4)
        likeness = q @ k.transpose(2, 3) * self.scale
        weights = _talk(likeness, self.talk_before).softmax(-1)
        mixed = _talk(weights, self.talk_after) @ v
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def _talk(x: Tensor, mixing: Tensor) -> Tensor:
    """Mix the heads (axis 1) of (N, heads, T, S)."""
    return torch.einsum("nhts,hg->ngts", x, mixing)
