"""How a grid is run: one frozen object that travels whole from the command line to every worker.

An option is one field of `Options`. Its help text, its limits and the shape of its flag stand
beside its name and type; `raygrid.cli.options` makes the flags of them, `Options` the checks.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from raygrid.core.driver import Driver
from raygrid.core.errors import SpecError, SpecErrors
from raygrid.core.flags import Address, Flag, Place, Texts, checked_value, no_flag, option
from raygrid.core.plugins import absolute

LEFT_BY_TRIALS = ("weights", "peak", "predictions", "features")
"""What trials leave in a store on request; every other kind of entry is an artifact."""
TRIALS_PER_GPU = (1, 2, 4, 8)
"""How many trials share a GPU: fractions that tile it whatever their order."""


@dataclass(frozen=True)
class Options:
    """How a grid is run; everything that a run writes goes under `out`.

    A text in the place of a path becomes one, a path in the place of a text that, and a list or one
    text alone a tuple. Raises SpecError that names each value that is not allowed, and what is.
    """

    out: Place = option(Path("runs"), "folder for all output", group="places")
    data: Place = option(
        Path("data"), "folder with the datasets' files", group="places", variable="RAYGRID_DATA"
    )
    store: Address = option(
        None,
        "folder or URL (s3://...) for artifacts (OUT/store)",
        group="places",
        variable="RAYGRID_STORE",
    )
    executor: Literal["auto", "ray", "inline"] = option(
        "auto", "inline: in this process; auto: Ray where it is installed"
    )
    address: str | None = option(None, "a Ray cluster: http://host:8265, host:6379, auto, local")
    cpus: int | None = option(None, "CPUs for a local Ray (all)", least=1)
    tracking: str | None = option(
        None,
        "MLflow URI, or off (MLFLOW_TRACKING_URI, else a database under OUT)",
        group="places",
        driver_only="it may hold a password, and Ray Tune writes to disk what workers get",
    )
    imports: Texts = option(
        (),
        "import a module or file.py that registers methods of your own",
        group="places",
        word="import",
        metavar="MODULE",
        repeated=True,
    )
    quiet: bool = option(False, "no progress display")
    yes: bool = option(
        False,
        "do not ask before a run that is estimated to take over 24 hours on this machine",
        driver_only="people are asked where they started the run",
    )
    driver: str | None = option(
        None,
        "one of several drivers that share a grid, each on a machine of its own: its number, from "
        "0, and how many there are",
        metavar="I/N",
        variable="RAYGRID_DRIVER",
        driver_only="workers serve the driver that started them",
    )
    name: str = no_flag("grid", "the command names the run by what it runs")
    strict: bool = no_flag(
        False, "a spec that a person typed is refused where one of a grid is skipped"
    )
    checkpoint_every: float = option(
        30.0, "seconds between two checkpoints of a trial", metavar="SECONDS", least=0
    )
    deadline: float | None = option(
        None,
        "end a job on Ray after so many seconds without progress and try it once more "
        "(default: ten times its estimate, an hour at least)",
        metavar="SECONDS",
        above=0,
    )
    shards: int | None = option(
        None,
        "split the making of a poison among N jobs, where its rows are independent "
        "(default: as many as fit where it takes long; 1 without Ray)",
        metavar="N",
        least=1,
    )
    keep: Texts = option(
        (),
        "what trials leave for `raygrid evaluate` and `figure` (`plan` says its size); "
        "a finished trial that lacks any of it is trained again",
        allowed=LEFT_BY_TRIALS,
    )
    per_gpu: int | None = option(
        None,
        "trials that share a GPU: 1, 2, 4 or 8 (as many as fit, by what was measured)",
        metavar="N",
        allowed=TRIALS_PER_GPU,
    )
    mps: bool = option(True, "do not use NVIDIA's MPS; trials that share a GPU take turns")
    graphs: bool = option(
        False,
        "on GPUs record a training step once an epoch and replay it as one launch, where nothing "
        "in it waits; results are the same",
    )
    measure: bool = option(
        True,
        "do not measure on the cluster's GPUs, before the grid starts, what unknown kinds of "
        "trials take; they are learned as they run",
    )

    def __post_init__(self) -> None:
        faults = []
        for name, hint in hints().items():
            try:
                value = checked_value(name, getattr(self, name), hint, flags().get(name))
                object.__setattr__(self, name, value)
            except SpecError as error:
                faults.append(str(error))
        if not faults and self.driver is not None:
            try:
                Driver.parse(self.driver)
            except SpecError as error:
                faults.append(str(error))
        if not faults and self.deadline is not None and self.engine == "inline":
            faults.append(
                f"deadline is {self.deadline:g}, but it ends jobs in workers, which the inline "
                "executor has not; use Ray"
            )
        if self.executor == "inline" and self.address is not None:
            faults.append(
                f"address is {self.address}, but the inline executor runs all in this process; "
                "leave one of the two out"
            )
        if faults:
            raise SpecErrors(faults)

    @property
    def engine(self) -> Literal["ray", "inline"]:
        """The executor that `auto` stands for here."""
        if self.executor != "auto":
            return self.executor
        return "ray" if importlib.util.find_spec("ray") else "inline"

    @property
    def store_url(self) -> str:
        return self.store or str(self.out.absolute() / "store")

    def for_workers(self) -> Options:
        """The same for processes in other folders: absolute paths, nothing of the driver alone."""
        store = self.store_url
        if "://" not in store:
            store = str(Path(store).absolute())
        plain = {name: _default(name) for name, flag in flags().items() if flag.driver_only}
        imports = tuple(map(absolute, self.imports))
        here = replace(self, out=self.out.absolute(), data=self.data.absolute())
        return replace(here, store=store, imports=imports, **plain)


@functools.cache
def hints() -> Mapping[str, Any]:
    """The type of every option, by name."""
    return get_type_hints(Options)


@functools.cache
def flags() -> Mapping[str, Flag]:
    """The flag of every option that has one, by the option's name."""
    return {f.name: f.metadata["flag"] for f in fields(Options) if "flag" in f.metadata}


def _default(name: str) -> Any:
    return next(f.default for f in fields(Options) if f.name == name)
