"""What a person sees of a grid in MLflow: the printed link, charts, the grid's page, a trial's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from raygrid.engine.grid import Grid, plan
from raygrid.reports.page.write import report
from raygrid.reports.tables.write import write_tables
from raygrid.storage.results import ResultLog
from raygrid.tracking.mlflow import check_tracking
from raygrid.tracking.mlflow.client import PARENT
from raygrid.tracking.mlflow.view import QUERY
from tests.tracking.test_mlflow import Tracked, free_port, row, runs, server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
SLOW = 90_000  # ms that MLflow's page may take where other programs want the cores too
GRID = Grid(
    attacks=("clean", "lsp", "em(budget=16/255)"),
    defenses=("standard", "jpeg"),
    architectures=("small_cnn",),
    learners=("supervised", "simclr"),
    protocols=("quick(epochs=3)",),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real server with a grid of which trial number i has the accuracy 0.05 + i / 20."""
    out, port = tmp_path_factory.mktemp("runs"), free_port()
    uri = f"http://127.0.0.1:{port}"
    check_tracking(f"sqlite:///{out}/server.db")  # its tables take longest
    with server(out, port):
        check_tracking(uri, timeout=60)
        grid = plan(GRID.specs(), None)
        tracker = Tracked(out, uri, every=0.1, wait=120)
        tracker.started(grid, grid.trials)
        log = ResultLog(out / "results.jsonl")
        for number, trial in enumerate(grid.trials):
            result = row(trial)
            result.final_acc = result.last_acc = 0.05 + number / 20
            log.append(result.row())
            tracker.trial_finished(trial, result)
        files = write_tables(out, log.rows())
        tracker.tables([*files, report([out])])
        tracker.close(interrupted=False)
        yield uri, out


def visit(tab: Page, address: str, sign: str) -> None:
    """Open a page of MLflow and wait until it shows a text."""
    tab.set_default_timeout(SLOW)
    tab.set_viewport_size({"width": 1600, "height": 1000})
    tab.goto(address)
    tab.get_by_text(sign).first.wait_for()


def parent_of(uri: str, out: Path) -> str:
    (parent,) = (run for run in runs(out, uri) if PARENT not in run.data.tags)
    return str(parent.info.run_id)


def test_the_printed_link_lists_trials_the_lowest_accuracy_first(
    tab: Page, site: tuple[str, Path]
) -> None:
    """With names that tell trials apart, accuracies and the axes, and no parent among them."""
    uri, _ = site
    visit(tab, f"{uri}/#/experiments/1/runs?{QUERY}", "em · jpeg · simclr")
    heads = tab.locator(".ag-header-cell").all_inner_texts()
    shown = " ".join(heads)
    for name in ("final_acc", "peak_acc", "attack", "budget", "defense"):
        assert name in shown, heads
    accuracies = tab.locator('.ag-center-cols-container [col-id*="final_acc"]').all_inner_texts()
    values = [float(text) for text in accuracies if text.strip()]
    assert len(values) >= 8, accuracies
    assert values == sorted(values)
    assert values[0] == 0.05
    assert not [text for text in accuracies if len(text) > 6], "rounded, so that columns hold them"


def test_a_heatmap_of_a_grid_is_legible_in_mlflow(tab: Page, site: tuple[str, Path]) -> None:
    """At least as large on the screen as its letters need: 100 pixels an inch."""
    uri, out = site
    picture = next(iter(sorted((out / "tables").glob("defense-*.png"))))
    page = f"{uri}/#/experiments/1/runs/{parent_of(uri, out)}"
    visit(tab, f"{page}/artifacts/tables/{picture.name}", picture.name)
    shown = tab.locator(f'img[alt="tables/{picture.name}"]')
    shown.wait_for()
    box = shown.bounding_box()
    assert box is not None
    natural = shown.evaluate("image => image.naturalWidth")
    with Image.open(picture) as file:
        assert natural == file.width
        assert file.info["dpi"][0] == pytest.approx(150, abs=0.5)
    assert box["width"] / natural >= 100 / 150


def test_its_charts_show_attack_budget_and_defense_against_accuracy(
    tab: Page, site: tuple[str, Path]
) -> None:
    uri, _ = site
    visit(tab, f"{uri}/#/experiments/1/runs?{QUERY}&compareRunsMode=CHART", "Parallel Coordinates")
    first = tab.get_by_text("Trials (2)").or_(tab.get_by_text("Trials", exact=True)).first
    first.wait_for()
    axes = tab.locator(".parcoords .dimension .label, .parcoords text.label")
    axes.first.wait_for(state="attached")
    assert axes.all_text_contents() == ["attack", "budget", "defense", "final_acc"]


def test_the_page_of_a_grid_shows_its_tables_and_the_report(
    tab: Page, site: tuple[str, Path]
) -> None:
    uri, out = site
    page = f"{uri}/#/experiments/1/runs/{parent_of(uri, out)}"
    visit(tab, page, "Show more")
    tab.get_by_text("Show more").first.click()
    tab.get_by_role("heading", name="worst-learner").wait_for()
    learners = tab.locator("table", has_text="worst").filter(has_text="simclr").first
    assert "em" in learners.inner_text()
    visit(tab, f"{page}/artifacts/report.html", "report.html")
    inside = tab.frame_locator("iframe").first
    inside.get_by_role("heading", name="All combinations").wait_for()
    assert "12 of 12 combinations" in inside.locator("#count").inner_text()
