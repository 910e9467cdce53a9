"""The README: its commands parse or run, its code works, the files it names exist."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from raygrid.attacks.base import ATTACKS, AttackContext, size_of_change
from raygrid.cli import main as cli
from raygrid.core.seeds import Stream
from tests.conftest import toy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.replace("\\\n", " ").splitlines()
]


def words(prefix: str) -> list[list[str]]:
    found = (c.removeprefix(prefix) for c in COMMANDS if c.startswith(prefix))
    return [shlex.split(command, comments=True) for command in found]


def test_it_is_short_and_starts_with_code() -> None:
    lines = README.splitlines()
    assert len(lines) < 230
    assert next(i for i, line in enumerate(lines) if line.startswith("```")) < 40


def test_the_first_two_commands_are_those_of_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert COMMANDS[0] == "pip install uv && uv run experiments/full_grid.py"
    assert COMMANDS[1] == "pip install uv && uv run --extra test pytest"
    assert "uv run experiments/full_grid.py" in ci
    assert "uv run --extra test pytest" in ci


@pytest.mark.parametrize("command", words("uv run raygrid "), ids=" ".join)
def test_raygrid_commands_parse(command: list[str]) -> None:
    if "--help" in command:
        with pytest.raises(SystemExit) as end:
            cli.parser().parse_args(command)
        assert end.value.code == 0
    else:
        cli.parser().parse_args(command)


def test_the_specs_and_axes_it_shows_can_be_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in words("uv run raygrid "):
        if command[0] in ("run", "plan"):
            assert cli.main(["plan", *command[1:], "--out", str(tmp_path)]) == 0
    assert "trials" in capsys.readouterr().out


def test_the_files_it_names_exist() -> None:
    for path in re.findall(r"`((?:raygrid|experiments|tests)/[\w/]+\.py)`", README):
        if path != "raygrid/attacks/mine.py":
            assert (ROOT / path).exists(), path
    assert (ROOT / "cluster.yaml").exists()
    (places,) = (text for _, text in BLOCKS if text.startswith("raygrid/core/"))
    named = set(re.findall(r"(?:raygrid/|(?<=\s))(\w+(?:\.py|/))(?=[\s,;])", places))
    here = {path.name for path in (ROOT / "raygrid").iterdir() if (path / "__init__.py").exists()}
    assert {name.rstrip("/") for name in named} >= here


def test_the_attack_it_shows_holds_its_budget(tmp_path: Path) -> None:
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    (tmp_path / "readme_attack.py").write_text(code)
    sys.path.insert(0, str(tmp_path))
    own = ATTACKS._methods.pop("mine", None)  # of whoever did what the README says
    try:
        __import__("readme_attack")
        images = toy()
        poison = ATTACKS.make("mine").poison(images, AttackContext(Stream("poison")))
    finally:
        sys.path.remove(str(tmp_path))
        del ATTACKS._methods["mine"]
        if own is not None:
            ATTACKS._methods["mine"] = own
    assert float(size_of_change(images.pixels, poison.pixels, "linf").max()) <= 8 / 255 + 1e-6
    assert torch.equal(poison.labels, images.labels)
