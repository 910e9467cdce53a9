"""EM: error-minimizing noise, sample-wise and class-wise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from raygrid.attacks.base import ATTACKS, Craft
from raygrid.attacks.descent import Descent, GradientAttack, cross_entropy, frozen
from raygrid.attacks.joint import Joint
from raygrid.data import Images
from raygrid.registry import Card, require
from raygrid.training import Batch, Recipe

_PUBLISHED = "cifar10/{}/{}/resnet18/supervised/{}/0"


@ATTACKS.register("em")
@dataclass(frozen=True, kw_only=True)
class Em(GradientAttack):
    """Noise that makes a network's loss small, so that there is nothing left to learn.

    Until the network's error on the noisy images is at most `stop_error`: `model_steps` SGD steps
    on images + noise, then signed descent of the loss in the noise with the network frozen, from
    the noise so far. `mode=sample`: float32 noise (n, C, H, W), all images, a fixed order.
    `mode=class`: noise (classes, C, H, W); one step for each image of a stratified subset, and
    each class takes the mean over its images of a batch, batch after batch.
    """

    card = Card(
        paper="Huang et al. 2021, Unlearnable Examples",
        code="HanxunH/Unlearnable-Examples (perturbation.py, toolbox.py)",
        published={
            _PUBLISHED.format("em", "standard", "learned_faster"): 0.3283,
            _PUBLISHED.format("em(mode=class)", "standard", "learned_faster"): 0.1919,
            _PUBLISHED.format("em", "standard", "tp"): 0.1847,
        },
        needs="labels",
        cost="41 forward passes per image and round, about 10 rounds; class-wise 1 per round",
        notes="the official loader drops all negative noise and truncates (`rectify`); which of "
        "both the published figures used differs by author. Recipes of APBench and D-VAE: em_apb, "
        "em_remrepo",
    )

    mode: Literal["sample", "class"] = "sample"
    steps: int | None = None  # descent steps of a round; 20, class-wise 1
    step: float = 0.1  # of the budget
    model_steps: int = 10  # SGD steps of a round
    stop_error: float | None = None  # error rate that ends the rounds; 0.01, class-wise 0.1
    max_rounds: int | None = None  # 100, class-wise 300
    noise_share: float = 0.2  # of each class that makes class-wise noise
    random_start: bool = False  # uniform noise before the first round instead of none
    rectify: bool = False  # drop negative noise and truncate, as the official loader does

    def __post_init__(self) -> None:
        super().__post_init__()
        steps, error, rounds = self.plan
        require(steps >= 1, f"steps is {steps}, allowed are whole numbers from 1")
        require(self.step > 0, f"step is {self.step}, allowed are positive shares of the budget")
        require(self.model_steps >= 1, f"model_steps is {self.model_steps}, allowed from 1")
        require(0 <= error <= 1, f"stop_error is {error}, allowed are 0 to 1")
        require(rounds >= 1, f"max_rounds is {rounds}, allowed are whole numbers from 1")
        share = self.noise_share
        require(0 < share <= 1, f"noise_share is {share}, allowed are numbers above 0 up to 1")

    @property
    def plan(self) -> tuple[int, float, int]:
        """Descent steps, stop error, most rounds: as set, or the defaults of the mode."""
        steps, error, rounds = (20, 0.01, 100) if self.mode == "sample" else (1, 0.1, 300)
        return (
            steps if self.steps is None else self.steps,
            error if self.stop_error is None else self.stop_error,
            rounds if self.max_rounds is None else self.max_rounds,
        )

    def propose(self, images: Images, craft: Craft) -> Tensor:
        maker = (SampleNoise if self.mode == "sample" else ClassNoise)(self, images, craft)
        _, stop_error, max_rounds = self.plan
        done, error = maker.restore(craft.progress.load())
        while done < max_rounds and error > stop_error:
            maker.joint.learn(done * self.model_steps, self.model_steps)
            with frozen(maker.joint.network):
                error = maker.round(done)
            done += 1
            craft.progress.save(maker.tensors(), {"rounds": done, "error": error})
            craft.progress.report(done, max_rounds, error=error)
        craft.facts.update(rounds=done, error=error, converged=error <= stop_error)
        craft.facts["rectified"] = self.rectify
        return rectified(maker.delta()) if self.rectify else maker.delta()


class _Noise:
    """What both modes share: the network, the noise and how it is added."""

    def __init__(self, attack: Em, images: Images, craft: Craft, count: int) -> None:
        self.attack = attack
        self.stream = craft.stream
        self.recipe = Recipe(
            epochs=1,
            batch_size=attack.batch_size,
            schedule="constant",
            grad_clip=5.0,
            shuffle=attack.mode == "class",
            drop_last=attack.mode == "class",
            precision="fp32",
        )
        self.joint = Joint(attack.surrogate, images, self.recipe, craft, self.noisy)
        self.images = self.joint.images
        shape = (count, *images.shape)
        self.noise = torch.zeros(shape, device=craft.device)
        if attack.random_start:
            draws = craft.stream.rows("start", torch.arange(count), shape[1:], "uniform")
            self.noise += ((draws * 2 - 1) * attack.radius).to(craft.device)
        self.descent = Descent(attack.radius, attack.step * attack.radius, attack.plan[0])

    def of(self, index: Tensor) -> Tensor:
        """The noise of these rows."""
        raise NotImplementedError

    def noisy(self, batch: Batch) -> Tensor:
        return batch.x + self.of(batch.index)  # not clipped, as the official code trains

    def descend(self, index: Tensor) -> Tensor:
        """New noise of these rows, from what they have; the network is frozen."""
        x, labels = self.images.floats(index), self.images.labels[index]
        start = (x + self.of(index)).clamp_(0, 1)
        return self.descent(x, start, cross_entropy(self.joint.network, labels))[0]

    @torch.no_grad()
    def error(self, rows: Tensor) -> float:
        """Share of these rows that the frozen network gets wrong with their noise."""
        wrong = torch.zeros((), dtype=torch.int64, device=rows.device)
        for index in rows.split(self.attack.batch_size):
            logits = self.joint.network(self.images.floats(index) + self.of(index))
            wrong += (logits.argmax(1) != self.images.labels[index]).sum()
        return int(wrong) / len(rows)

    def tensors(self) -> dict[str, Tensor]:
        return {**self.joint.tensors(), "noise": self.noise}

    def restore(
        self, saved: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None
    ) -> tuple[int, float]:
        """Go on from a checkpoint; returns the finished rounds and the error after them."""
        if saved is None:
            return 0, 1.0
        tensors, facts = saved
        self.joint.restore(tensors)
        self.noise.copy_(tensors["noise"])
        return int(facts["rounds"]), float(facts["error"])


class SampleNoise(_Noise):
    """Noise of its own for every image."""

    def __init__(self, attack: Em, images: Images, craft: Craft) -> None:
        super().__init__(attack, images, craft, len(images))

    def of(self, index: Tensor) -> Tensor:
        return self.noise[index]

    def round(self, number: int) -> float:
        rows = torch.arange(len(self.images), device=self.noise.device)
        for index in rows.split(self.attack.batch_size):
            self.noise[index] = self.descend(index)
        return self.error(rows)

    def delta(self) -> Tensor:
        return self.noise


class ClassNoise(_Noise):
    """One noise for every class."""

    def __init__(self, attack: Em, images: Images, craft: Craft) -> None:
        super().__init__(attack, images, craft, images.classes)
        self.subset = stratified(images.labels.cpu(), attack.noise_share, craft.stream)

    def of(self, index: Tensor) -> Tensor:
        return self.noise[self.images.labels[index]]

    def round(self, number: int) -> float:
        order = torch.randperm(len(self.subset), generator=self.stream.generator("subset", number))
        size = min(self.attack.batch_size, len(order))
        rows = self.subset[order].to(self.noise.device)
        for start in range(0, len(order) - size + 1, size):
            index = rows[start : start + size]
            means, present = class_means(
                self.descend(index), self.images.labels[index], len(self.noise)
            )
            self.noise[present] = means[present].clamp_(-self.attack.radius, self.attack.radius)
        return self.error(rows)

    def delta(self) -> Tensor:
        return self.noise[self.images.labels]


def class_means(values: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean of (n, ...) values by label, (classes, ...), and which classes occur, bool (classes,).

    A product with the one-hot matrix: unlike scattered sums it has one order on every device.
    """
    members = nn.functional.one_hot(labels, classes).T.to(values.dtype)
    counts = members.sum(1)
    sums = members @ values.flatten(1)
    means = sums / counts.clamp_min(1)[:, None]
    return means.view(classes, *values.shape[1:]), counts > 0


