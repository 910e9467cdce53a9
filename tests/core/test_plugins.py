"""Methods of other people: what is loaded, and what is refused in one line."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from torch import Tensor

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack, AttackContext
from raygrid.cli.doctor import examine
from raygrid.cli.main import main
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.options import Options
from raygrid.core.plugins import ENTRY_POINTS, refuse_unsent
from raygrid.core.registry import Card, Method
from raygrid.core.spec import Part, TrialSpec
from raygrid.datasets import DATASETS
from raygrid.engine.grid import Plan
from raygrid.literature.shared_names import canonical
from raygrid.protocols import PROTOCOLS
from raygrid.reports.tables.frame import frame
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.made_with import made_with
from raygrid.reports.tables.trial_lines import trial_line, trial_lines
from raygrid.reproduce.scales import absent
from raygrid.tracking.status import StatusFile
from raygrid.trials import privileges
from tests.reports.rows import TOY, trial

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
SAVED = "pd.read_pickle('rows.pkl')"
"""The frame that `save_frame` leaves in a folder."""


@dataclass(frozen=True, kw_only=True)
class Outsider(Method):
    """A method outside of raygrid, for these tests."""

    card = Card(paper="none")


@dataclass(frozen=True, kw_only=True)
class Leaky(Attack):
    """An attack of somebody's own that knows the test set; a test registers it."""

    card = Card(paper="none")
    budget: Budget = Budget("linf", 8 / 255)
    sees_test = True

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        raise NotImplementedError


