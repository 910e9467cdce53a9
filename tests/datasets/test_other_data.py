"""Data that have an official dataset's name but not its size are called what they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raygrid.cli.plan import plan_marks, plan_text
from raygrid.datasets import DATASETS
from raygrid.datasets.cifar10 import Cifar10
from raygrid.engine.grid import plan
from raygrid.literature.names import SIX_LEARNERS
from raygrid.literature.printed import Apart
from raygrid.reports.tables.cells import cells_of
from raygrid.reports.tables.kinds import all_tables, table
from raygrid.reports.tables.notes import notes
from raygrid.reports.tables.trial_lines import trial_lines
from raygrid.storage.store import Store
from raygrid.trials.catalog import Catalog
from raygrid.trials.result import OTHER_DATA, OTHER_FILES
from raygrid.trials.run import data_marks

SPEC = "cifar10/lsp/standard/resnet18/supervised/apbench/0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten classes with two training images and one test image each."""
    return class_folders(tmp_path / "data", "png")


def class_folders(root: Path, suffix: str) -> Path:
    for part, each in (("train", 2), ("test", 1)):
        for label in range(10):
            folder = root / "cifar10" / part / f"c{label}"
            folder.mkdir(parents=True)
            for i in range(each):
                pixels = np.full((32, 32, 3), 10 * label + i, np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.{suffix}")
    return root


def as_many_as_official(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many images as `class_folders` writes are all of them."""
    monkeypatch.setattr(Cifar10, "train_size", 20)
    monkeypatch.setattr(Cifar10, "test_size", 10)


def test_a_few_images_are_not_the_dataset(root: Path, tmp_path: Path) -> None:
    says = "20 of 50,000 images, 10 of 10,000 test images"
    assert DATASETS.make("cifar10").seen(root).other_data() == says
    planned = plan([SPEC], Catalog(Store(tmp_path / "store"), root))
    assert plan_marks(planned) == [f"{OTHER_DATA}cifar10 ({says})"]
    assert f"note: {OTHER_DATA}cifar10 ({says})" in plan_text(planned)


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png"])
@pytest.mark.parametrize("packed", [False, True])
def test_jpeg_copies_of_lossless_files_are_not_the_official_ones(
    suffix: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images of the same number, with other pixels."""
    root = class_folders(tmp_path / "made", suffix)
    if packed:
        home = tmp_path / "packed" / "cifar10"
        shutil.make_archive(str(home / "images"), "gztar", root, "cifar10")
        root = home.parent
    dataset, files = DATASETS.make("cifar10").seen(root), ["JPEG files"] * (suffix != "png")
    counts = "20 of 50,000 images, 10 of 10,000 test images"
    assert data_marks(dataset) == [f"{OTHER_DATA}cifar10 ({', '.join([counts, *files])})"]
    assert dataset.resolved() == DATASETS.make("cifar10").resolved(), "no key says it"
    as_many_as_official(monkeypatch)
    assert data_marks(dataset) == [f"{OTHER_FILES}cifar10 ({each})" for each in files]


def test_data_whose_official_files_are_jpeg_have_no_mark_of_it() -> None:
    for name in ("tinyimagenet", "imagenet100", "miniimagenet"):
        dataset = DATASETS.make(name)
        object.__setattr__(dataset, "lossy", True)  # as `seen` does
        assert data_marks(dataset) == []


def test_numbers_on_jpeg_copies_are_no_replication_of_printed_ones() -> None:
    """Of a victim of minutes no printed number is one: its brackets stay as they are."""
    files = [f"{OTHER_FILES}cifar10 (JPEG files)"]
    screening = SPEC.replace("apbench", "fast")
    rows = [on_other_data(spec, False, final_acc=0.99) for spec in (SPEC, screening)]
    for marks, apart in (([], ""), (files, "on other files than cifar10 (JPEG files)")):
        (cell,) = cells_of(trial_lines([{**rows[0], "marks": marks}]), "final_acc").values()
        assert cell.printed.apart == Apart(data=apart)
        assert (cell.printed.own, cell.printed.differs) == (not apart, not apart)
        assert (cell.printed.value, cell.why) == (0.1306, None), "the note of the table says why"
        (short,) = cells_of(trial_lines([{**rows[1], "marks": marks}]), "final_acc").values()
        assert (short.printed.apart, short.printed.own) == (Apart("apbench"), False)


def test_a_table_says_once_in_which_cells_the_files_are_copies() -> None:
    files = [f"{OTHER_FILES}cifar10 (JPEG files)"]
    rows = [
        {**on_other_data(SPEC.replace("lsp", attack), False), "marks": files * (attack != "em")}
        for attack in ("clean", "lsp", "em")
    ]
    for some, where in ((rows, " in 2 of 3 cells"), (rows[:2], "")):
        made = table("defense", trial_lines(some))
        (panel,) = made.panels
        said = [line for line in notes(made, panel) if "JPEG" in line and "In brackets" not in line]
        assert [line.split(";")[0] for line in said] == [
            f"Not the official files{where}: cifar10 (JPEG files)"
        ]
        assert panel.title.startswith("cifar10, "), "the images are all there"


@pytest.mark.parametrize("part", ["photo_digits", "photo_digits(every=4)", "cifar10", "folder"])
def test_official_data_and_those_nobody_looked_at_say_nothing(part: str, root: Path) -> None:
    dataset = DATASETS.make(part)
    assert dataset.other_data() == ""
    if part.startswith("photo_digits"):
        assert dataset.seen(root).other_data() == ""


@pytest.mark.parametrize("marks", [[], [f"{OTHER_DATA}cifar10 (20 of 50,000 images)"]])
def test_printed_numbers_stand_apart_from_those_on_other_data(marks: list[str]) -> None:
    row = {"spec": SPEC, "key": "a", "status": "done", "final_acc": 0.99, "marks": marks}
    (cell,) = cells_of(trial_lines([row]), "final_acc").values()
    assert cell.printed is not None
    assert cell.printed.own == (not marks)
    assert ("20 of 50,000" in cell.printed.apart.data) == bool(marks)
    assert not (marks and cell.printed.differs), "a difference from other data is no finding"


def test_the_worst_learner_of_other_data_is_not_held_against_a_printed_one() -> None:
    """One learner on them is enough: whichever is the largest, it is one of six unlike ones."""
    specs = [f"cifar10/tp/standard/resnet18/{learner}/tp/0" for learner in SIX_LEARNERS]
    for marked in (set(), set(specs), {specs[-1]}):
        lines = trial_lines([on_other_data(spec, spec in marked) for spec in specs])
        (panel,) = table("worst-learner", lines).panels
        worst = panel.cells["tp", "worst"]
        assert (worst.value, worst.printed.value) == (0.5, 0.4172)
        assert (worst.printed.own, worst.printed.differs) == (not marked, not marked)
        assert ("250 of 50,000" in worst.printed.apart.data) == bool(marked)


def test_success_on_other_data_is_not_held_against_a_printed_rate() -> None:
    spec = "cifar10/bullseye_polytope/standard/{}/linear_probe/just_how_toxic(setups=/toxic)/{}"
    hit = {"target": {"k": 0, "n": 1, "acc": 0.0, "loss": 1.0}}
    victims = ("resnet18", "vgg11", "mobilenetv2")
    for other in (False, True):
        rows = [
            on_other_data(spec.format(victim, seed), other, probes=hit)
            for victim in victims
            for seed in range(20)
        ]
        (panel,) = table("success", trial_lines(rows)).panels
        cells = {column: cell for (_, column), cell in panel.cells.items()}
        printed = {name: cell.printed for name, cell in cells.items() if cell.printed}
        assert set(printed) == {"resnet18", "mean(of=vgg11:mobilenetv2)"}
        assert {"250 of 50,000" in number.apart.data for number in printed.values()} == {other}
        assert printed["resnet18"].differs == (not other), "85 % are printed"


def on_other_data(spec: str, other: bool = True, **fields: object) -> dict[str, object]:
    marks = [f"{OTHER_DATA}cifar10 (250 of 50,000 images)"] if other else []
    row = {"key": spec, "status": "done", "final_acc": 0.5, "peak_acc": 0.6, "marks": marks}
    return {"spec": spec, **row, **fields}


def test_no_table_calls_other_data_by_the_official_name_alone() -> None:
    """250 images in a folder `cifar10` stood under the heading cifar10."""
    learners = ("supervised", "simclr", "moco", "byol", "simsiam", "supcl")
    attacks = ("clean", "em", "em(budget=4/255)", "em@0.5", "em@0.8")
    specs = [
        f"cifar10/{attack}/{defense}/resnet18/{learner}/apbench/0"
        for attack in attacks
        for learner in learners
        for defense in ("none", "standard", "jpeg")
    ]
    made = all_tables(trial_lines([on_other_data(spec) for spec in specs]))
    assert {"defense", "worst-learner", "ratio", "budget", "peak"} <= {t.kind for t in made}
    for each in made:
        for panel in each.panels:
            assert panel.title.startswith("cifar10 (250 of 50,000 images), "), each.kind
            assert panel.chance in (None, 0.1)
    official = all_tables(trial_lines([on_other_data(spec, False) for spec in specs]))
    assert all(p.title.startswith("cifar10, ") for each in official for p in each.panels)


def test_a_panel_of_both_says_how_many_cells_are_on_other_data() -> None:
    spec = "cifar10/{}/standard/resnet18/supervised/apbench/0"
    rows = [on_other_data(spec.format(a), a == "lsp") for a in ("clean", "lsp", "em")]
    (panel,) = table("defense", trial_lines(rows)).panels
    assert panel.title.startswith("cifar10 (in 1 of 3 cells cifar10 (250 of 50,000 images)), ")
