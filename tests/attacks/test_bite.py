"""Attacks lower the accuracy of a victim, and random noise of the same size does not.

Measured once, seed 0: clean 0.80, noise 0.79 to 0.81, regions 0.40, n=1024 0.28, lsp at 2x 0.37,
ar at 3x 0.26, ops 0.30, low_frequency(n=2) at 32/255 0.27. The bounds leave ten points and more.
At their published budgets ar and lsp do little to a network this small.
"""

from __future__ import annotations

import pytest
import torch

from tests.victims import photo_digits, poisoned, reference_accuracy, victim_accuracy


@pytest.mark.slow
def test_regions_bite_and_noise_of_the_same_budget_does_not() -> None:
    clean, noise = reference_accuracy(), reference_accuracy("noise")
    assert clean > 0.6
    assert noise > clean - 0.1
    assert victim_accuracy(poisoned("regions")) < noise - 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "control", "drop"),
    [
        ("regions(n=1024)", "noise", 0.4),
        ("regions(budget=16/255)", "noise(budget=16/255)", 0.5),
        ("lsp(budget=2x)", "noise(budget=l2:2.6)", 0.25),
        ("ar(budget=3x)", "noise(budget=l2:3.0)", 0.4),
        ("ops", "", 0.35),
        ("low_frequency(budget=32/255, n=2)", "noise(budget=32/255)", 0.4),
    ],
)
def test_every_attack_bites_at_a_budget_that_a_small_network_can_see(
    part: str, control: str, drop: float
) -> None:
    reference = reference_accuracy(control)
    assert reference > reference_accuracy() - 0.1
    assert victim_accuracy(poisoned(part)) < reference - drop


@pytest.mark.slow
def test_an_attack_that_is_told_other_labels_does_not_bite() -> None:
    """The noise teaches nothing once it no longer goes with the label."""
    labels = photo_digits().train.labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    shuffled = victim_accuracy(poisoned("regions", labels=labels[order]))
    assert shuffled > reference_accuracy() - 0.1
