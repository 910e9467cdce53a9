"""Methods of other people: what is loaded, and what is refused in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from raygrid.attacks import ATTACKS
from raygrid.core.errors import SpecError
from raygrid.core.plugins import ENTRY_POINTS, refuse_unsent
from raygrid.core.registry import Card, Method
from raygrid.core.spec import TrialSpec
from raygrid.datasets import DATASETS
from raygrid.protocols import PROTOCOLS

HEAD = """
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import raygrid as rg
from raygrid.attacks.lsp import Lsp

if TYPE_CHECKING:
    from torch import Tensor

"""
WAVE = """
@rg.ATTACKS.register("wave")
@dataclass(frozen=True, kw_only=True)
class Wave(rg.Attack):
    card = rg.Card(paper="yours")
    budget: rg.Budget = rg.Budget("linf", 8 / 255)
{fields}
    def {method}(self, images, context):
        return context.stream.rows("sign", context.index(images), images.shape, "normal")
"""
CELL = "cifar10/wave/standard/resnet18/supervised/quick/0"
CARD = f'    card = rg.Card(paper="x", published={{{{"{CELL}": {{}}}}}})'
STRIPES = (
    HEAD
    + """
@rg.DATASETS.register("stripes")
@dataclass(frozen=True, kw_only=True)
class Stripes(rg.Dataset):
    card = rg.Card(paper="yours")
    {values}
    def source(self, root): ...
    def load(self, root): ...
"""
)
TERSE = (
    HEAD
    + """
@rg.PROTOCOLS.register("terse")
@dataclass(frozen=True, kw_only=True)
class Terse(rg.Protocol):
    card = rg.Card(paper="yours")
    {values}
"""
)
GOOD = HEAD + WAVE.format(fields="", method="propose")


@dataclass(frozen=True, kw_only=True)
class Outsider(Method):
    """A method outside of raygrid, for these tests."""

    card = Card(paper="none")


def ran(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, in a folder: what it registers is nobody else's."""
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120
    )


def wave(fields: str = "", method: str = "propose") -> str:
    return HEAD + WAVE.format(fields=fields, method=method)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (wave(method="perturb"), "class Wave: it does not define propose"),
        (wave("    steps: int"), "field steps has no default"),
        (wave("    budget: float = 8 / 255"), r"field budget is 0\.03\d+, allowed is a Budget"),
        (
            wave("    start: Tensor = None"),
            r"class Wave: the type of start cannot be told .*Tensor",
        ),
        (
            wave('    card = rg.Card(paper="x", published={"cifar10/wave": 0.5})'),
            r"class Wave: published 'cifar10/wave': ",
        ),
        (
            wave(
                '    card = rg.Card(paper="x", published={"cifar10/wave/standard/resnet18/'
                'supervised/quick/0": 12.5})'
            ),
            r"published 'cifar10/wave/.*' is 12\.5, allowed are fractions from 0 to 1",
        ),
        (
            HEAD + '@rg.ATTACKS.register("wider")\nclass Wider(Lsp):\n    patch: int = 4\n',
            r"class Wider: it lacks its own @dataclass\(frozen=True, kw_only=True\)",
        ),
    ],
    ids=["hook", "default", "budget", "type", "spec", "percent", "dataclass"],
)
def test_a_class_that_would_fail_later_is_refused_as_it_is_filed(
    text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(text)
    done = ran(tmp_path, "-m", "raygrid", "list", "attacks", "--import", "mine.py")
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    prefix = "" if "cannot be told" in says else r"raygrid: --import mine\.py: "
    assert re.search(f"{prefix}.*({says})", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            wave().replace('budget: rg.Budget = rg.Budget("linf", 8 / 255)', "eps: float = 0.03"),
            r"class Wave: it has no field budget, without which it perturbs nothing: budget: Bud",
        ),
        (wave("    strength: float = 1"), r"field strength is 1, but a float: write 1\.0"),
        (wave("    cap: float | None = 2"), r"field cap is 2, but a float: write 2\.0"),
        (wave("    cap: float = float('nan')"), r"field cap is nan, allowed are finite numbers"),
        (wave("    rows: tuple = (1, 2)"), r"field rows is \(1, 2\), allowed is a plain value"),
        (
            wave("    steps: int = __import__('numpy').int64(3)"),
            r"field steps is (np\.int64\()?3\)?, allowed is a plain value",
        ),
        (STRIPES.format(values=""), "class Stripes: it does not set classes: ClassVar.*train_size"),
        (
            STRIPES.format(values="classes, image_size, train_size, test_size = 2, '16', 9, 0"),
            "class Stripes: image_size is '16', allowed are whole numbers from 1; test_size is 0",
        ),
        (TERSE.format(values=""), "class Terse: it does not set recipes: ClassVar"),
        (
            TERSE.format(values="recipes = {}; by_dataset = {'cifar10': {'learning_rate': 3}}"),
            "by_dataset of 'cifar10': unknown field of a recipe 'learning_rate'",
        ),
        (
            TERSE.format(values="recipes = {}; augmentations = {'cifar10': 'crop_flp'}"),
            r"augmentations of 'cifar10': unknown augmentation 'crop_flp' \(did you mean 'crop_f",
        ),
        (
            wave('    card = rg.Card(paper="x", published=None)'),
            r"class Wave: published is None, allowed are fractions by spec",
        ),
        (wave(CARD.format("'0.5'")), r"published 'cifar10/.*' is '0\.5', allowed are fractions"),
        (wave(CARD.format("True")), r"published 'cifar10/.*' is True, allowed are fractions"),
    ],
)
def test_what_a_class_has_wrong_is_said_as_it_is_filed(text: str, says: str) -> None:
    known = len(ATTACKS), len(DATASETS), len(PROTOCOLS)
    with pytest.raises(SpecError, match=says) as caught:
        exec(compile(text, "mine.py", "exec"), {"__name__": __name__})
    assert "\n" not in str(caught.value)
    assert (len(ATTACKS), len(DATASETS), len(PROTOCOLS)) == known


