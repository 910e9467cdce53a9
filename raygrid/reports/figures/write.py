"""Every figure that a set of rows suffices for, written to files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from raygrid.core.errors import SpecError
from raygrid.core.text import file_name_part
from raygrid.reports.figures.curves import training_curves
from raygrid.reports.figures.partial import partial_poisoning, partial_under_defenses
from raygrid.reports.figures.scatters import peak_against_final, speed_against_peak
from raygrid.reports.tables.frame import curves, frame
from raygrid.reports.tables.trial_lines import VICTIM_AXES, ResultRow, in_order


def write_figures(out_dir: Path, rows: Iterable[ResultRow]) -> list[Path]:
    """Draw what the rows suffice for into `<out_dir>/figures/`, one set of files a victim."""
    folder = out_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    kept = in_order(rows)
    trials, epochs = frame(kept), curves(kept)
    written = []
    for victim, here in trials.groupby(VICTIM_AXES, sort=True):
        same = (epochs[VICTIM_AXES] == list(victim)).all(axis=1)
        drawings: dict[str, Callable[[], Figure]] = {
            "peak-final": partial(peak_against_final, here),
            "speed-peak": partial(speed_against_peak, here),
            "partial-acc": partial(partial_poisoning, here, "acc"),
            "partial-loss": partial(partial_poisoning, here, "loss"),
            "partial-defenses": partial(partial_under_defenses, here),
            "curves": partial(training_curves, epochs[same]),
        }
        for name, draw in drawings.items():
            try:
                figure = draw()
            except SpecError:  # not enough of the right trials for this one
                continue
            path = folder / f"{name}-{file_name_part('-'.join(map(str, victim)))}.png"
            figure.savefig(path)
            written.append(path)
    return written
