"""A small class-attention transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.registry import Card

_DIM, _HEADS, _HEAD_DIM, _HIDDEN = 512, 6, 64, 256
_PATCH_LAYERS, _CLASS_LAYERS = 6, 2
_DROP, _LAYER_DROP, _SCALE = 0.1, 0.05, 0.1


@ARCHITECTURES.register("cait_small")
@dataclass(frozen=True, kw_only=True)
class CaitSmall(Architecture):
    """64 patches, 6 layers among patches, then 2 in which a class token reads them.

    Width 512, 6 talking heads of 64, MLPs of width 256, branches scaled by 0.1 at the start, each
    layer left out with probability 0.05 in training. 8,488,522 parameters for 10 classes.
    """

    card = Card(
        paper="Touvron et al. 2021; Qin et al. 2024, table 7: 71.96 % on clean CIFAR-10",
        code="lafeat/apbench@9a6fb91; lucidrains/vit-pytorch",
        notes="timm's Cait asks for heads that divide the width; its cait_s24 has 46 million "
        "parameters. The rate that APBench trained it with is not published",
    )
    sizes: ClassVar[tuple[int, int]] = (16, 64)
    multiple: ClassVar[int] = 8
    convolutional: ClassVar[bool] = False
    gflop: ClassVar[float] = 0.955

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        return _Cait(patch=image_size // 8), _DIM


class _Cait(nn.Module):
    """Images (N, 3, 8p, 8p) to the class token (N, 512)."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(3 * patch**2, _DIM)
        self.place = nn.Parameter(torch.randn(1, 64, _DIM))
        self.token = nn.Parameter(torch.randn(1, 1, _DIM))
        self.drop = nn.Dropout(_DROP)
        self.patch_layers = nn.ModuleList(_Layer() for _ in range(_PATCH_LAYERS))
        self.class_layers = nn.ModuleList(_Layer() for _ in range(_CLASS_LAYERS))
        self.norm = nn.LayerNorm(_DIM)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2))
        patches = self.drop(patches + self.place)
        for layer in self._present(self.patch_layers):
            patches = layer(patches)
        token = self.token.expand(len(x), -1, -1)
        for layer in self._present(self.class_layers):
            token = layer(token, patches)
        out: Tensor = self.norm(token[:, 0])
        return out

    def _present(self, layers: nn.ModuleList) -> list[nn.Module]:
        """The layers of this pass: all in eval mode, a random, non-empty choice in training."""
        if not self.training:
            return list(layers)
        draws = torch.rand(len(layers))
        draws[draws.argmax()] = 1.0
        return [m for m, draw in zip(layers, draws.tolist(), strict=True) if draw >= _LAYER_DROP]


class _Layer(nn.Module):
    """Attention of tokens (N, T, 512) over themselves and others (N, S, 512), then an MLP."""

    def __init__(self) -> None:
        super().__init__()
        inner = _HEADS * _HEAD_DIM
        self.norm = nn.LayerNorm(_DIM)
        self.query = nn.Linear(_DIM, inner, bias=False)
        self.key_value = nn.Linear(_DIM, 2 * inner, bias=False)
        self.talk_before = nn.Parameter(torch.randn(_HEADS, _HEADS))
        self.talk_after = nn.Parameter(torch.randn(_HEADS, _HEADS))
        self.drop = nn.Dropout(_DROP)
        self.out = nn.Sequential(nn.Linear(inner, _DIM), nn.Dropout(_DROP))
        self.mlp = nn.Sequential(
            nn.LayerNorm(_DIM),
            nn.Linear(_DIM, _HIDDEN),
            nn.GELU(),
            nn.Dropout(_DROP),
            nn.Linear(_HIDDEN, _DIM),
            nn.Dropout(_DROP),
        )
        self.scales = nn.ParameterList(torch.full((_DIM,), _SCALE) for _ in range(2))

    def forward(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        tokens = self.norm(x)
        context = tokens if others is None else torch.cat([tokens, others], dim=1)
        x = x + self._attend(tokens, context) * self.scales[0]
        out: Tensor = x + self.mlp(x) * self.scales[1]
        return out

    def _attend(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.query(x).unflatten(2, (_HEADS, -1)).transpose(1, 2)
        keys_values = self.key_value(context).unflatten(2, (2, _HEADS, -1))
        k, v = keys_values.permute(2, 0, 3, 1, 4)
        likeness = q @ k.transpose(2, 3) * _HEAD_DIM**-0.5
        weights = self.drop(_talk(likeness, self.talk_before).softmax(-1))
        mixed = _talk(weights, self.talk_after) @ v
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def _talk(x: Tensor, mixing: Tensor) -> Tensor:
    """Mix the heads (axis 1) of (N, heads, T, S)."""
    return torch.einsum("nhts,hg->ngts", x, mixing)
