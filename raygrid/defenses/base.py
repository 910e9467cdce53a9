"""What a defense is: hooks into the trial, the identity by default.

A defense sees labeled images of unknown origin. No hook is given the attack, clean data or the
test set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Combination, Method, Registry
from raygrid.core.spec import Part
from raygrid.nn.context import FitContext as FitContext
from raygrid.nn.diffusion import BridgePlan, Prior
from raygrid.nn.steps import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.nn.contrastive.base import Framework

Pair: TypeAlias = "tuple[Tensor, Tensor]"
Study: TypeAlias = "Mapping[str, Tensor]"
"""What a defense found out about a training set, as named tensors."""
Selection = Literal["", "test", "clean_val", "poison_val"]
"""Images by whose accuracy a derived defense selects: the test set, clean ones, poisoned ones."""

DEFENSE_HOOKS = (
    *("study", "prepare", "purify", "augment", "loss", "contrast", "view"),
    *("during", "sources", "choose", "select"),
)
"""The methods through which a defense acts; one that overrides none of them changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Defense(Method):
    """Base of all defenses. Override the hooks that the method acts through.

    plain: the learner trains without standard augmentation (`none` alone); not trained but taken
        from `standard` where the dataset has no such augmentation.
    mixes: `augment` mixes labels, so the learner hands it class weights.
    detects: `purify` changes just the images that it takes for poisoned.
    derived: computed from finished trials without this defense (`sources`), never trained.
    informed: starts from more than labeled images of unknown origin, such as poisons beside their
        clean images: another threat model, so that it is never called the best defense.
    learners: `all`, or `supervised` where the hook has no meaning for learners made of views
        (mixed labels, say; a `loss` hook never has), or `views` where it has one only for these.
    idle: settings at which the defense changes nothing, for the tests; for `views` those of a
        learner without views. Empty: what it does has no zero.
    holds: what `purify` or `study` has on the device at once at least, in sizes of the set's
        pixels; 0: it goes by batches.
    effort: parameters that only say how large its own networks are and how long they are fitted or
        asked; with others a defense is the same one, made smaller, faster or better.
    """

    plain: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    detects: ClassVar[bool] = False
    derived: ClassVar[bool] = False
    informed: ClassVar[bool] = False
    learners: ClassVar[Literal["all", "supervised", "views"]] = "all"
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ()
    effort: ClassVar[frozenset[str]] = frozenset()
    holds: ClassVar[float] = 0.0

    @classmethod
    def lacking(cls) -> Iterable[str]:
        acts = any(getattr(cls, hook) is not getattr(Defense, hook) for hook in DEFENSE_HOOKS)
        if not acts and {} not in cls.idle:  # a misspelled hook would be measured as `standard`
            yield f"it overrides none of {', '.join(DEFENSE_HOOKS)}, so that it changes nothing"

    @property
    def cost(self) -> float:
        """Training time in units of training without the defense, for estimates."""
        return 1.0

    @property
    def purify_cost(self) -> float:
        """Time of `purify` in epochs of a ResNet-18 on the same images, for estimates.

        A purifier that costs any is given a GPU.
        """
        return 0.0

    def purify_cost_of(self, images: int, side: int) -> float:
        """The same for so many images of `side` pixels.

        Some defenses see each of a few images more often, and not every network grows with a side
        as a ResNet-18 does.
        """
        return self.purify_cost

    def purify_draws(self, side: int) -> float:
        """Normal numbers that the host draws in `purify` for each image of `side` pixels.

        For estimates: on a GPU drawing many takes longer than computing with them.
        """
        return 0.0

    @property
    def purify_precision(self) -> Literal["bf16", "fp32"]:
        """What the networks of `purify` compute in, for estimates."""
        return "fp32"

    @property
    def study_cost(self) -> float:
        """Time of `study` in epochs of a ResNet-18 on the same images, for estimates."""
        return 0.0

    def study_nbytes(self, images: int) -> int:
        """Bytes of what `study` finds out about so many images; whoever studies says it."""
        assert not self.acts("study"), f"{self.id} does not say how large its study is"
        return 0

    @property
    def prior(self) -> Prior | BridgePlan | None:
        """The network that `purify` finds the weights of in its context, if it needs one.

        The grid fits it, once, to images that it declares and that the defense never sees: a noise
        predictor to clean ones, a bridge to some poisons of the trial's attack and their originals.
        """
        return None

    @property
    def selection(self) -> Selection:
        """The images by which `choose` or `select` decide, of every derived defense; else none.

        Tables never mix numbers that were selected on different ones.
        """
        return ""

    @property
    def crops(self) -> bool:
        """Whether `augment` crops in place of standard augmentation, which then mirrors alone."""
        return False

    def during(self, epoch: int) -> Defense:
        """What stands in for this defense in an epoch (counted from 0)."""
        return self

    def study(self, images: Images, fit_context: FitContext) -> Study:
        """What `prepare` needs to know of the training set, once it is purified.

        Found once, before training, and kept as an artifact.
        """
        return {}

    def prepare(self, model: nn.Module, study: Study) -> None:
        """Change a fresh model in place; what is added to it is trained with it.

        The model is a network, or the framework of a learner made of views. study: see there;
        empty where trained weights are put back in, without what served the training alone.
        Weights are drawn from the global stream.
        """

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        """Change the stored training set once, before training. Made once, kept as an artifact.

        The number of the images, their order and their labels stay; what is to have no say in
        training is blanked, not dropped.
        """
        return images

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change a batch on the device, after standard augmentation.

        x: float32 (n, C, H, W) in [0, 1]; y: int64 (n,), or class weights float32 (n, classes)
        if any defense of the chain mixes labels. For views of contrastive learning y is not used.
        """
        return x, y

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The training loss (scalar) and the logits (n, classes) it was computed from."""
        from raygrid.nn.casts import cast_at_once  # it loads torch, which a plan does without

        with cast_at_once(model, x.device):
            logits = model(x)
        return nn.functional.cross_entropy(logits.float(), y), logits

    def contrast(self, framework: Framework, batch: Batch, views: Pair) -> Tensor:
        """The loss of a learner made of views, a scalar.

        batch: without augmentation; views: two views of its images after `augment`, each
        (n, C, H, W) in [0, 1].
        """
        return framework(*views, batch.y)

    def view(self, x: Tensor) -> Tensor:
        """What happens to images at test time; float32 (n, C, H, W) in [0, 1]."""
        return x

    @property
    def sees_test(self) -> bool:
        """Whether what it starts from knows the test set, as a released model does.

        No default of any defense does: victims are measured on these very images. It marks its
        results, which are never called the best.
        """
        return False

    @property
    def sees_clean(self) -> bool:
        """Whether it starts from a network that saw clean images of the dataset at hand."""
        return False

    def sources(self) -> tuple[tuple[Part, ...], ...]:
        """The links that stand in for a derived defense in the trials it reads."""
        return ((),)

    def choose(self, finals: Sequence[float]) -> int:
        """The source that counts for a derived defense, given the final accuracy of each."""
        return 0

    def select(self, history: Sequence[dict[str, float]]) -> int | None:
        """The epoch (position in `history`) that counts for a derived defense; None is the last."""
        return None

    def acts(self, hook: str) -> bool:
        """Whether this defense overrides a hook."""
        return getattr(type(self), hook) is not getattr(Defense, hook)

    def skip(self, combination: Combination) -> str | None:
        if combination.views and (self.learners == "supervised" or self.acts("loss")):
            return f"{self.id} has no meaning for the learner {combination.learner.id}"
        if not combination.views and self.learners == "views":
            return f"{self.id} has no meaning for the learner {combination.learner.id}"
        return None


DEFENSES: Registry[Defense] = Registry("defense", Defense)
