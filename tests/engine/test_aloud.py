"""What a command makes beside a run is announced where it takes long."""

from __future__ import annotations

import pytest

from raygrid.core.speed import CPU
from raygrid.engine import aloud
from raygrid.engine.aloud import TellingWorker, missing_seconds
from raygrid.storage.store import Store
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve
from tests.trials.test_shards import PGD, TRIAL


def test_a_long_poison_is_announced_before_it_is_made(
    catalog: Catalog, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """`evaluate sets --on photo_digits/em` was silent for hours."""
    poison = resolve(TRIAL.format(PGD), catalog).poison
    (surrogate,) = (need for need in poison.needs() if need.kind == "surrogate")
    absent = poison.seconds(CPU) + surrogate.seconds(CPU)
    assert missing_seconds(poison, store, CPU) == pytest.approx(absent), "the data are there"
    worker = TellingWorker(store)
    monkeypatch.setattr(aloud, "LONG_SECONDS", 0.0)
    worker.tell_and_fetch(poison)
    said = capsys.readouterr().err
    assert f"poison {poison.label} is not there and is made first, in about " in said
    assert missing_seconds(poison, store, CPU) == 0
    monkeypatch.setattr(aloud, "LONG_SECONDS", 30.0)
    worker.tell_and_fetch(poison)
    assert capsys.readouterr().err == ""


def test_what_long_poisons_take_is_known(store: Store) -> None:
    em = resolve("photo_digits/em/none/small_cnn/supervised/quick/0", None).poison
    assert missing_seconds(em, store, CPU) > 3600
