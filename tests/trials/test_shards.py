"""A poison that several jobs make is the poison that one makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raygrid.api.run_grid import Options, run_grid
from raygrid.attacks import ATTACKS
from raygrid.core.errors import Moving, SpecError, StoreError
from raygrid.engine.schedule import LEAST_SHARD, Agenda
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import Artifact, BuildContext
from raygrid.trials.artifacts.build import BuildObserver, build
from raygrid.trials.artifacts.shards import Joined, Shard, begun_counts, ranges, split
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve
from tests.engine.test_run import Recorder, essence

pytestmark = pytest.mark.usefixtures("undrawn")

TRIAL = "dots/{}/none/small_cnn/supervised/brief/0"
PGD = "pgd(batch_size=16, start=uniform, steps=2, surrogate=small_cnn, surrogate_epochs=1)"
PARTS = [PGD, "ntga(block=16, chunk=16)", "noise", "lsp"]


@pytest.mark.parametrize(("units", "grain"), [(1, 1), (7, 1), (100, 16), (128, 16), (50000, 512)])
def test_ranges_cover_all_units_once_in_whole_batches(units: int, grain: int) -> None:
    for count in range(1, min(12, -(-units // grain)) + 1):
        pieces = ranges(units, count, grain)
        assert len(pieces) == count
        assert list(itertools.chain(*pieces)) == list(range(units))
        assert all(r.start % grain == 0 for r in pieces)
        sizes = [-(-len(r) // grain) for r in pieces]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("part", PARTS)
def test_shards_join_to_the_same_bytes(part: str, options: Options, tmp_path: Path) -> None:
    spec = TRIAL.format(part)
    whole = run_grid([spec], options).results[0]
    elsewhere = replace(options, out=tmp_path / "parts", shards=3)
    recorder = Recorder()
    result = run_grid([spec], elsewhere, recorder).results[0]
    pieces = 1 if part in ("noise", "lsp") else 3  # 128 rows are one block of draws
    assert recorder.artifacts.count(("shard", "made")) == (pieces if pieces > 1 else 0)
    assert essence(result) == essence(whole)
    one, joined = (
        Store(o.out / "store").get("poison", whole.artifacts["poison"])
        for o in (options, elsewhere)
    )
    assert one is not None
    assert joined is not None
    assert one.tensors.keys() == joined.tensors.keys()
    assert all(torch.equal(one.tensors[name], joined.tensors[name]) for name in one.tensors)
    timeless = [
        {k: v for k, v in b.facts.items() if k not in ("seconds", "size")} for b in (one, joined)
    ]
    assert timeless[0] == timeless[1]
    for norm, size in one.facts["size"].items():
        assert joined.facts["size"][norm] == pytest.approx(size)
    assert not list((elsewhere.out / "store" / "artifacts").glob("shard/*"))
    again = Recorder()
    run_grid([spec], elsewhere, again)
    assert again.artifacts == []


class CutOff(Recorder):
    """The run dies when the first shard is made."""

    def artifact(self, artifact: Artifact, state: str, facts: dict[str, Any]) -> None:
        super().artifact(artifact, state, facts)
        if (artifact.kind, state) == ("shard", "made"):
            raise KeyboardInterrupt


def test_finished_shards_are_not_made_again(options: Options) -> None:
    parts = replace(options, shards=4)
    with pytest.raises(KeyboardInterrupt):
        run_grid([TRIAL.format(PGD)], parts, CutOff())
    recorder = Recorder()  # without being told again: a cluster may have another size by then
    result = run_grid([TRIAL.format(PGD)], options, recorder).results[0]
    assert result.status == "done"
    assert recorder.artifacts.count(("shard", "made")) == 3
    assert not list((options.out / "store" / "artifacts").glob("shard/*"))


def test_a_failing_shard_fails_the_trials_of_its_poison(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(ATTACKS["pgd"], "propose", fail)
    result = run_grid([TRIAL.format(PGD)], replace(options, shards=2)).results[0]
    assert result.status == "failed"
    assert "no memory" in str(result.error)


LONG = "cifar10/{}/none/resnet18/supervised/quick/0"


def agenda(part: str) -> Agenda:
    return Agenda([resolve(LONG.format(part), None)], lambda artifact: False)


def test_what_was_begun_stays_divided_as_most_of_it_is() -> None:
    names = ["k-1of4", "k-3of4.17", "k-2of8", "j-1of2", "trial-abc.2", "j-1of2.damaged-12", "m"]
    assert begun_counts(names) == {"k": 4, "j": 2}


def test_as_many_shards_as_slots_and_none_shorter_than_a_minute() -> None:
    long = agenda("tap")
    (job,) = [j for j in long.jobs.values() if j.artifact and j.artifact.kind == "poison"]
    assert job.seconds > 8 * LEAST_SHARD
    before = job.seconds
    long.divide(8)
    shards = [j for j in long.jobs.values() if isinstance(j.artifact, Shard)]
    assert len(shards) == job.pieces == 8
    assert job.needs == {j.key for j in shards}
    assert all(j.pieces == 8 and j.rank > job.rank for j in shards)
    assert sum(j.seconds for j in shards) == pytest.approx(before)
    first = long.take()
    assert first is not None
    assert first.artifact is not None
    assert first.artifact.kind == "dataset"
    joined = [j.artifact.gpu for j in long.jobs.values() if isinstance(j.artifact, Joined)]
    assert joined == [False], "to put it together is a copy: no GPU is held for that"
    for part in ("em", "lsp", "clean"):  # in one piece; short; nothing to make
        other = agenda(part)
        other.divide(8)
        assert not any(isinstance(j.artifact, Joined | Shard) for j in other.jobs.values())


def test_what_cannot_be_divided_stays_as_it_is(catalog: Catalog) -> None:
    trial = resolve(TRIAL.format("em(surrogate=small_cnn)"), None)
    poison = trial.poison
    assert split(poison, 4) is poison
    assert split(trial.data, 4) is trial.data
    with pytest.raises(SpecError, match="shards is 0, allowed are"):
        Options(shards=0)


def test_pieces_that_cannot_be_removed_fail_no_poison(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket may allow to write and not to delete."""

    def refuse(self: Store, kind: str, key: str) -> None:
        raise StoreError(f"cannot delete {kind}: ACCESS_DENIED")

    monkeypatch.setattr(Store, "drop", refuse)
    (row,) = run_grid([TRIAL.format(PGD)], replace(options, shards=3)).results
    assert row.status == "done"


def test_nothing_is_left_of_a_poison_that_another_process_ended(
    catalog: Catalog, fetch: Callable[[Artifact], Bundle]
) -> None:
    """The first had to go and left a checkpoint, from which the second went on."""
    poison = resolve(TRIAL.format(PGD), catalog).poison
    store, context = catalog.store, BuildContext(torch.device("cpu"), catalog.data_root)
    for need in poison.needs():
        fetch(need)
    with pytest.raises(Moving):
        build(poison, store, context, fetch, BuildObserver(leaving=lambda: True))
    assert store.names("partial") == {f"{poison.key}.1"}
    assert build(poison, store, context, fetch)[1]
    assert store.names("partial") == set()