def test_the_line_that_is_named_is_the_users_own_and_not_one_of_python(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HEAD + "@dataclass\nclass Odd(Lsp):\n    steps: int = 3\n")
    line = HEAD.count("\n") + 1
    done = ran(tmp_path, "-m", "raygrid", "list", "attacks", "--import", "mine.py")
    says = rf"TypeError: .* \({re.escape(str(tmp_path))}/mine\.py, line {line}\)\n"
    assert re.fullmatch(rf"raygrid: --import mine\.py: {says}", done.stderr), done.stderr


def test_a_file_finds_the_modules_beside_it(tmp_path: Path) -> None:
    beside = tmp_path / "elsewhere"
    beside.mkdir()
    (beside / "helper.py").write_text("FLOOR = 8 / 255\n")
    text = GOOD.replace("8 / 255", "FLOOR").replace("import raygrid", "import helper, raygrid")
    text = text.replace("FLOOR", "helper.FLOOR")
    (beside / "mine.py").write_text(text)
    words = ("show", "wave", "--import", "elsewhere/mine.py")
    done = ran(tmp_path, "-m", "raygrid", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## wave")


def installed(folder: Path, module: str) -> None:
    """What an installed package `theirs` leaves that offers a module."""
    info = folder / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[raygrid.methods]\nsignals = {module}\n")


@pytest.mark.parametrize(
    "call",
    [
        "rg.poison((np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1]), 'wave')",
        "rg.plan(rg.Grid(attacks=['wave']))",
        "rg.published('cifar10/wave/standard/resnet18/supervised/quick/0')",
    ],
)
def test_what_a_package_offers_is_known_in_python_too(call: str, tmp_path: Path) -> None:
    (tmp_path / "their_methods.py").write_text(GOOD)
    installed(tmp_path, "their_methods")
    after = "assert 'wave' in rg.ATTACKS"
    done = ran(tmp_path, "-c", f"import numpy as np; import raygrid as rg; {call}; {after}")
    assert done.returncode == 0, done.stderr


def test_a_package_that_cannot_be_imported_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "their_methods.py").write_text("import nothing_such\n")
    installed(tmp_path, "their_methods")
    done = ran(tmp_path, "-m", "raygrid", "list", "attacks")
    assert done.returncode == 2
    assert re.fullmatch(
        r"raygrid: the installed package theirs offers signals = their_methods to raygrid and "
        r"cannot be imported: ModuleNotFoundError: No module named 'nothing_such' "
        r"\(.*their_methods\.py, line 1\); mend or uninstall it\n",
        done.stderr,
    ), done.stderr