def save_frame(folder: Path) -> None:
    """A frame with an attack that is not registered where it is made."""
    values = {"clean": 0.9, "lsp": 0.5, "wave": 0.1}
    rows = [trial(TOY.format(a, "standard", "supervised", 0), v) for a, v in values.items()]
    frame(rows).to_pickle(folder / "rows.pkl")


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
        (
            wave("    budget: rg.Budget | None = None"),
            r"class Wave: field budget is None, with which it perturbs nothing: budget: Budget =",
        ),
        (
            wave('    budget: rg.Budget = rg.Budget("linf", 0)'),
            r"class Wave: field budget is 0, with which it perturbs nothing: budget: Budget =",
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


KNOWN = (
    "rg.poison((np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1]), 'wave')",
    "rg.plan(rg.Grid(attacks=['wave']))",
    "rg.published('cifar10/wave/standard/resnet18/supervised/quick/0')",
    f"rg.table({SAVED})",
    "assert 'wave' in rg.ATTACKS",
    "assert 'wave' in list(rg.ATTACKS)",
    "assert len(rg.ATTACKS) == len(rg.ATTACKS._methods) > 1",
)
REFUSED = (
    "'lsp' in rg.ATTACKS",
    "rg.plan(rg.Grid(attacks=['lsp', 'wave'], budgets=['default', '8/255']))",
    f"rg.table({SAVED})",
    "rg.published('cifar10/lsp/standard/resnet18/supervised/quick/0')",
)
FIRST_LOOKS = """
import os, sys, traceback
import numpy as np
import pandas as pd
import torch
import raygrid as rg

for place, call in enumerate(sys.argv[1:]):
    if os.fork():
        os.wait()
        continue
    try:
        exec(call)
        said = "nothing"
    except BaseException:
        said = traceback.format_exc()
    with open(f"{place}.txt", "w") as file:
        file.write(said)
    os._exit(0)
"""
"""Each call is the first that a process makes of raygrid, imported once for all of them."""


def first_looks(folder: Path, module: str, calls: tuple[str, ...]) -> dict[str, str]:
    """What each call ends with beside an installed package: its traceback, or `nothing`."""
    (folder / "their_methods.py").write_text(module)
    installed(folder, "their_methods")
    save_frame(folder)
    done = ran(folder, "-c", FIRST_LOOKS, *calls)
    assert done.returncode == 0, done.stderr
    return {call: (folder / f"{place}.txt").read_text() for place, call in enumerate(calls)}


def test_what_a_package_offers_is_known_in_python_too(tmp_path: Path) -> None:
    loaded = tuple(f"{call}; assert 'wave' in rg.ATTACKS._methods" for call in KNOWN)
    ends = first_looks(tmp_path, GOOD, loaded)
    assert set(ends.values()) == {"nothing"}, ends


HELP = """
from raygrid.cli.main import parser
parser().parse_args(["table", "defense"])
parser().parse_args(["reproduce", "apbench", "--table", "4"])
"""
EVERY_MODULE = """
import importlib, pkgutil, raygrid
for found in pkgutil.walk_packages(raygrid.__path__, "raygrid."):
    if not found.name.startswith(("raygrid.engine.ray", "raygrid.__main__")):
        importlib.import_module(found.name)
"""


@pytest.mark.parametrize("text", [HELP, pytest.param(EVERY_MODULE, marks=pytest.mark.slow)])
def test_importing_raygrid_imports_no_package_that_offers_methods(
    text: str, tmp_path: Path
) -> None:
    """Neither does the help: a method is there once raygrid is, and a fault has one clear line."""
    (tmp_path / "their_methods.py").write_text("raise RuntimeError\n")
    installed(tmp_path, "their_methods")
    done = ran(tmp_path, "-c", text)
    assert done.returncode == 0, done.stderr


def test_a_package_may_ask_for_methods_while_it_is_imported_and_threads_wait(
    tmp_path: Path,
) -> None:
    head = HEAD.replace("import raygrid as rg", "import time\n\nimport raygrid as rg")
    asks = '\nassert "lsp" in rg.ATTACKS and "wave" not in rg.ATTACKS\ntime.sleep(0.5)\n'
    (tmp_path / "their_methods.py").write_text(head + asks + GOOD.removeprefix(HEAD))
    installed(tmp_path, "their_methods")
    text = """
from concurrent.futures import ThreadPoolExecutor
import raygrid as rg
attacks = rg.ATTACKS
with ThreadPoolExecutor(2) as pool:
    print(list(pool.map(attacks.__contains__, ["wave", "wave"])))
"""
    done = ran(tmp_path, "-c", text)
    assert done.stdout == "[True, True]\n", done.stderr


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


def test_a_package_that_cannot_be_imported_is_named_in_python_too(tmp_path: Path) -> None:
    """Also where a name that is not there would be no error."""
    fault = "raygrid.core.errors.PluginError: the installed package theirs offers signals = "
    for call, end in first_looks(tmp_path, "import nothing_such\n", REFUSED).items():
        assert end.splitlines()[-1].startswith(fault), (call, end)


def test_what_names_no_method_works_beside_a_package_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = StatusFile(tmp_path)
    state.started(Plan(), [])
    state.close(interrupted=False)
    broken = metadata.EntryPoint("signals", "nothing_such", ENTRY_POINTS)
    monkeypatch.setattr("raygrid.core.plugins._installed", lambda: [broken])
    monkeypatch.setattr("raygrid.core.plugins._Progress.over", False)
    assert main(["status", "--out", str(tmp_path)]) == 0
    assert "lsp" not in capsys.readouterr().out
    assert main(["list", "attacks"]) == 2
    fault = "a package offers signals = nothing_such to raygrid and cannot be imported: "
    assert fault in capsys.readouterr().err
    checks = {check.name: check for check in examine(Options(out=tmp_path, data=tmp_path))}
    assert checks["methods"].state == "fault"
    assert fault in checks["methods"].text
    assert checks["disk"].text.endswith(f"GiB free for {tmp_path}")


def test_answers_about_methods_follow_the_methods_that_there_are() -> None:
    """A notebook may have a table of a folder before it has the module of an attack."""
    part = Part.parse("leaky(budget=8/255)")
    questions: dict[str, Callable[[], object]] = {
        "privilege": lambda: privileges.of_attack(str(part)),
        "norm": lambda: trial_line(trial(TOY.format(part, "none", "supervised", 0), 0.1))["norm"],
        "shortest": lambda: canonical(ATTACKS, part),
        "defaults": lambda: made_with({"attack": {"id": "leaky", "budget": "8/255"}}),
        "absent": lambda: absent(TrialSpec.parse(TOY.format(part, "none", "supervised", 0))),
        "table": lambda: _strongest(part),
    }
    before = {name: ask() for name, ask in questions.items()}
    assert before["privilege"] == ""
    assert before["shortest"] == str(part)
    assert before["absent"] == ["attack leaky"]
    assert before["table"] == {str(part)}
    try:
        ATTACKS.register("leaky")(Leaky)
        after = {name: ask() for name, ask in questions.items()}
    finally:
        ATTACKS._methods.pop("leaky")
    assert after["privilege"] == privileges.SEES_TEST
    assert after["shortest"] == "leaky"
    assert after["defaults"] != before["defaults"]
    assert after["absent"] == []
    assert after["table"] == set()


def _strongest(attack: Part) -> set[str]:
    """Attacks that a table calls the strongest ones."""
    values = {"clean": 0.9, "lsp": 0.5, str(attack): 0.1}
    rows = [trial(TOY.format(a, "standard", "supervised", 0), v) for a, v in values.items()]
    return table("defense", trial_lines(rows)).panels[0].strongest("standard")


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


def test_a_pretrained_learner_of_ones_own_stands_beside_the_fresh_victims(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from raygrid.learners import LEARNERS\n"
        "from raygrid.learners.finetune import Finetune\n"
        '@LEARNERS.register("mytune")\n'
        "@dataclass(frozen=True, kw_only=True)\n"
        "class MyTune(Finetune): ...\n"
    )
    spec = "photo_digits_last/{}/standard/small_cnn/{}/pretrained_quick/0"
    measured = [
        (spec.format(attack, learner), value)
        for learner, values in (("supervised", (0.9, 0.2)), ("mytune", (0.8, 0.4)))
        for attack, value in zip(("clean", "lsp"), values, strict=True)
    ]
    rows = [
        {"spec": spec, "key": spec, "status": "done", "final_acc": value, "epochs_planned": 1}
        for spec, value in measured
    ]
    (tmp_path / "results.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ("table", "transfer", "--out", ".", "--import", "mine.py", "--format", "csv")
    done = ran(tmp_path, "-m", "raygrid", *words)
    assert done.returncode == 0, done.stderr
    cells = list(csv.DictReader(io.StringIO(done.stdout)))
    drops = {(c["learner"], c["attack"]): c["drop"] for c in cells if c["drop"]}
    assert {place: round(float(drop), 4) for place, drop in drops.items()} == {
        ("supervised", "lsp"): 0.7778,
        ("mytune", "lsp"): 0.5,
    }


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
