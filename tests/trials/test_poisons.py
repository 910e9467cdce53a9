"""Poisoned sets on disk: what is written is read back, and foreign files are held to the rules."""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack, AttackContext
from raygrid.attacks.file import File
from raygrid.core.budget import Budget
from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, fingerprint
from raygrid.core.registry import Card
from raygrid.core.seeds import Stream
from raygrid.reports.figures.gallery import gallery
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact, BuildContext
from raygrid.trials.catalog import Catalog
from raygrid.trials.export import ExportForm, export, read_export
from raygrid.trials.poisons import Poisoned, inspect, make
from raygrid.trials.resolve import resolve
from tests.conftest import toy


def small_set(part: str = "regions", ratio: float = 1.0) -> Poisoned:
    images = toy(40, 16, 4)
    attack = ATTACKS.make(part)
    poison = attack.poison(images, AttackContext(Stream("poison", ("toy", part, 0))))
    after, mask = poison.overlay(images, ratio, Stream("ratio"))
    return Poisoned(images, after, mask, attack, f"toy/{part}@{ratio}/0", "abc")


def applied(images: Images, **settings: object) -> torch.Tensor:
    attack = ATTACKS["file"](**settings)  # type: ignore[arg-type]
    return attack.poison(images, AttackContext(Stream("poison"))).pixels


# making and looking


@dataclass(frozen=True, kw_only=True)
class Scribbler(Attack):
    """Blackens the very images that it is given, for these tests."""

    id = "scribbler"
    card = Card(paper="none")
    budget: Budget = Budget("linf", 8 / 255)

    def propose(self, images: Images, context: AttackContext) -> torch.Tensor:
        return images.pixels.mul_(0)


def test_an_attack_that_writes_into_the_clean_images_is_told_to_change_a_copy(
    catalog: Catalog,
) -> None:
    trial = resolve("photo_digits(every=20)/lsp/none/small_cnn/supervised/quick/0", catalog)
    context = BuildContext(torch.device("cpu"), catalog.data_root)
    data = trial.data.make((), context)
    says = r"^scribbler writes into the clean images it was given; .*images\.pixels\.clone\(\)"
    with pytest.raises(DataError, match=says):
        replace(trial.poison, attack=Scribbler()).make([data], context)


def test_a_made_set_is_the_one_a_trial_would_train_on(
    catalog: Catalog, fetch: Callable[[Artifact], Bundle]
) -> None:
    made = make("photo_digits/regions(n=4)@0.5", catalog, fetch, seed=3)
    trial = resolve("photo_digits/regions(n=4)@0.5/grayscale/resnet18/supervised/quick/3", catalog)
    assert made.key == trial.poison.key
    assert made.spec == "photo_digits/regions(n=4)@0.5/3"
    assert int(made.mask.sum()) == len(made.clean) // 2
    assert torch.equal(made.images.pixels[~made.mask], made.clean.pixels[~made.mask])
    facts = inspect(made)
    assert facts["poisoned"] == sum(facts["by_class"]) == 2155
    assert facts["size"]["linf"]["max"] == pytest.approx(8 / 255)


def test_what_cannot_be_made_is_refused(
    catalog: Catalog, fetch: Callable[[Artifact], Bundle]
) -> None:
    with pytest.raises(SpecError, match="nothing to train on"):
        make("photo_digits/withheld", catalog, fetch)
    with pytest.raises(SpecError, match="did you mean 'regions'"):
        make("photo_digits/region", catalog, fetch)
    with pytest.raises(SpecError, match=r"poison_ratio 0.0001 of 4,311 images is less than one"):
        make("photo_digits/lsp@0.0001", catalog, fetch)


def test_inspect_counts_what_was_put_in() -> None:
    poisoned = small_set("ops")
    facts = inspect(poisoned)
    assert facts["size"]["l0"] == {"mean": 1.0, "max": 1.0}
    assert facts["by_class"] == [10, 10, 10, 10]
    assert facts["unchanged"] == 0
    # By hand: one image changed by 51 levels at a single value.
    pixels = poisoned.clean.pixels.clone()
    pixels[7, 1, 2, 3] = 100
    before = replace(poisoned.clean, pixels=pixels)
    changed = pixels.clone()
    changed[7, 1, 2, 3] = 151
    after, every = replace(before, pixels=changed), torch.ones(40, dtype=torch.bool)
    one = replace(poisoned, clean=before, images=after, mask=every)
    facts = inspect(one)
    assert facts["size"]["linf"]["max"] == facts["size"]["l2"]["max"] == pytest.approx(0.2)
    assert facts["size"]["l0"]["mean"] == pytest.approx(1 / 40)
    assert (facts["unchanged"], facts["distinct"]) == (39, 2)


