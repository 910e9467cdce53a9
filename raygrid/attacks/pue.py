"""PUE: provably unlearnable examples, class-wise EM on networks with disturbed weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.em_rounds import USUAL_ROUNDS
from raygrid.attacks.common.noise import SampleNoise
from raygrid.attacks.common.students import Student
from raygrid.attacks.common.weight_noise import DisturbedClassNoise, DisturbedTrainer
from raygrid.attacks.em import Em
from raygrid.core.images import Images
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("pue")
@dataclass(frozen=True, kw_only=True)
class Pue(Em):
    """Class-wise `em` whose loss is to be small on a neighborhood of the network's weights.

    As soon as the network gets more than half of the noisy subset right, every step is taken for
    sd 0, weight_step, 2 weight_step, ... weight_noise of Gaussian noise on the weights in turn: one
    SGD step a level on the mean loss of `weight_draws` draws, one signed step of the noise a level
    on the summed gradients of `noise_draws`.
    """

    card = Card(
        paper="Wang et al. 2025, Provably Unlearnable Data Examples",
        code="NeuralSec/certified-data-learnability@3f34839 (make_pue.py, toolbox.py, trainer.py)",
        needs="labels",
        cost="1,800 forward passes per image of a network batch: a GPU method; there drawing the "
        "weights' noise on the host takes longer than they do",
        notes="the proof is about weights near those of the surrogate, not about all victims; "
        "`raygrid evaluate learnability` gives its certificate. Defaults are those of make_pue.sh "
        "(the parser's noise is 1.0), which is written for CIFAR-100 (`model_steps=10` is the "
        "parser's own), but for batches of 512, as `em` has them: 128 there. It computes in "
        "float32, convolutional networks here in bf16. Weights come back exactly after a draw, "
        "there up to rounding. The paper's tables were not read",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 128,
        "max_rounds": 6,
        "weight_draws": 4,
        "noise_draws": 2,
        "step": 0.5,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 32,
        "max_rounds": 2,
        "model_steps": 2,
        "weight_draws": 2,
        "noise_draws": 1,
        "weight_step": 0.25,
    }
    effort: ClassVar[frozenset[str]] = Em.effort | {"noise_draws", "weight_draws"}

    mode: Literal["sample", "class"] = "class"
    model_steps: int = 20
    weight_noise: float = 0.25  # largest sd of the noise on the weights
    weight_step: float = 0.05  # from one level to the next
    weight_draws: int = 100  # of the weights in an SGD step
    noise_draws: int = 10  # of the weights in a step of the noise

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.mode == "class", f"mode is {self.mode}, allowed is class: pue is class-wise")
        require(self.weight_noise >= 0, f"weight_noise is {self.weight_noise}, allowed from 0")
        require(self.weight_step > 0, f"weight_step is {self.weight_step}, allowed above 0")
        for name in ("weight_draws", "noise_draws"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}, allowed are whole numbers from 1")

    @property
    def levels(self) -> tuple[float, ...]:
        """The sd of each level."""
        count = int(self.weight_noise / self.weight_step + 1e-9) + 1
        return tuple(level * self.weight_step for level in range(count))

    def passes(self, n: int) -> float:
        """The passes, with one round on plain weights."""
        levels, shown = len(self.levels), 3.0 * self.model_steps * min(self.batch_size, n) / n
        draws = 1 + (levels - 1) * self.noise_draws
        steps = self.noise_share * (2.0 * draws * self.plan[0] + 1)
        later = min(USUAL_ROUNDS, self.plan[2]) - 1
        return self.round_passes + shown + later * (steps + shown * levels * self.weight_draws)

    def start(self, images: Images, context: AttackContext) -> DisturbedClassNoise:
        usual = super().start(images, context)
        return DisturbedClassNoise(images, usual.values, usual.rows, self.levels, self.noise_draws)

    def student(self, noise: SampleNoise, context: AttackContext) -> Student:
        student = super().student(noise, context)
        assert isinstance(noise, DisturbedClassNoise)
        assert student.trainer is not None
        noise.network = student.module
        student.trainer = DisturbedTrainer.of(student.trainer, noise, self.weight_draws)
        return student

    def error(
        self, noise: SampleNoise, passed: Callable[[int], Tensor], student: Student, number: int
    ) -> float:
        error = super().error(noise, passed, student, number)
        if error < 0.5:
            assert isinstance(noise, DisturbedClassNoise)
            noise.on.fill_(1)
        return error
