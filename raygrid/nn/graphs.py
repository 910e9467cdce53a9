"""Whole training steps as one launch: recorded once an epoch on a GPU, replayed for each batch.

A step of a small network is some 250 kernels that the host starts one by one, for longer than they
run. A recording (`torch.cuda.CUDAGraph`) starts the very same kernels together, so results are
equal and the switch is part of no key. Only a step in which the host waits for nothing can be
recorded; the optimizer goes on as it is, a few kernels for all weights.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from raygrid.core.draws import SENDS
from raygrid.core.errors import DeviceError
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.core.draws import Request
    from raygrid.core.lookahead import Ahead
    from raygrid.nn.steps import Batch
    from raygrid.nn.trainer import Trainer

WAIT_WARNING = "called a synchronizing CUDA operation"
"""What torch warns of where the host waits."""
PROTOTYPE_WARNING = "Synchronization debug mode is a prototype"
"""What torch says of the switch that has it warn."""


@dataclass
class Switch:
    """Whether steps are recorded in this process; recorded: how many recordings were made."""

    on: bool = False
    recorded: int = 0


SWITCH = Switch()


class Recorder(Protocol):
    """How a kind of device records work."""

    def waits(self) -> AbstractContextManager[list[str]]:
        """Fills the list with what the host waited for inside, once it is over."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Note what work does on the device without doing it; returns what does it."""


class CudaRecorder:
    """CUDA graphs."""

    @contextlib.contextmanager
    def waits(self) -> Iterator[list[str]]:
        found: list[str] = []
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        for one in seen:
            if WAIT_WARNING in str(one.message):
                found.append(f"{one.filename}:{one.lineno}")
            elif PROTOTYPE_WARNING not in str(one.message):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                work()
        except RuntimeError as error:
            # What ends a broken recording says less than what broke it, a lack of memory say.
            first = error.__context__ or error
            said = f"a step cannot be recorded, leave graphs out: {first}".splitlines()[0]
            raise DeviceError(said) from first
        return graph.replay


RECORDERS: dict[str, Callable[[], Recorder]] = {"cuda": CudaRecorder}
"""By type of device; others train step by step."""


class EpochSteps:
    """The steps of one epoch: the first as it is, then a recording for every full batch.

    The first tells what a batch draws and whether the host waits in it. Where it waits, sends
    anything but draws, or where draws stay on the host and decide what is computed (a network's
    own from torch's generator among them), all steps are taken as they are.
    """

    def __init__(self, trainer: Trainer, recorder: Recorder) -> None:
        self.trainer = trainer
        self.recorder = recorder
        self.recorded: Recording | None = None
        self.watched = self.waits = False

    def __call__(self, batch: Batch) -> Tensor:
        """Does what `Trainer.update` does."""
        if self.waits or len(batch.x) != self.trainer.batch_size:
            return self.trainer.update(batch)
        if not self.watched:
            self.watched = True
            before, host = SENDS.count, torch.get_rng_state()
            with self.recorder.waits() as found:
                sums = self.trainer.update(batch)
            # A replay would read what was sent in the recorded step where it no longer lies.
            drew = not torch.equal(host, torch.get_rng_state())
            self.waits = bool(found) or drew or SENDS.count > before
            return sums
        if self.recorded is not None:
            self.recorded.load(batch)
            return self.recorded.run()
        program = drawn_by(batch)
        if program is None or any(request.here for request in program):
            self.waits = True
            return self.trainer.update(batch)
        self.recorded = Recording(self.trainer, self.recorder, batch, program)
        return self.recorded.run()


def drawn_by(batch: Batch) -> tuple[Request, ...] | None:
    """What batches of this size draw, in order; None where that is not known."""
    program: tuple[Request, ...] | None = getattr(batch.rng, "program", None)
    return program


class Recording:
    """A step up to its gradients, in fixed memory: a batch, its draws, gradients, sums."""

    def __init__(
        self, trainer: Trainer, recorder: Recorder, batch: Batch, program: tuple[Request, ...]
    ) -> None:
        from raygrid.core.lookahead import Prepared  # a generator of torch's kind loads torch

        SWITCH.recorded += 1
        self.trainer = trainer
        self.program = program
        self.held = [value.clone() for value in self._values(batch)]
        x, y, index, *rest = self.held
        mirrored = None if batch.mirrored is None else rest.pop(0)
        shown = replace(batch, x=x, y=y, index=index, mirrored=mirrored, rng=Prepared(rest))
        sums: list[Tensor] = []
        self.replay = recorder.record(lambda: sums.append(trainer.descend(shown)))
        self.sums = sums[0]
        groups = trainer.optimizer.param_groups
        self.gradients = [(p, p.grad) for group in groups for p in group["params"]]

    def _values(self, batch: Batch) -> list[Tensor]:
        """All that differs from batch to batch."""
        rng: Ahead = batch.rng  # type: ignore[assignment]  # the only kind with a program
        mirrored = [] if batch.mirrored is None else [batch.mirrored]
        drawn = [rng.take(request) for request in self.program]
        return [batch.x, batch.y, batch.index, *mirrored, *drawn]

    def load(self, batch: Batch) -> None:
        """Put a batch where the recording reads it."""
        for held, value in zip(self.held, self._values(batch), strict=True):
            held.copy_(value)

    def run(self) -> Tensor:
        """The step of the batch that is there; returns what `Trainer.update` does."""
        self.replay()
        for parameter, gradient in self.gradients:  # a step that was not replayed has others
            parameter.grad = gradient
        self.trainer.optimizer.step()
        return self.sums.clone()


def steps_of(trainer: Trainer) -> Callable[[Batch], Tensor]:
    """How a trainer takes the steps of an epoch."""
    kind = RECORDERS.get(trainer.device.type) if SWITCH.on and trainer.pure else None
    return trainer.update if kind is None else EpochSteps(trainer, kind())
