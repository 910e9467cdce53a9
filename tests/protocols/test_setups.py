"""Set-ups of targeted attacks: the official ones, our own, pools, triggers, bad input."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, Trigger
from raygrid.core.spec import Part
from raygrid.protocols import PROTOCOLS
from raygrid.protocols.setups import SetupRule, official
from raygrid.protocols.setups.triggers import triggers
from raygrid.storage.pickles import ArrayUnpickler
from raygrid.trials.resolve import resolve
from tests.conftest import toy
from tests.protocols.toys import Evil

# Facts about the files, by other means than this code (spec of targeted attacks, 1.3).
SPOTS = {  # file: set-up, target class, target index, base class, first bases, sum of bases
    "cifar10_transfer_learning": [
        (0, 4, 9139, 7, [30330, 7829, 47673], 740807),
        (99, 0, 6349, 3, [19607, 4124, 41372], 634656),
    ],
    "cifar10_from_scratch": [(0, 7, 7762, 3, [2386, 37215, 23942], 12618773)],
    "tinyimagenet_transfer_learning": [(0, 13, 2584, 29, [14739, 14522, 14818], 3689113)],
    "tinyimagenet_from_scratch": [(0, 89, 5903, 50, [25300, 25264, 25006], 6312520)],
}
CIFAR = SetupRule("cifar10/transfer", 25, 250, file="cifar10_transfer_learning")


def with_folder(rule: SetupRule, folder: Path) -> SetupRule:
    fields = {f: getattr(rule, f) for f in rule.__dataclass_fields__}
    return SetupRule(**{**fields, "folder": str(folder)})


@pytest.mark.parametrize("name", SPOTS)
def test_official_set_ups_are_those_of_the_benchmark(name: str, shared: Path) -> None:
    found = official.read_official(str(shared / "data" / "targeted_setups"), name)
    assert len(found) == 100
    assert {len(bases) for *_, bases in found} == {official.digests()[name]["poisons"]}
    assert all(true != base for true, _, base, _ in found)
    for number, true, index, base, first, total in SPOTS[name]:
        assert found[number][:3] == (true, index, base)
        assert list(found[number][3][:3]) == first
        assert sum(found[number][3]) == total


def test_every_official_file_is_read(shared: Path) -> None:
    for name, facts in official.digests().items():
        found = official.read_official(str(shared / "data"), name)  # one folder higher
        assert (len(found), len(found[0][3])) == (100, facts["poisons"])


def test_files_that_are_not_the_official_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar10_from_scratch.json").write_text("[[0,1,2,[3]]]")
    with pytest.raises(DataError, match="not the official file"):
        official.read_official(str(tmp_path), "cifar10_from_scratch")
    with pytest.raises(DataError, match="has neither"):
        official.read_official(str(tmp_path), "cifar10_transfer_learning")
    with pytest.raises(DataError, match="did you mean 'cifar10_from_scratch'"):
        official.read_official(str(tmp_path), "cifar10_from_scrath")


def test_a_checkout_is_read_without_running_its_pickles(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pickles as the benchmark wrote them: numpy numbers and arrays in dicts."""
    name = "cifar10_transfer_learning"
    known = json.loads((shared / "data" / "targeted_setups" / f"{name}.json").read_text())
    keys = ("target class", "target index", "base class", "base indices")
    entries = [
        dict(zip(keys, (t, np.int64(i), b, np.array(rows)), strict=True)) for t, i, b, rows in known
    ]
    folder = tmp_path / "poison_setups"
    folder.mkdir()
    content = pickle.dumps(entries, protocol=4)
    (folder / f"{name}.pickle").write_bytes(content)
    with pytest.raises(DataError, match="not the official file"):
        official.read_official(str(tmp_path), name)
    monkeypatch.setattr(official, "_checked", lambda path, name, form: path.read_bytes())
    found = official.read_official(str(tmp_path), name)
    assert found == official.read_official(str(shared / "data"), name)


def test_a_pickle_that_wants_to_run_something_is_refused() -> None:
    for content in (pickle.dumps(Evil()), pickle.dumps(Path("x")), pickle.dumps(io.BytesIO)):
        with pytest.raises(pickle.UnpicklingError, match="refuses"):
            ArrayUnpickler.read(content)


