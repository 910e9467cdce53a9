"""Imports point downward only; Ray and MLflow each stay in their room."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trees import imports, tree

ROOT = Path(__file__).parents[1] / "raygrid"
ORDER = [
    "core",
    "architectures",
    "storage",
    "datasets",
    "nn",
    "protocols",
    "attacks",
    "defenses",
    "learners",
    "literature",
    "trials",
    "engine",
    "tracking",
    "reports",
    "reproduce",
    "api",
    "cli",
    "__init__",
    "__main__",
]
FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path: Path) -> None:
    here = ORDER.index(room(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "raygrid" and len(parts) > 1 and parts[1] in ORDER:
            assert ORDER.index(parts[1]) <= here, f"{path.name} imports {name}"
            if parts[1] in ("attacks", "defenses"):
                other = {"attacks": "defenses", "defenses": "attacks"}[parts[1]]
                assert room(path) != other, f"{path.name} imports {name}"


def is_text(call: ast.Call) -> bool:
    """Whether a call reads or writes a text file, as far as its words show."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    modes = [each.value for each in call.args if isinstance(each, ast.Constant)]
    named = any(word.arg in ("newline", "errors") for word in call.keywords)
    opened = name == "open" and (named or any(mode in ("r", "w", "a", "x") for mode in modes))
    return opened or name in ("read_text", "write_text")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_text_files_are_utf_8_wherever_they_are_read(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and is_text(node):
            assert "encoding" in {word.arg for word in node.keywords}, node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_ray_and_mlflow_stay_in_their_rooms(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    place = path.relative_to(ROOT).as_posix()
    assert "ray" not in tops or place.startswith("engine/ray/") or place == "cli/doctor.py"
    assert "mlflow" not in tops or place.startswith("tracking/mlflow/")


def test_workers_start_in_the_interpreter_of_the_driver() -> None:
    """Not through `uv run` in a copy of the folder, which is Ray's way under `uv run`."""
    code = (
        "import raygrid.engine.ray.executor; from ray._private import ray_constants as ray;"
        "assert ray.RAY_ENABLE_UV_RUN_RUNTIME_ENV is False"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400, f"{path} is too long"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{path.name}:{node.name} has {length} lines"


FACES = sorted(ROOT.rglob("__init__.py"))
CODE_IN_A_FACE = {"": "the public names of raygrid load on first use"}
"""Packages with code in `__init__.py`, and why."""


@pytest.mark.parametrize("path", FACES, ids=lambda p: str(p.parent.relative_to(ROOT)))
def test_faces_say_what_a_room_holds_and_hold_no_code(path: Path) -> None:
    """A docstring, imports that register or re-export, `__all__`."""
    body = tree(path).body
    doc = ast.get_docstring(tree(path)) or ""
    assert len(doc.split("\n\n")) > 1, f"{path} does not say what it holds and who imports it"
    said = re.search(r"Start\s+with\s+`([\w/]+)", doc)
    room = path.parent.relative_to(ROOT).as_posix().removeprefix(".")
    if said:
        assert (path.parent / f"{said.group(1)}.py").exists(), f"{said.group(1)} is not there"
    assert said or room in CODE_IN_A_FACE or path.parent.name == "common"
    assert "import" in doc, f"{path} does not say who imports it"
    kinds = ast.Import | ast.ImportFrom
    rest = [n for n in body[1:] if not isinstance(n, kinds)]
    code = [text for text in map(ast.unparse, rest) if not text.startswith("__all__ =")]
    assert bool(code) == (room in CODE_IN_A_FACE), f"{path}: {code}"


SAME_NAME = {
    "plan": "the verb of `import raygrid`, and the planner that it calls",
    "purify": "the verb, and what it shares with the artifact",
    "table": "the verb, and the tables that it calls",
    "reproduce": "the command, and what it loads at its first use",
}
"""Public names that two files define, and why."""


def public_names(path: Path) -> Iterator[str]:
    """Classes, functions, constants and aliases of a file; no loggers and no type variables."""
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for name in map(ast.unparse, assigned(node)):
                if re.fullmatch(r"[A-Z]\w+", name):
                    yield name


def assigned(node: ast.Assign | ast.AnnAssign) -> Iterator[ast.expr]:
    """What a statement gives values to, each part of a tuple by itself."""
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        yield from target.elts if isinstance(target, ast.Tuple) else [target]


def test_no_public_name_means_two_things() -> None:
    """One class, function, constant or alias a name, so that a search finds the one."""
    places: dict[str, list[str]] = {}
    for path in FILES:
        for name in public_names(path):
            places.setdefault(name, []).append(str(path.relative_to(ROOT)))
    several = {name: found for name, found in places.items() if len(found) > 1}
    assert several.keys() == SAME_NAME.keys(), several


EXPERIMENTS = sorted((ROOT.parent / "experiments").rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of what a file takes from the modules of raygrid."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("raygrid."):
            yield from ((str(node.module), alias.name) for alias in node.names)


def names_in(module: str) -> set[str]:
    """What can be imported from a module: what it defines or imports, and the modules below it."""
    stem = ROOT.parent.joinpath(*module.split("."))
    if stem.is_dir():
        return names_of(stem / "__init__.py") | {path.stem for path in stem.iterdir()}
    return names_of(stem.with_suffix(".py"))


def names_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {ast.unparse(target) for target in assigned(node)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.name)
def test_what_experiments_import_is_there(path: Path) -> None:
    """No test runs the benchmarks, which take hours: users would meet what was renamed."""
    assert [found for found in imported(path) if found[1] not in names_in(found[0])] == []


PRIVATE_WORDS = {
    *("decided", "workshop", "keeping", "gauge", "gauging", "tally", "plate", "shelf"),
    *("plates", "asked", "craft", "bench", "look", "letter", "desk", "bury", "beacon"),
}
"""Words that nobody outside of this project would search for."""


def defined(path: Path) -> Iterator[str]:
    """Names that a file gives to modules, classes, functions, fields and arguments."""
    yield path.stem
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_are_words_of_the_field(path: Path) -> None:
    private = {name for name in defined(path) if name.strip("_").lower() in PRIVATE_WORDS}
    assert not private, f"{path.name} calls something {', '.join(sorted(private))}"


FRAGMENTS = ("Of ", "As ", "From ", "In which", "By ", "For ", "With ")
"""What sentences without a subject begin with."""


def test_docstrings_begin_with_a_sentence_that_has_a_subject() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {node.name}: {text.splitlines()[0]}"
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if (text := ast.get_docstring(node) or "").startswith(FRAGMENTS)
    ]
    assert found == []


def importers_of(package: Path) -> set[str]:
    """Rooms, or files of the same room, outside of a package that import something of it."""
    dotted = ".".join(("raygrid", *package.relative_to(ROOT).parts))
    found = set()
    for path in FILES:
        if path.is_relative_to(package):
            continue
        if any(name == dotted or name.startswith(f"{dotted}.") for name in imports(path)):
            near = path.is_relative_to(package.parent) and package.parent != ROOT
            found.add(path.relative_to(package.parent if near else ROOT).parts[0])
    return found


SAID = re.compile(r"The rooms ((?:`\w+`(?:, | and )?)+) import it")


@pytest.mark.parametrize("path", FACES, ids=lambda p: str(p.parent.relative_to(ROOT)))
def test_the_importers_that_a_room_names_are_those_it_has(path: Path) -> None:
    doc = " ".join((ast.get_docstring(tree(path)) or "").split())
    for names in SAID.findall(doc):
        assert set(re.findall(r"`(\w+)`", names)) == importers_of(path.parent)
