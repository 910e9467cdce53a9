"""Whether two run folders hold the same: keys, rows, artifacts' bytes.

    python experiments/benchmarks/same_runs.py BEFORE AFTER

For a change that must not change any number: run the same grid at both commits on one machine,
then compare. Exit status 1 with a line for every difference. Times, places, versions and commits
may differ; everything else of a row and every stored tensor may not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raygrid.storage.results import RESULTS_FILE, ResultLog

MAY_DIFFER = {
    *(
        "seconds",
        "epoch_seconds",
        "commit",
        "versions",
        "started",
        "finished",
        "host",
        "device",
        "pid",
        "place",
    ),
    *("memory_mb", "memory_gb", "gpu_busy", "taken", "parts", "when", "time"),
}
"""Columns of a row that say how a trial ran, not what came out."""


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a run folder by their specs."""
    return {row["spec"]: row for row in ResultLog(folder / RESULTS_FILE).rows()}


def outcome(row: dict[str, Any]) -> dict[str, Any]:
    """What came out of a trial: its row without what says how it ran."""
    kept = {name: value for name, value in row.items() if name not in MAY_DIFFER}
    kept["history"] = [
        {name: value for name, value in epoch.items() if name not in MAY_DIFFER}
        for epoch in row.get("history", [])
    ]
    return kept


def artifacts_of(folder: Path) -> dict[str, str]:
    """The checksum of every artifact's tensors in a run folder's store, by kind and key."""
    found = {}
    for meta in sorted((folder / "store").rglob("meta.json")):
        said = json.loads(meta.read_text(encoding="utf-8"))
        found[str(meta.parent.relative_to(folder / "store"))] = str(said.get("checksum"))
    return found


def differences(before: Path, after: Path) -> Iterator[str]:
    """A line for everything that one folder has otherwise than the other."""
    for what, old, new in (
        ("row", rows_of(before), rows_of(after)),
        ("artifact", artifacts_of(before), artifacts_of(after)),
    ):
        if not old:
            yield f"{before} has no {what}s"
        for name in sorted({*old, *new}):
            if name not in old or name not in new:
                yield f"{what} {name} is in {before if name in old else after} alone"
            elif isinstance(a := old[name], dict) and isinstance(b := new[name], dict):
                one, two = outcome(a), outcome(b)
                for column in sorted({*one, *two}):
                    if one.get(column) != two.get(column):
                        yield f"row {name}: {column} {one.get(column)} became {two.get(column)}"
            elif old[name] != new[name]:
                yield f"artifact {name}: other bytes"


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    before, after = Path(sys.argv[1]), Path(sys.argv[2])
    found = list(differences(before, after))
    rows, artifacts = len(rows_of(after)), len(artifacts_of(after))
    print("\n".join(found) or f"the same: {rows} rows, {artifacts} artifacts")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
