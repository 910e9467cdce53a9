"""`plan`, `run`, `results`, `table`, `published` from Python."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import raygrid as rg
from raygrid.api.run_grid import exclusive
from raygrid.core.errors import DataError, SpecError, StoreError, TrackingError
from raygrid.trials.result import Result, Status
from tests import plugin
from tests.ports import free_port
from tests.tracking.tracked import children

assert plugin.CARD
WHERE = "dots/{}/{}/small_cnn/supervised/brief/0"
SPEC = "cifar10/em/jpeg/resnet18/supervised/apbench/0"
GRID = rg.Grid(
    datasets=("dots",),
    attacks=("clean", "slow_shift"),
    defenses=("none", "grayscale"),
    protocols=("brief",),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rg.Run:
    return rg.run(GRID, str(tmp_path_factory.mktemp("grid")), executor="inline")


def test_a_run_holds_its_rows(run: rg.Run) -> None:
    assert len(run) == 4
    assert run.failed == ()
    assert set(run.df["attack"]) == {"clean", "slow_shift"}
    assert set(run.df["status"]) == {"done"}
    assert repr(run) == f"<4 of 4 trials done, in {run.out}>"


def test_it_is_read_again_from_its_folder(run: rg.Run) -> None:
    again = rg.results(run.out)
    columns = ["spec", "key", "final_acc"]
    pd.testing.assert_frame_equal(
        again.df[columns].sort_values("spec", ignore_index=True),
        run.df[columns].sort_values("spec", ignore_index=True),
    )


def test_running_again_runs_nothing(run: rg.Run) -> None:
    class Count(rg.Listener):
        trained = 0

        def trial_started(self, trial: rg.Trial) -> None:
            self.trained += 1

    count = Count()
    again = rg.run(GRID, run.out, executor="inline", listeners=[count])
    assert len(again) == 4
    assert count.trained == 0


def test_a_run_holds_its_folder_and_a_second_one_is_refused(tmp_path: Path) -> None:
    """From the command line it was refused; from Python both wrote into one folder."""
    says = re.escape(f"another raygrid run is using {tmp_path}; wait for it or give another folder")
    refused: list[str] = []

    class Second(rg.Listener):
        def trial_started(self, trial: rg.Trial) -> None:
            with pytest.raises(StoreError, match=says) as no, exclusive(tmp_path):
                pass
            refused.append(str(no.value))

    spec = WHERE.format("clean", "none")
    with exclusive(tmp_path), pytest.raises(StoreError, match=says):
        rg.run(spec, tmp_path, executor="inline")
    assert not (tmp_path / "results.jsonl").exists()
    assert len(rg.run(spec, tmp_path, executor="inline", listeners=[Second()])) == 1
    assert len(refused) == 1
    with exclusive(tmp_path):  # it is free again
        pass


def test_a_refused_run_leaves_the_lock_of_another_one(tmp_path: Path) -> None:
    """Both in one process, as of a notebook: the folder of the other holds nothing else yet."""
    mine, refused = tmp_path / "mine", tmp_path / "refused"
    with exclusive(mine):
        with pytest.raises(SpecError):
            rg.run(WHERE.format("nonsense", "none"), refused, executor="inline")
        with pytest.raises(StoreError, match="another raygrid run is using"), exclusive(mine):
            pass
    assert not refused.exists()
    with pytest.raises(SpecError):
        rg.run(WHERE.format("nonsense", "none"), refused, executor="inline")
    assert not mine.exists()


def test_a_run_that_asks_for_mlflow_and_a_display_gets_them(
    tmp_path: Path,
    mlflow_template: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    spec = WHERE.format("clean", "none")
    found = rg.run(spec, tmp_path, executor="inline", tracking=None, quiet=False)
    (shown,) = children(tmp_path).items()
    assert (shown[0], shown[1].info.status) == (found.results[0].key, "FINISHED")
    assert shown[1].data.metrics["final_acc"] == found.results[0].final_acc
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "1 of 1 trials to run"
    assert said[-1].startswith("finished after ")
    status = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["done"]) == ("finished", 1)


def test_a_run_is_silent_and_without_mlflow_unless_it_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rg.run(WHERE.format("clean", "none"), tmp_path, executor="inline")
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:{port}", "MLflow at http.* does not answer"),
        ("nonsense://x", "MLflow address 'nonsense://x' has the unknown kind 'nonsense'"),
    ],
)
def test_an_mlflow_that_is_not_there_is_said_before_anything_runs(
    address: str, says: str, tmp_path: Path
) -> None:
    out, spec = tmp_path / "out", WHERE.format("clean", "none")
    with pytest.raises(TrackingError, match=says):
        rg.run(spec, out, executor="inline", tracking=address.format(port=free_port()))
    assert not out.exists()


def test_tables_come_from_a_run_its_folder_or_its_frame(run: rg.Run) -> None:
    made = run.table("defense")
    (panel,) = made.panels
    assert panel.rows == ("clean", "slow_shift")
    assert panel.columns == ("none", "grayscale")
    assert made == rg.table(str(run.out)) == rg.table(run.df) == rg.table(run)
    with pytest.raises(SpecError, match="did you mean 'defense'"):
        run.table("defence")
    with pytest.raises(SpecError, match="unknown metric"):
        run.table(metric="accuracy")


class _Text(HTMLParser):
    """Tags and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def test_a_notebook_shows_the_rows(run: rg.Run) -> None:
    page = _Text()
    page.feed(run._repr_html_())
    assert page.tags.count("tr") == 5
    assert "slow_shift" in page.words


