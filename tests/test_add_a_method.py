"""A method of any kind is a file and a word in its room's list: the contracts take it from there.

One of each kind is added to a copy of the tree in this way, nothing else is touched there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

ATTACK = '''
"""A random pattern for every class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raygrid.attacks.base import ATTACKS, Attack, AttackContext
from raygrid.core.budget import Budget
from raygrid.core.images import Images
from raygrid.core.registry import Card


@ATTACKS.register("mine")
@dataclass(frozen=True, kw_only=True)
class Mine(Attack):
    """Adds to every image the random pattern of its class."""

    card = Card(paper="none")
    sharded = True

    budget: Budget = Budget("linf", 8 / 255)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        classes = torch.arange(images.classes)
        patterns = context.stream.rows("patterns", classes, images.shape, "normal").sign()
        return self.budget.value * patterns[images.labels[context.index(images)]]
'''
HEAVY_ATTACK = '''
"""Steps against a network that was trained beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from raygrid.attacks.base import ATTACKS
from raygrid.attacks.common.transfer import TransferAttack
from raygrid.core.registry import Card
from raygrid.core.literals import Scalar


@ATTACKS.register("mine_heavy")
@dataclass(frozen=True, kw_only=True)
class Mine(TransferAttack):
    """Raises the margin of the label over the mean of all scores."""

    card = Card(paper="none")
    quick: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "surrogate_epochs": 4}
    tiny: ClassVar[Mapping[str, Scalar]] = {**TransferAttack.tiny, "step": 0.25}

    surrogate_epochs: int = 40

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        chosen = logits.gather(1, labels[:, None])[:, 0]
        return logits.mean(1) - chosen
'''
DEFENSE = '''
"""Inverted images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from raygrid.core.registry import Card
from raygrid.defenses.base import DEFENSES
from raygrid.defenses.common.filters import PixelFilter


@DEFENSES.register("mine")
@dataclass(frozen=True, kw_only=True)
class Mine(PixelFilter):
    """Every value as 255 less what it was, halved toward the middle."""

    card = Card(paper="none")

    def change(self, pixels: Tensor) -> Tensor:
        return 64 + pixels // 2
'''
ARCHITECTURE = '''
"""One convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("mine")
@dataclass(frozen=True, kw_only=True)
class Mine(Architecture):
    """A convolution of stride 4, its means over the image as features."""

    card = Card(paper="none")
    gflop: ClassVar[float] = 2 * 8 * 8 * 32 * 3 * 25 / 1e9 + 2 * 32 * 10 / 1e9

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        layers = [nn.Conv2d(3, 32, 5, 4, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 32
'''
LEARNER = '''
"""Supervised learning under another name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.registry import Card
from raygrid.learners.base import LEARNERS, Learner, Session, Task
from raygrid.learners.supervised import SupervisedSession
from raygrid.nn.recipes import Recipe


@LEARNERS.register("mine")
@dataclass(frozen=True, kw_only=True)
class Mine(Learner):
    """Trains the whole network on labels."""

    card = Card(paper="none")
    recipe: ClassVar[Recipe | None] = Recipe(epochs=4, batch_size=64)

    def start(self, task: Task) -> Session:
        return SupervisedSession(task)
'''
DATASET = '''
"""Stripes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from raygrid.core.images import Images
from raygrid.core.registry import Card
from raygrid.datasets.base import DATASETS, Dataset, Split


@DATASETS.register("mine")
@dataclass(frozen=True, kw_only=True)
class Mine(Dataset):
    """Two classes: vertical and horizontal stripes."""

    card = Card(paper="none")
    classes: ClassVar[int] = 2
    image_size: ClassVar[int] = 16
    train_size: ClassVar[int] = 40
    test_size: ClassVar[int] = 20

    def source(self, root: Path) -> str:
        return "made"

    def load(self, root: Path) -> Split:
        return Split(self.stripes(self.train_size), self.stripes(self.test_size))

    def stripes(self, n: int) -> Images:
        labels = torch.arange(n) % 2
        row = (torch.arange(16)[None] + torch.arange(n)[:, None]) % 4 // 2 * 200
        across = row.to(torch.uint8)[:, None, None, :].expand(n, 3, 16, 16)
        upright = labels.view(-1, 1, 1, 1) == 0
        return Images(torch.where(upright, across, across.transpose(2, 3)), labels, 2)
'''
PROTOCOL = '''
"""Two epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.registry import Card
from raygrid.nn.recipes import Recipe
from raygrid.protocols.base import PROTOCOLS, SUPERVISED, Protocol