@pytest.fixture(scope="module")
def labels(shared: Path) -> tuple[Tensor, Tensor]:
    """Labels of a CIFAR-10 that fits the official transfer set-ups: bases and targets agree."""
    folder = shared / "data"
    train, test = torch.arange(50_000) % 10, torch.arange(10_000) % 10
    for true, index, base, rows in official.read_official(str(folder), CIFAR.file):
        train[torch.tensor(rows)] = base
        test[index] = true
    return train, test


@pytest.mark.parametrize("number", [0, 17, 78, 84])
def test_pools_keep_their_size_and_hold_every_base_once_a_slot(
    number: int, labels: tuple[Tensor, Tensor], shared: Path
) -> None:
    """Set-ups 78 and 84 name one base twice: two slots, 24 different rows."""
    train, test = labels
    rule = with_folder(CIFAR, shared / "data")
    setup = rule.setup(number, train, test)
    rows, slots = rule._pool(setup, train)
    assert len(rows) == 2500
    assert train[rows].bincount().tolist() == [250] * 10
    assert torch.equal(rows[slots], setup.bases)
    assert len(slots.unique()) == 25
    assert len(setup.bases.unique()) == (24 if number in (78, 84) else 25)
    others = rows[~torch.isin(torch.arange(2500), slots)]
    assert not torch.isin(others, setup.bases).any(), "a clean base beside its poison"
    assert len(others.unique()) == len(others)


def test_official_set_ups_refuse_data_in_another_order(
    labels: tuple[Tensor, Tensor], shared: Path
) -> None:
    train, test = labels
    rule = with_folder(CIFAR, shared / "data")
    wrong = train.clone()
    wrong[30330] = 0  # a base of set-up 0, whose class is 7
    with pytest.raises(DataError, match=r"base 30330 has class 0, not 7; .*order"):
        rule.setup(0, wrong, test)
    with pytest.raises(DataError, match=r"target 9139 has class \d, not 4"):
        rule.setup(0, train, test.roll(1))
    with pytest.raises(DataError, match="not there"):
        rule.setup(0, train[:100], test)
    with pytest.raises(DataError, match=r"seed 100 is no set-up.*0 to 99"):
        rule.setup(100, train, test)


def test_our_own_set_ups_follow_the_same_rules() -> None:
    train, test = toy(400), toy(80, seed=1)
    rule = SetupRule("toy/transfer", 5, 50)
    seen = set()
    for number in range(20):
        scene = rule.scene(number, train, test)
        setup = scene.setup
        assert setup.target.true_label != setup.target.wanted
        assert int(test.labels[setup.target.index]) == setup.target.true_label
        assert (train.labels[setup.bases] == setup.target.wanted).all()
        assert len(setup.bases.unique()) == 5
        assert torch.equal(scene.train.pixels[scene.slots], train.pixels[setup.bases])
        assert scene.train.labels.bincount().tolist() == [50] * 4
        seen.add((setup.target.true_label, setup.target.wanted))
    assert len(seen) > 6
    again = rule.setup(3, train.labels, test.labels)
    assert torch.equal(again.bases, rule.setup(3, train.labels, test.labels).bases)
    other = SetupRule("toy/scratch", 5, 50).setup(3, train.labels, test.labels)
    assert not torch.equal(again.bases, other.bases)
    pair = SetupRule("toy/transfer", 5, pair=(1, 3)).setup(0, train.labels, test.labels)
    assert (pair.target.true_label, pair.target.wanted) == (1, 3)


def test_the_whole_set_is_the_pool_where_the_rule_says_so() -> None:
    train, test = toy(64), toy(16, seed=1)
    scene = SetupRule("toy/scratch", 4).scene(0, train, test)
    assert scene.train is train
    assert torch.equal(scene.slots, scene.setup.bases)


