"""The report page: what stands in the file, before any browser shows it."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from raygrid.cli.main import main
from raygrid.core.errors import DataError
from raygrid.literature.printed import Apart, Printed
from raygrid.reports.page import write as write_module
from raygrid.reports.page.combinations import CURVE_POINTS, GridLine, published_entry, trial_facts
from raygrid.reports.page.folders import labels_of, read_folders
from raygrid.reports.page.panels import PANEL_HEADINGS
from raygrid.reports.page.write import contents, poison_pictures, report, script_json
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.kinds import TABLE_KINDS
from raygrid.tracking.journal import picture_of
from tests.reports.rows import CIFAR, TOY, trial, write_tables

Json = dict[str, Any]
EVIL = "<script>document.title = 'taken'</script>\n'quotes\" & </script>"
LIMIT = 3_000_000  # bytes of a page of 500 trials


def write_rows(folder: Path, rows: list[Json]) -> Path:
    """A run folder with these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(text)
    return folder


def epochs(count: int, last: float) -> list[Json]:
    """A history that rises to its last accuracy."""
    return [
        {"epoch": n, "test_acc": last * n / count, "train_loss": 2.3 * (1 - n / (count + 1))}
        for n in range(1, count + 1)
    ]


def measured() -> list[Json]:
    """Three attacks against two defenses, two seeds; one trial failed, one diverged."""
    means = {("clean", "standard"): 0.9, ("lsp", "standard"): 0.2, ("clean", "jpeg"): 0.8}
    means |= {("lsp", "jpeg"): 0.6, ("em", "standard"): 0.3}
    rows = [
        trial(TOY.format(a, d, "supervised", s), m + 0.02 * s, history=epochs(4, m))
        for (a, d), m in means.items()
        for s in (0, 1)
    ]
    failed = TOY.format("em", "jpeg", "supervised", 0)
    rows.append(trial(failed, status="failed", error=f"ValueError: {EVIL}"))
    diverged = TOY.format("em", "jpeg", "supervised", 1)
    rows.append(trial(diverged, status="diverged", error="loss is nan"))
    return rows


def line_of(content: Json, **wanted: str) -> list[Any]:
    """The one line of the main table whose axes have these values."""
    names = [axis["name"] for axis in content["axes"]]
    found = [
        row
        for row in content["rows"]
        if all(
            content["axes"][names.index(axis)]["values"][row[0][names.index(axis)]] == value
            for axis, value in wanted.items()
        )
    ]
    (line,) = found
    return list(line)


def embedded(file: Path) -> Json:
    """The data of a page, as its script reads them."""
    text = file.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    value: Json = json.loads(found.group(1))
    return value


def test_a_line_has_means_over_seeds_and_the_trials_behind_them(tmp_path: Path) -> None:
    content = contents(read_folders([write_rows(tmp_path / "mine", measured())]))
    assert content["folders"] == ["mine"]
    places, published, (own,), trials = line_of(content, attack="lsp", defense="jpeg")
    final = [name for name, _ in content["measures"]].index("final_acc")
    assert own[final] == ["61.0 ± 1.4", 61.0, 2]
    assert published is None
    specs = [content["trials"][number]["spec"] for number in trials]
    assert specs == [TOY.format("lsp", "jpeg", "supervised", seed) for seed in (0, 1)]
    assert len(places) == len(content["axes"]) == 8
    *_, lost = line_of(content, attack="em", defense="jpeg")
    states = [content["trials"][number]["status"] for number in lost]
    assert states == ["failed", "diverged"]
    assert content["trials"][lost[1]]["error"] == "loss is nan"


def test_folders_are_columns_and_the_published_number_stands_beside_them(tmp_path: Path) -> None:
    spec = CIFAR.format("em_apb", "apbench", 0)
    ours = [trial(spec, 0.25), trial(CIFAR.format("clean", "apbench", 0), 0.94)]
    folders = [write_rows(tmp_path / "a", ours), write_rows(tmp_path / "b", [trial(spec, 0.5)])]
    content = contents(read_folders(folders))
    _, published, cells, trials = line_of(content, attack="em_apb")
    assert [cell[0][1] for cell in cells] == [25.0, 50.0]
    assert published[1] == pytest.approx(21.1, abs=5)
    assert published[2].startswith("apbench T")
    assert "protocol" not in published[2], "it is the paper's own"
    assert [content["trials"][number]["folder"] for number in trials] == [0, 1]
    _, _, (there, absent), _ = line_of(content, attack="clean")
    assert (there[0][1], absent[0]) == (94.0, None)
    (defense,) = (part for part in content["sections"] if part["kind"] == "defense")
    assert [[f["folder"] for f in panel["folders"]] for panel in defense["panels"]] == [[0, 1]]


