"""A training loop's draws for a device, made ahead of their use and sent many batches at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from raygrid.core.draws import Request, uploaded

LOOKAHEAD_BYTES = 2**26
"""Bytes of numbers that are drawn ahead at most."""
MOST_MISSES = 3
"""After so many batches that asked for something else nothing more is made ahead."""


class Ahead(torch.Generator):
    """The generator of a training epoch on a device, whose draws are sent many batches at a time.

    Batches of one size ask for the same draws one after the other. The first one's are noted; then
    those of the next batches are made in advance, in the same order, and go over together. A batch
    that asks for something else gets what it would have got without: the generator goes back to
    the state that it had before it. Where somebody draws past this module nothing is made ahead.
    """

    def __new__(cls, device: torch.device) -> Ahead:
        return super().__new__(cls)

    def __init__(self, device: torch.device) -> None:
        self.target = device
        self._programs: dict[int, tuple[Request, ...] | None] = {}  # by batch size; None: never
        self._made: list[tuple[list[Tensor], Tensor]] = []  # draws of a batch, state after them
        self._pending: Iterator[Tensor] | None = None
        self._requested: list[Request] = []
        self._size = self._missed = 0
        self._before = self.get_state()

    def start(self, seed: int) -> None:
        """A new epoch."""
        self.manual_seed(seed)
        self._made, self._size, self._pending = [], 0, None

    def next_batch(self, size: int, left: int) -> None:
        """The next batch begins: of so many images, as the `left` ones after it are."""
        self._close()
        self._size, self._requested, self._before = size, [], self.get_state()
        program = self._programs.get(size)
        if program and not self._made:
            self._make(program, left + 1)
        if program and self._made:
            values, after = self._made.pop(0)
            self._pending = iter(values)
            self.set_state(after)

    @property
    def program(self) -> tuple[Request, ...] | None:
        """What batches of the size at hand draw, in order; None where nothing is made ahead."""
        return self._programs.get(self._size)

    def take(self, request: Request) -> Tensor:
        """The numbers that are asked for, on the device."""
        self._requested.append(request)
        if self._pending is None:
            return self._live(request)
        program = self._programs[self._size] or ()
        if program[len(self._requested) - 1 : len(self._requested)] == (request,):
            return next(self._pending)
        self._go_back(self._requested[:-1])
        return self._live(request)

    def _live(self, request: Request) -> Tensor:
        values = request.draw(self)
        return values if request.here else uploaded(values, self.target)

    def _go_back(self, had: list[Request]) -> None:
        """Nothing was made ahead: draw again what this batch has had, and go on from there."""
        self._made, self._pending = [], None
        self._missed += 1
        if self._missed < MOST_MISSES:
            del self._programs[self._size]
        else:  # draws whose number is drawn too: what is made ahead is made for nothing
            self._programs[self._size] = None
        self.set_state(self._before)
        for request in had:
            request.draw(self)

    def _close(self) -> None:
        """Note what the batch that is over has asked for, if that was all that was drawn."""
        if self._pending is not None and next(self._pending, None) is not None:  # it asked for less
            self._go_back(self._requested)
        if self._size and self._size not in self._programs:
            probe = torch.Generator()
            probe.set_state(self._before)
            for request in self._requested:
                request.draw(probe)
            alone = torch.equal(probe.get_state(), self.get_state())
            self._programs[self._size] = tuple(self._requested) if alone else None
        self._pending = None

    def _make(self, program: tuple[Request, ...], batches: int) -> None:
        """Draw for as many batches as memory is set apart for, and send it all."""
        most = max(1, LOOKAHEAD_BYTES // max(1, sum(request.nbytes for request in program)))
        drawn: list[list[Tensor]] = []
        states: list[Tensor] = []
        for _ in range(min(batches, most)):
            drawn.append([request.draw(self) for request in program])
            states.append(self.get_state())
        count = len(program)
        flat = [value for values in drawn for value in values]
        there = _packed(flat, [request.here for request in program] * len(drawn), self.target)
        groups = [there[i * count : (i + 1) * count] for i in range(len(drawn))]
        self._made = list(zip(groups, states, strict=True))


class Prepared(torch.Generator):
    """A batch's generator whose draws have a fixed place in memory."""

    def __new__(cls, values: list[Tensor]) -> Prepared:
        return super().__new__(cls)

    def __init__(self, values: list[Tensor]) -> None:
        self._values = iter(values)

    def take(self, request: Request) -> Tensor:
        return next(self._values)


def _packed(values: list[Tensor], here: list[bool], device: torch.device) -> list[Tensor]:
    """Host tensors on the device, in one copy for each of their types; some stay `here`."""
    going = [value for value, stays in zip(values, here, strict=True) if not stays]
    there: dict[torch.dtype, Iterator[Tensor]] = {}
    for dtype in {value.dtype for value in going}:
        some = [value for value in going if value.dtype == dtype]
        parts = uploaded(torch.cat([value.flatten() for value in some]), device)
        there[dtype] = iter(parts.split([value.numel() for value in some]))
    return [
        value if stays else next(there[value.dtype]).view(value.shape)
        for value, stays in zip(values, here, strict=True)
    ]
