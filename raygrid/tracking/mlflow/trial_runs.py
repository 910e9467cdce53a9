"""The runs of grids and trials in MLflow: what each of them says, and which are complete."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping

from raygrid.core.hashing import key_of
from raygrid.tracking.mlflow.client import (
    KEY_TAG,
    NOTE_TAG,
    PARENT_TAG,
    MlflowExperiment,
    is_outdated,
)
from raygrid.tracking.mlflow.facts import (
    RUN_STATUS,
    TAG_LENGTH,
    Shown,
    epoch_points,
    final_metrics,
    grid_tags,
    is_contrastive,
    params_of,
    poison_input,
    shortened,
    strict_json,
    tags_of,
    written_mark,
)
from raygrid.trials.result import Result

DESCRIBED_TAG, WRITTEN_TAG = "raygrid.described", "raygrid.written"


class TrialRuns(MlflowExperiment):
    """The experiment that has a run for each grid, and below it one for each of its trials."""

    def grid(self, key: str, name: str, specs: Iterable[str]) -> str:
        """The parent run of a grid with its axes; returns its id."""
        run = self.open(key, name, {}, time.time())
        self.write(run, tags=grid_tags(specs))
        return run

    def describe(
        self, run: str, note: str, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> None:
        """Give a run its description, findings and their names; a person's description stays."""
        known = self.client.get_run(run).data
        now = int(time.time() * 1000)
        points = [(k, v, now, 0) for k, v in metrics.items() if known.metrics.get(k) != v]
        present = known.tags.get(NOTE_TAG)
        if present is None or key_of(present) == known.tags.get(DESCRIBED_TAG):
            tags = {**tags, NOTE_TAG: note, DESCRIBED_TAG: key_of(note)}
        self.write(run, points, tags=tags)

    def table(self, run: str, text: str, name: str) -> None:
        """A table that MLflow shows: JSON with columns and data, in the place of an older one.

        `MlflowClient.log_table` would add its rows to those of the last time.
        """
        self.client.log_text(run, text, name)
        logged = json.dumps([{"path": name, "type": "table"}])
        self.client.set_tag(run, "mlflow.loggedArtifacts", logged)

    def trial(self, parent: str, key: str, spec: str, start: float, name: str = "") -> str:
        """The child run of a trial that is still to finish; returns its id."""
        tags = {PARENT_TAG: parent, "raygrid.spec": shortened(spec, TAG_LENGTH)}
        return self.open(key, name or spec, tags, start)

    def finish(self, parent: str, result: Result, shown: Shown | None = None) -> str:
        """Everything that a row holds; the last tag says that nothing is missing. The run's id."""
        shown = shown or Shown(result.spec)
        start = result.finished - result.seconds
        run = self.trial(parent, result.key, result.spec, start, shown.name)
        points = epoch_points(result.history, is_contrastive(result.resolved))
        points += final_metrics(result, shown)
        params = params_of(result.spec, result.resolved)
        # Numbers first: a server may refuse files, and take them again another day.
        self.write(run, points, params, tags_of(result, shown))
        self.end(result.key, RUN_STATUS[result.status], result.finished)
        self._keep_files(run, result)
        if shown.picture is not None:
            self.client.log_artifact(run, str(shown.picture))
        self._log_poison(run, result)
        self.write(run, [], {}, {WRITTEN_TAG: written_mark(result.finished, shown.control)})
        for old in self._outdated.pop(result.key, []):
            self.client.delete_run(old.info.run_id)
        return run

    def artifact(self, run: str, name: str) -> str:
        """The address of a file of a run, below that of MLflow."""
        return f"#/experiments/{self.id}/runs/{run}/artifacts/{name}"

    def _keep_files(self, run: str, result: Result) -> None:
        """What is too much for parameters and metrics: epochs, all that was resolved, counts."""
        self.client.log_text(run, strict_json(result.history), "history.json")
        self.client.log_text(run, json.dumps(result.resolved, indent=1), "resolved.json")
        counted = {"probes": result.probes, "detection": result.detection}
        if any(counted.values()):
            self.client.log_text(run, strict_json(counted), "counts.json")
        if result.error:
            self.client.log_text(run, result.error, "error.txt")

    def _log_poison(self, run: str, result: Result) -> None:
        """The poison as the run's dataset: trials of one poison have the same digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        facts = poison_input(result)
        if facts is not None:
            given = DatasetInput(Dataset(**facts), [InputTag("mlflow.data.context", "training")])
            self.client.log_inputs(run, [given])

    def prune(self) -> dict[str, str]:
        """Deletes duplicate and outdated runs of trials; returns what the finished ones hold.

        That is, for each trial's key, the mark of the row in its run. Lost answers and restored
        experiments leave duplicates.
        """
        found: dict[str, str] = {}
        outdated = []
        for run in self.search(f"tags.`{PARENT_TAG}` != ''"):
            key, written = run.data.tags.get(KEY_TAG), run.data.tags.get(WRITTEN_TAG, "")
            if is_outdated(run):
                outdated.append(run)
            elif key in found:
                self.client.delete_run(run.info.run_id)
            elif key is not None and written and run.info.status != "RUNNING":
                found[key] = written
        for run in outdated:  # those whose successor was written just before something ended
            if run.data.tags.get(KEY_TAG) in found:
                self.client.delete_run(run.info.run_id)
        return found

    def parent_of(self, keys: Iterable[str]) -> str:
        """The parent of the first run that has one of these keys; empty if there is none."""
        wanted = set(keys)
        for run in self.search(f"tags.`{PARENT_TAG}` != ''"):
            if run.data.tags.get(KEY_TAG) in wanted:
                return str(run.data.tags[PARENT_TAG])
        return ""

    def kill_orphans(self, parent: str) -> None:
        """End the children that a killed driver left running."""
        for run in self.search(
            f"tags.`{PARENT_TAG}` = '{parent}' AND attributes.status = 'RUNNING'"
        ):
            self.client.set_terminated(run.info.run_id, "KILLED")
