"""Derived rows: early stopping's epoch and the best of ISS's members."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raygrid.core.errors import SpecError
from raygrid.defenses import DEFENSES
from raygrid.defenses.early_stopping import EarlyStopping
from raygrid.engine.grid import plan
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact
from raygrid.trials.context import TrialContext
from raygrid.trials.derive import derive_row
from raygrid.trials.result import Result
from raygrid.trials.run import run_trial
from tests.defenses.toys import on_toys

# Every image set peaks in an epoch of its own, which a later epoch only equals.
EPOCHS = [
    {"train_loss": 1.0, "test_acc": t, "val_acc": v, "poison_val_acc": p}
    for t, v, p in [
        (0.2, 0.5, 0.6),
        (0.4, 0.9, 0.7),
        (0.6, 0.8, 0.8),
        (0.6, 0.9, 1.0),
        (0.5, 0.7, 1.0),
    ]
]


@pytest.mark.parametrize(("mode", "epoch"), [("clean_val", 1), ("peak_test", 2), ("poison_val", 3)])
def test_every_mode_selects_the_first_best_epoch_of_its_own_images(mode: str, epoch: int) -> None:
    defense = DEFENSES.make(f"early_stopping(mode={mode})")
    assert defense.select(EPOCHS) == epoch
    assert defense.select(EPOCHS[:1]) == 0


def test_the_test_set_alone_is_asked_by_default() -> None:
    assert EarlyStopping().select([{"test_acc": 0.1}, {"test_acc": 0.3}]) == 1


ES = "photo_digits/lsp/early_stopping{}/small_cnn/supervised/quick{}/0"


def test_early_stopping_is_planned_on_the_trained_trial() -> None:
    made = plan(
        [ES.format("", ""), "photo_digits/lsp/jpeg+early_stopping/small_cnn/supervised/quick/0"],
        None,
    )
    assert [str(t.spec).split("/")[2] for t in made.trials] == ["standard", "jpeg"]
    assert [t.bases for t in made.derived] == [(t.spec,) for t in made.trials]


@pytest.mark.parametrize(
    ("mode", "field"), [("clean_val", "validation"), ("poison_val", "holdout")]
)
def test_modes_without_held_out_images_are_skipped(mode: str, field: str) -> None:
    made = plan([ES.format(f"(mode={mode})", "")], None)
    assert not made.trials
    assert f"quick({field}=0.1)" in made.skips[0].reason
    assert not plan([ES.format(f"(mode={mode})", f"({field}=0.1)")], None).skips


@pytest.mark.parametrize(
    ("mode", "field"), [("clean_val", "validation"), ("poison_val", "holdout")]
)
def test_what_must_not_know_the_test_set_refuses_patience(mode: str, field: str) -> None:
    """Patience counts epochs since the peak on the test set: the epochs to choose from leak it."""
    protocol = f"({field}=0.1, patience=3)"
    for chain in ("early_stopping", "jpeg+early_stopping"):
        made = plan([ES.format(f"(mode={mode})", protocol).replace("early_stopping", chain)], None)
        assert not made.trials
        assert f"(mode={mode}) must not know the test set" in made.skips[0].reason
        assert "patience" in made.skips[0].reason
    assert not plan([ES.format("", protocol)], None).skips, "peak_test knows it by its name"


def test_derived_rows_come_from_their_bases() -> None:
    (trial,) = plan([ES.format("", "")], None).derived
    accuracies = [0.3, 0.7, 0.7, 0.4]
    history = [{"train_loss": 1.0, "test_acc": a} for a in accuracies]
    base = Result("spec", "key", history=history, last_acc=0.4, final_acc=0.4, seconds=9.0)
    row = derive_row(trial, [base])
    assert (row.final_acc, row.derived_from, row.key) == (0.7, "key", trial.key)
    assert (row.seconds, row.selected_epoch, row.winner) == (0, 2, None)
    assert base.final_acc == 0.4, "the base row was written to"
    failed = derive_row(trial, [Result("spec", "key", status="failed", error="why")])
    assert (failed.status, failed.error, failed.final_acc) == ("failed", "why", None)
    assert failed.selected_epoch is None


@pytest.mark.parametrize(("mode", "epoch"), [("clean_val", 2), ("peak_test", 3), ("poison_val", 4)])
def test_all_that_a_derived_row_measures_is_of_the_selected_epoch(mode: str, epoch: int) -> None:
    """Counts as well as shares; what was measured after the last epoch alone is not there."""
    fields = "(holdout=0.1, validation=0.1)"
    (trial,) = plan([ES.format(f"(mode={mode})", fields)], None).derived
    sizes = {"clean_test": 10, "val": 10, "poison_val": 10, "original": 100, "clean_train": 7}
    last = {name: {"k": 0, "n": n, "acc": 0.0, "loss": 9.0} for name, n in sizes.items()}
    history = [
        {
            **said,
            **{"original_acc": (28 + e) / 100, "original_loss": e, "original_logodds": -e},
            **{"clean_train_acc": e / 7, "clean_train_loss": e + 0.5},
            **{f"{name}_loss": e + 0.25 for name in ("test", "val", "poison_val")},
        }
        for e, said in enumerate(EPOCHS)
    ]
    later = {"confusion": {"k": 1, "n": 2, "acc": 0.5, "loss": 1.0}}
    base = Result("spec", "key", history=history, probes=last | later, last_acc=0, final_acc=0)
    row = derive_row(trial, [base])
    e, said = epoch - 1, EPOCHS[epoch - 1]
    counted = {"k": 28 + e, "n": 100, "acc": (28 + e) / 100, "loss": e, "logodds": -e}
    expected: dict[str, dict[str, float]] = {
        "original": counted,  # 29 / 100 * 100 is a little less than 29
        "clean_train": {"k": e, "n": 7, "acc": e / 7, "loss": e + 0.5},
    }
    for name, short in (("clean_test", "test"), ("val", "val"), ("poison_val", "poison_val")):
        acc = said[f"{short}_acc"]
        expected[name] = {"k": round(10 * acc), "n": 10, "acc": acc, "loss": e + 0.25}
    assert row.probes == expected
    assert row.selected_epoch == epoch
    assert row.final_acc == row.last_acc == said["test_acc"]
    assert base.probes == last | later, "the base row was written to"
    assert (base.selected_epoch, base.final_acc) == (None, 0)


def test_iss_is_the_best_of_its_members() -> None:
    made = plan(["photo_digits/lsp/iss/small_cnn/supervised/quick/0"], None)
    names = [str(t.spec).split("/")[2] for t in made.trials]
    assert names == ["bdr", "grayscale", "jpeg"]
    (trial,) = made.derived
    assert trial.bases == tuple(t.spec for t in made.trials)
    rows = [
        Result(str(t.spec), t.key, last_acc=a, final_acc=a, history=[{"test_acc": 0.9}])
        for t, a in zip(made.trials, (0.3, 0.7, 0.7), strict=True)
    ]
    row = derive_row(trial, rows)
    assert (row.final_acc, row.derived_from) == (0.7, made.trials[1].key)
    assert row.selected_epoch is None, "every member counts by its last epoch"
    assert row.winner == "grayscale"
    rows[2].status = "failed"
    row = derive_row(trial, rows)
    assert (row.status, row.derived_from, row.winner) == ("failed", made.trials[2].key, None)


def test_a_row_of_several_bases_is_as_new_as_the_newest_of_them() -> None:
    """The best base ran first and was made anew later, so the newer row looked older and lost."""
    made = plan(["photo_digits/lsp/iss/small_cnn/supervised/quick/0"], None)
    (trial,) = made.derived
    accuracies, ends = (0.3, 0.7, 0.5), (10.0, 20.0, 30.0)
    rows = [
        Result(str(t.spec), t.key, last_acc=acc, history=[{"test_acc": acc}], finished=end)
        for t, acc, end in zip(made.trials, accuracies, ends, strict=True)
    ]
    row = derive_row(trial, rows)
    assert (row.derived_from, row.finished) == (rows[1].key, 30.0)
    rows[0].status = "failed"
    assert derive_row(trial, rows).finished == 30.0


def test_iss_reduces_bits_as_it_is_told() -> None:
    specs = [
        f"photo_digits/lsp/{d}/small_cnn/supervised/quick/0" for d in ("iss", "iss(bdr=float)")
    ]
    ours, theirs = plan(specs, None).derived
    assert [base.chain for base in ours.bases] == ["bdr", "grayscale", "jpeg"]
    assert [base.chain for base in theirs.bases] == ["bdr(variant=float)", "grayscale", "jpeg"]
    for trial in (ours, theirs):
        (said,) = trial.resolved()["defense"]
        assert said["members"][0]["variant"] == said["bdr"]
        assert [member["id"] for member in said["members"]] == ["bdr", "grayscale", "jpeg"]
    assert ours.key != theirs.key
    with pytest.raises(SpecError, match="did you mean 'float'"):
        DEFENSES.make("iss(bdr=floats)")


def test_iss_stands_in_the_place_of_its_member() -> None:
    made = plan(["photo_digits/lsp/iss+cutout/small_cnn/supervised/quick/0"], None)
    names = [str(t.spec).split("/")[2] for t in made.trials]
    assert names == ["bdr+cutout", "grayscale+cutout", "jpeg+cutout"]


def test_derived_trials_are_skipped_with_their_bases() -> None:
    with_patience = "photo_digits/lsp/iss/small_cnn/supervised/quick(patience=3)/0"
    assert "final accuracies" in plan([with_patience], None).skips[0].reason


def test_held_out_parts_are_scored_and_not_trained_on(fetch: Callable[[Artifact], Bundle]) -> None:
    protocol = "quick(epochs=20, validation=0.1, holdout=0.2)"
    specs = [
        f"photo_digits/lsp/early_stopping(mode={mode})/small_cnn/supervised/{protocol}/0"
        for mode in ("clean_val", "poison_val", "peak_test")
    ]
    made = plan(specs, None)
    (trial,) = made.trials
    result = run_trial(on_toys(trial), fetch, TrialContext())
    assert result.error is None
    assert result.probes["val"]["n"] == 50
    assert result.probes["poison_val"]["n"] == 90
    # The shortcut is learned, so poisoned held-out images are no warning.
    last = result.history[-1]
    assert last["poison_val_acc"] > last["val_acc"] + 0.2
    rows = {t.defense.derived.mode: derive_row(t, [result]) for t in made.derived}
    best = {mode: row.final_acc for mode, row in rows.items()}
    assert best["peak_test"] == result.peak_acc
    assert rows["peak_test"].selected_epoch == result.peak_epoch
    assert best["clean_val"] <= best["peak_test"]
    for row in rows.values():
        assert row.probes.keys() == result.probes.keys()
        assert row.probes["clean_test"]["acc"] == row.final_acc
        assert all(found["k"] / found["n"] == found["acc"] for found in row.probes.values())
