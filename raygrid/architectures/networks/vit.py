"""The layers of vision transformers for small data sets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_unshuffle, scaled_dot_product_attention

_DROP = 0.1


class VitSize(NamedTuple):
    """Patches to a side, width of tokens and MLPs, layers, heads."""

    side: int
    dim: int
    depth: int
    heads: int


PUBLISHED_VIT, SMALL_VIT = VitSize(8, 512, 6, 8), VitSize(4, 64, 2, 4)


class Vit(nn.Module):
    """Images (N, 3, H, H) to the class token (N, dim)."""

    def __init__(self, image_size: int, size: VitSize) -> None:
        super().__init__()
        self.patch = image_size // size.side
        pixels = 5 * 3 * self.patch**2
        self.embed = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, size.dim))
        self.token = nn.Parameter(torch.randn(1, 1, size.dim))
        self.place = nn.Parameter(torch.randn(1, size.side**2 + 1, size.dim))
        self.drop = nn.Dropout(_DROP)
        self.layers = nn.Sequential(*(_Layer(size) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.dim)

    def forward(self, x: Tensor) -> Tensor:
        patches = pixel_unshuffle(with_shifts(x), self.patch).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), self.embed(patches)], dim=1)
        out: Tensor = self.norm(self.layers(self.drop(tokens + self.place))[:, 0])
        return out


def with_shifts(x: Tensor) -> Tensor:
    """The image and its copies shifted by one pixel right, left, down, up: (N, 5C, H, W)."""
    shifts = ((1, -1, 0, 0), (-1, 1, 0, 0), (0, 0, 1, -1), (0, 0, -1, 1))
    return torch.cat([x, *(pad(x, shift) for shift in shifts)], dim=1)


class _Layer(nn.Module):
    """Attention and MLP, each on normalized tokens and added to them."""

    def __init__(self, size: VitSize) -> None:
        super().__init__()
        dim, self.heads = size.dim, size.heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(dim / size.heads).log() * -0.5)
        self.out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(_DROP))
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, dim),
            nn.GELU(),
            nn.Dropout(_DROP),
            nn.Linear(dim, dim),
            nn.Dropout(_DROP),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self._attend(self.norm(x)))
        out: Tensor = x + self.mlp(x)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        others = ~torch.eye(tokens, dtype=torch.bool, device=x.device)
        mixed = scaled_dot_product_attention(
            q * self.log_scale.exp(), k, v, attn_mask=others, scale=1.0
        )
        return mixed.transpose(1, 2).reshape(n, tokens, dim)
