"""Options: what is taken, what is refused, what travels to workers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raygrid.core.errors import SpecError, SpecErrors
from raygrid.core.options import Options, flags


def test_text_and_lists_stand_for_paths_and_tuples(tmp_path: Path) -> None:
    given = Options(out="runs/a", data=tmp_path, store=tmp_path / "store", keep=["peak"])
    assert given == Options(
        out=Path("runs/a"), data=tmp_path, store=str(tmp_path / "store"), keep=("peak",)
    )
    assert given.out / "tables" == Path("runs/a/tables")
    assert Options(keep="peak").keep == ("peak",)
    assert hash(given) == hash(replace(given))


def test_numbers_of_numpy_are_those_of_python_in_options() -> None:
    given = Options(shards=np.int64(2), deadline=np.float32(0.5), executor="ray")  # type: ignore[arg-type]
    assert given == Options(shards=2, deadline=0.5, executor="ray")
    assert [type(value) for value in (given.shards, given.deadline)] == [int, float]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"executor": "rya"}, "unknown executor 'rya' (did you mean 'ray'?); known: auto, "),
        ({"deadline": -5, "executor": "ray"}, "deadline is -5, allowed are numbers above 0"),
        ({"deadline": 0, "executor": "ray"}, "deadline is 0, allowed are numbers above 0"),
        ({"deadline": 60, "executor": "inline"}, "deadline is 60, but it ends jobs in workers"),
        ({"per_gpu": 3}, "per_gpu is 3, allowed are 1, 2, 4, 8"),
        ({"per_gpu": True}, "per_gpu is True, allowed is a whole number"),
        ({"per_gpu": np.float64(2)}, "per_gpu is np.float64(2.0), allowed is a whole number"),
        ({"shards": 0}, "shards is 0, allowed are whole numbers from 1"),
        ({"shards": 1.5}, "shards is 1.5, allowed is a whole number"),
        ({"cpus": 0}, "cpus is 0, allowed are whole numbers from 1"),
        ({"keep": ["weigths"]}, "unknown keep 'weigths' (did you mean 'weights'?); known: "),
        ({"keep": 3}, "keep is 3, allowed is a list of texts"),
        ({"imports": [3]}, "imports is 3, allowed is a text"),
        ({"checkpoint_every": -1}, "checkpoint_every is -1, allowed are numbers from 0"),
        ({"checkpoint_every": float("nan")}, "checkpoint_every is nan, allowed is a finite"),
        ({"driver": "3/3"}, "driver is '3/3', allowed are its number, from 0, and how many"),
        ({"out": 7}, "out is 7, allowed is a path"),
        ({"out": ""}, "out is '', allowed is a path"),
        ({"data": None}, "data is None, allowed is a path"),
        ({"quiet": "no"}, "quiet is 'no', allowed is True or False"),
        ({"name": None}, "name is None, allowed is a text"),
    ],
)
def test_a_wrong_value_is_one_error_that_says_what_is_allowed(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        Options(**given)
    assert str(caught.value).startswith(said)


def test_all_wrong_values_are_said_at_once() -> None:
    with pytest.raises(SpecErrors) as caught:
        Options(per_gpu=3, shards=0, executor="slurm")  # type: ignore[arg-type]
    assert [fault.split()[0] for fault in caught.value.faults] == ["unknown", "shards", "per_gpu"]


def test_workers_get_absolute_places_and_nothing_of_the_driver_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = Options(out=Path("a"), data=Path("b"), tracking="http://me:secret@host", shards=3)
    given = replace(given, driver="0/2", yes=True)
    sent = pickle.loads(pickle.dumps(given.for_workers()))
    assert (sent.out, sent.data) == (tmp_path / "a", tmp_path / "b")
    assert sent.store == given.store_url == str(tmp_path / "a" / "store")
    assert replace(given, store="c").for_workers().store == str(tmp_path / "c")
    assert replace(given, store="s3://b/c").for_workers().store == "s3://b/c"
    assert sent.tracking is None
    assert sent.driver is None
    changed = {"out", "data", "store", "tracking", "yes", "driver"}
    for each in fields(Options):
        same = getattr(sent, each.name) == getattr(given, each.name)
        assert same is (each.name not in changed), each.name
    own = [name for name, flag in flags().items() if flag.driver_only]
    assert own == ["tracking", "yes", "driver"]


def test_options_are_light() -> None:
    code = "import sys, raygrid.core.options; print('torch' in sys.modules, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
