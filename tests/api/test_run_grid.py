"""What a run writes beside its rows."""

from __future__ import annotations

from raygrid.api.run_grid import Options, run_grid
from tests.engine.test_run import GRID


def test_tables_figures_and_the_page_are_written_where_there_is_news(options: Options) -> None:
    files = run_grid(GRID, options).files
    assert all(file.stat().st_size > 0 for file in files)
    names = {str(file.relative_to(options.out)) for file in files}
    figures = {name for name in names if name.startswith("figures/")}
    pictures = {name for name in names if name.startswith("tables/") and name.endswith(".png")}
    assert {"report.html", "tables/defense.md", "tables/defense.csv"} <= names
    kinds = {name.removeprefix("figures/").split("-dots")[0] for name in figures}
    assert kinds == {"curves", "peak-final", "speed-peak"}
    assert pictures
    assert all((options.out / name).read_bytes()[1:4] == b"PNG" for name in figures | pictures)
    assert run_grid(GRID, options).files == []
