"""What MLflow's list of runs shows through the link that the command line prints."""

from __future__ import annotations

import json

VIEW = "raygrid"
"""The key of the view: `?viewStateShareKey=raygrid` behind an experiment's address."""
_AXES = ("attack", "budget", "poison_ratio", "defense", "architecture", "learner", "seed")
_METRICS = ("final_acc", "peak_acc", "drop_vs_clean", "published_acc")


def view_tags() -> dict[str, str]:
    """The tag of an experiment that holds the view: finished trials, the lowest accuracy first.

    The form is that of MLflow 3.17's saved views: an envelope with a name, times in ms and the
    state as JSON of its own.
    """
    columns = [f"params.`{axis}`" for axis in _AXES]
    columns += [f"metrics.`{metric}`" for metric in _METRICS]
    state = {
        "searchFilter": "tags.`raygrid.status` = 'done'",
        "orderByKey": "metrics.`final_acc`",
        "orderByAsc": True,
        "selectedColumns": columns,
    }
    envelope = {"name": "Trials", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return {f"mlflow.sharedViewState.{VIEW}": json.dumps(envelope)}
