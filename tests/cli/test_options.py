"""The flags of the command line are those of the fields of `Options`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from raygrid.cli.options import add_options, add_running, flag_words, options_of
from raygrid.core.errors import SpecError
from raygrid.core.options import Options, flags
from tests.options import all_changed


def words_of(name: str, value: Any) -> list[str]:
    """The words of a command line that set an option."""
    word = flag_words(name, flags()[name], getattr(Options(), name))
    if isinstance(value, bool):
        return [word]
    if flags()[name].repeated:
        return [text for each in value for text in (word, each)]
    return [word, *value] if isinstance(value, tuple) else [word, str(value)]


@pytest.fixture
def parse() -> Callable[..., Options]:
    def parsed(*words: str) -> Options:
        parser = argparse.ArgumentParser()
        add_options(parser)
        add_running(parser)
        return options_of(parser.parse_args(words))

    return parsed


def test_every_option_has_a_flag_or_a_reason() -> None:
    without = {f.name: f.metadata.get("reason") for f in fields(Options) if f.name not in flags()}
    assert set(without) == {"name", "strict"}
    assert all(without.values())
    assert all(flag.help for flag in flags().values())


def test_the_help_names_the_variables_that_give_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    add_running(parser)
    told = " ".join(parser.format_help().split())
    variables = [flag.variable for flag in flags().values() if flag.variable]
    assert len(variables) == 3
    assert all(f"; also by {variable}" in told for variable in variables)


def test_every_flag_sets_its_option_and_no_other(parse: Callable[..., Options]) -> None:
    changed = {name: value for name, value in all_changed().items() if name in flags()}
    for name, value in changed.items():
        workers = {"executor": "ray"} if name == "deadline" else {}
        words = [word for each in workers.items() for word in words_of(*each)]
        assert parse(*words, *words_of(name, value)) == Options(**workers, **{name: value})
    everything = [word for each in changed.items() for word in words_of(*each)]
    assert parse(*everything) == Options(**changed)


def test_without_flags_the_defaults_of_the_class_count(
    parse: Callable[..., Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAYGRID_DATA", "RAYGRID_STORE"):
        monkeypatch.delenv(name, raising=False)
    assert parse() == Options()
    monkeypatch.setenv("RAYGRID_DATA", "/there")
    monkeypatch.setenv("RAYGRID_STORE", "s3://bucket")
    assert parse() == Options(data=Path("/there"), store="s3://bucket")
    assert parse("--data", "here").data == Path("here")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "rya"], "did you mean 'ray'"),
        (["--deadline", "-5", "--executor", "ray"], "deadline is -5"),
        (["--per-gpu", "3"], "per_gpu is 3, allowed are 1, 2, 4, 8"),
        (["--shards", "0"], "shards is 0, allowed are whole numbers from 1"),
        (["--keep", "weigths"], "did you mean 'weights'"),
    ],
)
def test_a_wrong_flag_is_said_as_the_class_says_it(
    parse: Callable[..., Options], words: list[str], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        parse(*words)
