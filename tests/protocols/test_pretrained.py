"""Victims that start from a pre-trained network, asked about poisons without a target."""

from __future__ import annotations

from pathlib import Path

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.core.errors import SpecError
from raygrid.protocols import PROTOCOLS
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.trial_lines import trial_lines
from raygrid.storage.results import ResultLog
from raygrid.trials.resolve import resolve
from tests.reports.rows import trial

pytestmark = pytest.mark.usefixtures("undrawn")

SPEC = "{}/lsp/standard/{}/{}/{}/0"


@pytest.mark.parametrize(
    ("dataset", "protocol", "origin", "augmentation"),
    [
        ("cifar10", "pretrained", "cifar100", "crop_flip"),
        ("photo_digits_last", "pretrained_quick", "photo_digits_first", "crop"),
        ("cifar10", "pretrained(pretrain=svhn)", "svhn", "none"),
    ],
)
@pytest.mark.parametrize("learner", ["finetune", "linear_probe"])
def test_the_extractor_is_that_of_other_data_and_no_target_is_asked_for(
    dataset: str, protocol: str, origin: str, augmentation: str, learner: str
) -> None:
    """Its images are seen as those of its own data usually are: no mirrored digits."""
    made = resolve(SPEC.format(dataset, "resnet18", learner, protocol), None)
    assert made.skip() is None
    assert made.setup is None
    assert made.extractor is not None
    assert made.extractor.data.dataset.id == origin
    assert made.extractor.recipe.architecture == "resnet18"
    assert made.extractor.recipe.augmentation == augmentation


def test_a_fresh_victim_stands_beside_them_and_needs_no_extractor() -> None:
    made = resolve(SPEC.format("cifar10", "resnet18", "supervised", "pretrained"), None)
    assert made.skip() is None
    assert made.extractor is None


@pytest.mark.parametrize("learner", ["finetune", "linear_probe"])
def test_another_protocol_says_what_is_missing(learner: str) -> None:
    reason = resolve(SPEC.format("cifar10", "resnet18", learner, "dvae"), None).skip()
    assert reason is not None
    assert reason.startswith(f"protocol dvae has no recipe for the learner {learner}; these have: ")
    assert reason.endswith("just_how_toxic, pretrained, pretrained_quick, toxic_quick")


def test_its_rates_are_those_of_the_benchmark_of_pretrained_victims() -> None:
    theirs = PROTOCOLS.make("just_how_toxic").recipes
    mine = PROTOCOLS.make("pretrained").recipes
    for learner in ("finetune", "linear_probe"):
        assert mine[learner] == theirs[learner]
    short = PROTOCOLS.make("pretrained(pretrain_epochs=3)").pretraining("cifar100")
    assert short is not None
    assert short.epochs == 3


def test_no_epochs_of_pretraining_are_refused() -> None:
    with pytest.raises(SpecError, match="pretrain_epochs is 0, allowed are whole numbers from 1"):
        PROTOCOLS.make("pretrained(pretrain_epochs=0)")


KEPT = "linear_probe(cache=4)"


def test_they_have_columns_of_their_own_in_the_transfer_table() -> None:
    values = {"supervised": 0.8, "finetune": 0.9, "linear_probe": 0.6, KEPT: 0.7}
    specs = {
        (attack, learner): f"photo_digits_last/{attack}/standard/small_cnn/{learner}/"
        "pretrained_quick/0"
        for attack in ("clean", "lsp")
        for learner in values
    }
    rows = [
        trial(spec, values[learner] / (2 if attack == "lsp" else 1))
        for (attack, learner), spec in specs.items()
    ]
    made = table("transfer", trial_lines(rows))
    (panel,) = made.panels
    assert panel.columns == (
        "small_cnn",
        "small_cnn, pre-trained (finetune)",
        f"small_cnn, pre-trained ({KEPT})",
        "small_cnn, pre-trained (linear_probe)",
    )
    cell = panel.cells["lsp", "small_cnn, pre-trained (finetune)"]
    assert cell.value == pytest.approx(0.45)
    assert cell.facts["drop"] == pytest.approx(0.5)
    assert {cell["learner"] for cell in made.cells} == set(values)


@pytest.mark.slow
def test_pretraining_helps_on_clean_digits(tmp_path: Path) -> None:
    """Else the protocol would say nothing about people who start from good weights."""
    spec = "photo_digits_last/clean/standard/small_cnn/{}/pretrained_quick/0"
    specs = [spec.format(learner) for learner in ("supervised", "finetune", "linear_probe")]
    run_grid(specs, Options(out=tmp_path, data=tmp_path, executor="inline", tracking="off"))
    rows = ResultLog(tmp_path / "results.jsonl").rows()
    reached = {row["spec"].split("/")[4]: row["final_acc"] for row in rows}
    assert reached["finetune"] > reached["supervised"] + 0.02
    assert 0.4 < reached["linear_probe"] < reached["supervised"]
