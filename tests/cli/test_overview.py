"""The help of the command line itself."""

from __future__ import annotations

import shlex

import pytest

from raygrid.attacks import ATTACKS
from raygrid.cli.main import main, parser
from raygrid.cli.overview import COMMAND_EXAMPLES, COMMAND_GROUPS, Overview
from raygrid.cli.run import experiment_main


def test_every_command_stands_in_one_group() -> None:
    top = parser()
    assert isinstance(top, Overview)
    named = [name for names in COMMAND_GROUPS.values() for name in names]
    assert sorted(named) == sorted(top._texts())
    help_ = top.format_help()
    assert "other:" not in help_
    for name, text in top._texts().items():
        assert f"  {name} " in help_
        assert text.endswith((".", "?"))
        assert text in help_
    assert max(map(len, help_.splitlines())) <= 80


@pytest.mark.parametrize("example", COMMAND_EXAMPLES)
def test_the_examples_parse(example: str) -> None:
    program, *words = shlex.split(example)
    assert program == "raygrid"
    assert parser().parse_args(words).command


def test_an_experiments_help_keeps_a_command_to_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    described = (
        "The main grid.\n\n    python a.py             minutes\n    python a.py --scale b   hours"
    )
    with pytest.raises(SystemExit):
        experiment_main("full_grid", {"quick": ()}, described, ["--help"])
    assert described in capsys.readouterr().out


def test_attacks_are_listed_with_norm_budget_and_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "attacks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["name", "norm", "budget", "paper"]
    by = {line.split()[0]: line.split(maxsplit=3)[1:] for line in lines[2:-1]}
    assert by["em"] == ["linf", "8/255", "Huang et al. 2021, Unlearnable Examples"]
    assert by["lsp"][:2] == ["l2", "1.30"]
    assert by["ops"][:2] == ["l0", "1"]
    assert by["clean"][:2] == ["–", "–"]
    assert set(ATTACKS) == set(by)
    assert "raygrid show NAME" in lines[-1]
