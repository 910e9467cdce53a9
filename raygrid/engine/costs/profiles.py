"""What trials take of a GPU: measured while they run, kept in the store from run to run.

    <store>/profiles/<GPU>.json    {"resnet18/supervised/128/32": {"memory_mb": ...}}

Every number there was measured on that kind of GPU by a run of this store. For common kinds of
trials the memory is shipped (`footprints.csv`), counted without a GPU: it counts until one was
measured.
"""

from __future__ import annotations

import csv
import functools
import json
import logging
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from typing import Any

from raygrid.core.errors import StoreError
from raygrid.storage.claims import shared_side
from raygrid.storage.store import Store
from raygrid.trials.trial import Trial

log = logging.getLogger(__name__)
PROFILE_SECONDS = 60.0  # seconds between two writings
PROFILES_FOLDER = "profiles"
TRAINING_HOOKS = ("prepare", "augment", "loss", "contrast")
"""Where a defense acts while a trial trains: only there does it take memory or time of it."""


def kind(trial: Trial) -> str:
    """What a profile is valid for: architecture, learner, batch and image size, acting defenses.

    The poisoned share has no part in it: whatever a trial is only asked about comes in batches.
    """
    size, batch = trial.dataset.image_size, trial.recipe.batch_size
    acting = [str(d.part()) for d in trial.defense.links if any(map(d.acts, TRAINING_HOOKS))]
    parts = (trial.architecture.id, trial.learner.id, batch, size, "+".join(acting))
    return "/".join(map(str, filter(None, parts)))


def gpu_of(device: str) -> str:
    """The kind of a GPU, as Ray names it, from a device's name; empty for a CPU.

    `NVIDIA A100-SXM4-40GB` is an A100, `Tesla T4` a T4, `NVIDIA GeForce RTX 5090` has no other
    name than `GeForce-RTX-5090`.
    """
    if not device or device.startswith("cpu"):
        return ""
    model = re.match(r"\w+\s+((?:[A-Z]+\s+)*[A-Z0-9]*\d[A-Z0-9]*)", device)
    name = model[1] if model else device.removeprefix("NVIDIA ")
    return re.sub(r"[^\w.-]+", "-", name)


@functools.cache
def footprints() -> dict[str, float]:
    """MB that common kinds of trials take, counted as `experiments/benchmarks/footprints.py` says.

    What a GPU's pool takes beyond that, workspaces and fragments, is left to
    `gpu_share.MEMORY_MARGIN`.
    """
    text = (
        resources.files("raygrid.engine.costs")
        .joinpath("footprints.csv")
        .read_text(encoding="utf-8")
    )
    return {row["kind"]: float(row["memory_mb"]) for row in csv.DictReader(text.splitlines())}


@dataclass
class Profile:
    """What a kind of trial takes of a kind of GPU: the most that was seen, 0 for nothing.

    memory_mb: peak of torch's pool. together: so many trials at once are worth it, see
    `throughput`. least: the smallest share that may have memory enough, after one half as large
    had not.
    """

    memory_mb: float = 0.0
    together: float = 0.0
    least: float = 0.0

    def merge(self, **seen: float) -> bool:
        """Take in what was seen, field by field; whether it is more."""
        more = {name: value for name, value in seen.items() if value > getattr(self, name)}
        for name, value in more.items():
            setattr(self, name, value)
        return bool(more)


