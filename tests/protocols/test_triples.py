"""The benchmark's pickled poisons: read without running them, written so that nothing is lost."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.core.errors import DataError
from raygrid.core.images import Trigger
from raygrid.core.seeds import Stream
from raygrid.protocols.setups import Scene, SetupRule
from raygrid.protocols.setups.triples import TRIPLE_FILES, Triple, read_triples, write_triple
from tests.conftest import toy
from tests.protocols.toys import Evil

K = 5


def scene() -> Scene:
    return SetupRule("toy/transfer", K, 20).scene(2, toy(160), toy(40, seed=1))


def triple(levels: int = 8, trigger: bool = True) -> Triple:
    s = scene()
    base = s.train.pixels[s.slots]
    change = torch.where(base > 127, -levels, levels)
    pattern = torch.arange(27, dtype=torch.uint8).view(3, 3, 3) * 9
    return Triple(
        (base.short() + change).to(torch.uint8),
        torch.full((K,), s.wanted),
        s.setup.bases,
        s.target[0],
        s.setup.target.true_label,
        Trigger(pattern, 9, 4) if trigger else None,
    )


def same(one: Triple, other: Triple) -> bool:
    names = ("pixels", "labels", "bases", "target")
    plain = all(torch.equal(getattr(one, n), getattr(other, n)) for n in names)
    triggers = (one.trigger, other.trigger)
    if None in triggers:
        return plain and triggers == (None, None) and one.target_label == other.target_label
    a, b = triggers
    assert a is not None
    assert b is not None
    return plain and torch.equal(a.pattern, b.pattern) and (a.left, a.top) == (b.left, b.top)


@pytest.mark.parametrize("trigger", [True, False])
def test_nothing_is_lost_on_the_way_out_and_back(trigger: bool, tmp_path: Path) -> None:
    made = triple(trigger=trigger)
    write_triple(made, tmp_path / "2")
    assert same(read_triples(tmp_path / "2"), made)
    poisons = pickle.loads((tmp_path / "2" / TRIPLE_FILES[0]).read_bytes())
    assert isinstance(poisons[0][0], Image.Image)
    assert poisons[0][0].size == (16, 16)
    target = pickle.loads((tmp_path / "2" / TRIPLE_FILES[2]).read_bytes())
    assert len(target) == (4 if trigger else 2)
    if trigger:
        assert target[2].dtype == torch.float32
        assert target[3] == [9, 4]
    with pytest.raises(DataError, match="not empty"):
        write_triple(made, tmp_path / "2")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_benchmarks_own_files_come_in_and_go_out_again(protocol: int, tmp_path: Path) -> None:
    """Made as its scripts make them: Pillow images, lists, a tensor patch."""
    made = triple()
    pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in made.pixels]
    assert made.trigger is not None
    patch = made.trigger.pattern.float().div(255)
    contents = (
        [(picture, int(label)) for picture, label in zip(pictures, made.labels, strict=True)],
        [np.int64(i) for i in made.bases.tolist()],
        (Image.fromarray(made.target.permute(1, 2, 0).numpy()), made.target_label, patch, [9, 4]),
    )
    folder = tmp_path / "official"
    folder.mkdir()
    for name, content in zip(TRIPLE_FILES, contents, strict=True):
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    assert same(read_triples(folder), made)
    write_triple(read_triples(folder), tmp_path / "again")
    assert same(read_triples(tmp_path / "again"), made)


def test_the_first_release_had_a_bare_target(tmp_path: Path) -> None:
    made = triple(trigger=False)
    write_triple(made, tmp_path / "2")
    picture = Image.fromarray(made.target.permute(1, 2, 0).numpy())
    (tmp_path / "2" / TRIPLE_FILES[2]).write_bytes(pickle.dumps(picture))
    found = read_triples(tmp_path / "2")
    assert found.target_label is None
    assert torch.equal(found.target, made.target)
    write_triple(found, tmp_path / "again")
    assert read_triples(tmp_path / "again").target_label is None


@pytest.mark.parametrize("name", TRIPLE_FILES)
def test_pickles_that_want_to_run_something_are_refused(name: str, tmp_path: Path) -> None:
    write_triple(triple(), tmp_path / "2")
    (tmp_path / "2" / name).write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(DataError, match="refuses"):
        read_triples(tmp_path / "2")


def test_code_inside_a_patch_is_refused(tmp_path: Path) -> None:
    """A tensor's storage is a pickle of its own."""
    buffer = io.BytesIO()
    torch.save(Evil(), buffer, _use_new_zipfile_serialization=False)

    class Storage:
        def __reduce__(self) -> tuple[object, tuple[bytes]]:
            return torch.storage._load_from_bytes, (buffer.getvalue(),)

    made = triple()
    write_triple(made, tmp_path / "2")
    picture = Image.fromarray(made.target.permute(1, 2, 0).numpy())
    (tmp_path / "2" / TRIPLE_FILES[2]).write_bytes(pickle.dumps((picture, 1, Storage(), [0, 0])))
    with pytest.raises(DataError, match="not a pickle of pictures"):
        read_triples(tmp_path / "2")


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    write_triple(triple(), tmp_path / "2")
    (tmp_path / "2" / TRIPLE_FILES[0]).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"poisons\.pickle is not a pickle"):
        read_triples(tmp_path / "2")
    (tmp_path / "2" / TRIPLE_FILES[0]).unlink()
    with pytest.raises(DataError, match=r"poisons\.pickle cannot be read"):
        read_triples(tmp_path / "2")
    (tmp_path / "2" / TRIPLE_FILES[0]).write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="does not hold poisons"):
        read_triples(tmp_path / "2")


