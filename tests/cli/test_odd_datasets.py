"""Data of odd sizes: a plan says what the run does, and a run that ends has trained."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raygrid.attacks import ATTACKS
from raygrid.learners import LEARNERS
from raygrid.nn.steps import Batch
from raygrid.nn.trainer import Trainer
from tests.cli.test_plan_and_run import said

# classes, training images of each, side; every class has a test image
ODD: dict[str, tuple[int, list[int], int]] = {
    "an image": (1, [1], 16),
    "two images": (2, [1], 16),
    "41 images": (2, [40, 1], 16),
    "an image a class": (10, [1], 32),
    "28 pixels": (2, [3], 28),
    "33 pixels": (2, [3], 33),
    "96 pixels": (2, [3], 96),
    "1,000 classes": (1000, [1], 16),
}
QUICK = {"an image", "two images"}
SIZES = [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in ODD]
TRIAL = "folder(name=mine)/{}/{}/small_cnn/{}/quick(epochs=1)/0"


def fill(place: Path, kind: str) -> None:
    """Class folders of noise."""
    classes, each, side = ODD[kind]
    rng, counts = np.random.default_rng(0), [each[c % len(each)] for c in range(classes)]
    for part, numbers in (("train", counts), ("test", [1] * classes)):
        for label, number in enumerate(numbers):
            folder = place / part / f"c{label:04d}"
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")


def row_of(out: Path) -> dict[str, Any]:
    (line,) = (out / "results.jsonl").read_text().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every batch that a network took a step on."""
    seen: list[int] = []
    update = Trainer.update

    def noted(self: Trainer, batch: Batch) -> Any:
        seen.append(len(batch.y))
        return update(self, batch)

    monkeypatch.setattr(Trainer, "update", noted)
    return seen


def check(root: Path, kind: str, spec: str, trained: list[int]) -> None:
    """Plan and run agree; where they agree to run, every image was trained on, in full batches."""
    planned, ran = said("plan", spec, root), said("run", spec, root)
    assert planned[0] == ran[0], (planned, ran)
    if planned[0] == 2:
        assert planned[1] == ran[1]
        assert not (root / "out" / "results.jsonl").exists()
        return
    row = row_of(root / "out")
    assert row["status"] == "done", row["error"]
    assert [math.isfinite(epoch["train_loss"]) for epoch in row["history"]] == [True]
    classes, each, _ = ODD[kind]
    number = sum(each[c % len(each)] for c in range(classes))
    assert sum(trained) == number
    assert len(trained) == math.ceil(number / 64)
    tests = ODD[kind][0]
    assert row["final_acc"] * tests == pytest.approx(round(row["final_acc"] * tests), abs=1e-3)


@pytest.mark.parametrize("kind", SIZES)
def test_a_plan_of_odd_data_says_what_the_run_does(
    tmp_path: Path, kind: str, trained: list[int]
) -> None:
    fill(tmp_path / "mine", kind)
    check(tmp_path, kind, TRIAL.format("lsp(patch=4)", "none", "supervised"), trained)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two images", "41 images", "33 pixels"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_is_planned_as_it_runs(tmp_path: Path, kind: str, learner: str) -> None:
    fill(tmp_path / "mine", kind)
    agree(tmp_path, TRIAL.format("lsp(patch=4)", "standard", LEARNERS.tiny(learner).part()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two images", "an image a class", "33 pixels"])
@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "file"])
def test_every_attack_is_planned_as_it_runs(tmp_path: Path, kind: str, attack: str) -> None:
    fill(tmp_path / "mine", kind)
    agree(tmp_path, TRIAL.format(ATTACKS.tiny(attack).part(), "none", "supervised"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two images", "41 images", "an image a class"])
@pytest.mark.parametrize("attack", ["lsp(patch=4)", "clean", "withheld", "em(rounds=1)"])
@pytest.mark.parametrize("ratio", [0.01, 0.5, 0.99])
def test_parts_of_few_images_are_planned_as_they_run(
    tmp_path: Path, kind: str, attack: str, ratio: float
) -> None:
    fill(tmp_path / "mine", kind)
    agree(tmp_path, TRIAL.format(f"{attack}@{ratio}", "none", "supervised"))


def agree(root: Path, spec: str) -> None:
    """Both refuse it in the same words, or both take it and it ends."""
    planned, ran = said("plan", spec, root), said("run", spec, root)
    assert planned[0] == ran[0], (planned, ran, failure(root))
    if planned[0] == 2:
        assert planned[1] == ran[1]
    else:
        assert row_of(root / "out")["status"] == "done", failure(root)


def failure(root: Path) -> str | None:
    """Why the trial of a run failed."""
    path = root / "out" / "results.jsonl"
    return row_of(root / "out")["error"] if path.exists() else None
