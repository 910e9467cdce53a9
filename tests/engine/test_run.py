"""Running grids in this process: rows, resuming, gaps, failures, checkpoints."""

from __future__ import annotations

import json
import subprocess
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raygrid.api.run_grid import Options, exclusive, run_grid
from raygrid.attacks.common import surrogates
from raygrid.cli.plan import show_plan
from raygrid.core.errors import DeviceError, SpecError, SpecErrors, StoreError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import Defense, FitContext
from raygrid.engine import worker
from raygrid.engine.events import Listener
from raygrid.engine.grid import Grid, plan
from raygrid.engine.local import run_inline
from raygrid.engine.schedule import Agenda
from raygrid.engine.worker import Worker
from raygrid.storage.checkpoints import pack, unpack
from raygrid.storage.results import ResultLog
from raygrid.storage.store import DATA_FILE, Bundle, Store
from raygrid.trials.artifacts import Artifact, World, poison_of
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.result import Result
from raygrid.trials.run import run_trial
from raygrid.trials.trial import Trial
from tests import plugin
from tests.device.cuda import Machine, machine

pytestmark = pytest.mark.usefixtures("undrawn")

assert plugin.CARD
GRID = Grid(
    datasets=["dots"],
    attacks=["clean", "slow_shift", "lsp"],
    defenses=["none", "grayscale"],
    protocols=["brief"],
)
DERIVED = ("standard", "early_stopping")
SLEEP = "dots/{}/none/small_cnn/sleeper{}/brief/0"
WILD_ATTACK = "aue(batch_size=32, epochs=2, lr=1e+30, surrogate=small_cnn)"
WILD = SLEEP.format(WILD_ATTACK, "")


class Recorder(Listener):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.artifacts: list[tuple[str, str]] = []
        self.rows: list[Result] = []
        self.epochs = 0
        self.progressed: set[str] = set()

    def artifact(self, artifact: Artifact, state: str, facts: dict[str, Any]) -> None:
        self.artifacts.append((artifact.kind, state))

    def progress(self, artifact: Artifact, done: int, total: int, before: int) -> None:
        assert 0 <= before <= done <= total
        self.progressed.add(artifact.kind)

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        self.epochs += 1

    def trial_finished(self, trial: Trial, result: Result) -> None:
        self.rows.append(result)


def essence(result: Result) -> dict[str, Any]:
    """What must not depend on who ran a trial or when."""
    who = {"seconds", "finished", "device", "versions", "commit"}
    who |= {"memory_mb", "utilization", "gpu_share"}
    row = {k: v for k, v in result.row().items() if k not in who}
    clock = {"epoch_seconds"}
    row["history"] = [{k: v for k, v in e.items() if k not in clock} for e in result.history]
    return row


def test_every_cell_has_a_row_and_a_second_run_submits_nothing(options: Options) -> None:
    first, again = Recorder(), Recorder()
    outcome = run_grid(GRID, options, first)
    assert outcome.submitted == 6
    assert [r.status for r in outcome.results] == ["done"] * 6
    assert first.artifacts.count(("poison", "made")) == 2  # clean needs no job
    assert first.artifacts.count(("purified", "made")) == 3
    assert first.epochs == 12
    # Of each poison that changes images there is one picture; clean data have none.
    poisons = {r.artifacts["poison"] for r in outcome.results if "/clean/" not in r.spec}
    drawn = {file.parent.name for file in (options.out / "pictures").glob("*/poison.png")}
    assert drawn == poisons
    page = (options.out / "report.html").read_text()
    assert all(f'"{key}":"data:image/png;base64,' in page for key in poisons)
    second = run_grid(GRID, options, again)
    assert second.submitted == 0
    assert again.artifacts == []
    assert list(map(essence, second.results)) == list(map(essence, outcome.results))


def test_a_second_run_derives_and_writes_nothing_anew(options: Options) -> None:
    specs = [f"dots/clean/{defense}/small_cnn/supervised/brief/0" for defense in DERIVED]
    first, again = Recorder(), Recorder()
    assert run_grid(specs, options, first).files
    assert len(first.rows) == 2
    assert run_grid(specs, options, again).files == []
    assert again.rows == []