def test_inspect_says_what_rounding_adds_to_a_length() -> None:
    """Every value 9.5 levels up is 10 after rounding: longer by half of sqrt(C * H * W) levels."""
    poisoned = small_set("lsp")
    clean = replace(poisoned.clean, pixels=torch.full_like(poisoned.clean.pixels, 100))
    after = replace(clean, pixels=torch.full_like(clean.pixels, 110))
    root = math.prod(clean.shape) ** 0.5
    attack = ATTACKS.make(f"lsp(budget=l2:{9.5 / 255 * root!r})")
    every = torch.ones(len(clean), dtype=torch.bool)
    made = replace(poisoned, clean=clean, images=after, mask=every, attack=attack)
    facts = inspect(made)["budget"]
    assert facts["limit"] == str(attack.limit)
    assert facts["rounding"] == pytest.approx(0.5 / 255 * root)
    assert facts["largest"] == pytest.approx(10 / 255 * root)
    assert facts["largest"] == pytest.approx(attack.limit.value + facts["rounding"])  # type: ignore[union-attr]
    pixels = inspect(small_set("regions"))["budget"]
    assert (pixels["rounding"], pixels["largest"]) == (0.0, pytest.approx(8 / 255))


def test_inspect_of_withheld_rows_has_no_size() -> None:
    facts = inspect(small_set("withheld", 0.5))
    assert (facts["images"], facts["poisoned"]) == (20, 20)
    assert "size" not in facts


# writing and reading


@pytest.mark.parametrize("form", ["png", "npz", "pt"])
@pytest.mark.parametrize("part", ["regions", "withheld"])
def test_an_exported_set_is_read_back(tmp_path: Path, form: ExportForm, part: str) -> None:
    poisoned = small_set(part, 0.5)
    manifest = json.loads(export(poisoned, tmp_path / "out", form).read_text())
    images, found = read_export(tmp_path / "out")
    assert torch.equal(images.pixels, poisoned.images.pixels)
    assert torch.equal(images.labels, poisoned.images.labels)
    assert images.classes == 4
    assert found == manifest
    assert manifest["checksum"] == fingerprint(images.pixels, images.labels)
    assert manifest["rows"] == poisoned.mask.nonzero().squeeze(1).tolist()
    assert manifest["spec"] == poisoned.spec


@pytest.mark.parametrize("form", ["png", "npz", "pt"])
def test_a_changed_export_is_refused(tmp_path: Path, form: ExportForm) -> None:
    poisoned = small_set()
    export(poisoned, tmp_path / "out", form)
    other = poisoned.images.pixels.clone()
    other[3, 0, 0, 0] ^= 1
    again = replace(poisoned, images=poisoned.images.with_pixels(other))
    export(again, tmp_path / "new", form)
    (tmp_path / "out" / "manifest.json").replace(tmp_path / "new" / "manifest.json")
    with pytest.raises(DataError, match="are not those that its manifest"):
        read_export(tmp_path / "new")
    with pytest.raises(DataError, match="no readable manifest"):
        read_export(tmp_path / "out")


def test_nothing_is_written_over_and_unknown_forms_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        export(small_set(), tmp_path)
    with pytest.raises(DataError, match="allowed are png, npz, pt"):
        export(small_set(), tmp_path / "x", "zip")  # type: ignore[arg-type]


def test_the_gallery_shows_a_column_for_each_class(tmp_path: Path) -> None:
    wide = gallery(small_set(), tmp_path / "a" / "wide.png")
    narrow = gallery(small_set(), tmp_path / "narrow.png", classes=2)
    with Image.open(wide) as four, Image.open(narrow) as two:
        assert four.format == "PNG"
        assert four.height == two.height == 54 + 3 * (96 + 4)
        assert four.width - two.width <= 2 * (96 + 4)
        assert np.asarray(four.convert("RGB")).std() > 10
    with pytest.raises(DataError, match="no changed image"):
        gallery(small_set("withheld", 0.5), tmp_path / "none.png")


