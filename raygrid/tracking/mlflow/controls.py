"""Which trials on clean data others are compared with, as far as their rows are there."""

from __future__ import annotations

from typing import Any

from raygrid.core.errors import SpecError
from raygrid.core.spec import TrialSpec
from raygrid.storage.results import Json
from raygrid.tracking.mlflow.facts import Control, control_of


class Controls:
    """The trials on clean data, and the places of the rows that are compared with them."""

    def __init__(self) -> None:
        self._known: dict[str, Control] = {}  # by spec
        self._rows: dict[str, dict[str, int]] = {}  # spec of the control -> key -> place of a row

    def take(self, row: Json, place: int) -> dict[str, int]:
        """Note a row; returns the rows, key and place, that have another control from now on."""
        spec = _parsed(row.get("spec"))
        if spec is None:
            return {}
        control = control_of(spec)
        if spec.attack.name != "clean":
            self._rows.setdefault(control, {})[row["key"]] = place
            return {}
        acc, finished = row.get("final_acc"), float(row.get("finished") or 0.0)
        if acc is None or self._known.get(control) == Control(acc, finished):
            return {}
        self._known[control] = Control(acc, finished)
        return self._rows.get(control, {})

    def of(self, text: Any) -> Control | None:
        """The control of the trial with this spec, once it has an accuracy; clean data has none."""
        spec = _parsed(text)
        if spec is None or spec.attack.name == "clean":
            return None
        return self._known.get(control_of(spec))


def _parsed(text: Any) -> TrialSpec | None:
    try:
        return TrialSpec.parse(str(text))
    except SpecError:
        return None