def test_a_patch_outside_its_target_is_refused(tmp_path: Path) -> None:
    made = triple()
    write_triple(
        Triple(
            *[getattr(made, n) for n in ("pixels", "labels", "bases", "target")],
            1,
            Trigger(torch.zeros(3, 5, 5, dtype=torch.uint8), 12, 0),
        ),
        tmp_path / "2",
    )
    with pytest.raises(DataError, match="leaves the 16x16 image"):
        read_triples(tmp_path / "2")


def test_the_budget_is_checked_in_whole_levels() -> None:
    s = scene()
    base = s.train.pixels[s.slots]
    triple(8).check(base, 8)
    triple(9).check(base, 8, "official_9")
    with pytest.raises(DataError, match="by 9 levels, allowed are 8"):
        triple(9).check(base, 8)
    with pytest.raises(DataError, match="by 10 levels, allowed are 9"):
        triple(10).check(base, 8, "official_9")


def test_foreign_poisons_stand_in_the_slots_of_their_bases(tmp_path: Path) -> None:
    s, made = scene(), triple()
    order = torch.tensor([3, 0, 4, 1, 2])
    parts = (made.pixels[order], made.labels, made.bases[order])
    write_triple(Triple(*parts, made.target, made.target_label, made.trigger), tmp_path / "2")
    attack = ATTACKS.make(f"triples(path={tmp_path})")
    context = AttackContext(Stream("poison"), scene=s)
    poison = attack.poison(s.train, context)
    assert torch.equal(poison.indices, s.slots)
    assert torch.equal(poison.pixels, made.pixels)
    assert poison.trigger is not None
    key = attack.resolved()["path"]
    assert key == ATTACKS.make(f"triples(path={tmp_path})").resolved()["path"]
    assert len(key) == 64
    strange = SetupRule("toy/transfer", K, 20).scene(3, toy(160), toy(40, seed=1))
    with pytest.raises(DataError, match="cannot be read"):
        attack.poison(s.train, AttackContext(Stream("poison"), scene=strange))
    (tmp_path / "2").rename(tmp_path / "3")
    with pytest.raises(DataError, match="not made of the bases"):
        attack.poison(s.train, AttackContext(Stream("poison"), scene=strange))
