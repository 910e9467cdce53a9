"""Draws for a device are those that a CPU makes, ahead of their use or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from raygrid.core import draws, lookahead
from raygrid.core.lookahead import Ahead

DEVICE = torch.device("meta")  # any that is not the CPU
Step = Callable[[torch.Generator, int], list[Tensor]]


def plain(rng: torch.Generator, number: int) -> list[Tensor]:
    """A batch's draws of every kind, some too small for torch's vectorized path."""
    return [
        draws.rand((32, 3), rng, DEVICE),
        draws.randperm(32, rng, DEVICE),
        draws.randn((2, 2), rng, DEVICE),
        draws.randint(0, 2**62, (), rng),
        draws.randint(5, 90, (32,), rng, DEVICE),
        draws.randn((32, 3, 4, 4), rng, DEVICE),
    ]


def moody(rng: torch.Generator, number: int) -> list[Tensor]:
    """One more draw in every fifth batch, one less in every seventh."""
    found = plain(rng, number)
    if number % 5 == 4:
        found.append(draws.rand((), rng))
    return found if number % 7 else [draws.randn((32,), rng), draws.rand((1,), rng)]


def past(rng: torch.Generator, number: int) -> list[Tensor]:
    """Somebody draws with torch itself in between."""
    return [draws.rand((8,), rng), torch.rand(3, generator=rng), draws.rand((8,), rng)]


def epochs(rng: Callable[[int], torch.Generator], step: Step) -> list[Tensor]:
    """Three epochs of eleven batches and a smaller one."""
    found: list[Tensor] = []
    for epoch in range(3):
        generator = rng(epoch)
        for number in range(12):
            if isinstance(generator, Ahead):
                generator.next_batch(*((32, 10 - number) if number < 11 else (7, 0)))
            made = step(generator, number)
            found += made if number < 11 else [m[:1] if m.dim() else m for m in made]
    return found


@pytest.mark.parametrize("step", [plain, moody, past])
@pytest.mark.parametrize("room", [2**26, 20_000, 1])
def test_draws_made_ahead_are_the_same(
    step: Step, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookahead, "LOOKAHEAD_BYTES", room)
    for module in (draws, lookahead):  # what is sent stays here, to be looked at
        monkeypatch.setattr(module, "uploaded", lambda values, device: values)
    ahead = Ahead(DEVICE)

    def begun(epoch: int) -> torch.Generator:
        ahead.start(epoch)
        return ahead

    here = epochs(lambda epoch: torch.Generator().manual_seed(epoch), step)
    there = epochs(begun, step)
    assert len(here) == len(there)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_many_batches_go_over_in_one_copy_of_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[int] = []
    real = lookahead.uploaded

    def noted(values: torch.Tensor, device: torch.device) -> torch.Tensor:
        copies.append(values.numel())
        return real(values, device)

    monkeypatch.setattr(lookahead, "uploaded", noted)
    ahead = Ahead(DEVICE)
    ahead.start(0)
    for number in range(11):
        ahead.next_batch(32, 10 - number)
        plain(ahead, number)
    assert len(copies) == 5 + 2, "those of the first batch, then all others"
    assert sum(copies[5:]) == 10 * sum(copies[:5])


def test_on_a_cpu_draws_are_torchs_own() -> None:
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(draws.rand((4, 2), one), torch.rand(4, 2, generator=two))
    assert torch.equal(draws.randn((40,), one), torch.randn(40, generator=two))
    assert torch.equal(draws.randint(1, 9, (5,), one), torch.randint(1, 9, (5,), generator=two))
    assert torch.equal(draws.randperm(6, one), torch.randperm(6, generator=two))
