"""The tables of a run in MLflow: one run a row, the findings above them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from raygrid.engine.grid import plan
from raygrid.storage.results import ResultLog
from raygrid.tracking.mlflow import store_uri, sync
from raygrid.tracking.mlflow.client import TABLES_EXPERIMENT, MlflowExperiment
from raygrid.tracking.mlflow.description import description, findings
from raygrid.tracking.mlflow.tables import Mirror
from tests.reports.rows import write_tables
from tests.tracking.tracked import Tracked, drive, parents, runs


def test_a_table_is_one_run_a_row(out: Path) -> None:
    folder = out / "tables"
    folder.mkdir(parents=True)
    head = "dataset,protocol,architecture,learner,poison_ratio,defense,attack,value,published\n"
    line = "cifar10,dvae,{},supervised,1.0,jpeg(quality=10),{},{},{}\n"
    made = folder / "transfer.csv"

    def write(*cells: tuple[str, str, str, str]) -> None:
        made.write_text(head + "".join(line.format(*cell) for cell in cells))

    write(("resnet18", "clean", "0.9", "0.94"), ("vgg11", "clean", "0.8", ""))
    mirror = Mirror(out, store_uri(out), "key", "mine")
    assert mirror.show(made) == 1
    write(
        ("resnet18", "clean", "0.9", "0.94"),
        ("vgg11", "clean", "0.7", ""),
        ("vgg11", "lsp", "", ""),
    )
    for _ in range(2):
        assert mirror.show(made) == 2
    found = {run.data.params["attack"]: run for run in runs(out, experiment=TABLES_EXPERIMENT)}
    assert len(runs(out, experiment=TABLES_EXPERIMENT)) == 2
    clean = found["clean"].data
    assert clean.metrics == {"acc/resnet18": 0.9, "published/resnet18": 0.94, "acc/vgg11": 0.7}
    assert found["lsp"].data.metrics == {}
    assert clean.params["defense"] == "jpeg(quality=10)"
    assert clean.tags["raygrid.table"] == "transfer"
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    client = MlflowExperiment.of(out, store_uri(out), TABLES_EXPERIMENT).client
    history = client.get_metric_history(found["clean"].info.run_id, "acc/vgg11")
    assert [point.value for point in history] == [0.8, 0.7]
    other = Mirror(out, store_uri(out), "another", "theirs")  # the same rows of another grid
    assert other.show(made) == 2
    assert len(runs(out, experiment=TABLES_EXPERIMENT)) == 4


def test_findings_are_the_best_defense_and_the_learner_that_is_harmed_least(
    tmp_path: Path,
) -> None:
    head = "dataset,protocol,architecture,learner,poison_ratio,defense,attack,value,selection\n"
    line = "cifar10,dvae,resnet18,{},1.0,{},{},{},{}\n"
    best = [("none", "0.2", ""), ("jpeg", "0.8", ""), ("iss", "0.9", "test"), ("gray", "", "")]
    best += [("bridgepure", "0.85", ""), ("eclipse(diffusion_data=test)", "0.95", "")]
    defense = tmp_path / "defense.csv"
    cells = [line.format("supervised", d, "em(budget=8/255)", v, s) for d, v, s in best]
    defense.write_text(head + "".join(cells))
    learner = tmp_path / "worst-learner.csv"
    kept = {"supervised": 0.2, "simclr": 0.7, "supcl": 0.5, "worst": 0.7, "mean_of_max": 0.75}
    cells = [line.format(name, "none", "em(budget=8/255)", v, "") for name, v in kept.items()]
    learner.write_text(head + "".join(cells))
    metrics, tags = findings([defense, learner, tmp_path / "absent.csv"])
    assert metrics == {"best_defense/em": 0.8, "worst_learner/em": 0.7}
    assert tags == {"raygrid.best_defense.em": "jpeg", "raygrid.worst_learner.em": "simclr"}
    clean = "cifar10,dvae,resnet18,supervised,0.0,{},clean,{},\n"
    halves = "cifar10,dvae,{},supervised,1.0,{},em(budget=8/255),{},\n"
    cells = [clean.format(d, v) for d, v in (("none", 0.9), ("jpeg", 0.8))]
    cells += [halves.format("vgg19", d, v) for d, v in (("none", 0.3), ("jpeg", 0.6))]
    with defense.open("a") as file:
        file.writelines(cells)
    metrics, _ = findings([defense])  # clean data, with another poison ratio, have no defense
    assert metrics == {
        "best_defense/em - resnet18": 0.8,
        "best_defense/em - vgg19": 0.6,
    }


def test_a_description_within_the_limit_says_what_it_leaves_out(tmp_path: Path) -> None:
    panel = "\n\n## panel {}\n\n| a | b |\n" + "| --- | --- |\n" * 60
    file = tmp_path / "transfer.md"
    file.write_text("# transfer\n\ncaption" + "".join(map(panel.format, range(20))))
    said = description([file], ["first line"])
    assert len(said) <= 8000
    assert said.startswith("first line\n\n# transfer\n\ncaption\n\n## panel 0\n")
    assert said.endswith("The rest is among the artifacts, in `tables`.\n")
    assert "## panel 6" in said
    assert "## panel 19" not in said


def test_tables_that_nobody_compares_are_files_alone(out: Path) -> None:
    folder = out / "tables"
    folder.mkdir(parents=True)
    (folder / "defense.csv").write_text("attack,value\nlsp,0.1\n")
    mirror = Mirror(out, store_uri(out), "key", "mine")
    assert mirror.show(folder / "defense.csv") == mirror.show(folder / "transfer.csv") == 0


def test_the_tables_of_a_run_are_mirrored(out: Path) -> None:
    nets, attacks = ("small_cnn", "small_resnet"), ("clean", "lsp")
    spec = "photo_digits/{}/standard/{}/supervised/quick/0"
    grid = plan([spec.format(attack, net) for attack in attacks for net in nets], None)
    tracker = Tracked(out, every=0.01)
    drive(tracker, grid, grid.trials)
    rows = list(ResultLog(out / "results.jsonl").rows())
    tracker.tables(write_tables(out, rows))
    tracker.close(interrupted=False)
    shown = runs(out, experiment=TABLES_EXPERIMENT)
    assert {run.data.tags["raygrid.table"] for run in shown} == {"transfer"}
    assert {run.data.params["attack"] for run in shown} == set(attacks)
    assert all(set(run.data.metrics) == {f"acc/{net}" for net in nets} for run in shown)
    (run,) = parents(out)
    said = run.data.tags["mlflow.note.content"]
    client = MlflowExperiment.of(out, store_uri(out)).client
    where = f"#/experiments/{client.get_experiment_by_name(TABLES_EXPERIMENT).experiment_id}/runs"
    assert said.startswith(f"[Transfer and worst learner as runs that compare]({where})")
    assert "# transfer" in said
    assert "| lsp |" in said
    assert "<" not in said
    text = next((out / "mlartifacts").rglob(f"{run.info.run_id}/**/trials.json")).read_text()
    lines = pd.read_json(io.StringIO(text), orient="split")
    assert len(lines) == len(grid.trials)
    assert set(lines["trial"]) == {f"{attack} · {net}" for attack in attacks for net in nets}
    assert lines["final_acc"].tolist() == pytest.approx([0.3] * 4)
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"])[0]["path"] == "trials.json"
    files = {f.path for f in client.list_artifacts(run.info.run_id, "tables")}
    assert any(file.startswith("tables/transfer-") and file.endswith(".png") for file in files)
    client.set_tag(run.info.run_id, "mlflow.note.content", "mine")  # a person's stays
    assert sync(out).written == 0
    assert parents(out)[0].data.tags["mlflow.note.content"] == "mine"
    empty = f"sqlite:///{out}/other.db"  # `sync` brings them all where nothing is
    assert sync(out, empty).written == 4
    assert len(runs(out, empty, TABLES_EXPERIMENT)) == len(shown)
    (parent,) = parents(out, empty)
    files = MlflowExperiment.of(out, empty).client.list_artifacts(parent.info.run_id, "tables")
    assert "tables/transfer.csv" in {file.path for file in files}
