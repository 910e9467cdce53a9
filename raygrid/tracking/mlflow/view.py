"""What MLflow's list of runs shows through the link that the command line prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

VIEW_KEY = "raygrid"
"""The key of the view."""
VIEW_QUERY = f"workflowType=machine_learning&viewStateShareKey={VIEW_KEY}"
"""Behind an experiment's address: MLflow's side for training instead of language models, the view.
"""
_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
_AXES = ("attack", "budget", "poison_ratio", "defense", "architecture", "learner", "seed")
_METRICS = ("final_acc", "peak_acc", "drop_vs_clean", "published_acc")
_RUN_NAME = "attributes.`Run Name`"
_WIDTHS = {_RUN_NAME: 330, "metrics.`drop_vs_clean`": 130, "metrics.`published_acc`": 130}
"""Pixels: names are cut off in MLflow's own 190; 90 where nothing else is said."""


def view_tags() -> dict[str, str]:
    """The tag of an experiment that holds the view: finished trials, the lowest accuracy first.

    The form is that of MLflow 3.17's saved views: an envelope with a name, times in ms and the
    state as JSON of its own.
    """
    columns = [*(f"metrics.`{metric}`" for metric in _METRICS), *(f"params.`{a}`" for a in _AXES)]
    state = {
        "searchFilter": "tags.`raygrid.status` = 'done'",
        "orderByKey": "metrics.`final_acc`",
        "orderByAsc": True,
        "selectedColumns": columns,
        "columnOrder": [_RUN_NAME, *columns],
        "columnWidths": {name: _WIDTHS.get(name, 90) for name in (_RUN_NAME, *columns)},
        "compareRunCharts": _charts(),
        "compareRunSections": [
            {**_VIEW_FLAGS, "uuid": VIEW_KEY, "name": "Trials", "display": True, "columns": 2}
        ],
        "isAccordionReordered": True,  # else sections stand by name, the epochs first
    }
    envelope = {"name": "Trials", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return {_TAG: json.dumps(envelope)}


_VIEW_FLAGS = {"deleted": False, "isGenerated": False, "isReordered": False}


def _charts() -> list[dict[str, Any]]:
    """The charts that stand first: what an accuracy depends on, and the accuracies side by side."""
    shared = {**_VIEW_FLAGS, "metricSectionId": VIEW_KEY, "runsCountToCompare": 20}
    return [
        {
            **shared,
            "type": "PARALLEL",
            "uuid": f"{VIEW_KEY}-axes",
            "selectedParams": ["attack", "budget", "defense"],  # more are illegible
            "selectedMetrics": ["final_acc"],
            "showAllRuns": False,
        },
        {**shared, "type": "BAR", "uuid": f"{VIEW_KEY}-final", "metricKey": "final_acc"},
    ]


def is_ours(tags: Mapping[str, str]) -> bool:
    """Whether an older version of this package wrote the view that an experiment has.

    MLflow itself gives every view the time of its making.
    """
    try:
        return bool(json.loads(tags[_TAG])["createdAt"] == 0)
    except (KeyError, TypeError, ValueError):
        return False
