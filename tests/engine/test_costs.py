"""What trials cost, in seconds and in epochs of the undefended victim."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from raygrid.cli import main as cli
from raygrid.core.speed import CPU, GPU
from raygrid.engine.costs.estimate import trial_seconds
from raygrid.engine.worker import versions
from raygrid.reports.analysis.summary import costs
from raygrid.storage.store import Store
from raygrid.trials.resolve import resolve
from raygrid.trials.result import Result

Json = dict[str, Any]
SPEC = "cifar10/{}/{}/resnet18/{}/apbench/0"
HERE = "cpu (x86_64, 1 thread)"


def row(spec: str, seconds: float = 60.0, *epochs: float, device: str = HERE) -> Json:
    made = Result(spec, key=spec, seconds=seconds, device=device)
    made.history = [{"epoch_seconds": took} for took in epochs]
    return made.row()


def cost(of: Json, every: list[Json], tmp_path: Path) -> tuple[Any, Any, Any]:
    (found,) = costs([of], Store(tmp_path), every)
    return found["standard_epochs"], found["epoch_s"], found["epoch_by"]


def test_costs_are_in_epochs_of_the_same_network_on_the_same_device(tmp_path: Path) -> None:
    asked = row(SPEC.format("em", "at", "simclr"), 60.0, 9.0)
    standard = SPEC.format("lsp", "standard", "supervised")
    reference = row(standard, 50.0, 7.0, 2.0, 3.0)
    others = [
        row(standard, 50.0, 1.0, device="NVIDIA A10G"),
        row(standard.replace("resnet18", "vgg11"), 50.0, 1.0),
        row(standard.replace("cifar10", "cifar100"), 50.0, 1.0),
        row(SPEC.format("lsp", "none", "supervised"), 50.0, 1.0),
        row(SPEC.format("lsp", "standard", "simclr"), 50.0, 1.0),
        row(SPEC.format("withheld@0.8", "standard", "supervised"), 50.0, 1.0),
        row(standard.replace("apbench", "dvae"), 50.0, *[1.0] * 9),
        asked,
    ]
    assert cost(asked, [*others, reference], tmp_path) == (20.0, 3.0, "measured")
    assert cost(asked, others, tmp_path) == (60.0, 1.0, "measured"), "of another protocol"


@pytest.mark.parametrize(("device", "speed"), [(HERE, CPU), ("NVIDIA A10G", GPU)])
def test_without_a_standard_trial_the_epoch_is_estimated(
    device: str, speed: Any, tmp_path: Path
) -> None:
    asked = row(SPEC.format("em", "at", "simclr"), 60.0, 9.0, device=device)
    old = row(SPEC.format("lsp", "standard", "supervised"), device=device)  # knew no epochs yet
    standard = resolve(SPEC.format("clean", "standard", "supervised"), None)
    epoch = trial_seconds(standard, speed) / standard.recipe.epochs
    found = cost(asked, [asked, old], tmp_path)
    assert found == (pytest.approx(60.0 / epoch), pytest.approx(epoch), "estimate")


def test_what_took_no_time_or_is_not_known_has_no_epochs(tmp_path: Path) -> None:
    derived = row(SPEC.format("em", "early_stopping", "supervised"), 0.0)
    unknown = row("cifar10/em/at/nobodys_net/supervised/apbench/0")
    for one in (derived, unknown):
        assert cost(one, [], tmp_path) == (None, None, None)


def test_the_command_measures_by_all_trials_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, other = (
        row(f"dots/clean/{defense}/small_cnn/supervised/brief/0", 60.0, took)
        for defense, took in (("jpeg", 9.0), ("standard", 3.0))
    )
    lines = [json.dumps(one) + "\n" for one in (asked, other)]
    (tmp_path / "results.jsonl").write_text("".join(lines))
    words = ["--out", str(tmp_path), "--data", str(tmp_path), "--import", "tests.plugin", "--json"]
    assert cli.main(["evaluate", "cost", asked["spec"], *words]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["standard_epochs"], found["epoch_by"]) == (20.0, "measured")


def test_results_name_every_package_that_numbers_depend_on() -> None:
    found = versions()
    for name in ("scikit-learn", "scipy", "pillow", "timm", "lightly", "diffusers"):
        assert found[name] == importlib.metadata.version(name)
    assert "captum" in found
