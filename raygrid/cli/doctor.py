"""Is this machine ready? Checks that a person can act on."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from raygrid.core.errors import PluginError, RaygridError
from raygrid.core.options import Options
from raygrid.core.secrets import shown
from raygrid.storage.store import remove_unused

CheckState = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Check:
    """One check: what was looked at, how it stands, what to do."""

    name: str
    state: CheckState
    text: str

    def row(self) -> dict[str, Any]:
        return asdict(self)


def examine(options: Options) -> list[Check]:
    """All findings; nothing is installed or changed, and nothing left behind."""
    checks: list[Callable[[Options], Check]] = [
        _python,
        _torch,
        _ray,
        _mlflow,
        _extras,
        _store,
        _disk,
        _memory,
        _tracking,
        _pictures,
    ]
    found = [*(check(options) for check in checks), *_datasets(options)]
    remove_unused()
    return found


def _python(options: Options) -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Check("python", "ok" if good else "fault", f"{version}; 3.11 or newer is needed")


def _torch(options: Options) -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("torch", "note", f"{torch.__version__}, no GPU: use --scale quick or screen")
    places = range(torch.cuda.device_count())
    gpus = [(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in places]
    check = gpu_check(gpus, importlib.util.find_spec("pynvml") is not None)
    return Check("torch", check.state, f"{torch.__version__}, {check.text}")


def gpu_check(gpus: Sequence[tuple[str, tuple[int, int]]], nvml: bool) -> Check:
    """What to know of this machine's GPUs, given as names and compute capabilities.

    Convolutional networks train in bf16, which GPUs before Ampere (8.0) compute in software.
    """
    text = f"{len(gpus)} GPU: {', '.join(sorted({name for name, _ in gpus}))}"
    old = sorted({name for name, capability in gpus if capability < (8, 0)})
    if old:
        text += f"; {', '.join(old)}: no bf16 in hardware, so trials are far slower than planned"
    if not nvml:
        text += "; their utilization needs raygrid[gpu]"
    return Check("torch", "ok" if nvml and not old else "note", text)


def _package(name: str, why: str) -> Check:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return Check(name, "note", f"not there ({error}); {why}")
    return Check(name, "ok", str(module.__version__))


def _ray(options: Options) -> Check:
    from raygrid.engine.ray import sockets

    check = _package("ray", "trials run one after the other in this process")
    if check.state != "ok" or not sockets.too_long():
        return check
    try:
        instead = f"Ray's sockets go to {sockets.short_folder()}"
    except RaygridError as error:
        return Check("ray", "fault", str(error))
    long = f"no socket fits into {sockets.usual_folder()}, whose path is too long"
    return Check("ray", "note", f"{check.text}; {long}: {instead}")


def _mlflow(options: Options) -> Check:
    return _package("mlflow", "results are kept in results.jsonl alone")


def _extras(options: Options) -> Check:
    """Packages that some methods and figures want, by the extra that brings them."""
    wanted = {
        "diffusers": ("avatar", "avatar, eclipse, bridgepure"),
        "captum": ("figures", "grad-cam, shapley"),
    }
    absent = {name: said for name, said in wanted.items() if not importlib.util.find_spec(name)}
    if not absent:
        return Check("extras", "ok", ", ".join(wanted))
    said = (f"{name} (uv run --extra {e} ...) for {what}" for name, (e, what) in absent.items())
    return Check("extras", "note", f"not there: {'; '.join(said)}")


def _store(options: Options) -> Check:
    from raygrid.storage.mirrored import open_store

    try:
        open_store(options.store_url)
    except RaygridError as error:
        return Check("store", "fault", str(error))
    return Check("store", "ok", options.store_url)


def _disk(options: Options) -> Check:
    free = shutil.disk_usage(_existing(options.out.absolute())).free / 2**30
    state: CheckState = "ok" if free > 5 else "fault" if free < 0.5 else "note"
    return Check("disk", state, f"{free:.1f} GiB free for {options.out}")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _memory(options: Options) -> Check:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = os.cpu_count() or 1
    state: CheckState = "ok" if total > 1.5 * cores + 2 else "note"
    return Check("memory", state, f"{total:.1f} GiB, {cores} cores; a CPU trial takes about 1 GiB")


def _tracking(options: Options) -> Check:
    from raygrid.tracking.mlflow import check_tracking, store_uri
    from raygrid.tracking.mlflow.address import check_address, database_path

    if options.tracking == "off":
        return Check("tracking", "note", "off")
    if importlib.util.find_spec("mlflow") is None:
        return Check("tracking", "note", "MLflow is not there; results.jsonl has everything")
    try:
        uri = store_uri(options.out, options.tracking)
        check_address(uri)
        file = database_path(uri)
        if file is None or file.exists():  # a client would make it
            check_tracking(uri)
    except RaygridError as error:
        return Check("tracking", "fault", str(error))
    return Check("tracking", "ok", shown(uri))


def _pictures(options: Options) -> Check:
    from raygrid.storage.pictures import EXIF_NOTE

    return Check("pictures", "ok", f"of class folders: {EXIF_NOTE}")


def _datasets(options: Options) -> list[Check]:
    """A check a dataset; of a package that may offer more and cannot be imported only this."""
    from raygrid.datasets import DATASETS

    try:
        names = list(DATASETS)
    except PluginError as error:
        return [Check("methods", "fault", str(error))]
    return [_dataset(name, options) for name in names]


def _dataset(name: str, options: Options) -> Check:
    from raygrid.datasets import DATASETS

    try:
        DATASETS.make(name).source(options.data)
    except RaygridError as error:
        return Check(f"dataset {name}", "note", str(error))
    return Check(f"dataset {name}", "ok", "found")
