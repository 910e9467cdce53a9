"""`import raygrid as rg`: what it offers, that it is light, typed and documented."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import raygrid as rg

VERBS = ("dataset", "poison", "purify", "train", "plan", "run", "results", "table", "published")
TYPES = (
    *("Grid", "TrialSpec", "Part", "Options", "Result", "Trial", "Images", "Budget", "Store"),
    *("Listener", "Run", "Trained", "Split", "Poison", "Plan"),
)
PLUGIN = (
    *("Attack", "Defense", "Learner", "Architecture", "Dataset", "Protocol", "Card"),
    *("ATTACKS", "DEFENSES", "LEARNERS", "ARCHITECTURES", "DATASETS", "PROTOCOLS"),
    *("AttackContext", "FitContext", "Recipe", "RaygridError"),
)


def test_the_face_offers_verbs_types_and_what_a_plugin_needs() -> None:
    assert set(rg.__all__) == {*VERBS, *TYPES, *PLUGIN}
    for name in rg.__all__:
        assert getattr(rg, name) is not None


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_stays_a_function_whatever_modules_are_loaded(verb: str) -> None:
    """No module of the package has the name of a verb: loading it would take the verb's place."""
    assert inspect.isfunction(getattr(rg, verb))
    root = Path(rg.__file__).parent
    assert not (root / verb).exists()
    assert not (root / f"{verb}.py").exists()


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="poisons"):
        _ = rg.poisons  # type: ignore[attr-defined]


def test_importing_loads_no_heavy_library() -> None:
    code = (
        "import sys, raygrid as rg; rg.TrialSpec, rg.Budget, rg.Grid, rg.plan;"
        "heavy = {'ray', 'mlflow', 'pandas', 'matplotlib', 'sklearn', 'torchvision'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_what_it_takes_gives_and_raises(verb: str) -> None:
    function = getattr(rg, verb)
    text = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters:
        assert parameter in text, f"{verb} does not explain {parameter}"
    assert "Return" in text
    assert "Raises" in text
    assert all(p.annotation is not p.empty for p in inspect.signature(function).parameters.values())


@pytest.mark.parametrize("module", ["methods", "training", "grids"])
def test_the_examples_of_the_verbs_run(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"raygrid.api.{module}"))
    assert found.attempted > 0
    assert found.failed == 0


def type_checked(folder: Path, code: str) -> str:
    """What mypy says of a script of somebody who uses raygrid."""
    (folder / "user.py").write_text(code)
    words = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(folder / "user.py")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(rg.__file__).parents[1])
    return done.stdout + done.stderr


@pytest.mark.slow
def test_type_checkers_see_the_names(tmp_path: Path) -> None:
    said = type_checked(
        tmp_path,
        "import raygrid as rg\n"
        "reveal_type(rg.poison)\n"
        "reveal_type(rg.run)\n"
        "rg.Grid(attacks=('lsp',)).specs()\n"
        "rg.train(3)\n",
    )
    assert "-> raygrid.core.images.Images" in said, said
    assert "-> raygrid.api.grids.Run" in said
    assert 'user.py:5: error: Argument 1 to "train"' in said


@pytest.mark.slow
def test_type_checkers_know_what_options_take_and_what_they_hold(tmp_path: Path) -> None:
    said = type_checked(
        tmp_path,
        "import pathlib, raygrid as rg\n"
        "place = pathlib.Path('b')\n"
        "given = rg.Options(out='a', data=place, store=place, keep=['peak'])\n"
        "reveal_type((given.out, given.data, given.store, given.keep, given.cpus))\n"
        "rg.Options(out=3)\n"
        "rg.Options(keep=3)\n",
    )
    held = "tuple[pathlib.Path, pathlib.Path, str | None, tuple[str, ...], int | None]"
    wrong = [line.partition(": error: ")[2] for line in said.splitlines() if ": error: " in line]
    assert [line.partition(" has incompatible type")[0] for line in wrong] == [
        'Argument "out" to "Options"',
        'Argument "keep" to "Options"',
    ], said
    assert f'Revealed type is "{held}"' in said.replace("Union[str, None]", "str | None"), said