def test_names_in_a_notebook_are_text() -> None:
    row = rg.Result("dots/clean/none/small_cnn/supervised/brief/0", "k", status="failed")
    shown = rg.Run((row,), Path("<script>alert(1)</script>"))
    page = _Text()
    page.feed(shown._repr_html_())
    assert "script" not in page.tags
    assert shown.failed == (row,)


def test_strings_specs_and_grids_mix() -> None:
    text = WHERE.format("clean", "none")
    planned = rg.plan([text, rg.TrialSpec.parse(WHERE.format("clean", "grayscale")), GRID])
    assert len(planned.trials) == 4


def test_attacks_that_a_budget_leaves_out_are_among_the_skips() -> None:
    grid = rg.Grid(attacks=["lsp", "tap"], budgets=["8/255"])
    planned = rg.plan([grid, WHERE.format("clean", "none")])
    assert [str(trial.spec.attack) for trial in planned.trials] == ["tap", "clean"]
    assert [(s.spec, s.reason) for s in planned.skips] == [("lsp", "lsp takes l2, not 8/255")]


def test_trials_of_a_plan_are_specs() -> None:
    planned = rg.plan(GRID)
    again = rg.plan([*planned.trials, *planned.derived])
    assert [t.spec for t in again.trials] == [t.spec for t in planned.trials]
    one = rg.plan("cifar10/em_apb/jpeg/resnet18/supervised/apbench/0").trials[0]
    assert rg.published(one) == rg.published(str(one.spec))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: rg.plan(None), "specs is None, allowed is a Grid, a spec string"),  # type: ignore[arg-type]
        (lambda: rg.plan([GRID, 3]), "specs is 3, allowed is a Grid, a spec string"),  # type: ignore[list-item]
        (lambda: rg.plan(GRID, data=3), "data is 3, allowed is a path"),  # type: ignore[arg-type]
        (lambda: rg.run(None), "specs is None, allowed is a Grid"),  # type: ignore[arg-type]
        (lambda: rg.run(GRID, listeners=rg.Listener()), "listeners is <.*, allowed is a list of"),  # type: ignore[arg-type]
        (lambda: rg.run(GRID, listeners=[object]), "listeners is .*, allowed is a list of"),  # type: ignore[list-item]
        (lambda: rg.results(None), "out is None, allowed is a path"),  # type: ignore[arg-type]
        (lambda: rg.table(None), r"source is None, allowed is a Run, the folder of one"),  # type: ignore[arg-type]
        (lambda: rg.published(None), "spec is None, allowed is a spec string"),  # type: ignore[arg-type]
        (lambda: rg.published(SPEC, None), "unknown measure None; known: .*final_acc"),  # type: ignore[arg-type]
        (lambda: rg.published(SPEC, ["final_acc"]), r"measure \['final_acc'\] .did you mean 'fi"),  # type: ignore[arg-type]
        (lambda: rg.dataset("photo_digits", data=3), "data is 3, allowed is a path"),  # type: ignore[arg-type]
        (lambda: rg.Budget("linf", "8/255"), "budget is '8/255', allowed is a number"),  # type: ignore[arg-type]
    ],
)
def test_what_a_verb_does_not_take_is_said_at_its_start(
    call: Callable[[], object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=says):
        call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ((None,), "unknown kind of table None; known: budget, defense"),
        ((["defense"],), r"unknown kind of table \['defense'\] .did you mean 'defense'"),
        (("defense", None), "unknown metric None; known: detection_acc, final_acc"),
        (("defense", 3), "unknown metric 3; known: detection_acc, final_acc"),
    ],
)
def test_a_table_of_what_is_no_name_says_the_names(run: rg.Run, asked: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        run.table(*asked)


def test_accuracies_in_percent_make_no_table(run: rg.Run) -> None:
    frame = run.df.assign(final_acc=100 * run.df["final_acc"] + 1)
    with pytest.raises(DataError, match=r"final_acc of the frame is .*, allowed are fractions"):
        rg.table(frame)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ({"final_acc": "hi"}, "final_acc of the frame is 'hi', allowed are numbers"),
        ({"size": "8/255"}, "size of the frame is '8/255', allowed are numbers"),
        ({"seed": "0"}, "seed of the frame is '0', allowed are numbers"),
        ({"attack": 3}, "attack of the frame is 3, allowed are texts"),
        ({"defense": None}, "defense of the frame is None, allowed are texts"),
        ({"status": True}, "status of the frame is True, allowed are texts"),
    ],
)
def test_a_column_of_other_values_makes_no_table(
    run: rg.Run, column: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError) as caught:
        rg.table(run.df.assign(**column))
    assert str(caught.value) == says


