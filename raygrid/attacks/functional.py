"""FC, FCS, FCSD: adversarial recoloring, shifting and noise as a poison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.gradient import GradientAttack, in_batches, next_class
from raygrid.attacks.common.luv import into_gamut, to_luv, to_rgb
from raygrid.attacks.common.surrogates import SurrogateRecipe, tap40
from raygrid.core.budget import Budget
from raygrid.core.images import Images
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.nn.pgd import check_finite

if TYPE_CHECKING:
    from torch import Tensor

COLOR_TABLE_NODES = (16, 32, 32)  # nodes of the color table along L, u and v


@ATTACKS.register("functional")
@dataclass(frozen=True, kw_only=True)
class Functional(GradientAttack):
    """Images that a clean-trained network gets wrong after a smooth change of colors and places.

    For each image a table of colors in scaled L*u*v*, looked up trilinearly (`c`), a flow that
    moves pixels (`s`) and added noise (`d`), in this order. Adam lowers
    logit_y - max of the others + smoothness * (roughness of table and flow); before every step
    the table is pulled into the gamut and into its bound, the flow and the noise into theirs, three
    times over as in the code.
    The last iterate is the poison.
    """

    card = Card(
        paper="Laidlaw and Feizi 2019 (ReColorAdv); Sandoval-Segura et al. 2022 as a poison",
        code="cassidylaidlaw/ReColorAdv@c030c00 (with its mister_ed)",
        published={
            "cifar10/functional/standard/resnet18/supervised/learned_faster/0": 0.8693,
            "cifar10/functional(parts=cs)/standard/resnet18/supervised/learned_faster/0": 0.8337,
            "cifar10/functional(parts=csd)/standard/resnet18/supervised/learned_faster/0": 0.8000,
        },
        needs="labels; a surrogate trained on the clean set",
        cost="200 forward passes per image and as many color tables, and the surrogate",
        notes="strong attacks, nearly useless poisons: a negative control. No ball in pixels: "
        "`budget` is a ceiling on top of the bounds, `strength` scales the bounds. "
        "Version 1 projected once a step and its surrogate saw black borders; the printed numbers "
        "are those of the code, as here from version 2 on",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "surrogate_epochs": 6,
        "steps": 15,
        "lr": 0.004,
        "strength": 2.0,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "surrogate_epochs": 2,
        "batch_size": 32,
        "steps": 1,
        "parts": "csd",
        "lr": 0.01,
    }
    sharded: ClassVar[bool] = True
    version: ClassVar[int] = 3
    seeded: ClassVar[bool] = False
    effort: ClassVar[frozenset[str]] = GradientAttack.effort | {"lr", "steps", "surrogate_epochs"}

    budget: Budget = Budget("linf", 1.0)
    batch_size: int = 128
    parts: Literal["c", "cs", "csd"] = "c"
    color_bound: float = 0.06  # of the scaled L*u*v* cube
    flow_bound: float = 0.05  # of half the side: 0.8 pixels of 32
    noise_bound: float = 8 / 255
    strength: float = 1.0  # factor of all three bounds
    steps: int = 100
    lr: float = 0.001
    smoothness: float = 0.05  # weight of the roughness
    targeted: bool = False  # toward the next class instead of away from the label
    surrogate_epochs: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("color_bound", "flow_bound", "noise_bound", "strength", "smoothness"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}, allowed are numbers from 0")
        require(self.steps >= 1, f"steps is {self.steps}, allowed are whole numbers from 1")
        require(self.lr > 0, f"lr is {self.lr}, allowed are positive numbers")
        epochs = self.surrogate_epochs
        require(epochs >= 1, f"surrogate_epochs is {epochs}, allowed are whole numbers from 1")

    def passes(self, n: int) -> float:
        """The passes by measured time: a color table takes as long as 1.8 GFLOP on any network."""
        return self.steps * (2 + 1.8 / ARCHITECTURES.make(self.surrogate).gflop)

    def needs(self) -> tuple[SurrogateRecipe, ...]:
        return (tap40(self.surrogate, self.surrogate_epochs),)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        network = context.surrogates["tap40"]

        def make(x: Tensor, rows: Tensor) -> Tensor:
            labels = images.labels[rows].to(x.device)
            change = Change(self, x)
            optimizer = torch.optim.Adam(change.parameters, lr=self.lr, fused=True)
            total = x.new_zeros(())
            for _ in range(self.steps):
                logits = network(change.apply())
                loss = self.margin(logits, labels).sum() + self.smoothness * change.roughness()
                gradients = torch.autograd.grad(loss, change.parameters)
                for parameter, gradient in zip(change.parameters, gradients, strict=True):
                    # In the parameter's own layout, by which the fused step goes: gradients come
                    # in that of the network's images.
                    parameter.grad = torch.empty_like(parameter).copy_(gradient)
                    total += gradient.sum()
                optimizer.step()
            check_finite(total)
            with torch.no_grad():
                return change.apply() - x

        return in_batches(images, context, self.batch_size, make)

    def margin(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How far the label is ahead, or the next class behind; (n,), unbounded."""
        wanted = self.intended(labels, logits.shape[1])
        marked = labels if wanted is None else wanted
        one_hot = nn.functional.one_hot(marked, logits.shape[1]).bool()
        others = logits.masked_fill(one_hot, -torch.inf).amax(1)
        ahead = logits.gather(1, marked[:, None]).squeeze(1) - others
        return ahead if wanted is None else -ahead

    def intended(self, labels: Tensor, classes: int) -> Tensor | None:
        return next_class(labels, classes) if self.targeted else None