def test_set_ups_that_cannot_be_are_refused() -> None:
    train, test = toy(64), toy(16, seed=1)
    with pytest.raises(DataError, match="has 16 images, a set-up takes 17"):
        SetupRule("toy", 17).scene(0, train, test)
    with pytest.raises(DataError, match="no test image has class 7"):
        SetupRule("toy", 4, pair=(7, 1)).scene(0, train, test)
    with pytest.raises(SpecError, match="must differ"):
        SetupRule("toy", 4, pair=(1, 1))
    with pytest.raises(SpecError, match="do not fit"):
        SetupRule("toy", 9, 8)
    with pytest.raises(DataError, match="leaves the 16x16 image"):
        SetupRule("toy", 4, patch=12).scene(0, train, test)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("toxic_quick(pair=a:b)", "pair is 'a:b'"),
        ("toxic_quick(pair=3:3)", "pair is '3:3'"),
        ("toxic_quick(poisons=0)", "poisons is 0"),
        ("toxic_quick(rep=-1)", "rep is -1"),
        ("just_how_toxic(patch=0)", "patch is 0"),
    ],
)
def test_bad_parameters_of_protocols_are_refused(part: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        PROTOCOLS.make(Part.parse(part))


def test_official_triggers_are_those_of_the_benchmark(shared: Path) -> None:
    import hashlib

    patterns = official.patterns(str(shared / "data"))
    first = [0, 0, 0, 171, 255, 0, 33, 101, 141, 154]
    assert patterns["clbd"][0].flatten()[:10].tolist() == first
    for size, digest in ((5, "3a65cb90256d0666"), (8, "5a624613e867e65d")):
        pattern = triggers(size, 32, patterns)["htbd"].pattern
        raw = pattern.permute(1, 2, 0).contiguous().numpy().tobytes()
        assert hashlib.sha256(raw).hexdigest().startswith(digest)
    places = {n: (t.left, t.top) for n, t in triggers(5, 32, patterns).items()}
    assert places == {"clbd": (27, 27), "htbd": (22, 22)}
    places = {n: (t.left, t.top) for n, t in triggers(8, 64, patterns).items()}
    assert places == {"clbd": (56, 56), "htbd": (51, 51)}


def test_a_trigger_changes_its_window_alone_and_stays_in_the_image() -> None:
    images = toy(3)
    pattern = torch.arange(18, dtype=torch.uint8).view(3, 2, 3)
    pasted = Trigger(pattern, left=9, top=4).apply(images.pixels)
    assert torch.equal(pasted[:, :, 4:6, 9:12], pattern.expand(3, 3, 2, 3))
    rest = torch.ones(16, 16, dtype=torch.bool)
    rest[4:6, 9:12] = False
    assert torch.equal(pasted[:, :, rest], images.pixels[:, :, rest])
    for left, top in ((-1, 0), (0, -1), (14, 0), (0, 15)):
        with pytest.raises(DataError, match="leaves the 16x16 image"):
            Trigger(pattern, left, top).apply(images.pixels)


def test_our_own_triggers_are_gray_and_colored_noise() -> None:
    made = triggers(5, 32)
    gray, color = made["clbd"].pattern, made["htbd"].pattern
    assert torch.equal(gray[0], gray[1])
    assert not torch.equal(color[0], color[1])
    assert torch.equal(gray, triggers(5, 64)["clbd"].pattern)


def test_the_place_of_the_files_is_no_part_of_a_rule(shared: Path, tmp_path: Path) -> None:
    one, other = with_folder(CIFAR, shared / "data"), with_folder(CIFAR, tmp_path)
    assert one.resolved() == other.resolved()
    own = SetupRule("cifar10/transfer", 25, 250)
    assert own.resolved() != one.resolved()


def test_a_number_without_a_set_up_is_refused_before_work_starts(
    shared: Path, tmp_path: Path
) -> None:
    def reason(folder: Path, number: int) -> str | None:
        protocol = f"just_how_toxic(setups={folder})"
        text = f"cifar10/clean/standard/resnet18/linear_probe/{protocol}/{number}"
        return resolve(text, None).skip()

    assert reason(shared / "data", 99) is None
    assert "has 100, from 0 to 99" in str(reason(shared / "data", 100))
    assert "has neither" in str(reason(tmp_path, 0))
    one, other = (
        PROTOCOLS.make(f"just_how_toxic(setups={folder})").resolved()
        for folder in (shared, tmp_path)
    )
    assert one == other


def test_images_stay_as_they_were() -> None:
    train, test = toy(64), toy(16, seed=1)
    before = train.pixels.clone()
    scene = SetupRule("toy", 4, 8).scene(0, train, test)
    assert isinstance(scene.train, Images)
    assert torch.equal(train.pixels, before)