@PROTOCOLS.register("mine")
@dataclass(frozen=True, kw_only=True)
class Mine(Protocol):
    """Two epochs of supervised learning."""

    card = Card(paper="none")
    recipes: ClassVar[Mapping[str, Recipe]] = {SUPERVISED: Recipe(epochs=2, batch_size=32)}
'''

ADDED = {
    "attacks/mine": (ATTACK, "clean"),
    "attacks/mine_heavy": (HEAVY_ATTACK, "clean"),
    "defenses/mine": (DEFENSE, "jpeg"),
    "architectures/mine": (ARCHITECTURE, "small_cnn"),
    "learners/mine": (LEARNER, "supervised"),
    "datasets/mine": (DATASET, "photo_digits"),
    "protocols/mine": (PROTOCOL, "quick"),
}
"""Source of each file, and the word of the list that a line is made like."""
CONTRACTS = {
    "attacks": "attacks/test_attacks.py",
    "defenses": "defenses/test_defenses.py",
    "architectures": "architectures/test_architectures.py",
    "learners": "learners/test_learners.py",
    "datasets": "datasets/test_contract.py",
    "protocols": "protocols/test_contract.py",
}
"""The tests over each registry, by room."""

KIND = """
TABLE_KINDS["mine"] = Kind((*VICTIM_AXES, "poison_ratio"), "Of my own.", builders.defense_panel)
"""
SPECS = [
    f"mine/{attack}/mine/mine/mine/mine/0"
    for attack in ("clean", "mine", "mine_heavy(steps=2, surrogate=mine, surrogate_epochs=1)")
]
GRID = f"""
from pathlib import Path

import pytest

from raygrid.cli.main import main


def test_mine_alone(capsys: pytest.CaptureFixture[str]) -> None:
    out = Path("out")
    places = ["--out", str(out), "--data", "data"]
    assert main(["run", *{SPECS!r}, "--executor", "inline", *places]) == 0
    capsys.readouterr()
    assert main(["table", "mine", "--format", "csv", *places]) == 0
    (out / "table.csv").write_text(capsys.readouterr().out)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with one more method of each kind and one more kind of table."""
    copy = tmp_path_factory.mktemp("copy")
    nothing = shutil.ignore_patterns("__pycache__", ".*", "results")
    for name in ("raygrid", "tests", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=nothing)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    for place, (source, like) in ADDED.items():
        room, _, name = place.partition("/")
        (copy / "raygrid" / f"{place}.py").write_text(source.lstrip())
        face = copy / "raygrid" / room / "__init__.py"
        lines = face.read_text().splitlines(keepends=True)
        listed = rf"^from .*\b{like}\b"
        (at,) = (i for i, line in enumerate(lines) if re.search(listed, line))
        lines.insert(at + 1, re.sub(rf"\b{like}\b", name, lines[at]))
        face.write_text("".join(lines))
    kinds = copy / "raygrid" / "reports" / "tables" / "kinds.py"
    kinds.write_text(kinds.read_text() + KIND)
    (copy / "tests" / "test_grid.py").write_text(GRID)
    return copy


@pytest.fixture(scope="module")
def cases(tree: Path) -> list[tuple[str, str]]:
    """Module and name of each test over `mine` that passed in the copy; none failed."""
    report = tree / "report.xml"
    files = [*(f"tests/{path}" for path in CONTRACTS.values()), "tests/test_grid.py"]
    options = ("-q", "-n0", "-p", "no:cacheprovider", "-k", "mine", f"--junitxml={report}")
    # One process for all: the imports cost more than the tests.
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
    found = ElementTree.parse(report).iter("testcase")
    return [(str(c.get("classname")), str(c.get("name"))) for c in found if not len(c)]


def test_the_contracts_take_up_a_new_method_of_every_kind(cases: list[tuple[str, str]]) -> None:
    for room, path in CONTRACTS.items():
        module = f"tests.{path.removesuffix('.py').replace('/', '.')}"
        passed = [name for place, name in cases if place == module]
        assert passed, f"no contract in {path} took up {room}/mine"
    names = {name for _, name in cases}
    assert {"test_the_contract[mine]", "test_the_contract[mine_heavy]"} <= names


def test_a_grid_and_a_table_can_be_all_of_new_parts(
    tree: Path, cases: list[tuple[str, str]]
) -> None:
    assert ("tests.test_grid", "test_mine_alone") in cases
    rows = [json.loads(line) for line in (tree / "out" / "results.jsonl").read_text().splitlines()]
    assert sorted(row["spec"] for row in rows) == sorted(SPECS)
    assert {row["status"] for row in rows} == {"done"}, [row.get("error") for row in rows]
    assert "mine_heavy" in (tree / "out" / "table.csv").read_text()