# the attack `file`


@pytest.mark.parametrize("form", ["png", "npz", "pt"])
def test_an_export_can_be_put_on_the_grid_again(tmp_path: Path, form: ExportForm) -> None:
    poisoned = small_set("lsp")
    export(poisoned, tmp_path / "out", form)
    path = tmp_path / "out" if form == "png" else tmp_path / "out" / f"train.{form}"
    entry = "" if form == "png" else "pixels"
    assert torch.equal(applied(poisoned.clean, path=str(path), entry=entry), poisoned.images.pixels)


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt"])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("rows", [4, 40], ids=["by label", "by index"])
def test_perturbations_are_added_by_index_or_by_label(
    tmp_path: Path, suffix: str, last: bool, rows: int
) -> None:
    images = toy(40, 16, 4)
    levels = np.random.default_rng(1).integers(-9, 10, (rows, 3, 16, 16)).astype(np.float32)
    stored = levels.transpose(0, 2, 3, 1) / 255 if last else levels / 255
    path = tmp_path / f"noise.{suffix}"
    if suffix == "npy":
        np.save(path, stored)
    elif suffix == "npz":
        np.savez(path, noise=stored)
    else:
        torch.save({"noise": torch.from_numpy(stored.copy())}, path)
    index = np.arange(40) if rows == 40 else images.labels.numpy()
    expected = np.clip(images.pixels.numpy().astype(int) + levels[index].astype(int), 0, 255)
    assert np.array_equal(applied(images, path=str(path)).numpy(), expected)
    held = ATTACKS.make("file(budget=4/255)")
    bounded = replace(held, path=str(path)).poison(images, AttackContext(Stream("p"))).pixels
    assert (bounded.short() - images.pixels.short()).abs().max() == 4


def test_levels_may_be_integers_or_scaled_floats(tmp_path: Path) -> None:
    images = toy(40, 16, 4)
    levels = np.random.default_rng(1).integers(-9, 10, (4, 3, 16, 16))
    np.save(tmp_path / "int.npy", levels.astype(np.int8))
    np.save(tmp_path / "float.npy", levels.astype(np.float64))
    whole = applied(images, path=str(tmp_path / "int.npy"))
    assert torch.equal(applied(images, path=str(tmp_path / "float.npy"), scale=1 / 255), whole)
    with pytest.raises(DataError, match="scale=1/255 turns a float file of levels"):
        applied(images, path=str(tmp_path / "float.npy"))


def test_float_images_need_to_be_called_images(tmp_path: Path) -> None:
    poisoned = small_set()
    np.save(tmp_path / "x.npy", poisoned.images.pixels.numpy().transpose(0, 2, 3, 1) / 255)
    after = applied(poisoned.clean, path=str(tmp_path / "x.npy"), content="images")
    assert torch.equal(after, poisoned.images.pixels)


def test_foreign_folders_go_class_by_class_in_sorted_order(tmp_path: Path) -> None:
    images = toy(8, 16, 2)
    for label in (0, 1):
        (tmp_path / f"class_{label}").mkdir()
        for place, name in enumerate("abcd"):
            level = np.full((16, 16, 3), 100 * label + place, dtype=np.uint8)
            Image.fromarray(level).save(tmp_path / f"class_{label}" / f"{name}.png")
    after = applied(images, path=str(tmp_path))
    # toy labels alternate 0, 1, 0, 1: the k-th image of a class is row 2k + label
    assert after[:, 0, 0, 0].tolist() == [0, 100, 1, 101, 2, 102, 3, 103]
    (tmp_path / "class_1" / "d.png").unlink()
    with pytest.raises(DataError, match=r"has shape .7, 3, 16, 16., expected .8 or 2"):
        applied(images, path=str(tmp_path))


class Bomb:
    """An object whose unpickling would run code."""

    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (setattr, (Bomb, "ran", True))


