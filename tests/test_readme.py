"""README and docs: their commands parse or run, their code works, the files they name exist."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.cli import main as cli
from raygrid.core.enforcement import size_of_change
from raygrid.core.seeds import Stream
from raygrid.trials.resolve import resolve
from tests.conftest import toy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {page.name: page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))}
FENCED = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
BLOCKS = FENCED.findall(README)


def commands_of(text: str) -> list[str]:
    """The lines of the shell blocks of a page."""
    blocks = (block for kind, block in FENCED.findall(text) if kind == "bash")
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


COMMANDS = commands_of(README)
EVERYWHERE = [*COMMANDS, *(line for page in PAGES.values() for line in commands_of(page))]


def words(prefix: str) -> list[list[str]]:
    found = (c.removeprefix(prefix) for c in dict.fromkeys(EVERYWHERE) if c.startswith(prefix))
    return [shlex.split(command, comments=True) for command in found]


def test_it_is_short_and_starts_with_code() -> None:
    lines = README.splitlines()
    assert len(lines) < 150
    assert next(i for i, line in enumerate(lines) if line.startswith("```")) < 40


def test_the_first_two_commands_are_those_of_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert COMMANDS[0] == "pip install uv && uv run experiments/full_grid.py"
    assert COMMANDS[1] == "pip install uv && uv run --extra test pytest"
    assert "uv run experiments/full_grid.py" in ci
    assert "uv run --extra test pytest" in ci


SPEC = re.compile(r"(?:^|`)([a-z0-9_]+/[^`\s]+(?:/[^`\s/]+){4}/\d)(?:`|$)", re.MULTILINE)
SHOWN = [spec for text in (README, *PAGES.values()) for spec in SPEC.findall(text)]


@pytest.mark.parametrize("spec", SHOWN)
def test_specs_in_the_text_are_ones(spec: str) -> None:
    assert str(resolve(spec, None).spec)


def test_specs_in_the_text_are_found() -> None:
    assert len(SHOWN) >= 2


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
    everything = "\n".join([README, *PAGES.values()])
    for path in re.findall(r"`((?:raygrid|experiments|tests)/[\w/]+\.(?:py|md))`", everything):
        if path != "raygrid/attacks/mine.py":
            assert (ROOT / path).exists(), path
    assert (ROOT / "cluster.yaml").exists()
    (places,) = (text for _, text in BLOCKS if text.startswith("raygrid/core/"))
    named = set(re.findall(r"(?:raygrid/|(?<=\s))(\w+(?:\.py|/))(?=[\s,;])", places))
    here = {path.name for path in (ROOT / "raygrid").iterdir() if (path / "__init__.py").exists()}
    assert {name.rstrip("/") for name in named} >= here


def test_the_attack_it_shows_holds_its_budget(tmp_path: Path) -> None:
    (code,) = [t for kind, t in FENCED.findall(PAGES["add_an_attack.md"]) if kind == "python"]
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


def test_links_between_pages_lead_somewhere() -> None:
    pages = {ROOT / "README.md": README, **{ROOT / "docs" / n: t for n, t in PAGES.items()}}
    for page, text in pages.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    assert {f"docs/{name}" for name in PAGES} == set(re.findall(r"\]\((docs/\w+\.md)\)", README))


@pytest.mark.parametrize("number", [0, 1])
def test_the_python_it_shows_runs(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = [text for kind, text in FENCED.findall(PAGES["python.md"]) if kind == "python"][number]
    found: dict[str, object] = {}
    exec(compile(code, "python.md", "exec"), found)
    if number == 0:
        history = found["history"]
        assert isinstance(history, list)
        assert 0 <= history[-1]["test_acc"] <= 1
    else:
        assert "4 of 4 trials done" in capsys.readouterr().out