@dataclass
class Profiles:
    """Profiles by GPU and kind of trial. changes: counts what was learned."""

    known: dict[str, dict[str, Profile]] = field(default_factory=dict)
    changes: int = 0

    def find(self, gpu: str, name: str) -> Profile:
        """The profile of a kind on a GPU; if it never ran there, the memory taken elsewhere."""
        if name in self.known.get(gpu, {}):
            return self.known[gpu][name]
        others = (kinds[name].memory_mb for kinds in self.known.values() if name in kinds)
        return Profile(memory_mb=max(others, default=footprints().get(name, 0.0)))

    def merge(self, gpu: str, name: str, **seen: float) -> None:
        """Take in what was seen of a kind on a GPU."""
        profile = self.known.setdefault(gpu, {}).setdefault(name, Profile())
        self.changes += profile.merge(**seen)

    def add(self, other: Profiles) -> None:
        """Take in all that another run has seen."""
        for gpu, kinds in other.known.items():
            for name, profile in kinds.items():
                self.merge(gpu, name, **asdict(profile))

    def learn_rows(self, trials: Iterable[Trial], rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in what the rows of earlier runs say about the trials of a plan, by key."""
        for trial in trials:
            if trial.key in rows:
                self.learn(trial, rows[trial.key])

    def learn(self, trial: Trial, row: Mapping[str, Any]) -> None:
        """Take in a trial that is done or still well; only one on a GPU says anything.

        row: device and memory_mb as in a result; together where it was measured.
        """
        gpu = gpu_of(str(row.get("device", "")))
        if not gpu or row.get("status", "done") != "done":
            return
        seen = {"memory_mb": float(row.get("memory_mb") or 0.0)}
        self.merge(gpu, kind(trial), **seen, together=float(row.get("together") or 0.0))

    def ran_out(self, trial: Trial, gpu: str, share: float) -> None:
        """A trial found too little memory in its share of a GPU."""
        self.merge(gpu, kind(trial), least=min(1.0, 2 * share))


class ProfileStore:
    """The profiles that a store keeps. Drivers merge theirs with what is there, field by field.

    A store that is away costs what was learned, never the run.
    """

    def __init__(self, store: Store, every: float = PROFILE_SECONDS) -> None:
        self.store, self.files, self.every = store, shared_side(store), every
        self._saved = 0
        self._next = 0.0

    def load(self) -> Profiles:
        """All that is kept; files that are no profiles are passed over."""
        found = Profiles()
        try:
            for name in self.files.names(PROFILES_FOLDER):
                if name.endswith(".json"):
                    found.add(_parsed(_stem(name), self.files.read(name)))
        except StoreError as error:
            log.warning("no profiles of earlier runs: %s", error)
        self._saved = found.changes
        return found

    def tick(self, profiles: Profiles) -> None:
        """Save what is new if the last time is long enough ago."""
        if time.monotonic() >= self._next:
            self.save(profiles)

    def save(self, profiles: Profiles) -> None:
        """Save what is new, each file whole or not at all."""
        if profiles.changes == self._saved:
            return
        changes = profiles.changes
        self._next = time.monotonic() + self.every
        try:
            with self.store.lock(PROFILES_FOLDER):
                for gpu, kinds in profiles.known.items():
                    self._write(gpu, kinds)
            self._saved = changes
        except (StoreError, OSError) as error:
            log.warning("profiles are not kept: %s", error)

    def _write(self, gpu: str, kinds: Mapping[str, Profile]) -> None:
        name = f"{PROFILES_FOLDER}/{gpu}.json"
        whole = _parsed(gpu, self.files.read(name))
        whole.add(Profiles({gpu: dict(kinds)}))
        rows = {key: asdict(p) for key, p in whole.known.get(gpu, {}).items()}
        self.files.write(name, json.dumps(rows, indent=1, sort_keys=True).encode())


def _sound(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".json")


def _parsed(gpu: str, content: bytes | None) -> Profiles:
    """What a file holds, as far as it can be read."""
    found, names = Profiles(), {f.name for f in fields(Profile)}
    try:
        rows = json.loads(content or b"{}")
    except ValueError:
        rows = {}
    for kind_name, row in rows.items() if isinstance(rows, dict) else ():
        if isinstance(row, dict):
            seen = {k: float(row[k]) for k in names & set(row) if _sound(row[k])}
            found.merge(gpu, kind_name, **seen)
    return found
