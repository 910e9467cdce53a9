"""The one training loop. Victims, surrogates, purifiers and probes bring a step function to it.

The data stay on the device as uint8, or in the host's memory where they do not fit; there are no
loader workers. All draws of an epoch come from generators derived from the epoch's number, so a
restored run needs no generator state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from raygrid.core import draws
from raygrid.core.errors import DivergedError
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.seeds import Stream, forked
from raygrid.nn.counters import drop_counters
from raygrid.nn.graphs import steps_of
from raygrid.nn.optimizers import grouped, make_optimizer, restore_layout
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step, StepFunction

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.core.lookahead import Ahead

Metrics = dict[str, float]


def _ahead_of(device: torch.device) -> Ahead:
    """What draws for a device ahead of the batches. It loads torch, which a plan does without."""
    from raygrid.core.lookahead import Ahead

    return Ahead(device)


class Trainer:
    """Runs a step function over a training set, epoch by epoch.

    module holds every trained parameter and buffer. `epoch` may be called in any order of numbers
    as long as the state is that of the epoch before. pure: the step does the same to every batch of
    an epoch and keeps nothing but module's buffers, so that a recording may take its place.
    """

    def __init__(
        self,
        module: nn.Module,
        step: StepFunction,
        train: Images,
        recipe: Recipe,
        stream: Stream,
        pure: bool = False,
    ) -> None:
        drop_counters(module)
        self.device = train.device
        self.pure = pure
        self.module = module
        self.step = step
        self.train = train
        self.recipe = recipe
        self.stream = stream
        self.batch_size = recipe.batch_for(len(train))
        groups = grouped(module, recipe)
        self.groups = [group for group, _ in groups]
        self.optimizer = make_optimizer(groups, recipe)
        self._ahead = None if self.device.type == "cpu" else _ahead_of(self.device)
        self.mirrored = self._mirrored() if recipe.flips == "alternating" else None

    def _mirrored(self) -> Tensor:
        """Which images are mirrored in the epochs of even numbers, bool (N,) on the device."""
        rng = self.stream.generator("mirrored")
        return draws.rand((len(self.train),), rng, self.device) < 0.5

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch (counted from 0)."""
        rng = self.stream.generator("augment", epoch)
        indices = self._split(epoch)
        if self._ahead is None:
            yield from (self._batch(index, rng, epoch) for index in indices)
            return
        self._ahead.start(rng.initial_seed())
        sizes = [len(index) for index in indices]
        for number, index in enumerate(indices):
            self._ahead.next_batch(sizes[number], sizes[number + 1 :].count(sizes[number]))
            yield self._batch(index, self._ahead, epoch)

    def _paced(self, epoch: int) -> Iterator[tuple[float, Batch]]:
        """The batches of an epoch, each with the share of the epoch that is over before it."""
        steps = len(self._split(epoch)) if self.recipe.each_step(epoch) else 1
        for number, batch in enumerate(self.batches(epoch)):
            yield number / steps, batch

    def endless(self, first: int) -> Iterator[Batch]:
        """Batches from number `first` of the whole training on, epoch after epoch, without end.

        Each has a generator of its own, so that it is the same wherever one begins.
        """
        size = len(self._split(0))
        number = first
        while True:
            epoch = number // size
            for index in self._split(epoch)[number % size :]:
                rng = self.stream.generator("update", number)
                yield self._batch(index, rng, epoch)
                number += 1

    def _batch(self, index: Tensor, rng: torch.Generator, epoch: int) -> Batch:
        train = self.train
        rows = index if train.resident else draws.uploaded(index, self.device)
        batch = Batch(train.floats(index), train.labels[rows], rows, rng, epoch)
        batch.smoothing = self.recipe.smoothing
        if self.mirrored is not None:
            batch.mirrored = self.mirrored[rows] ^ bool(epoch % 2)
        return batch

    def _split(self, epoch: int) -> list[Tensor]:
        """Rows of each batch of an epoch; the number of batches is that of every epoch.

        The order goes to where the pixels are as a whole: a copy in every step would wait.
        """
        n, size = len(self.train), self.batch_size
        # One order for all epochs is drawn too: images of class folders come class by class, and
        # batches of a single class teach nothing.
        drawn = ("order", epoch) if self.recipe.shuffle else ("order",)
        order = torch.randperm(n, generator=self.stream.generator(*drawn))
        order = order.to(self.train.pixels.device)
        end = n - n % size if self.recipe.drop_last else n
        rows = [order[start : min(start + size, end)] for start in range(0, end, size)]
        # Batch norm has no variance over a single image.
        return [r for r in rows if len(r) > 1 or n == 1]

    def epoch(self, epoch: int) -> Metrics:
        """Train one epoch (counted from 0); raises DivergedError if it left the finite numbers.

        Returns train_loss and train_acc (running means over the epoch's batches) and lr.
        """
        rate = self.set_rate(epoch)
        self.module.train()
        totals = torch.zeros(3, dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        totals = totals.to(self.device)  # read once an epoch: reading a number waits for the GPU
        take = steps_of(self)
        # Dropout draws from torch's global generator, which has no argument for another one: it is
        # seeded for the epoch and put back, so that a restored run draws the same.
        with forked(self.stream.seed("dropout", epoch), self.device):
            for share, batch in self._paced(epoch):
                if self.recipe.each_step(epoch):
                    self.set_rate(epoch + share)
                totals += take(batch)
        loss, hits, count = self.checked(totals, epoch)
        return {"train_loss": loss / count, "train_acc": hits / count, "lr": rate}

    def checked(self, totals: Tensor, epoch: int) -> list[float]:
        """The sums of what `update` returned in an epoch (counted from 0), as numbers.

        Raises DivergedError if loss or weights are not finite; the last step shows in these alone.
        """
        # The last step's loss was computed before the step; only the weights show what it did.
        norm = nn.utils.get_total_norm([p.detach() for p in self.module.parameters()])
        *sums, norm = torch.cat([totals, norm.to(totals).view(1)]).tolist()
        for measure, value in (("loss", sums[0]), ("norm of the weights", norm)):
            if not math.isfinite(value):
                raise DivergedError(epoch + 1, value, measure=measure)
        return sums

    def set_rate(self, epoch: float) -> float:
        """Give the optimizer the learning rates of an epoch or a part of it; returns the recipe's.

        Parameters whose rate has fallen to 0 before the end need no gradients any more.
        """
        for kind, group in zip(self.groups, self.optimizer.param_groups, strict=True):
            group["lr"] = self.recipe.rate_of(kind, epoch, self.batch_size)
            if kind is not None and kind.until < 1:
                for parameter in group["params"]:
                    parameter.requires_grad_(group["lr"] > 0)
        return self.recipe.rate(epoch)

    def update(self, batch: Batch) -> Tensor:
        """One step of the optimizer; returns loss * count, hits, count. Modes are the caller's."""
        sums = self.descend(batch)
        self.optimizer.step()
        return sums

    def descend(self, batch: Batch) -> Tensor:
        """The gradients of a batch, ready for the optimizer; returns what `update` does."""
        out = self.step(batch)
        self.optimizer.zero_grad(set_to_none=True)
        out.loss.backward()
        self.clip()
        return self.sums(out)

    def clip(self) -> None:
        """Hold the gradients to the recipe's largest norm, if it has one."""
        if self.recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.grad_clip)

    def sums(self, out: Step) -> Tensor:
        """Loss * count, hits and count of a step, float32 (3,) on the device."""
        count = torch.full((), float(out.count), device=self.device)
        return torch.stack([out.loss.detach().float() * out.count, out.hits.detach(), count])

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer state, to be saved after any epoch."""
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore_layout(self.optimizer)
