"""What attacks on a target share: bases, target, frozen extractors, the exact budget.

The attacker changes the bases of a set-up and nothing else. Pixels are floats in [0, 1] while a
poison is made; leaving float, the base class rounds and holds the budget in whole levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import Attack, AttackContext
from raygrid.attacks.common.surrogates import no_surrogate
from raygrid.core.budget import Budget
from raygrid.core.enforcement import enforce
from raygrid.core.errors import SpecError
from raygrid.core.images import Images, Poison, Trigger
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Combination
from raygrid.protocols.setups import Scene

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


@dataclass(frozen=True, kw_only=True)
class TargetedAttack(Attack):
    """Base of attacks that change the bases of a set-up so that its target gets their label.

    `propose` returns a perturbation of the bases, float32 (K, C, H, W), or uint8 pixels.
    """

    on_target: ClassVar[bool] = True
    one_surrogate: ClassVar[bool] = True

    def trigger(self, scene: Scene) -> Trigger | None:
        """What is put on the target at test time; None for attacks without a trigger."""
        return scene.triggers[self.pasted] if self.pasted else None

    def pixels(self, images: Images, context: AttackContext) -> Tensor:
        """What stands in place of the bases, uint8 (K, C, H, W)."""
        return self.propose(images, context)

    def poison(self, images: Images, context: AttackContext) -> Poison:
        scene = scene_of(context, self.id)
        return Poison(
            scene.slots,
            self.pixels(images, context),
            torch.full((len(scene.slots),), scene.wanted),
            (scene.setup.target,),
            self.trigger(scene),
        )

    def skip(self, combination: Combination) -> str | None:
        if not combination.targets:
            return f"{self.id} needs set-ups: the protocol just_how_toxic or toxic_quick"
        return None


def scene_of(context: AttackContext, attack: str) -> Scene:
    """The set-up that an attack is made for; raises SpecError without one."""
    if context.scene is None:
        raise SpecError(f"{attack} needs a set-up")
    return context.scene


@dataclass(frozen=True, kw_only=True)
class CleanLabel(TargetedAttack):
    """Base of those that stay within a budget around the bases, whose labels are right."""

    budget: Budget = Budget("linf", 8 / 255)

    def pixels(self, images: Images, context: AttackContext) -> Tensor:
        """Poisoned bases, uint8 (K, C, H, W), within the budget and what rounding adds to l2."""
        bases = images.pixels[scene_of(context, self.id).slots]
        limit = self.limit_at(images.shape[-1])
        if limit.value == 0:
            return bases
        return enforce(bases, self.proposal(self.propose(images, context), images), limit)


@dataclass(frozen=True, kw_only=True)
class ExtractorAttack(CleanLabel):
    """Base of attacks on the features of pre-trained extractors.

    surrogate: architectures of the extractors that are differentiated, joined by colons.
    """

    quick: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "steps": 100}
    effort: ClassVar[frozenset[str]] = frozenset({"steps", "surrogate"})

    surrogate: str = "resnet18"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.extractors:
            ARCHITECTURES.expect(name)

    @property
    def extractors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.surrogate.split(":")))

    def skip(self, combination: Combination) -> str | None:
        return super().skip(combination) or no_surrogate(self.id, self.extractors, combination)

    def state(self, images: Images, context: AttackContext) -> PolytopeState:
        from raygrid.architectures.networks.network import Network

        scene = scene_of(context, self.id)
        networks = [context.surrogates[name] for name in self.extractors]
        return PolytopeState(
            images.floats(scene.slots).to(context.device),
            scene.target.float().div(255).to(context.device),
            [n for n in networks if isinstance(n, Network)],
            self.limit_at(images.shape[-1]).value,
        )


@dataclass
class PolytopeState:
    """The bases, float32 (K, C, H, W), the target (1, C, H, W), the extractors, the radius."""

    bases: Tensor
    target: Tensor
    networks: list[Network]
    radius: float
    low: Tensor = field(init=False)
    high: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.low = (self.bases - self.radius).clamp_(min=0)
        self.high = (self.bases + self.radius).clamp_(max=1)

    def clip(self, x: Tensor) -> Tensor:
        """The nearest images within the radius and the pixel range; the two clamps commute."""
        return torch.clamp(x, self.low, self.high)

    @cached_property
    def targets(self) -> list[Tensor]:
        """Features (1, width) of the target in each extractor."""
        with torch.no_grad():
            return [network.features(self.target) for network in self.networks]

    @cached_property
    def scale(self) -> Tensor:
        """A step of 1 in the first extractor's normalized pixels, in [0, 1]; (1, C, 1, 1)."""
        normalize = self.networks[0].normalize
        if isinstance(normalize, nn.Identity):
            return torch.ones(1, 1, 1, 1, device=self.bases.device)
        std = normalize.std
        assert isinstance(std, torch.Tensor)
        return std.float()


class AdamOnPixels:
    """Adam on pixels in normalized units, projected after every step (Kingma and Ba 2015).

    It does not decay. A step of the rate is `rate * scale` in the pixel range [0, 1].
    """

    def __init__(self, start: Tensor, state: PolytopeState, rate: float) -> None:
        self.scale = state.scale
        self.clip = state.clip
        self.z = (start / self.scale).requires_grad_()
        self.optimizer = torch.optim.Adam([self.z], lr=rate)

    @property
    def pixels(self) -> Tensor:
        """The images as they are now; differentiable."""
        return self.z * self.scale

    def step(self, gradient: Tensor, rate: float | None = None) -> None:
        """Go against the gradient with respect to `z`, then back into the budget."""
        self.z.grad = gradient
        if rate is not None:
            self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        with torch.no_grad():
            self.z.copy_(self.clip(self.z * self.scale) / self.scale)
