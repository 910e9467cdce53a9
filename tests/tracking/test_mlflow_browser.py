"""What a person sees of a grid in MLflow: the printed link, charts, the grid's page, a trial's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from raygrid.engine.grid import Grid, plan
from raygrid.reports.page.write import report
from raygrid.storage.results import ResultLog
from raygrid.tracking.mlflow import check_tracking
from raygrid.tracking.mlflow.client import PARENT_TAG
from raygrid.tracking.mlflow.view import VIEW_QUERY
from tests.ports import free_port
from tests.reports.rows import write_tables
from tests.tracking.tracked import Tracked, row, runs, server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
SLOW = 90_000  # ms that MLflow's page may take where other programs want the cores too
AXES = {
    *("attack", "attack_params", "budget", "budget_norm", "poison_ratio", "defense"),
    *("architecture", "learner", "dataset", "protocol", "seed"),
}
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
    (parent,) = (run for run in runs(out, uri) if PARENT_TAG not in run.data.tags)
    return str(parent.info.run_id)


def test_the_printed_link_lists_trials_the_lowest_accuracy_first(
    tab: Page, site: tuple[str, Path]
) -> None:
    """With names that tell trials apart, accuracies and the axes, and no parent among them."""
    uri, _ = site
    visit(tab, f"{uri}/#/experiments/1/runs?{VIEW_QUERY}", "em · jpeg · simclr")
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
    visit(
        tab,
        f"{uri}/#/experiments/1/runs?{VIEW_QUERY}&compareRunsMode=CHART",
        "Parallel Coordinates",
    )
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


def test_five_chosen_trials_are_compared_by_their_axes_and_accuracies(
    tab: Page, site: tuple[str, Path]
) -> None:
    """The page behind the button Compare: axes with the budget as a number, summary metrics."""
    uri, _ = site
    visit(tab, f"{uri}/#/experiments/1/runs?{VIEW_QUERY}", "em · jpeg · simclr")
    tab.set_viewport_size({"width": 2400, "height": 1000})  # else it draws four of five columns
    chosen = {0: 0.05, 4: 0.25, 6: 0.35, 8: 0.45, 10: 0.55}  # supervised ones, by final_acc
    boxes = tab.locator(".ag-selection-checkbox input")
    for line in chosen:
        boxes.nth(line).check(force=True)
    tab.get_by_role("button", name="Compare", exact=True).click()
    tab.get_by_role("heading", name="Comparing 5 Runs from 1 Experiment").wait_for()
    axes = compared(tab, "attack_params")
    assert axes["attack"] == ["clean", "lsp", "lsp", "em", "em"]
    assert axes["defense"] == ["standard", "standard", "jpeg", "standard", "jpeg"]
    budgets = [0, 1.3041, 1.3041, 16 / 255, 16 / 255]
    assert list(map(float, axes["budget"])) == pytest.approx(budgets, rel=1e-3)
    assert axes["budget_norm"] == ["none", "l2", "l2", "linf", "linf"]
    assert axes["learner"] == ["supervised"] * 5
    assert set(axes) == AXES
    metrics = measured(tab)
    assert list(map(float, metrics["final_acc"])) == list(chosen.values())
    assert metrics["drop_vs_clean"] == ["NaN", "-0.2", "-0.2", "-0.4", "-0.4"]
    assert {"peak_acc", "seconds", "epoch/test_acc"} <= set(metrics)
    assert not [name for name in metrics if name.endswith(("/k", "/n"))], "counts are no metrics"


def test_a_comparison_draws_accuracies_over_the_budget(tab: Page, site: tuple[str, Path]) -> None:
    """Once `final_acc` is chosen in its box, as the guide says: it begins with the alphabet."""
    uri, out = site
    some = [run.info.run_id for run in runs(out, uri) if PARENT_TAG in run.data.tags][:5]
    address = f"{uri}/#/compare-runs?runs={json.dumps(some)}&experiments={json.dumps(['1'])}"
    visit(tab, address, "Parallel Coordinates Plot")
    labels = tab.locator(".parcoords .dimension .label, .parcoords text.label, .axis-title")
    labels.first.wait_for(state="attached")
    assert "budget" in labels.all_text_contents()
    box = tab.get_by_text("Metrics:", exact=True).locator("xpath=following::input[1]")
    box.click(force=True)
    box.fill("final_acc")
    box.press("Enter")
    tab.get_by_text("final_acc").first.wait_for()
    tab.wait_for_function(
        "[...document.querySelectorAll('.axis-title')].some(e => e.textContent == 'final_acc')"
    )


def compared(tab: Page, sign: str) -> dict[str, list[str]]:
    """The table of the page that has a line of this name, its lines by their names."""
    lines = tab.locator("table", has=tab.get_by_role("rowheader", name=sign)).locator("tr")
    lines.first.wait_for()
    found = {}
    for line in lines.all():
        found[line.locator("th").inner_text().strip()] = line.locator("td").all_inner_texts()
    return found


def measured(tab: Page) -> dict[str, list[str]]:
    """The metrics of the page, a value a trial: names and values stand in grids of their own."""
    names_grid, values_grid = (tab.get_by_role("grid").nth(n) for n in (0, 1))
    names = [name.strip() for name in names_grid.locator("a").all_inner_texts()]
    values = values_grid.locator("span").all_inner_texts()
    assert len(values) == 5 * len(names), (names, values)
    return {name: values[5 * n : 5 * n + 5] for n, name in enumerate(names)}
