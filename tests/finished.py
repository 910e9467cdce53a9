"""Finished trials that left all they can, and what is asked of their folder."""

from __future__ import annotations

from pathlib import Path

from raygrid.api.run_grid import Options, run_grid
from raygrid.cli import main as cli
from raygrid.core.options import LEFT_BY_TRIALS
from raygrid.storage.store import Store
from raygrid.trials.result import Result
from tests import plugin

assert plugin.CARD
CLEAN = "dots/clean/none/small_cnn/supervised/brief/{}"
LSP = "dots/lsp(budget=l2:3.0)/none/small_cnn/supervised/brief/0"
BARE = "dots/clean/grayscale/small_cnn/supervised/brief/0"
SPECS = [CLEAN.format(0), CLEAN.format(1), LSP]


def finish(folder: Path) -> None:
    """Run three trials that leave everything, and one that leaves nothing."""
    assert not run_grid(SPECS, inline(folder, LEFT_BY_TRIALS)).failed
    assert not run_grid([BARE], inline(folder)).failed


def inline(out: Path, keep: tuple[str, ...] = ()) -> Options:
    """A run in this process, all of it in one folder."""
    return Options(out=out, data=out / "data", executor="inline", keep=keep)


def result_of(out: Path, spec: str) -> Result:
    """The row of a trial."""
    rows = Store(out / "store").results(out / "results.jsonl").rows()
    return next(Result.from_row(row) for row in rows if row["spec"] == spec)


def command(out: Path, *words: str) -> int:
    """Exit status of a command about the folder."""
    places = ["--out", str(out), "--data", str(out / "data"), "--tracking", "off"]
    return cli.main([*words, *places, "--import", "tests.plugin"])