def test_without_standard_augmentation_no_defense_is_the_standard_row(
    options: Options,
    catalog: Catalog,
    fetch: Callable[[Artifact], Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One is trained, the other copied; and it would have been the same training."""
    none, standard = (f"dots/lsp/{d}/small_cnn/supervised/brief/0" for d in ("none", "standard"))
    assert [str(t.spec) for t in plan([none, standard], None).trials] == [none, standard]
    monkeypatch.setattr(plugin.Dots, "augmentation", "none")
    made = plan([none], None)
    assert [str(t.spec) for t in made.trials] == [standard]
    assert [str(t.spec) for t in made.derived] == [none]
    outcome = run_grid([none, standard], options)
    assert outcome.submitted == 1
    rows = {row.spec: row for row in outcome.results}
    assert set(rows) == {none, standard}
    assert rows[none].derived_from == rows[standard].key != rows[none].key
    assert rows[none].resolved["defense"][0]["id"] == "none"
    assert rows[none].history == rows[standard].history
    assert rows[none].final_acc == rows[standard].final_acc is not None
    alone = [run_trial(resolve(spec, catalog), fetch, TrialContext()) for spec in (none, standard)]
    first, second, copied = (essence(row)["history"] for row in (*alone, rows[none]))
    assert first == second == copied
    monkeypatch.setattr(plugin.Brief, "augmentations", {"dots": "crop"})
    assert len(plan([none, standard], None).trials) == 2, "the protocol has one, as AVATAR on SVHN"


def test_gaps_are_filled_with_the_same_numbers(options: Options, tmp_path: Path) -> None:
    whole = run_grid(GRID, options)
    log = options.out / "results.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:2] + lines[4:]))
    filled = run_grid(GRID, options)
    assert filled.submitted == 2
    by_key = {r.key: essence(r) for r in whole.results}
    assert {r.key: essence(r) for r in filled.results} == by_key


def test_another_seed_shares_nothing_but_the_data(options: Options) -> None:
    one = run_grid(replace(GRID, attacks=["slow_shift"], defenses=["none"]), options)
    seeds = replace(GRID, attacks=["slow_shift"], defenses=["none"], seeds=[1])
    other = run_grid(seeds, options)
    assert one.results[0].artifacts["dataset"] == other.results[0].artifacts["dataset"]
    assert one.results[0].artifacts["poison"] != other.results[0].artifacts["poison"]
    first, second = (essence(outcome.results[0])["history"] for outcome in (one, other))
    assert first != second


def test_a_failing_trial_is_a_row_and_runs_again(options: Options) -> None:
    specs = [SLEEP.format("clean", "(fails=true)"), SLEEP.format("clean", "")]
    outcome = run_grid(specs, options)
    failed, done = outcome.results
    assert failed.status == "failed"
    assert "told to fail" in str(failed.error)
    assert done.status == "done"
    assert run_grid(specs, options).submitted == 1


def test_a_loss_that_is_not_finite_ends_the_trial_as_a_row(options: Options) -> None:
    wild = "dots/clean/none/small_cnn/supervised/brief(epochs=4, lr=1e30)/0"
    calm = "dots/clean/none/small_cnn/supervised/brief/0"
    row, other = run_grid([wild, calm], options).results
    assert other.status == "done"
    assert row.status == "diverged"
    assert f"diverged in epoch {len(row.history) + 1}: loss is " in str(row.error)
    assert row.final_acc is None
    assert not run_grid([wild], options).submitted, "the same numbers would diverge again"


def test_an_attack_that_diverges_is_a_row_that_says_so(options: Options, tmp_path: Path) -> None:
    recorder = Recorder()
    (row,) = run_grid([WILD], options, recorder).results
    assert row.status == "diverged"
    said = f"{WILD_ATTACK} on dots: training diverged in epoch 1: loss is "
    assert str(row.error).startswith(f"its artifact diverged: {said}")
    assert ("poison", "failed") in recorder.artifacts
    assert not run_grid([WILD], options).submitted, "the same numbers would diverge again"
    alone = Worker(Store(tmp_path / "empty")).run(resolve(WILD, None))
    assert alone.status == "diverged"
    assert str(alone.error).startswith(said), "not to be taken for the victim's"


def test_a_failing_artifact_fails_just_the_trials_that_need_it(options: Options) -> None:
    specs = [SLEEP.format("broken", ""), SLEEP.format("clean", "")]
    recorder = Recorder()
    outcome = run_grid(specs, options, recorder)
    states = {r.spec.split("/")[1]: r.status for r in outcome.results}
    assert states == {"broken": "failed", "clean": "done"}
    assert ("poison", "failed") in recorder.artifacts
    assert any("the attack is broken" in str(r.error) for r in outcome.results)


def test_a_damaged_artifact_is_made_again_with_the_same_result(options: Options) -> None:
    spec = ["dots/lsp/none/small_cnn/supervised/brief/0"]
    before = run_grid(spec, options).results[0]
    store = options.out / "store" / "artifacts" / "poison" / before.artifacts["poison"]
    (store / DATA_FILE).write_bytes(b"garbage")
    (options.out / "results.jsonl").unlink()
    after = run_grid(spec, options).results[0]
    assert essence(after) == essence(before)
    assert list(store.parent.glob("*.damaged-*"))


class Cut(Listener):
    """Ctrl-C once an epoch is over."""

    def __init__(self, after: int) -> None:
        self.after = after

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        if metrics["epoch"] == self.after:
            raise KeyboardInterrupt


def test_a_cut_off_trial_goes_on_from_its_checkpoint(options: Options) -> None:
    spec = ["dots/lsp/none/small_cnn/supervised/brief(epochs=4)/0"]
    whole = run_grid(spec, replace(options, out=options.out.with_name("whole"))).results[0]

    often = replace(options, checkpoint_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        run_grid(spec, often, Cut(after=3))
    recorder = Recorder()
    resumed = run_grid(spec, often, recorder).results[0]
    assert recorder.epochs == 1
    assert essence(resumed) == essence(whole)
    assert not list((options.out / "store" / "artifacts" / "partial").glob("*"))


def test_a_trial_whose_row_was_not_written_ends_from_its_checkpoint(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that is killed between the end of a trial and its row costs no training."""
    spec = [f"dots/lsp/none/small_cnn/supervised/brief/{i}" for i in (0, 1)]
    often = replace(options, checkpoint_every=0.0)

    def cut_off(log: ResultLog, row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResultLog, "append", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run_grid(spec, often)
    recorder = Recorder()
    resumed = run_grid(spec, often, recorder).results
    assert recorder.epochs == 2, "those of the second trial"
    whole = run_grid(spec, replace(options, out=options.out.with_name("whole"))).results
    assert list(map(essence, resumed)) == list(map(essence, whole))
    assert not list((options.out / "store" / "artifacts" / "partial").glob("*"))


def test_the_peak_outlives_an_interruption(options: Options) -> None:
    """A checkpoint knows the best epoch before it; one that does not is not gone on from."""
    spec = ["dots/lsp/none/small_cnn/supervised/brief(epochs=5)/0"]
    whole = replace(options, out=options.out.with_name("whole"), keep=("peak",))
    result = run_grid(spec, whole).results[0]
    expected = Store(whole.out / "store").get("peak", result.key)
    assert expected is not None
    assert result.peak_acc == expected.facts["accuracy"]
    for first in ("peak",), ():
        out = options.out.with_name(f"cut{len(first)}")
        often = replace(options, out=out, checkpoint_every=0.0, keep=first)
        with pytest.raises(KeyboardInterrupt):
            run_grid(spec, often, Cut(after=4))
        recorder = Recorder()
        run_grid(spec, replace(often, keep=("peak",)), recorder)
        assert recorder.epochs == (1 if first else 5)
        found = Store(out / "store").get("peak", result.key)
        assert found is not None
        assert found.facts == expected.facts
        assert all(torch.equal(t, found.tensors[n]) for n, t in expected.tensors.items())


def test_all_faults_come_at_once_and_nothing_is_written(options: Options) -> None:
    grid = replace(GRID, attacks=["lspp", "lsp(pathc=4)"], architectures=["small_cnn", "resnet81"])
    with pytest.raises(SpecError) as caught:
        run_grid(grid, options)
    for piece in ("did you mean 'lsp'", "did you mean 'patch'", "did you mean 'resnet18'"):
        assert piece in str(caught.value)
    assert not (options.out / "results.jsonl").exists()


class Aimless(plugin.Sleeper):
    """A learner of which no protocol has heard."""

    id = "aimless"


def test_a_learner_without_any_recipe_is_told_where_one_may_stand() -> None:
    trial = resolve("photo_digits/clean/none/small_cnn/supervised/quick/0", None)
    assert replace(trial, learner=Aimless()).skip() == (
        "protocol quick has no recipe for the learner aimless, and no other has one: add it there, "
        "or set `recipe` on the class Aimless"
    )


def test_impossible_cells_are_skipped_with_the_reason_or_refused(options: Options) -> None:
    grid = replace(GRID, learners=["supervised", "sleeper"], attacks=["clean"], protocols=["quick"])
    grid = replace(grid, defenses=["none"], protocols=["quick(epochs=1)"])
    outcome = run_grid(grid, options)
    reason = "protocol quick has no recipe for the learner sleeper; these have: brief"
    assert [s.reason for s in outcome.plan.skips] == [reason]
    assert outcome.submitted == 1
    with pytest.raises(SpecError, match=reason):
        run_grid([outcome.plan.skips[0].spec], replace(options, strict=True))


def test_the_stopper_ends_a_trial_and_says_so(options: Options) -> None:
    spec = "dots/lsp(budget=l2:6.0)/none/small_cnn/supervised/brief(epochs=12, patience=2)/0"
    result = run_grid([spec], options).results[0]
    accuracies = [epoch["test_acc"] for epoch in result.history]
    assert result.stopped_early
    assert result.epochs_run == len(accuracies) < result.epochs_planned == 12
    assert result.final_acc is None
    assert accuracies.index(max(accuracies)) == result.epochs_run - 3
    assert result.last_acc == accuracies[-1]


def test_every_epoch_says_how_long_it_took(options: Options) -> None:
    spec = "dots/clean/none/small_cnn/sleeper(seconds=0.03)/brief(epochs=3)/0"
    (result,) = run_grid([spec], options).results
    took = [epoch["epoch_seconds"] for epoch in result.history]
    assert len(took) == 3
    assert min(took) >= 0.03
    assert sum(took) <= result.seconds


def test_results_have_the_order_of_the_grid_whoever_finished_first(options: Options) -> None:
    specs = [f"dots/{a}/none/small_cnn/supervised/brief/0" for a in ("lsp", "clean", "noise")]
    run_grid(specs[2:], options)
    assert [result.spec for result in run_grid(specs, options).results] == specs


def test_a_trial_that_goes_on_counts_its_epochs_of_before(options: Options) -> None:
    spec = ["dots/clean/none/small_cnn/sleeper(seconds=0.2)/brief(epochs=3)/0"]
    often = replace(options, checkpoint_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        run_grid(spec, often, Cut(after=2))
    (result,) = run_grid(spec, often).results
    assert sum(epoch["epoch_seconds"] for epoch in result.history) <= result.seconds
    assert result.seconds >= 3 * 0.2


def test_partial_poisoning_answers_four_views(options: Options) -> None:
    spec = "dots/lsp@0.5/none/small_cnn/supervised/brief/0"
    result = run_grid([spec], options).results[0]
    assert set(result.probes) == {"clean_test", "unlearnable", "original", "clean_train"}
    assert {p["n"] for p in result.probes.values()} == {64}
    assert {"unlearnable_acc", "original_loss", "clean_train_acc"} <= set(result.history[0])
    full = run_grid(["dots/lsp/none/small_cnn/supervised/brief/0"], options).results[0]
    assert full.artifacts["poison"] == result.artifacts["poison"], "the ratio costs no generation"


SUBSET = (
    "em(batch_size=32, max_rounds=1, scope=subset, steps=1, surrogate=small_cnn)@{}"
    "/none/small_cnn/supervised/brief/0"
)


def test_noise_for_a_subset_is_made_for_every_ratio(options: Options) -> None:
    """The rows are those that the ratio takes of a full poison."""
    specs = [f"dots/{SUBSET.format(ratio)}" for ratio in (0.25, 0.5)]
    specs.append("dots/lsp@0.25/none/small_cnn/supervised/brief/0")
    by_spec = {r.spec: r for r in run_grid(specs, options).results}
    less, more, other = (by_spec[spec] for spec in specs)
    assert less.artifacts["poison"] != more.artifacts["poison"]
    assert [r.probes["unlearnable"]["n"] for r in (less, more)] == [32, 64]
    store = Store(options.out / "store")
    rows = [set(poison_of(found).indices.tolist()) for found in poisons(store, less, more)]
    assert rows[0] < rows[1]
    assert (len(rows[0]), len(rows[1])) == (32, 64)
    data = store.get("dataset", other.artifacts["dataset"])
    assert data is not None
    _, mask = poison_of(next(poisons(store, other))).overlay(
        World.of(data).train, 0.25, Stream("ratio", ("dots", 0))
    )
    assert set(mask.nonzero().squeeze(1).tolist()) == rows[0]


def poisons(store: Store, *results: Result) -> Iterator[Bundle]:
    for result in results:
        found = store.get("poison", result.artifacts["poison"])
        assert found is not None
        yield found


def test_the_mark_of_a_surrogate_is_told_everywhere(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(surrogates.ACCURACY_FLOORS, ("dots", "small_cnn"), 1.01)
    spec = (
        "dots/pgd(batch_size=32, steps=1, surrogate=small_cnn, surrogate_epochs=1)"
        "/none/small_cnn/supervised/brief/0"
    )
    result = run_grid([spec], options).results[0]
    (mark,) = result.marks
    assert mark.startswith("surrogate below 101%: small_cnn reaches")
    assert mark in (options.out / "tables" / "defense.md").read_text()
    show_plan([spec], options, as_json=False)
    assert f"note: {mark}" in capsys.readouterr().out


def test_two_drivers_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path),
        pytest.raises(StoreError, match="another raygrid run"),
        exclusive(tmp_path),
    ):
        pass


def test_rows_are_plain_json(options: Options) -> None:
    run_grid([SLEEP.format("clean", "")], options)
    (line,) = (options.out / "results.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert Result.from_row(row).row() == row
    assert row["resolved"]["attack"]["id"] == "clean"


def test_all_faults_of_all_axes_come_at_once() -> None:
    """What cannot be read does not hide what cannot be made of the rest."""
    grid = Grid(
        attacks=["lsp", "em2", "em("],
        budgets=["default", "0"],
        poison_ratios=["1.2", "0.5"],
        defenses=["at+ueraser_max", "jpeg(quality=1000)"],
        seeds=["a", 1],
    )
    with pytest.raises(SpecErrors) as caught:
        list(grid.specs())
    words = ("'em('", "'1.2'", "'a'", "'em2'", "several loss hooks", "1 to 100")
    assert len(caught.value.faults) == len(words)
    for word in words:
        assert sum(word in fault for fault in caught.value.faults) == 1, word
    assert [s.seed for s in Grid(seeds=["3", 3, 4]).specs()] == [3, 4]


def test_a_deadline_that_nobody_can_hold_is_refused(options: Options) -> None:
    with pytest.raises(SpecError, match="use Ray"):
        run_grid(GRID, replace(options, executor="inline", deadline=60.0))
    with pytest.raises(SpecError, match="deadline is -1"):
        run_grid(GRID, replace(options, deadline=-1.0))
    assert not (options.out / "results.jsonl").exists()


def test_what_a_purifier_has_to_say_reaches_every_row_behind_it(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def purify(self: Defense, images: Images, fit_context: FitContext) -> Images:
        fit_context.marks.append("half of it is guessed")
        return images

    monkeypatch.setattr(DEFENSES["grayscale"], "purify", purify)
    links = ("grayscale", "grayscale+bdr", "bdr")
    specs = [f"dots/lsp/{link}/small_cnn/supervised/brief/0" for link in links]
    outcome = run_grid(specs, options)
    marked = {r.spec: r.marks for r in outcome.results}
    said = ["half of it is guessed"]
    assert [marked[str(resolve(spec, None).spec)] for spec in specs] == [said, said, []]
    again = run_grid([specs[0].replace("brief", "brief(epochs=1)")], options)
    assert again.results[0].marks == ["half of it is guessed"], "also of a set made earlier"


class Heavy:
    """What a trial holds on its device."""


def test_what_a_trial_held_that_ran_out_of_memory_is_gone_when_the_next_begins(
    catalog: Catalog, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error kept the frames of its training, and the next trial found the card full."""
    held: list[weakref.ref[Heavy]] = []

    def run(self: Worker, trial: Trial, *args: Any, **env: Any) -> Result:
        assert [ref for ref in held if ref() is not None] == []
        mine = Heavy()
        held.append(weakref.ref(mine))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Worker, "run", run)
    specs = [f"dots/clean/none/small_cnn/supervised/brief/{seed}" for seed in (0, 1)]
    recorder = Recorder()
    agenda = Agenda([resolve(spec, catalog) for spec in specs], lambda artifact: True)
    run_inline(agenda, Worker(store), recorder)
    assert [row.status for row in recorder.rows] == ["failed", "failed"]
    assert len(held) == 2


def test_a_lost_gpu_leaves_a_row_and_a_word_though_it_refuses_to_give_memory_back(
    catalog: Catalog, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Worker, trial: Trial, *args: Any, **env: Any) -> Result:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    def refuse() -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Worker, "run", run)
    agenda = Agenda([resolve("dots/clean/none/small_cnn/supervised/brief/0", catalog)], bool)
    recorder, worker = Recorder(), Worker(store)
    worker.device = torch.device("cuda", 0)
    with machine(Machine()):
        monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
        with pytest.raises(DeviceError, match=r"lost its GPU \(AcceleratorError: CUDA error"):
            run_inline(agenda, worker, recorder)
    assert [row.status for row in recorder.rows] == ["failed"]


def test_a_checkpoint_of_other_code_is_not_gone_on_from(
    options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    """A method of one's own had changed, and each run failed at the same checkpoint."""
    spec = ["dots/lsp/none/small_cnn/supervised/brief(epochs=4)/0"]
    whole = run_grid(spec, replace(options, out=options.out.with_name("whole"))).results[0]
    often = replace(options, checkpoint_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        run_grid(spec, often, Cut(after=3))
    (slot,) = (options.out / "store" / "artifacts" / "partial").glob("trial-*")
    kept = Store(options.out / "store")
    bundle = kept.get("partial", slot.name)
    assert bundle is not None
    state = unpack(bundle)
    state["session"] = {"another": torch.zeros(3)}
    kept.drop("partial", slot.name)
    kept.put("partial", slot.name, pack(state))
    recorder = Recorder()
    resumed = run_grid(spec, often, recorder).results[0]
    assert recorder.epochs == 4
    assert essence(resumed) == essence(whole)
    assert "begins anew: its checkpoint does not fit" in caplog.text


def test_a_repository_around_an_installed_package_is_not_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of a run from somebody's .venv named the commit of somebody's project."""
    module = tmp_path / ".venv" / "raygrid" / "engine" / "worker.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    (tmp_path / ".gitignore").write_text(".venv\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "mine")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(worker, "__file__", str(module))
    assert worker.commit.__wrapped__() == ""
    subprocess.run(["git", "add", "-f", str(module)], cwd=tmp_path, check=True)
    assert worker.commit.__wrapped__().endswith("+"), "a checkout with a change"