@pytest.mark.parametrize("kind", ["pt", "pth", "npy", "npz", "raw.npy"])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.{kind}"
    if kind in ("pt", "pth"):
        torch.save(Bomb(), path)
    elif kind == "npy":
        np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    elif kind == "npz":
        inner = io.BytesIO()
        np.save(inner, np.array([Bomb()], dtype=object), allow_pickle=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("noise.npy", inner.getvalue())
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError) as caught:
        applied(toy(8), path=str(path))
    assert str(caught.value) == f"{path} is damaged or holds pickled code, which is never run"
    assert not Bomb.ran


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (np.zeros((40, 3, 8, 8), np.float32), "expected .40 or 4, 3, 16, 16."),
        (np.zeros((39, 3, 16, 16), np.float32), "has shape .39, 3, 16, 16."),
        (np.zeros((4, 3, 16, 16), np.uint8), "has 4 images, expected 40"),
        (np.zeros((40, 3, 16, 16), bool), "holds torch.bool"),
        (np.full((4, 3, 16, 16), np.nan, np.float32), "values from nan"),
        (np.zeros(5, np.float32), "has shape .5,."),
        (np.array(["a"]), "damaged"),
    ],
)
def test_arrays_of_another_shape_or_kind_are_refused(
    tmp_path: Path, content: np.ndarray, says: str
) -> None:
    np.save(tmp_path / "noise.npy", content)
    with pytest.raises(DataError, match=says):
        applied(toy(40, 16, 4), path=str(tmp_path / "noise.npy"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    images = toy(40, 16, 4)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00")
    torch.save(["cat"], tmp_path / "list.pt")
    np.savez(tmp_path / "two.npz", noise=np.zeros(3), other=np.zeros(3))
    for name, says in [
        ("cut.npy", "damaged"),
        ("list.pt", "holds a list of str, expected arrays"),
        ("two.npz", "unknown entry '' known: noise, other".replace("'' ", "''; ")),
        (
            "noise.csv",
            "allowed are .pt, .pth, .npy, .npz, .pkl, .pickle, .parquet and class folders",
        ),
        ("missing.pt", "is not there"),
    ]:
        with pytest.raises(DataError) as caught:
            applied(images, path=str(tmp_path / name))
        assert says in str(caught.value)
    with pytest.raises(DataError, match="no class folders"):
        applied(images, path=str(tmp_path))
    with pytest.raises(DataError, match="needs a path"):
        applied(images)


def test_the_key_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    first, second = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(first, np.zeros((4, 3, 16, 16), np.int8))
    second.write_bytes(first.read_bytes())
    one, two = File(path=str(first)), File(path=str(second))
    assert one.resolved() == two.resolved()
    before = one.resolved()
    np.save(first, np.ones((4, 3, 16, 16), np.int8))
    assert one.resolved() != before
    export(small_set(), tmp_path / "x")
    folder = File(path=str(tmp_path / "x"))
    before = folder.resolved()
    (tmp_path / "x" / "0" / "000000.png").rename(tmp_path / "x" / "1" / "000000.png")
    assert folder.resolved() != before
    with pytest.raises(DataError, match="is not there"):
        File(path=str(tmp_path / "gone.pt")).resolved()


def test_a_spec_without_a_file_is_skipped_with_the_reason(tmp_path: Path) -> None:
    text = "photo_digits/{}/standard/small_cnn/supervised/quick/0"
    assert "needs a path" in str(resolve(text.format("file"), None).skip())
    gone = f"file(path={tmp_path}/gone.pt)"
    assert "is not there" in str(resolve(text.format(gone), None).skip())
    (tmp_path / "gone.pt").write_bytes(b"")
    assert "is damaged" in str(resolve(text.format(gone), None).skip())
    torch.save(torch.zeros(10, 3, 32, 32), tmp_path / "gone.pt")
    assert resolve(text.format(gone), None).skip() is None


NOISE = np.zeros((216, 3, 32, 32), np.float32)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"": NOISE[:215]}, "has shape (215, 3, 32, 32), expected (216 or 10, 3, 32, 32)"),
        ({"": NOISE[:, :, 4:, 4:]}, "has shape (216, 3, 28, 28), expected (216 or 10, 3, 32, 32)"),
        ({"": np.full_like(NOISE, np.nan)}, "has values from nan to nan, expected -1 to 1"),
        ({"": NOISE + 765}, "has values from 765 to 765, expected -1 to 1; scale=1/255 turns"),
        ({"": NOISE > 0}, "holds torch.bool, expected integers or floats"),
        ({"a": NOISE, "b": NOISE}, "unknown entry ''; known: a, b"),
        ({"a": NOISE, "y": np.arange(216) % 11}, "has labels from 0 to 10, expected 0 to 9"),
        ({"a": NOISE, "y": np.arange(80) % 10}, "has 80 labels, expected 216"),
        ({"a": NOISE, "y": np.arange(216) % 10}, None),
        ({"": NOISE.transpose(0, 2, 3, 1)}, None),
        ({"": NOISE[0]}, None),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_the_plan(
    tmp_path: Path, catalog: Catalog, entries: dict[str, np.ndarray], says: str | None
) -> None:
    if "" in entries:
        np.save(path := tmp_path / "poison.npy", entries[""])
    else:
        np.savez(path := tmp_path / "poison.npz", **entries)
    spec = f"photo_digits(every=20)/file(path={path})/none/small_cnn/supervised/quick/0"
    reason = resolve(spec, catalog).skip()
    assert says in reason if says and reason else reason is says, reason


