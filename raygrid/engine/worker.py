"""One job done in this process: what every executor calls, wherever it runs."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raygrid.core.device import Meter, settle
from raygrid.core.lazy import torch
from raygrid.core.options import Options
from raygrid.core.retry import patiently
from raygrid.nn import graphs
from raygrid.storage.checkpoints import Checkpointer, CheckpointSlot, pack, unpack
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import Artifact, BuildContext
from raygrid.trials.artifacts.build import BuildObserver, OnProgress, build
from raygrid.trials.context import Checkpoint, Fetch, Report, TrialContext
from raygrid.trials.examples import keep_examples
from raygrid.trials.result import Result
from raygrid.trials.run import run_trial
from raygrid.trials.trial import Trial

_NAMED = (
    *("torch", "torchvision", "timm", "lightly", "numpy", "scipy", "scikit-learn", "pillow"),
    *("diffusers", "captum", "ray"),
)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of raygrid and of the packages that numbers depend on, where installed."""
    found = {"raygrid": importlib.import_module("raygrid").__version__}
    for name in _NAMED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def commit() -> str:
    """The commit of the checkout that raygrid runs from, `+` behind it if files are changed."""
    folder = Path(__file__).parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()

    try:
        # A repository around an installed package is another one, whose commit says nothing here.
        git("ls-files", "--error-unmatch", "--", __file__)
        dirty = git("status", "--porcelain", "--", str(folder))
        return git("rev-parse", "--short", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def best_device() -> torch.device:
    """The first GPU that this process may see, else the CPU.

    With its index: what CUDA is asked about a device wants to know which one.
    """
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def ready_device() -> torch.device:
    """The best device, with all decided that makes its results those of a grid."""
    device = best_device()
    settle(device)
    return device


class StoreCheckpoint(Checkpoint):
    """A trial's state between epochs, in the store."""

    def __init__(self, store: Store, key: str, every: float, leaving: Callable[[], bool]) -> None:
        self.slot = CheckpointSlot(store, _slot_key(key))
        self.keeper = Checkpointer(self.slot, every, leaving)

    def save(self, state: dict[str, Any]) -> None:
        self.keeper.save(functools.partial(pack, state))

    def load(self) -> dict[str, Any] | None:
        found = self.slot.load()
        return None if found is None else unpack(found)


def _slot_key(key: str) -> str:
    """Where the checkpoints of a trial lie in a store."""
    return f"trial-{key}"


@functools.cache
def _freeze_imports() -> None:
    """Once a process: exempt what importing left from garbage collection after each trial.

    Walking those objects takes 0.15 s.
    """
    gc.collect()
    gc.freeze()


@dataclass
class Worker:
    """Does jobs against a store.

    options: of the run. Making a worker sets the process's switch for recorded steps by them, and
    what CUDA may choose among.
    load: gets the content of an artifact that already exists, or None if it is not there after
    all (a cluster shares one copy through its object store); the default reads the store.
    leaving: whether this machine will be taken away soon.
    """

    store: Store
    options: Options = field(default_factory=Options)
    device: torch.device = field(default_factory=best_device)
    load: Callable[[Artifact], Bundle | None] | None = None
    leaving: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        settle(self.device)
        graphs.SWITCH.on = self.options.graphs

    def fetch(self, artifact: Artifact) -> Bundle:
        """The content of an artifact; one that is missing or damaged is made here and now."""
        # What a broker has forgotten, or a damaged file has lost, is made again by the one who
        # needs it: a trial never waits for another job once it has started.
        found = self.load(artifact) if self.load is not None and artifact.shared else None
        return found if found is not None else self.make(artifact)[0]

    def make(
        self, artifact: Artifact, tell: OnProgress = lambda done, total, before: None
    ) -> tuple[Bundle, bool]:
        """Load or make an artifact; the flag says whether it was made."""
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # the same sums in the same order, whoever makes it
        context = BuildContext(self.device, self.options.data.absolute())
        return build(artifact, self.store, context, self.fetch, BuildObserver(tell, self.leaving))

    def run(
        self,
        trial: Trial,
        report: Report = lambda metrics: None,
        raise_device: bool = False,
        meter: Meter | None = None,
    ) -> Result:
        """Run a trial, going on from its last checkpoint if there is one.

        The checkpoint stays until `forget`: until the row is written, the work may still be lost.
        raise_device, meter: those of `TrialContext`.
        """
        _freeze_imports()
        every = self.options.checkpoint_every
        checkpoint = StoreCheckpoint(self.store, trial.key, every, self.leaving)
        context = TrialContext(
            device=self.device,
            report=report,
            checkpoint=checkpoint,
            commit=commit(),
            versions=versions(),
            options=self.options,
            leave=lambda kind, bundle: patiently(lambda: self.store.put(kind, trial.key, bundle)),
            examples=functools.partial(keep_examples, self.store),
            raise_device=raise_device,
            meter=meter,
        )
        return run_trial(trial, self._remembering(), context)

    def forget(self, trial: Trial, result: Result) -> None:
        """Drop the checkpoints of a trial whose row is written; one that failed is tried again."""
        if result.status == "failed":
            return
        CheckpointSlot(self.store, _slot_key(trial.key)).clear()

    def _remembering(self) -> Fetch:
        """`fetch` that reads each artifact once while a trial lasts."""
        seen: dict[str, Bundle] = {}

        def fetch(artifact: Artifact) -> Bundle:
            if artifact.key not in seen:
                seen[artifact.key] = self.fetch(artifact)
            return seen[artifact.key]

        return fetch