def test_a_panel_has_its_cells_row_by_row_with_chance_and_marks(tmp_path: Path) -> None:
    content = contents(read_folders([write_rows(tmp_path, measured())]))
    (defense,) = (part for part in content["sections"] if part["kind"] == "defense")
    ((panel,),) = ([p for p in part["folders"]] for part in defense["panels"])
    assert [shown for _, shown in panel["rows"]] == ["clean", "em", "lsp"]
    assert [shown for _, shown in panel["columns"]] == ["standard", "jpeg"]
    assert [cell[1] for cell in panel["cells"]] == [91.0, 81.0, 31.0, None, 21.0, 61.0]
    assert panel["cells"][3][0] == "failed, diverged"
    assert panel["chance"] == pytest.approx(0.1)
    lsp = panel["cells"][5]
    assert content["rows"][lsp[3]] == line_of(content, attack="lsp", defense="jpeg")
    assert [cell[4] for cell in panel["cells"]] == [0, 0, 0, 0, 2, 1]  # best defense 1, attack 2


def test_the_pictures_of_a_run_are_taken_as_they_are_unless_rows_came_later(tmp_path: Path) -> None:
    folder = write_rows(tmp_path, measured())
    write_tables(folder, measured())
    (drawn,) = (folder / "tables").glob("peak-*standard*.png")
    drawn.write_bytes(b"drawn before")
    assert "ZHJhd24gYmVmb3Jl" in report([folder]).read_text()  # in base 64
    later = time.time() + 10
    os.utime(folder / "results.jsonl", (later, later))
    assert "ZHJhd24gYmVmb3Jl" not in report([folder]).read_text()


def test_pictures_of_poisons_are_in_the_page_as_far_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        trial(TOY.format("lsp", "standard", "supervised", s), 0.2, artifacts={"poison": f"key{s}"})
        for s in range(3)
    ]
    folder = write_rows(tmp_path, rows)
    for seed in (0, 1):  # the third one has none
        file = picture_of(folder, f"key{seed}")
        file.parent.mkdir(parents=True)
        file.write_bytes(b"picture of " + bytes([seed]) * 30)
    poisons, absent = poison_pictures(read_folders([folder]))
    assert (list(poisons), absent) == (["key0", "key1"], [])
    monkeypatch.setattr(write_module, "POISON_PICTURE_BYTES", 100)
    content = contents(read_folders([folder]))
    assert (list(content["poisons"]), content["absent"]) == (["key0"], ["key1"])


def test_texts_of_a_run_are_never_markup(tmp_path: Path) -> None:
    folder = write_rows(tmp_path / "<b>bold", measured())
    file = report([folder])

    class Tags(HTMLParser):
        scripts = 0
        bold = 0

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.scripts += tag == "script"
            self.bold += tag == "b"

    tags = Tags()
    tags.feed(file.read_text())
    assert (tags.scripts, tags.bold) == (2, 0)  # the data and the script of the page itself
    errors = [t["error"] for t in embedded(file)["trials"] if "error" in t]
    assert errors == [f"ValueError: {EVIL}", "loss is nan"]
    assert json.loads(script_json({"<&>": EVIL})) == {"<&>": EVIL}


def test_long_curves_and_errors_are_shortened_with_a_word() -> None:
    history = [*epochs(499, 0.5), {"epoch": 500, "test_acc": 0.75, "train_loss": float("inf")}]
    facts = trial_facts(trial("a/b", 0.75, history=history, error="x" * 9000), 0)
    curve = facts["curve"]
    assert len(curve["epochs"]) <= CURVE_POINTS
    assert (curve["epochs"][-1], curve["acc"][-1], curve["loss"][-1]) == (500, 75.0, None)
    assert set(b - a for a, b in zip(curve["epochs"], curve["epochs"][1:], strict=False)) == {
        curve["step"]
    }
    assert facts["error"].endswith("(the whole text is in results.jsonl)")
    assert len(facts["error"]) < 2100