STILL = """
@rg.ATTACKS.register("still")
@dataclass(frozen=True, kw_only=True)
class Still(rg.Attack):
    card = rg.Card(paper="yours")

    def propose(self, images, context): ...

    def pixels(self, images, context):
        return 255 - images.pixels[context.index(images)]
"""


def test_budgets_of_a_grid_join_with_attacks_of_ones_own_that_take_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD + STILL)
    axes = ["--datasets", "photo_digits(every=20)", "--budgets", "l2:2", "8/255"]
    axes += ["--attacks", "lsp", "wave", "still", "--import", "mine.py"]
    done = ran(tmp_path, "-m", "raygrid", "plan", *axes, "--json")
    assert done.returncode == 0, done.stderr
    attacks = [TrialSpec.parse(trial["spec"]).attack for trial in json.loads(done.stdout)["trials"]]
    assert [*map(str, attacks)] == ["lsp(budget=l2:2.0)", "wave", "still"]
    said = ["skipped: lsp takes l2, not 8/255", "skipped: wave takes linf, not l2:2"]
    assert done.stderr.splitlines() == said


def test_the_numbers_of_ones_own_card_stand_beside_the_measured(tmp_path: Path) -> None:
    cell = "photo_digits/{}/standard/small_cnn/supervised/quick/0"
    paper = "Doe et al. 2025 (Waves; arXiv)"
    printed = {cell.format("wave"): 0.125, cell.format("lsp"): 0.25}
    card = f"    card = rg.Card(paper={paper!r}, published={printed!r})"
    (tmp_path / "mine.py").write_text(wave(card))
    text = f"""
import raygrid as rg
assert rg.published({cell.format("lsp")!r}) is None
import mine
assert rg.published({cell.format("lsp")!r}).best.value == 0.25
found = rg.published({cell.format("wave(budget=8/255)")!r})
print(found.best.value, found.own, found.best.cite(), sep="|")
print(rg.published({cell.format("wave").replace("quick", "fast")!r}).apart)
print(rg.published("cifar10/lsp/standard/resnet18/supervised/apbench/0").best.paper)
"""
    done = ran(tmp_path, "-c", text)
    assert done.returncode == 0, done.stderr
    said = ["0.125|True|Doe et al. 2025 card", "Doe et al. 2025", "apbench"]
    assert done.stdout.splitlines() == said


@pytest.mark.slow
def test_a_method_of_a_script_is_refused_before_ray_starts(tmp_path: Path) -> None:
    spec = "photo_digits(every=20)/wave/none/small_cnn/supervised/quick(epochs=1)/0"
    (tmp_path / "script.py").write_text(GOOD + f"rg.run({spec!r}, executor='ray')")
    done = ran(tmp_path, "script.py")
    assert done.stderr.splitlines()[-1] == (
        "raygrid.core.errors.SpecError: wave is defined in __main__, which workers do not import: "
        'put it in a file and give imports=("file.py",), or executor="inline"'
    )


def test_what_workers_import_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Outsider()
    said = (
        r'give --import tests\.core\.test_plugins or imports=\("tests\.core\.test_plugins",\), or'
    )
    with pytest.raises(SpecError, match=said):
        refuse_unsent([own], ())
    offered = metadata.EntryPoint("theirs", "their_entry", ENTRY_POINTS)
    monkeypatch.setattr("raygrid.core.plugins._installed", lambda: [offered])
    refuse_unsent([own], ())  # what a package offers may import it from another one
    monkeypatch.undo()
    refuse_unsent([own], ("tests.core.test_plugins",))
    refuse_unsent([ATTACKS.make("lsp")], ())