def stratified(labels: Tensor, share: float, stream: Any) -> Tensor:
    """Random rows, the same share of every class but at least one; int64, ascending."""
    order = torch.randperm(len(labels), generator=stream.generator("stratified"))
    chosen = []
    for label in labels.unique():
        rows = order[labels[order] == label]
        chosen.append(rows[: max(1, round(share * len(rows)))])
    return torch.cat(chosen).sort().values


def rectified(delta: Tensor) -> Tensor:
    """What the official loader leaves of noise: whole levels upwards, nothing downwards."""
    # Half of 1e-3 levels: 8/255 * 255 may come out just below 8 in float32.
    return delta.clamp(min=0).mul_(255).add_(5e-4).floor_().div_(255)


@ATTACKS.register("em_apb")
@dataclass(frozen=True, kw_only=True)
class EmApb(Em):
    """EM as APBench makes it: batches of 128, 5 steps of a fifth of the budget a round."""

    card = Card(
        paper="Huang et al. 2021, as remade by Qin et al. 2024 (APBench)",
        code="lafeat/apbench@9a6fb91",
        published={
            _PUBLISHED.format("em_apb", "none", "apbench"): 0.1968,
            _PUBLISHED.format("em_apb", "standard", "apbench"): 0.2078,
            _PUBLISHED.format("em_apb(budget=16/255)", "standard", "apbench"): 0.1874,
            _PUBLISHED.format("em_apb", "grayscale", "apbench"): 0.9203,
        },
        needs="labels",
        cost="11 forward passes per image and round, about 10 rounds",
    )

    steps: int | None = 5
    step: float = 0.2
    batch_size: int = 128
