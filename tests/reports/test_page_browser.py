"""The report page in a browser: it opens from disk, sorts, filters, searches, opens its cells."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from raygrid.literature.names import SIX_LEARNERS
from raygrid.reports.page.write import report
from tests.reports.rows import CIFAR, TOY, trial
from tests.reports.test_page import EVIL, Json, epochs, measured, write_rows

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def visit(tab: Page, file: Path) -> None:
    """Open a page from disk, without any network."""
    tab.context.set_offline(True)
    tab.goto(file.absolute().as_uri())


def column(tab: Page, name: str) -> list[str]:
    """The texts of a column of the main table."""
    heads = [text.strip() for text in tab.locator("#rows thead th").all_inner_texts()]
    at = heads.index(name) + 1
    return tab.locator(f"#rows tbody tr > :nth-child({at})").all_inner_texts()


def sort_by(tab: Page, name: str) -> None:
    tab.get_by_role("columnheader", name=name, exact=True).get_by_role("button").click()


def choose(tab: Page, axis: str, value: str) -> None:
    """Filter the main table by an axis."""
    tab.get_by_role("combobox", name=axis, exact=True).select_option(value)


@pytest.fixture
def small(tab: Page, tmp_path: Path) -> Page:
    """The page of a small folder."""
    visit(tab, report([write_rows(tmp_path / "mine", measured())]))
    return tab


def test_rows_sort_by_any_column_with_absent_numbers_last(small: Page) -> None:
    assert column(small, "attack") == ["clean", "clean", "em", "em", "lsp", "lsp"]
    sort_by(small, "final")
    down = [
        "91.0 ± 1.4",
        "81.0 ± 1.4",
        "61.0 ± 1.4",
        "31.0 ± 1.4",
        "21.0 ± 1.4",
        "failed, diverged",
    ]
    assert column(small, "final") == down
    assert small.locator("#rows [aria-sort]").inner_text() == "final"
    assert small.locator("#rows [aria-sort]").get_attribute("aria-sort") == "descending"
    sort_by(small, "final")
    assert column(small, "final") == [*down[-2::-1], down[-1]]


def test_rows_are_filtered_by_axes_and_searched(small: Page) -> None:
    choose(small, "attack", "lsp")
    assert column(small, "final") == ["21.0 ± 1.4", "61.0 ± 1.4"]
    choose(small, "defense", "jpeg")
    assert column(small, "final") == ["61.0 ± 1.4"]
    assert small.locator("#count").inner_text() == "1 of 6 combinations"
    choose(small, "attack", "all")
    small.get_by_role("searchbox").fill("loss is NAN")
    assert column(small, "attack") == ["em"]
    small.get_by_role("searchbox").fill("nothing like this")
    assert small.locator("#count").inner_text() == "0 of 6 combinations"


def test_columns_are_hidden_and_shown(small: Page) -> None:
    heads = small.locator("#rows thead th")
    assert "peak" in heads.all_inner_texts()
    assert "dataset" not in heads.all_inner_texts()  # the same everywhere
    small.get_by_text("columns", exact=True).click()
    small.get_by_role("checkbox", name="peak").uncheck()
    small.get_by_role("checkbox", name="dataset").check()
    assert "peak" not in heads.all_inner_texts()
    assert set(column(small, "dataset")) == {"photo_digits"}


def test_a_cell_opens_to_its_trials_by_mouse_and_keyboard(small: Page) -> None:
    opened = small.locator("#cell")
    small.locator("#section-defense td button", has_text="61.0").click()
    assert opened.locator("h2").inner_text().endswith("lsp · l2 1.30 · 100 % · jpeg")
    rows = [line.split("\t")[:4] for line in opened.locator("tbody tr").all_inner_texts()]
    assert rows == [["0", "done", "60.00", "65.00"], ["1", "done", "62.00", "67.00"]]
    curve = opened.get_by_role("img", name="Test accuracy (%) by epoch")
    assert curve.get_attribute("aria-label") == (
        "Test accuracy (%) by epoch: seed 0 ends at 60, seed 1 ends at 60"
    )
    assert curve.locator("polyline").count() == 2
    small.keyboard.press("Escape")
    assert not opened.is_visible()
    small.locator("#rows tbody button").first.focus()
    small.keyboard.press("Enter")
    assert opened.is_visible()
    assert "standard" in opened.locator("h2").inner_text()


def test_the_spec_and_the_command_are_copied(small: Page) -> None:
    small.context.grant_permissions(["clipboard-read", "clipboard-write"])
    small.locator("#section-defense td button", has_text="21.0").click()
    spec = TOY.format("lsp", "standard", "supervised", 0)
    small.get_by_role("button", name="Copy command").first.click()
    small.get_by_role("button", name="Copied").wait_for()
    copied = small.evaluate("navigator.clipboard.readText()")
    assert copied == f"raygrid run '{spec}' --out again"


def test_what_is_filtered_comes_as_csv(small: Page) -> None:
    choose(small, "attack", "lsp")
    with small.expect_download() as waiting:
        small.get_by_role("button", name="Download these as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
    assert [(row["attack"], row["defense"], row["final_acc"]) for row in rows] == [
        ("lsp", "standard", "21"),
        ("lsp", "jpeg", "61"),
    ]
    assert [row["seeds"] for row in rows] == ["2", "2"]


def test_scripts_in_names_errors_and_reasons_show_as_text(tab: Page, tmp_path: Path) -> None:
    evil = "lsp(name=\"<script>document.title='taken'</script>\")"
    rows = [
        *measured(),
        trial(TOY.format(evil, "standard", "supervised", 0), 0.5),
        trial(TOY.format("tap", "jpeg", "supervised", 0), status="failed", error=f"E: {EVIL}"),
    ]
    folder = write_rows(tmp_path / "<img src=x onerror=alert(1)>", rows)
    tab.on("dialog", lambda dialog: pytest.fail(dialog.message))
    visit(tab, report([folder]))
    assert tab.title() == "raygrid: <img src=x onerror=alert(1)>"
    assert "<script>document.title='taken'</script>" in tab.locator("#rows").inner_text()
    assert tab.locator("a[href='#troubles']").inner_text() == "Failed and diverged (3)"
    trouble = tab.locator("#troubles")
    assert "E: <script>document.title = 'taken'</script>" in trouble.inner_text()
    trouble.locator("summary").last.click()
    assert EVIL in trouble.locator("pre:visible").inner_text()
    tab.locator("#rows tbody button", has_text="tap").click()
    assert EVIL in tab.locator("#cell pre").inner_text()
    assert tab.locator("img").count() == tab.locator('img[src^="data:image/png"]').count()
    assert tab.title() == "raygrid: <img src=x onerror=alert(1)>"


def test_folders_are_columns_beside_the_published_number(tab: Page, tmp_path: Path) -> None:
    spec = CIFAR.format("em_apb", "apbench", 0)
    ours = [trial(spec, 0.25), trial(CIFAR.format("clean", "apbench", 0), 0.94)]
    folders = [write_rows(tmp_path / "a", ours), write_rows(tmp_path / "b", [trial(spec, 0.5)])]
    visit(tab, report(folders, tmp_path / "both.html"))
    choose(tab, "attack", "em_apb")
    (printed,) = column(tab, "published")
    value = float(printed.rstrip("*†‡").split(" ")[0])
    assert (column(tab, "a final"), column(tab, "b final")) == (["25.0"], ["50.0"])
    (apart,) = column(tab, "a final − published")
    assert float(apart.replace("−", "-")) == pytest.approx(25.0 - value, abs=0.051)
    marks = tab.locator("#marks").inner_text()
    assert ("†" in printed) == ("other papers print a number" in marks)
    choose(tab, "attack", "clean")
    assert column(tab, "b final") == ["–"]


def ten_thousand() -> list[Json]:
    """10,080 combinations of one seed."""
    return [
        trial(f"cifar10/{a}/{d}/{n}/{learner}/tp/0", 0.1 + (i % 90) / 100, history=epochs(30, 0.5))
        for i, (a, d, n, learner) in enumerate(
            (a, d, n, learner)
            for a in ("clean", *(f"lsp(patch={p})" for p in range(1, 28)))
            for d in ("standard", *(f"jpeg(quality={q})" for q in range(10, 24)))
            for n in ("resnet18", "resnet50", "vgg19", "small_cnn")
            for learner in SIX_LEARNERS
        )
    ]


class Work:
    """What a tab has computed: seconds of its own thread, whatever else the machine is doing."""

    def __init__(self, tab: Page) -> None:
        self.session = tab.context.new_cdp_session(tab)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds(self) -> float:
        found = self.session.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in found if each["name"] == "TaskDuration"))


@pytest.mark.slow
def test_ten_thousand_rows_open_and_sort_at_once(tab: Page, tmp_path: Path) -> None:
    """The clock on the wall was no measure: it ran on while the machine did something else."""
    rows = ten_thousand()
    assert len(rows) == 10_080
    file = report([write_rows(tmp_path, rows)])
    work = Work(tab)
    visit(tab, file)
    tab.get_by_text("10080 of 10080 combinations").wait_for()
    assert 0 < work.seconds() < 5
    for name in ("final", "defense"):
        before = work.seconds()
        sort_by(tab, name)
        assert 0 < work.seconds() - before < 1
    assert len(column(tab, "attack")) == 200
    assert tab.locator("*").count() < 20_000, "rows that nobody sees are no part of the page"
    before = work.seconds()
    tab.get_by_role("searchbox").fill("patch=7 resnet50")
    assert tab.locator("#count").inner_text() == "90 of 10080 combinations"
    assert 0 < work.seconds() - before < 1


def test_a_phone_shows_specs_in_whole_words_and_the_list_of_columns(small: Page) -> None:
    small.set_viewport_size({"width": 400, "height": 900})
    menu = small.locator("#filters details")
    menu.locator("summary").click()
    box = menu.locator("div").first.bounding_box()
    assert box is not None
    assert 0 <= box["x"] < box["x"] + box["width"] <= 400
    menu.locator("summary").click()
    small.locator("#rows tbody th button").first.click()
    spec = small.locator("dialog td code").first.bounding_box()
    assert spec is not None
    assert spec["width"] > 250
    assert spec["height"] < 80, "no column of single letters"