class Change:
    """A batch's parameters: table (n, 3, 16, 32, 32), flow (n, H, W, 2), noise (n, C, H, W)."""

    def __init__(self, attack: Functional, x: Tensor) -> None:
        self.attack = attack
        self.x = x
        n = len(x)
        self.luv = to_luv(x)
        self.table0 = identity_table(x.device).expand(n, -1, -1, -1, -1)
        eye = torch.eye(2, 3, device=x.device).expand(n, -1, -1)
        self.flow0 = nn.functional.affine_grid(eye, list(x.shape), align_corners=True)
        self.table, self.flow = self.table0.clone(), self.flow0.clone()
        self.noise = torch.zeros_like(x)
        chosen = {"c": self.table, "s": self.flow, "d": self.noise}
        self.parameters = [chosen[part].requires_grad_() for part in attack.parts]

    def apply(self) -> Tensor:
        """The changed images in [0, 1], from parameters pulled into their bounds.

        The code projects three times: all parameters, then each layer where it makes the image
        valid, then each layer once more where it is applied. Gamut and bound of the table do not
        commute, so that once is something else.
        """
        noisy = "d" in self.attack.parts
        self._project()
        self._project()
        if noisy:
            with torch.no_grad():
                self._fit_noise(self._moved())
        self._project()
        out = self._moved()
        if noisy:
            self._fit_noise(out)
            out = out + self.noise
        return out

    def _moved(self) -> Tensor:
        """The recolored and shifted images."""
        out = to_rgb(look_up(self.table, self.luv))
        if "s" not in self.attack.parts:
            return out
        return nn.functional.grid_sample(out, self.flow, padding_mode="zeros", align_corners=True)

    @no_grad
    def _fit_noise(self, out: Tensor) -> None:
        """Pull the noise to where these images stay in [0, 1], then into its bound."""
        bound = self.attack.noise_bound * self.attack.strength
        inside = (out + self.noise).clamp(0, 1) - out
        self.noise.copy_(inside.clamp_(-bound, bound))

    @no_grad
    def _project(self) -> None:
        attack = self.attack
        bound = attack.noise_bound * attack.strength
        self.noise.clamp_(-bound, bound)
        table = into_gamut(self.table.clamp(0, 1))
        self.table.copy_(near(table, self.table0[:1], attack.color_bound * attack.strength))
        if "s" in attack.parts:
            flow = self.flow.clamp(-1, 1)
            self.flow.copy_(near(flow, self.flow0[:1], attack.flow_bound * attack.strength))

    def roughness(self) -> Tensor:
        """Roughness of table and flow, summed over images."""
        from raygrid.attacks.common.roughness import rough

        total = rough(self.table - self.table0)
        if "s" in self.attack.parts:
            total = total + rough((self.flow - self.flow0).permute(0, 3, 1, 2))
        return total


def near(values: Tensor, center: Tensor, bound: float) -> Tensor:
    return torch.clamp(values, center - bound, center + bound)


def identity_table(device: torch.device) -> Tensor:
    """The color table that changes nothing, (3, 16, 32, 32): node (i, j, k) holds its place."""
    axes = [torch.linspace(0, 1, nodes, device=device) for nodes in COLOR_TABLE_NODES]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def look_up(table: Tensor, colors: Tensor) -> Tensor:
    """Trilinear values of tables (n, 3, i, j, k) at colors (n, 3, H, W); beyond the ends, the end.

    grid_sample wants the coordinates last and in reverse order.
    """
    places = colors.flip(1).permute(0, 2, 3, 1)[:, None] * 2 - 1
    found = nn.functional.grid_sample(table, places, padding_mode="border", align_corners=True)
    return found[:, :, 0]
