"""How far changed images are from the clean ones, against numbers known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from raygrid.core.budget import Budget
from raygrid.core.images import Images
from raygrid.reports.analysis.fidelity import change
from tests.finished import BARE, CLEAN, LSP, command


def changed(*levels: int, gray: int = 100) -> tuple[Images, Images]:
    """Flat images of 32 pixels, and each of them lighter by so many levels in every value."""
    n = len(levels)
    before = Images(torch.full((n, 3, 32, 32), gray, dtype=torch.uint8), torch.arange(n), n)
    lighter = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1)
    return before, before.with_pixels(before.pixels + lighter)


def test_fidelity_is_that_of_the_stored_pixels() -> None:
    """Landmarks: 8/255 in every value of 32 x 32 x 3 is l2 1.739 and 30.07 dB."""
    before, after = changed(0, 8, 8, 0)
    pixels = after.pixels.clone()
    pixels[3, 0, 5, 5] += 51  # 20 log10(5) + 10 log10(3072)
    row = change(before, before.with_pixels(pixels))
    alone = 20 * np.log10(5) + 10 * np.log10(3072)
    each = np.array([30.07, 30.07, alone])
    assert (row["n"], row["identical"]) == (4, 0.25)
    assert row["psnr"] == pytest.approx(each.mean(), abs=0.01)
    assert row["psnr_std"] == pytest.approx(each.std(ddof=1), abs=0.01)
    assert (row["psnr_min"], row["psnr_max"]) == (
        pytest.approx(30.07, abs=0.01),
        pytest.approx(alone, abs=0.01),
    )
    assert row["psnr_pooled"] == pytest.approx(
        -10 * np.log10((10 ** (-each / 10)).mean()), abs=0.01
    )
    sizes = {"linf": [8 / 255, 8 / 255, 0.2], "l2": [1.739, 1.739, 0.2], "l0": [1024, 1024, 1]}
    for norm, values in sizes.items():
        assert row[norm] == pytest.approx(np.mean(values), abs=1e-3), norm
        assert row[f"{norm}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-3), norm
        ends = row[f"{norm}_min"], row[f"{norm}_max"]
        assert ends == pytest.approx((min(values), max(values)), abs=1e-3), norm
    assert not {"budget", "violations", "ssim"} & set(row)
    assert change(before, before) == {"n": 4, "identical": 1.0}
    lone = change(*changed(8))
    assert (lone["psnr_std"], lone["l2_std"]) == (None, None)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("learnability", CLEAN.format(0), "dots/clean/none/small_cnn/supervised/brief/x"), "seed"),
        (("learnability", CLEAN.format(0), BARE), "left no weights: run it with --keep weights"),
        (("learnability", CLEAN.format(0), "--draws", "0"), "draws is 0"),
        (("linearity", "dots/lsp", "dots/lps"), "unknown attack 'lps'"),
        (("fidelity", "dots/lsp", "dots/clean/grey/small_cnn/supervised/brief/0"), "'grey'"),
        (("classes", CLEAN.format(0), BARE), "left no predictions"),
    ],
)
def test_a_fault_is_said_before_anything_is_answered(
    words: tuple[str, ...],
    fault: str,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Specs are answered one after another, for hours each where networks are disturbed."""
    answered: list[object] = []

    def answer(*given: object) -> list[object]:
        answered.append(given)
        return []

    asked = ("learnability.learnability", "linearity.linearity_of_poisons", "classes.by_class")
    for place in (*asked, "fidelity.fidelity_of_poison"):
        monkeypatch.setattr(f"raygrid.reports.analysis.{place}", answer)
    assert command(finished, "evaluate", *words) == 2
    assert fault in capsys.readouterr().err
    assert answered == []


def test_ssim_of_flat_images_is_that_of_their_means() -> None:
    """Without any variance (2 a b + c) / (a^2 + b^2 + c) is left, c = 0.01^2 for values to 1."""
    levels = [2, 6] * 300  # more than go at a time
    row = change(*changed(*levels, gray=0), ssim=torch.device("cpu"))
    each = np.array([1e-4 / ((number / 255) ** 2 + 1e-4) for number in levels])
    assert row["ssim"] == pytest.approx(each.mean(), abs=1e-3)
    assert row["ssim_std"] == pytest.approx(each.std(ddof=1), abs=1e-3)
    assert (row["ssim_min"], row["ssim_max"]) == pytest.approx((each[1], each[0]), abs=1e-3)


@pytest.mark.parametrize(
    ("levels", "budget", "violations"),
    [
        ((8, 9, 0, 8), "8/255", 1),
        ((8, 8, 0, 8), "8/255", 0),
        ((8, 9, 0, 1), "l2:1.7", 1),  # 1.739, beside the 0.109 that rounding takes; 1.956
        ((8, 9, 0, 1), "l0:1024", 0),
        ((8, 9, 0, 1), "l0:1023", 3),
    ],
)
def test_images_beyond_a_budget_are_counted(
    levels: tuple[int, ...], budget: str, violations: int
) -> None:
    limit = Budget.parse(budget, Budget("linf", 1.0))
    row = change(*changed(*levels), limit)
    assert (row["budget"], row["violations"]) == (budget, violations)


def test_fidelity_from_the_command_line(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        command(finished, "evaluate", "fidelity", "dots/lsp(budget=l2:3)@0.5", BARE, "--json") == 0
    )
    poison, given, clean = json.loads(capsys.readouterr().out)
    assert (poison["set"], poison["against"], poison["identical"]) == (
        "dots/lsp(budget=l2:3.0)@0.5/0",
        "clean",
        0.5,
    )
    assert poison["l2_max"] == pytest.approx(3, abs=0.05)
    assert (poison["budget"], poison["violations"]) == ("l2:3.0", 0)
    assert 0 < poison["ssim_min"] <= poison["ssim"] <= poison["ssim_max"] < 1
    assert (given["against"], clean["against"]) == ("poisoned", "clean")
    assert given["psnr"] == clean["psnr"] > 0  # the attack is none
    assert given["ssim"] == clean["ssim"]
    assert "budget" not in clean, "a purifier has none"
    assert command(finished, "evaluate", "fidelity", "dots/lsp(budget=l2:3)@0.5") == 0
    said = dict(line.split() for line in capsys.readouterr().out.replace(" %", "%").splitlines())
    assert said["identical"] == "50.00%"
    assert said["ssim_max"] == f"{poison['ssim_max']:.3f}"
    assert command(finished, "evaluate", "fidelity", LSP) == 2
    assert "has no purified set" in capsys.readouterr().err
