"""One run of the soak's grid: its folder, its store, its drivers, its processes."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import ray

assert ray.__version__  # imported first: it brings psutil along
import psutil  # noqa: E402

MARKED = Path(__file__).with_name("marked.py")
_AXES = product(("clean", "lsp", "noise"), ("none", "jpeg"), ((8, 0), (12, 1)))
SPECS = [
    f"photo_digits(every=8)/{attack}/{defense}/small_cnn/marked(trial={number})/"
    f"quick(epochs={epochs})/{seed}"
    for number, (attack, defense, (epochs, seed)) in enumerate(_AXES, 1)
]


@dataclass
class Round:
    """One run of the grid. pause: seconds for which a stopped driver sleeps.

    struck, missed: the names of faults that came, and of those that could not, with the reason.
    statuses: how the drivers ended, in order.
    """

    folder: Path
    store: Path
    pause: float
    rng: random.Random
    driver: subprocess.Popen[bytes] | None = None
    struck: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def log(self) -> Path:
        """What all drivers printed."""
        return self.folder / "log"

    @property
    def marks(self) -> Path:
        """What trials noted; see `marked.py`."""
        return self.folder / "marks"

    def start(self) -> None:
        """Start a driver; it is not waited for."""
        words = ["--executor", "ray", "--cpus", "1", "--quiet", "--checkpoint-every", "0.5"]
        words += ["--out", str(self.out), "--store", str(self.store / "store")]
        words += ["--import", str(MARKED)]
        ray_folder = self.folder / "ray"
        ray_folder.mkdir(parents=True, exist_ok=True)
        own = {"RAY_TMPDIR": str(ray_folder), "RAYGRID_CACHE": str(self.folder / "cache")}
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "raygrid", "run", *SPECS, *words],
                env={**os.environ, **own, "SOAK_MARKS": str(self.marks)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> int:
        """Wait for the driver; its exit status."""
        assert self.driver is not None
        self.statuses.append(self.driver.wait())
        return self.statuses[-1]

    def lives(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def processes(self) -> list[psutil.Process]:
        """All that belong to this round, known by the folder of their Ray."""
        mine = f"RAY_TMPDIR={self.folder / 'ray'}".encode()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                words = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if mine in words and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill(self, *names: str) -> bool:
        """Kill a process whose command has one of these words, without warning."""
        fits = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any(name in " ".join(process.cmdline()) for name in names):
                    fits.append(process)
        if not fits:
            return False
        with contextlib.suppress(psutil.Error):
            self.rng.choice(sorted(fits, key=lambda p: p.pid)).kill()
        return True

    def left_behind(self, grace: float) -> list[str]:
        """Processes that outlive the last driver by more than `grace` seconds; they are killed."""
        end = time.monotonic() + grace
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(min(1.0, grace))
        told = []
        for process in left:
            with contextlib.suppress(psutil.Error):
                told.append(f"{process.pid} ({' '.join(process.cmdline())[:80]})")
                process.kill()
        return told
