"""Shared set-up: one thread, no hub, the toy world, stores in temporary folders."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAYGRID_LOGICAL_GPUS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported: here, and in child processes

import contextlib
import gc
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Where Python may not keep compiled modules beside their source, every process would compile the
# tests, torch and Ray anew: 17 CPU s to collect the tests instead of 7. They are kept in pytest's
# own cache then.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")

import pytest
import torch
from hypothesis import settings
from matplotlib.figure import Figure

from raygrid.core import retry
from raygrid.core.images import Images
from raygrid.core.options import Options
from raygrid.core.seeds import Stream
from raygrid.reports.analysis.records import Records
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import Artifact, BuildContext
from raygrid.trials.artifacts.build import build
from raygrid.trials.catalog import Catalog

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# A draw that differs from run to run lets one run fail and the next pass; what is drawn anew, and
# far more of it, is marked slow and asks for the profile `random`.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.register_profile("random", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("fixed")

TOYS = {
    *("dots", "sleeper", "witness", "broken", "slow_shift", "brief"),  # plugin.py
    *("paced", "paced_shift", "paces"),  # faulty.py
    *("cifar_six", "cifar_four"),  # test_targeted_bite.py
}
"""Methods that tests register."""
_ENDED = itertools.count(1)
_KEPT_MODULES = [0]
SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_finish() -> None:
    _keep_what_is_there()


def pytest_runtest_logfinish() -> None:
    if len(sys.modules) > _KEPT_MODULES[-1] + 50 or next(_ENDED) % 200 == 0:
        _keep_what_is_there()


def _keep_what_is_there() -> None:
    """Keep what tests are made of, and what they imported, out of every later garbage collection.

    Trials and artifacts collect garbage when they end: 0.4 CPU s each while those objects count.
    """
    _KEPT_MODULES.append(len(sys.modules))
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Tests asked for by name run in one process: collecting twice would cost more than it saves.

    None: pytest-xdist counts the cores, as for any other call. `-n 2` is obeyed in both cases.
    """
    return 0 if config.option.keyword else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Contract tests are about the methods that ship, whichever module registered toys first."""
    items[:] = [item for item in items if not _about_a_toy(item)]


def _about_a_toy(item: pytest.Item) -> bool:
    spec = getattr(item, "callspec", None)
    values = spec.params.values() if spec else ()
    return any(isinstance(value, str) and value in TOYS for value in values)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No pause lasts; their seconds are noted."""
    pauses: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(out=tmp_path / "out", data=tmp_path / "data", executor="inline")


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """For modules about other things than what a run draws; `api/test_run_grid.py` is about it."""
    with nothing_drawn():
        yield


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """Runs draw neither figures nor tables, which takes longer than the trials of toys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raygrid.reports.figures.write.write_figures", lambda out, rows: [])
        patch.setattr("raygrid.reports.tables.write.worth_drawing", lambda panel: False)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the trials in `finished.py`, made once: tests leave it as it is."""
    from tests.finished import finish

    folder = tmp_path_factory.mktemp("finished")
    with nothing_drawn():
        finish(folder)
    return folder


@pytest.fixture
def records(finished: Path) -> Records:
    return Records(Store(finished / "store"), finished / "data")


@pytest.fixture
def catalog(store: Store, tmp_path: Path) -> Catalog:
    return Catalog(store, tmp_path / "data")


@pytest.fixture
def fetch(store: Store, tmp_path: Path) -> Callable[[Artifact], Bundle]:
    """Make or load an artifact with its needs, in this process."""
    context = BuildContext(torch.device("cpu"), tmp_path / "data")

    def get(artifact: Artifact) -> Bundle:
        return build(artifact, store, context, get)[0]

    return get


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of published numbers and real data beside the checkout."""
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window; skips where it or its driver is not there."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        sandbox = os.getuid() != 0  # Chromium has none for root
        browser = driver.chromium.launch(executable_path=program, chromium_sandbox=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Page]:
    """A tab of a window of 1280 x 900 whose errors fail the test."""
    faults: list[str] = []
    with chromium.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        yield page
    assert not faults


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were written to a file, to look at what they show."""
    found: list[Figure] = []
    save = Figure.savefig

    def note(figure: Figure, path: Path) -> None:
        found.append(figure)
        save(figure, path)

    monkeypatch.setattr(Figure, "savefig", note)
    return found


def toy(
    n: int = 64, side: int = 16, classes: int = 4, signal: float = 24.0, seed: int = 0
) -> Images:
    """Images with a known answer: class patterns of `signal` levels in noise of sd 24 levels."""
    stream = Stream("toy", (side, classes))
    patterns = torch.randn(classes, 3, side, side, generator=stream.generator("patterns"))
    generator = stream.generator("noise", seed, n)
    labels = torch.arange(n) % classes
    noise = torch.randn(n, 3, side, side, generator=generator)
    values = 128 + signal * patterns[labels].sign() / 3 + 24 * noise
    return Images(values.round().clamp(0, 255).to(torch.uint8), labels, classes)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> Images:
    return toy()


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables; making them takes seconds, copying them nothing."""
    from raygrid.tracking.mlflow import check_tracking, store_uri

    folder = tmp_path_factory.mktemp("mlflow")
    check_tracking(store_uri(folder))
    return folder / "mlflow.db"
