"""What an attack is: it proposes, the base class holds it to its budget."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from raygrid.attacks.common.surrogates import SurrogateRecipe
from raygrid.core.budget import Budget
from raygrid.core.enforcement import enforce
from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, Poison
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Method, Registry, require
from raygrid.core.seeds import Stream
from raygrid.protocols.setups import Scene
from raygrid.storage.checkpoints import NoProgress, Progress

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class AttackContext:
    """What an attack works with besides the images.

    stream: all randomness. surrogates: networks in eval mode without gradients, by recipe name.
    owned: int64 rows that the attacker may change, ascending; None: every row.
    units: which of the attack's units to make (see `Attack.units`); None: all.
    facts: what the attack writes down about its work, as JSON values; kept beside the poison.
    marks: what a reader of the results has to know about the poison, in plain words.
    scene: the set-up of the trial, for attacks on a target.
    base: the whole training set under the attack's `base_attack`; None: nobody has made it yet.
    test: the clean test set, for an attack that `sees_test`; None for all others.
    """

    stream: Stream
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    surrogates: Mapping[str, nn.Module] = field(default_factory=dict)
    progress: Progress = field(default_factory=NoProgress)
    owned: Tensor | None = None
    units: range | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)
    scene: Scene | None = None
    base: Images | None = None
    test: Images | None = None

    def rows(self, images: Images) -> Tensor:
        """int64 rows that the attacker may change, on the CPU."""
        return torch.arange(len(images)) if self.owned is None else self.owned

    def index(self, images: Images) -> Tensor:
        """int64 rows to perturb now, on the CPU, where a unit is a row."""
        rows = self.rows(images)
        return rows if self.units is None else rows[self.units.start : self.units.stop]


_BUDGET = 'budget: Budget = Budget("linf", 8 / 255)'


@runtime_checkable
class _HasBudget(Protocol):
    """An attack that perturbs: its own field `budget`, so that the default may differ."""

    @property
    def budget(self) -> Budget | None: ...


@runtime_checkable
class _HasSurrogate(Protocol):
    """An attack that asks a network, or several with a colon between them."""

    @property
    def surrogate(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Attack(Method):
    """Perturbs training images, labels untouched.

    A subclass that perturbs has a field `budget` whose default is the method's own.
    norms: budgets it can hold. sharded: rows are independent given images and surrogates, so any
    range of rows can be made alone. grain: units that are best made together. seeded: whether the
    seed changes the result.
    grows: the default budget is meant for 32 pixels and is scaled by side / 32, and so is a
    multiple of it (`2x`); another budget that the user sets is taken as it is. instant: takes no
    time, so that whoever needs it makes it, with no job of its own. on_target: perturbs the bases
    of a set-up alone, for its target; pasted: the trigger of the set-up that is put on it at test
    time, empty for none. withholds: takes its rows away. one_surrogate: the surrogates of `needs`
    are the same for every seed. effort: parameters that only say which network it asks
    and how long or how finely it is made; with others an attack is the same one, made faster or
    better. holds: what `propose` has on the device at once, at least, in sizes of the images'
    pixels: 1 for these, 4 for float32 noise of each; 0: batches.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    sharded: ClassVar[bool] = False
    grain: ClassVar[int] = 256
    seeded: ClassVar[bool] = True
    grows: ClassVar[bool] = False
    on_target: ClassVar[bool] = False
    instant: ClassVar[bool] = False
    withholds: ClassVar[bool] = False
    one_surrogate: ClassVar[bool] = False
    effort: ClassVar[frozenset[str]] = frozenset()
    pasted: ClassVar[str] = ""
    holds: ClassVar[float] = 0.0

    @classmethod
    def lacking(cls) -> Iterable[str]:
        fields = cls.__dataclass_fields__
        default = fields["budget"].default if "budget" in fields else None
        needed = default is None and not cls._makes_pixels()
        if "budget" not in fields and needed:
            yield f"it has no field budget, without which it perturbs nothing: {_BUDGET}"
        elif needed or (isinstance(default, Budget) and default.value == 0):
            yield f"field budget is {default}, with which it perturbs nothing: {_BUDGET}"
        if not isinstance(default, Budget | None):
            yield f"field budget is {default!r}, allowed is a Budget: {_BUDGET}"

    @classmethod
    def _makes_pixels(cls) -> bool:
        """Whether it makes its pixels or its poison by itself, so that it needs no budget."""
        return cls.poison is not Attack.poison or cls.pixels is not Attack.pixels

    @property
    def limit(self) -> Budget | None:
        """The budget of this instance; None if it does not perturb."""
        return self.budget if isinstance(self, _HasBudget) else None

    def limit_at(self, side: int) -> Budget:
        """The budget for images of `side` pixels; SpecError of an attack that has none."""
        limit = self.limit
        if limit is None:
            raise SpecError(f"{self.id} has no budget, without which nothing changes: {_BUDGET}")
        if self.grows and self.is_default(limit):
            return Budget(limit.norm, limit.value * side / 32)
        return limit

    def is_default(self, budget: Budget) -> bool:
        """Whether it is the budget that the method has by itself, for 32 pixels."""
        return bool(budget == type(self).__dataclass_fields__["budget"].default)

    def __post_init__(self) -> None:
        limit = self.limit
        clean = "and the attack 'clean' for no perturbation"
        if limit is None:
            idle = isinstance(self, _HasBudget) and not self._makes_pixels()
            allowed = f"allowed are budgets of {' and '.join(self.norms)}, {clean}"
            require(not idle, f"budget is none: nothing would change; {allowed}")
            return
        if limit.norm not in self.norms:
            allowed = ", ".join(self.norms)
            raise SpecError(f"budget {limit} is {limit.norm}; {self.id} takes {allowed}")
        if limit.changes_nothing:
            least = "1/255" if limit.norm == "linf" else f"{limit.norm}:1/255"
            raise SpecError(
                f"budget {limit} is less than one step of a pixel: nothing would change within it; "
                f"allowed from {least}, {clean}"
            )

    @property
    def scoped(self) -> bool:
        """Whether the perturbation depends on which rows are poisoned: `scope=subset`."""
        return False

    @property
    def sees_test(self) -> bool:
        """Whether it is given the clean test set, as some released codes are; it marks its poison.

        No default of any attack does: victims are measured on these very images.
        """
        return False

    def units(self, rows: int) -> int:
        """Into how many units that can be made alone `rows` rows fall; 0: they go together."""
        return rows if self.sharded else 0

    def index(self, images: Images, context: AttackContext) -> Tensor:
        """int64 rows that the units of `context` consist of, ascending, on the CPU."""
        return context.index(images)

    def passes(self, n: int) -> float:
        """Forward passes for each of `n` training images through `surrogate`, for estimates.

        A backward pass to the pixels counts as one, a full one as two. Without a field
        `surrogate` they are those of a ResNet-18. Those of a `base_attack` are not among them.
        """
        return 0.0

    def work(self, n: int) -> tuple[tuple[str, float], ...]:
        """The same by network: its name, and the passes through it."""
        networks = self.surrogate if isinstance(self, _HasSurrogate) else "resnet18"
        return tuple((name, self.passes(n)) for name in networks.split(":"))

    def draws(self, side: int) -> float:
        """Normal numbers that each image of this side takes of the host, which a GPU waits for."""
        return 0.0

    def poison_nbytes(self, rows: int, side: int) -> int:
        """Bytes of a poison of so many images: pixels uint8, rows and labels int64."""
        return rows * (3 * side**2 + 16)

    def needs(self) -> tuple[SurrogateRecipe, ...]:
        """The surrogates to be trained before this attack can start."""
        return ()

    @property
    def base_attack(self) -> Attack | None:
        """The attack that this one starts from, whose poison a grid makes first and once."""
        return None

    @property
    def extractors(self) -> tuple[str, ...]:
        """Names of the pre-trained extractors that `AttackContext.surrogates` must hold."""
        return ()

    @abstractmethod
    def propose(self, images: Images, context: AttackContext) -> Tensor:
        """Make the perturbation for the units of `context`.

        images: the whole clean training set. Returns for each row either a float32 perturbation
        (n, C, H, W) in [-1, 1], or final uint8 pixels (n, C, H, W). What goes beyond the budget is
        held to it, whole images as floats as well, which are no perturbation.
        """

    def pieces(self, images: Images, context: AttackContext) -> Iterator[Tensor]:
        """What `propose` makes, in order and a few rows at a time where a method can: `Piecewise`.

        The floats of a whole training set are four times as large as the set.
        """
        yield self.propose(images, context)

    def pixels(self, images: Images, context: AttackContext) -> Tensor:
        """Final uint8 pixels (n, C, H, W) for the units of `context`, within the budget.

        Under l2 rounding to whole levels may exceed it, by at most `rounding`.
        """
        index = self.index(images, context)
        limit = self.limit_at(images.shape[-1])
        if limit.value == 0 or len(index) == 0:
            return images.pixels[index]
        out = torch.empty((len(index), *images.shape), dtype=torch.uint8)
        done = 0
        for piece in map(self.proposal, self.pieces(images, context), repeat(images)):
            rows = slice(done, done := done + len(piece))
            if done <= len(index):
                enforce(images.pixels[index[rows]], piece, limit, out[rows])
        if done != len(index):
            raise DataError(f"{self.id} proposes {done} images, wanted are {len(index)}")
        return out

    def proposal(self, given: Any, images: Images) -> Tensor:
        """What `propose` made, on the CPU; DataError for what no pixels can be made of."""
        if isinstance(given, torch.Tensor):
            kind = str(given.dtype).removeprefix("torch.")
            said = f"{kind} {tuple(given.shape)}"
            known = given.dtype == torch.uint8 or given.is_floating_point()
            if known and given.dim() == 4 and given.shape[1:] == images.shape:
                return given.cpu()
        else:
            said = f"a {type(given).__name__}"
        shape = ", ".join(map(str, images.shape))
        raise DataError(
            f"{self.id} proposes {said}; allowed are tensors (n, {shape}): a float32 perturbation "
            "in [-1, 1], or uint8 pixels"
        )

    def poison(self, images: Images, context: AttackContext) -> Poison:
        """The poison for the units of `context`. Targeted attacks override this."""
        index = self.index(images, context)
        return Poison(index, self.pixels(images, context), images.labels[index])

    def intended(self, labels: Tensor, classes: int) -> Tensor | None:
        """The class that each image is pushed toward, int64 (n,); None if there is none.

        labels: int64 (n,), those of the images.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class ScopedAttack(Attack):
    """Base of attacks whose rows depend on each other, so that it matters which are poisoned.

    scope: `full` perturbs the whole training set, and a poison ratio takes some of it; `subset`
    knows the poisoned rows, learns with the others clean, and makes a poison for each ratio.
    Attacks with independent rows have none: their noise for a subset is that of the whole.
    """

    scope: Literal["full", "subset"] = "full"

    @property
    def scoped(self) -> bool:
        return self.scope == "subset"


ATTACKS: Registry[Attack] = Registry("attack", Attack)  # type: ignore[type-abstract]