def test_labels_are_as_short_as_tells_folders_apart(tmp_path: Path) -> None:
    assert labels_of([Path("a/runs"), Path("b/other")]) == ["runs", "other"]
    assert labels_of([Path("a/runs"), Path("b/runs")]) == ["a/runs", "b/runs"]
    with pytest.raises(DataError, match="given twice"):
        read_folders([tmp_path, tmp_path / "." / ""])


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere holds no results\.jsonl"):
        read_folders([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="there are no results under"):
        read_folders([write_rows(tmp_path / "empty", [])])


def test_broken_lines_are_said_on_the_page(tmp_path: Path) -> None:
    folder = write_rows(tmp_path, measured())
    with (folder / "results.jsonl").open("a") as file:
        file.write("no json\n")
    assert "1 broken lines in" in report([folder]).read_text()


def test_the_command_writes_one_file_that_needs_no_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (write_rows(tmp_path / name, measured()) for name in ("one", "two"))
    assert main(["report", "--out", str(one)]) == 0
    assert capsys.readouterr().out == f"{one / 'report.html'}\n"
    both = tmp_path / "both.html"
    assert main(["report", str(one), str(two), "--file", str(both), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(both)}
    assert embedded(both)["folders"] == ["one", "two"]
    addresses = re.findall(r"(?:src|href)=[\"']?([^\s\"'>]+)|url\((.*?)\)", both.read_text())
    assert not [a for pair in addresses for a in pair if a and not a.startswith(("data:", "#"))]
    assert main(["report", str(tmp_path / "nowhere")]) == 2


@pytest.mark.slow
def test_five_hundred_trials_are_a_small_page_in_seconds(tmp_path: Path) -> None:
    defenses = ["standard", *(f"jpeg(quality={q})" for q in range(10, 60, 10)), "grayscale"]
    rows = [
        trial(f"cifar10/{a}/{d}/{n}/supervised/tp/{s}", 0.3, history=epochs(120, 0.3))
        for a in ("clean", "em", "lsp", "tap", *(f"lsp(patch={p})" for p in range(1, 9)))
        for d in defenses
        for n in ("resnet18", "vgg19")
        for s in range(3)
    ]
    assert len(rows) == 504
    folder = write_rows(tmp_path, rows)
    started = time.process_time()
    file = report([folder])
    assert time.process_time() - started < 10
    assert file.stat().st_size < LIMIT


def test_every_kind_of_table_has_its_place_on_the_page() -> None:
    assert set(PANEL_HEADINGS) == set(TABLE_KINDS)


def test_a_published_number_says_its_protocol_and_what_contradicts_it(tmp_path: Path) -> None:
    rows = [trial(CIFAR.format("em_apb", "fast", 0), 0.25)]
    content = contents(read_folders([write_rows(tmp_path, rows)]))
    _, published, _, _ = line_of(content, attack="em_apb")
    source, apart, against = published[2].split("; ")
    assert source.startswith("apbench T")
    assert apart == "protocol of apbench"
    assert re.fullmatch(r"against learned_faster T1: [\d.]+ and dvae T2, T9: [\d.]+", against)


def test_a_papers_name_with_blanks_says_its_protocol_and_its_remarks_too() -> None:
    """The page asked the words of the text, and took `Doe` for the paper."""
    cell = Cell({}, "final_acc", printed=Printed(0.25, "Doe et al. card", Apart("Doe et al.")))
    line = GridLine((), [], ("", 0.0), {(0, "final_acc"): cell})
    assert published_entry(line) == ["25.0", 25.0, "Doe et al. card; protocol of Doe et al.", ""]
    noted = replace(cell, printed=Printed(0.25, "dune main", notes=("as a note prints it", "x")))
    line.cells[0, "final_acc"] = noted
    assert published_entry(line) == ["25.0", 25.0, "dune main; as a note prints it; x", ""]
