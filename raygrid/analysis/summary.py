"""What the rows of finished trials say together: spread over seeds, and what it all cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raygrid.store import Store
from raygrid.tables import frame
from raygrid.tables.cells import caution, cells_of

Row = dict[str, Any]


def over_seeds(rows: Iterable[Mapping[str, Any]], metric: str = "final_acc") -> list[Row]:
    """Mean, sample standard deviation and 95 % interval of each cell, with its n and seeds.

    interval: `t` (Student's, over seeds), or `wilson` (over test images) for a single seed. A note
    says that the interval of two seeds is very wide.
    """
    found = []
    for cell in cells_of(frame(rows), metric).values():
        found.append(
            {
                **cell.axes,
                "acc": cell.value,
                "std_acc": cell.std,
                "low_acc": cell.low,
                "high_acc": cell.high,
                "interval": cell.interval,
                "n": cell.n,
                "seeds": " ".join(map(str, cell.seeds)),
                **caution(cell.n),
            }
        )
    return found


_MADE = ("poison", "purified", "study")


def costs(rows: Iterable[Mapping[str, Any]], store: Store) -> list[Row]:
    """Seconds and memory of each trial, and seconds of the poison, purified set, study it used.

    fit_s, pass_s: of the purified set's, those that fitting networks took and putting images
    through them. None where nothing is known: the trial has none, or the store was emptied since.
    """
    found = []
    for row in rows:
        made = row.get("artifacts") or {}
        found.append(
            {
                "spec": row["spec"],
                "training_s": row.get("seconds"),
                **{f"{kind}_s": _seconds(store, kind, made) for kind in _MADE},
                "fit_s": _seconds(store, "purified", made, "fit_seconds"),
                "pass_s": _seconds(store, "purified", made, "pass_seconds"),
                "memory_mb": row.get("memory_mb"),
                "device": row.get("device"),
            }
        )
    return found


def _seconds(store: Store, kind: str, made: Mapping[str, str], of: str = "seconds") -> float | None:
    meta = store.meta(kind, made[kind]) if kind in made else None
    return None if meta is None else meta["facts"].get(of)