BRIGHT = NOISE + 0.8
BYTES = NOISE.astype(np.uint8)
TWO_THINGS = "which may be images or a perturbation: say content=images or content=perturbation"


@pytest.mark.parametrize(
    ("values", "settings", "says"),
    [
        (BYTES, "content=perturbation", "is uint8 and has no negative values: it holds content="),
        (BYTES, "content=images", None),
        (BYTES[:10], "", "has 10 images, expected 216"),
        (NOISE[0], "content=images", "has 1 images, expected 216"),
        (
            NOISE - 0.1,
            "content=images",
            "has values from -0.1 to -0.1, expected 0 to 1; images have no negative values, "
            "a perturbation may: content=perturbation",
        ),
        (NOISE - 0.1, "content=perturbation", None),
        (NOISE + 99, "content=images", "has values from 99 to 99, expected 0 to 1; scale=1/255"),
        (NOISE + 99, "content=images,scale=1/255", None),
        (
            NOISE + 300,
            "scale=1/255",
            "has values from 300 to 300, expected -255 to 255; floats are multiplied by "
            "scale=0.003922",
        ),
        (
            (NOISE - 300).astype(np.int16),
            "",
            "has values from -300 to -300, expected -255 to 255; integers count steps of 1/255: "
            "save others as floats in fractions of the range",
        ),
        (BRIGHT[:10], "", f"has values from 0.8 to 0.8 of the pixel range, {TWO_THINGS}"),
        (BRIGHT[:10], "content=perturbation", None),
        (BRIGHT, "", None),
    ],
)
def test_a_file_that_is_not_what_its_content_says_is_refused_by_the_plan(
    tmp_path: Path, catalog: Catalog, values: np.ndarray, settings: str, says: str | None
) -> None:
    np.save(path := tmp_path / "poison.npy", values)
    attack = f"file({','.join(filter(None, (f'path={path}', settings)))})"
    spec = f"photo_digits(every=20)/{attack}/none/small_cnn/supervised/quick/0"
    reason = resolve(spec, catalog).skip()
    assert says in reason if says and reason else reason is says, reason


@pytest.mark.parametrize(
    ("dataset", "cell", "images"),
    [
        ("photo_digits(every=20)", "supervised/quick(validation=0.1)", 194),
        ("photo_digits_last", "linear_probe/toxic_quick", 1250),
    ],
)
def test_a_file_has_to_fit_the_images_that_an_attack_is_given(
    tmp_path: Path, catalog: Catalog, dataset: str, cell: str, images: int
) -> None:
    """Without those that a protocol holds out, or the pool of a target alone."""
    for count in (images, images + 1):
        np.save(path := tmp_path / f"{count}.npy", np.zeros((count, 3, 32, 32), np.float32))
        trial = resolve(f"{dataset}/file(path={path})/none/small_cnn/{cell}/0", catalog)
        assert trial.poison.pool_size == images
        refused = (trial.skip() or "").startswith(
            f"{path} has shape ({count}, 3, 32, 32), expected"
        )
        assert refused == (count != images)