def test_a_plan_with_data_has_the_keys_of_the_run(run: rg.Run, tmp_path: Path) -> None:
    planned = rg.plan(GRID, data=tmp_path)
    assert {trial.key for trial in planned.trials} == set(run.df["key"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"exekutor": "inline"}, "unknown run option 'exekutor' .did you mean 'executor'"),
        ({"keep": ["wheights"]}, "did you mean 'weights'"),
        ({"driver": "7/3"}, "driver is '7/3', allowed are its number, from 0, and how many"),
        ({"driver": "0/3"}, "driver is '0/3', but several drivers share a grid from the command"),
    ],
)
def test_bad_options_are_said_before_anything_runs(
    options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SpecError, match=says):
        rg.run(GRID, out, **options)
    assert not out.exists()


def test_a_spec_that_cannot_run_is_refused_and_one_of_a_grid_skipped_aloud(tmp_path: Path) -> None:
    spec = "photo_digits(every=20)/clean/mixup/small_cnn/simclr/quick/0"
    for typed in (spec, [rg.TrialSpec.parse(spec)], (spec,)):
        with pytest.raises(SpecError, match="mixup has no meaning for the learner simclr"):
            rg.run(typed, tmp_path / "out", executor="inline")
    axes = {"datasets": ["photo_digits(every=20)"], "defenses": ["mixup"], "learners": ["simclr"]}
    found = rg.run(rg.Grid(**axes), tmp_path / "out", executor="inline")
    says = "<0 of 0 trials done, 1 skipped (the first: mixup has no meaning for the learner simclr"
    assert repr(found).startswith(says)


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"seeds": 3}, "seeds is 3, allowed is a list of its values"),
        ({"poison_ratios": 0.5}, "poison_ratios is 0.5, allowed is a list of its values"),
        ({"budgets": [8 / 255]}, "budgets has the value 0.03137.*, allowed are texts"),
        ({"attacks": None}, "attacks is None, allowed is a list of its values"),
        ({"seeds": [0.5]}, "seeds has the value 0.5, allowed are whole numbers and texts"),
        ({"poison_ratios": [None]}, "poison_ratios has the value None, allowed are numbers and t"),
        ({"attacks": []}, "attacks is empty, so that no trial is left; allowed are texts, 1 or m"),
        ({"seeds": range(0)}, "seeds is empty, .* allowed are whole numbers and texts, 1 or more"),
    ],
)
def test_what_is_no_axis_is_said(axes: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        rg.Grid(**axes)


@pytest.mark.parametrize("specs", [[], (), iter(()), [GRID, []]])
def test_no_spec_at_all_is_not_taken_for_a_finished_run(specs: Any, tmp_path: Path) -> None:
    for verb in (rg.plan, lambda given: rg.run(given, tmp_path / "out", executor="inline")):
        with pytest.raises(SpecError, match="and holds no spec, allowed is a Grid, a spec string,"):
            verb(specs)
    assert not list(tmp_path.iterdir())


def test_a_text_alone_is_one_value_of_an_axis() -> None:
    grid = rg.Grid(attacks="lsp", seeds="012")
    assert (grid.attacks, grid.seeds) == (("lsp",), ("012",))
    assert rg.Grid(seeds=range(2), attacks=["lsp"]) == rg.Grid(seeds=(0, 1), attacks=("lsp",))


def test_data_that_are_missing_leave_nothing_behind(tmp_path: Path) -> None:
    spec = "cifar10/clean/none/small_cnn/supervised/quick/0"
    with pytest.raises(SpecError, match="no cifar10 in"):
        rg.plan(spec, data=tmp_path / "nodata")
    with pytest.raises(SpecError, match="no cifar10 in"):
        rg.run(spec, tmp_path / "out", data=tmp_path / "nodata", executor="inline")
    assert not list(tmp_path.iterdir())


def test_a_frame_of_something_else_is_refused(run: rg.Run) -> None:
    with pytest.raises(DataError, match="the frame lacks the columns attack, seed; allowed are"):
        rg.table(run.df.drop(columns=["attack", "seed"]))


def test_one_word_is_a_sequence_of_one(tmp_path: Path) -> None:
    found = rg.run(WHERE.format("clean", "none"), tmp_path, executor="inline", keep="weights")
    assert found.df["status"].tolist() == ["done"]
    assert list((tmp_path / "store").rglob("weights/*"))


def test_a_folder_without_results_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no results\.jsonl"):
        rg.results(tmp_path)


def test_lines_that_cannot_be_read_are_told_of(
    run: rg.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = (run.out / "results.jsonl").read_text(encoding="utf-8")
    (tmp_path / "results.jsonl").write_text(f"{whole}{{broken\n", encoding="utf-8")
    assert len(rg.results(tmp_path)) == len(rg.results(run.out))
    (said,) = caplog.messages
    assert said.startswith(f"1 broken lines in {tmp_path / 'results.jsonl'} are not used: ")


def test_published_numbers_are_found_by_spec() -> None:
    found = rg.published("cifar10/em_apb/jpeg/resnet18/supervised/apbench/0")
    assert found is not None
    assert (found.best.paper, found.own) == ("apbench", True)
    assert found.best.value == pytest.approx(0.8072)  # APBench, table 3
    assert rg.published(WHERE.format("clean", "none")) is None


@pytest.mark.parametrize(
    ("old", "new", "measure", "says"),
    [
        ("em_apb", "em_ap", "final_acc", "unknown attack 'em_ap' .did you mean 'em_apb'"),
        ("jpeg", "jpge", "final_acc", "unknown defense 'jpge' .did you mean 'jpeg'"),
        ("em_apb", "em(mod=1)", "final_acc", "unknown parameter of em 'mod' .did you mean 'mode'"),
        (
            "em_apb",
            "em_apb",
            "acc",
            "unknown measure 'acc' .did you mean 'peak_acc'.*final_",
        ),
    ],
)
def test_a_misspelling_is_not_unpublished(old: str, new: str, measure: str, says: str) -> None:
    spec = "cifar10/em_apb/jpeg/resnet18/supervised/apbench/0".replace(old, new)
    with pytest.raises(SpecError, match=says):
        rg.published(spec, measure)


def test_a_run_tells_failed_trials_from_diverged_ones(tmp_path: Path) -> None:
    states: tuple[Status, ...] = ("done", "failed", "diverged")
    rows = tuple(Result(f"spec{n}", f"key{n}", status=s) for n, s in enumerate(states))
    found = rg.Run(rows, tmp_path)
    assert (found.failed, found.diverged) == (rows[1:2], rows[2:])
    assert repr(found) == f"<1 of 3 trials done, 1 failed, 1 diverged, in {tmp_path}>"


@pytest.mark.parametrize("nested", [False, True])
def test_specs_that_come_out_of_an_iterator_run_and_skip(tmp_path: Path, nested: bool) -> None:
    """Those of a grid, say, of which some may not fit each other."""
    grid = rg.Grid(datasets=("photo_digits(every=20)",), defenses=("none", "mixup"))
    specs = replace(grid, learners=("simclr",), protocols=("quick(epochs=1)",)).specs()
    found = rg.run([specs] if nested else specs, tmp_path, executor="inline")
    assert found.plan is not None
    assert len(found.plan.skips) == 2
    assert found.results == ()
