"""Hidden-trigger backdoor: poisons with the features of patched images of the target's class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.targeted import ExtractorAttack, PolytopeState, scene_of
from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.protocols.setups import Scene

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


@ATTACKS.register("htbd")
@dataclass(frozen=True, kw_only=True)
class Htbd(ExtractorAttack):
    """Descends the feature distance of every poison to a patched source; no poison is patched.

    one_to_one: in every step each poison has a source of its own, the nearest in sum.
    released: as both codes run: near pairs are taken one after the other and nothing else is
    ruled out, and the chosen features overwrite the list that they came from, so that sources die
    out.
    """

    card = Card(
        paper="Saha et al. 2019 (Hidden Trigger Backdoor Attacks), algorithm 1",
        code="UMBCvision/Hidden-Trigger-Backdoor-Attacks@91e5ee9; "
        "aks2203/poisoning-benchmark@97a67ae",
        published={
            "cifar10/htbd(pairing=released)/standard/resnet18/linear_probe/just_how_toxic/0": 0.10,
        },
        needs="extractors that the protocol pre-trains",
        cost="1 forward and 1 backward pass a step and base",
        notes="published numbers are those of `released`, a bug of both codes",
    )
    pasted: ClassVar[str] = "htbd"
    quick: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "steps": 150, "step": 0.01}
    tiny: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "steps": 5, "step": 0.01}
    effort: ClassVar[frozenset[str]] = ExtractorAttack.effort | {"step"}

    pairing: Literal["one_to_one", "released"] = "one_to_one"
    steps: int = 5000
    step: float = 0.001  # on squared feature distances
    decay: float = 0.95  # of the step, every `period` steps; Tiny ImageNet: 0.5
    period: int = 2000  # Tiny ImageNet: 1000
    enough: float = 10.0  # sum of squared feature distances that ends it

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, f"steps is {self.steps}, allowed are whole numbers from 1")
        require(self.step > 0, f"step is {self.step}, allowed are positive numbers")
        require(0 < self.decay <= 1, f"decay is {self.decay}, allowed are above 0 to 1")
        require(self.enough >= 0, f"enough is {self.enough}, allowed are numbers from 0")
        require(self.period >= 1, f"period is {self.period}, allowed are whole numbers from 1")

    def passes(self, n: int) -> float:
        return 2.0 * self.steps

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        scene, state = scene_of(context, self.id), self.state(images, context)
        patched = scene.triggers[self.pasted].apply(sources(scene, len(state.bases), context))
        with torch.no_grad():
            seen = patched.to(context.device).float() / 255
            wanted = [network.features(seen) for network in state.networks]
        pair = one_to_one if self.pairing == "one_to_one" else overwritten
        x, first, last, used = self._descend(state, wanted, pair, context)
        context.facts |= {"loss": {"first": first, "last": last}, "sources": used}
        return x - state.bases

    def _descend(
        self,
        state: PolytopeState,
        wanted: list[Tensor],
        pair: Callable[[Tensor, Tensor], Tensor],
        context: AttackContext,
    ) -> tuple[Tensor, float, float, int]:
        """Poisons, first and last loss, and how many different sources the last step had."""
        x, first, last = state.bases, 0.0, 0.0
        for number in range(self.steps):
            rate = self.step * self.decay ** (number // self.period)
            loss, gradient = _step(state.networks, x, wanted, pair)
            first, last = (loss if number == 0 else first), loss
            x = state.clip(x - rate * gradient)
            context.progress.report(number + 1, self.steps, loss=loss)
            if loss < self.enough:
                break
        return x, first, last, len(wanted[0].unique(dim=0))


def _step(
    networks: list[Network],
    x: Tensor,
    wanted: list[Tensor],
    pair: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, Tensor]:
    """Sum of squared distances after pairing, and its slope; `wanted` is put into the new order."""
    x = x.detach().requires_grad_()
    loss = x.new_zeros(())
    for place, network in enumerate(networks):
        own = network.features(x)
        wanted[place] = pair(wanted[place], own.detach())
        loss = loss + (own - wanted[place]).square().sum()
    (gradient,) = torch.autograd.grad(loss, x)
    return float(loss.detach()), gradient


def one_to_one(wanted: Tensor, own: Tensor) -> Tensor:
    """The rows of `wanted` in the order that is nearest to `own` in sum; both (K, width)."""
    from scipy.optimize import linear_sum_assignment

    distances = torch.cdist(own, wanted).square().cpu().numpy()
    _, order = linear_sum_assignment(distances)
    return wanted[torch.from_numpy(order).to(wanted.device)]


def overwritten(wanted: Tensor, own: Tensor) -> Tensor:
    """The released pairing: K times the nearest (source, poison) left, each entry ruled out alone.

    A poison may get several sources, the last counts; a source may serve several poisons; a poison
    that gets none keeps the one at its place.
    """
    distances = torch.cdist(wanted, own)
    out, count = wanted.clone(), len(wanted)
    for entry in distances.flatten().topk(count, largest=False).indices.tolist():
        source, poison = divmod(entry, count)
        out[poison] = wanted[source]
    return out


def sources(scene: Scene, count: int, context: AttackContext) -> Tensor:
    """Random training images of the target's class, uint8 (count, C, H, W), none of them twice."""
    true = scene.setup.target.true_label
    rows = (scene.whole.labels == true).nonzero().squeeze(1)
    if len(rows) < count:
        raise DataError(f"class {true} has {len(rows)} images, the attack takes {count}")
    order = torch.randperm(len(rows), generator=context.stream.generator("sources"))
    return scene.whole.pixels[rows[order[:count]]]
