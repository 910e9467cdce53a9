"""What trials leave on request."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raygrid.api.run_grid import run_grid
from raygrid.cli.plan import PlanStatus, plan_text
from raygrid.core.errors import DataError, SpecError
from raygrid.core.options import LEFT_BY_TRIALS, Options
from raygrid.engine.grid import plan
from raygrid.reports.analysis.records import Records
from raygrid.storage.mirrored import open_store
from raygrid.storage.store import DATA_FILE, META_FILE, Bundle, Store
from raygrid.trials.evaluate import score
from raygrid.trials.outputs import left_nbytes
from tests.finished import BARE, LSP, SPECS, inline, result_of

pytestmark = pytest.mark.usefixtures("undrawn")


def test_a_kept_network_is_the_one_that_was_scored(finished: Path, records: Records) -> None:
    for spec in SPECS:
        victim = records.victim(spec)
        again = score(victim.network, victim.test, lambda x: x, "bf16")  # as in its trial
        assert again.row() == result_of(finished, spec).probes["clean_test"]
        assert not victim.network.training


def test_predictions_and_features_belong_together(finished: Path, records: Records) -> None:
    trial = records.trial(LSP)
    said, seen = (records.left(trial, kind).tensors for kind in ("predictions", "features"))
    assert (said["logits"].dtype, said["predicted"].dtype) == (torch.float16, torch.int16)
    assert torch.equal(said["logits"].argmax(1).short(), said["predicted"])
    assert torch.equal(said["labels"], seen["labels"])
    hits = int((said["predicted"] == said["labels"]).sum())
    assert hits == result_of(finished, LSP).probes["clean_test"]["k"]
    head = records.victim(LSP).network.head
    assert torch.allclose(head(seen["features"].float()), said["logits"].float(), atol=0.05)


def test_the_network_of_the_peak_is_the_one_that_reached_it(finished: Path) -> None:
    records = Records(Store(finished / "store"), finished / "data", epoch="peak")
    for spec in SPECS:
        victim = records.victim(spec)
        found = score(victim.network, victim.test, lambda x: x, "bf16")
        assert found.acc == result_of(finished, spec).peak_acc
        assert records.left(victim.trial, "peak").facts == {"accuracy": found.acc}
    with pytest.raises(DataError, match="is an encoder without a linear probe"):
        records.victim(LSP.replace("supervised", "simclr").replace("brief", "quick"))


@pytest.mark.parametrize("kind", LEFT_BY_TRIALS)
def test_the_plan_knows_the_size_of_what_is_kept(
    kind: str, finished: Path, records: Records
) -> None:
    trial = records.trial(LSP)
    assert left_nbytes(trial, (kind,)) == records.left(trial, kind).nbytes
    said = plan_text(plan([LSP], records.catalog), PlanStatus(keep=(kind,)))
    assert f"kept: {kind} of 1 trials, about 0.00 GB of disk" in said


def test_what_is_kept_lies_in_the_results_folder(finished: Path, records: Records) -> None:
    folder = finished / "store" / "results" / records.trial(LSP).key
    assert sorted(p.name for p in folder.iterdir()) == sorted(LEFT_BY_TRIALS)
    assert {p.name for p in (folder / "weights").iterdir()} == {DATA_FILE, META_FILE}


def test_a_finished_trial_runs_again_only_for_what_it_did_not_leave(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    assert run_grid(SPECS, inline(out, LEFT_BY_TRIALS)).submitted == 0
    assert run_grid([*SPECS, BARE], inline(out)).submitted == 0
    assert run_grid([SPECS[0], BARE], inline(out, ("predictions",))).submitted == 1
    assert run_grid([BARE], inline(out, ("predictions",))).submitted == 0


def test_unknown_things_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown keep 'weight' \(did you mean 'weights'"):
        run_grid([BARE], inline(tmp_path, ("weight",)))


def test_kept_files_are_mirrored(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'remote'}"
    one, other = (open_store(url, tmp_path / name) for name in ("one", "other"))
    one.put("weights", "abc", Bundle({"w": torch.ones(2)}))
    assert (tmp_path / "remote" / "results" / "abc" / "weights" / META_FILE).exists()
    found = other.get("weights", "abc")
    assert found is not None
    assert torch.equal(found.tensors["w"], torch.ones(2))
    assert list(other.results().rows()) == []


@pytest.mark.slow
def test_networks_changed_by_a_defense_are_restored(tmp_path: Path) -> None:
    spec = "dots/clean/advcl(steps=1)/small_cnn/simclr/quick(epochs=1)/0"
    assert not run_grid([spec], inline(tmp_path, ("weights",))).failed
    victim = Records(Store(tmp_path / "store"), tmp_path / "data").victim(spec)
    hits = (victim(victim.test.floats()).argmax(1) == victim.test.labels).sum()
    assert int(hits) == result_of(tmp_path, victim.name).probes["clean_test"]["k"]


def test_what_was_not_kept_is_one_clear_error(records: Records) -> None:
    with pytest.raises(DataError, match="left no weights: run it with --keep weights"):
        records.victim(BARE)
    with pytest.raises(DataError, match=r"is derived and left nothing; it comes from .*/standard"):
        records.victim(LSP.replace("/none/", "/early_stopping/"))


@pytest.mark.parametrize("learner", ["finetune", "linear_probe"])
def test_a_victim_that_began_with_an_extractor_answers_as_it_was_tested(
    learner: str, options: Options
) -> None:
    """Its normalization, or the names of a frozen extractor, fitted no fresh network."""
    protocol = "toxic_quick(epochs=1, pretrain_epochs=1)"
    spec = f"photo_digits_last/clean/standard/small_cnn/{learner}/{protocol}/0"
    kept = replace(options, keep=("weights",))
    (row,) = run_grid([spec], kept).results
    assert row.status == "done", row.error
    victim = Records(Store(options.out / "store"), options.data).victim(spec)
    with torch.no_grad():
        right = victim.network(victim.test.floats()).argmax(1) == victim.test.labels
    assert float(right.float().mean()) == pytest.approx(row.probes["clean_test"]["acc"], abs=5e-3)
