"""Poisons that are shared: exported for Hugging Face's library, looked into, taken over by key."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raygrid.api.run_grid import Options
from raygrid.cli.main import main
from raygrid.core.errors import DataError
from raygrid.engine.worker import Worker
from raygrid.storage.published_arrays import load_published
from raygrid.storage.store import Store
from raygrid.trials import export, poisons
from raygrid.trials.catalog import Catalog
from raygrid.trials.inspection import look_into
from tests import plugin

assert plugin.CARD
TEXT = "dots/lsp(patch=4)"
FORMS = ["png", "npz", "pt", "parquet"]


def made_in(folder: Path, text: str = TEXT) -> tuple[poisons.Poisoned, Catalog]:
    """A poison made in a store of its own."""
    store = Store(folder)
    catalog = Catalog(store, folder)
    worker = Worker(store, Options(out=folder, data=folder, executor="inline"))
    return poisons.make(text, catalog, worker.fetch), catalog


def catalog_in(folder: Path) -> Catalog:
    return Catalog(Store(folder), folder)


@pytest.mark.parametrize("form", FORMS)
def test_taking_an_export_gives_the_key_that_making_it_gives(tmp_path: Path, form: Any) -> None:
    made, catalog = made_in(tmp_path / "here")
    export.export(made, tmp_path / "shared", form)
    there = catalog_in(tmp_path / "there")
    assert not there.store.has("poison", made.key)
    assert export.adopt(tmp_path / "shared", TEXT, there) == made.key
    first, second = (c.store.get("poison", made.key) for c in (catalog, there))
    assert first is not None
    assert second is not None
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(first.tensors[k], second.tensors[k]) for k in first.tensors)
    assert second.facts["seconds"] == 0.0


def test_what_has_to_be_said_of_a_poison_goes_along_with_it(tmp_path: Path) -> None:
    """Rows of a poison that somebody else had made did not say that its images were clipped."""
    images = made_in(tmp_path / "here")[0].clean
    np.save(tmp_path / "noise.npy", np.full(tuple(images.pixels.shape), 0.1, np.float32))
    text = f'dots/file(path="{tmp_path / "noise.npy"}", budget=8/255)'
    made, _ = made_in(tmp_path / "here", text)
    (mark,) = made.marks
    assert "images were clipped" in mark
    manifest = json.loads(export.export(made, tmp_path / "shared", "parquet").read_text())
    assert manifest["marks"] == [mark]
    assert f"\n- {mark}\n" in (tmp_path / "shared" / "README.md").read_text()
    export.adopt(tmp_path / "shared", text, catalog_in(tmp_path / "there"))
    assert made_in(tmp_path / "there", text)[0].marks == (mark,)
    del manifest["marks"]
    (tmp_path / "shared" / "manifest.json").write_text(json.dumps(manifest))
    export.adopt(tmp_path / "shared", text, catalog_in(tmp_path / "old"))
    assert made_in(tmp_path / "old", text)[0].marks == ()
    (tmp_path / "shared" / "manifest.json").write_text(json.dumps({**manifest, "marks": "none"}))
    with pytest.raises(DataError, match=r"marks in .* is 'none', allowed is a list of texts"):
        export.adopt(tmp_path / "shared", text, catalog_in(tmp_path / "new"))


def test_an_export_of_something_else_is_not_taken(tmp_path: Path) -> None:
    made, _ = made_in(tmp_path / "here")
    export.export(made, tmp_path / "shared", "parquet")
    there = catalog_in(tmp_path / "there")
    with pytest.raises(DataError, match=r"was exported as dots/lsp.*other parameters, data or"):
        export.adopt(tmp_path / "shared", "dots/lsp(patch=2)", there)
    manifest = json.loads((tmp_path / "shared" / "manifest.json").read_text())
    manifest["checksum"] = "0" * len(manifest["checksum"])
    (tmp_path / "shared" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="are not those that its manifest"):
        export.adopt(tmp_path / "shared", TEXT, there)
    half, _ = made_in(tmp_path / "half", f"{TEXT}@0.5")
    export.export(half, tmp_path / "half-shared", "parquet")
    with pytest.raises(DataError, match="does not hold the whole poison"):
        export.adopt(tmp_path / "half-shared", TEXT, there)


def test_parquet_has_its_rows_labels_and_pictures(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    made, _ = made_in(tmp_path / "here")
    export.export(made, tmp_path / "shared", "parquet")
    (file,) = (tmp_path / "shared" / "data").iterdir()
    assert file.name == "train-00000-of-00001.parquet"
    assert pq.read_schema(file).names == ["image", "label", "row"]
    found = load_published(tmp_path / "shared")
    assert found.labels is not None
    assert found.rows is not None
    assert torch.equal(found.values, made.images.pixels)
    assert torch.equal(found.labels, made.images.labels)
    assert found.rows.tolist() == list(range(len(made.images)))
    read, _ = export.read_export(tmp_path / "shared")
    assert torch.equal(read.pixels, made.images.pixels)


def test_the_attack_file_takes_parquet_in_any_order(tmp_path: Path) -> None:
    """Without our metadata: columns `img` (bytes) and `fine_label`, as CIFAR-100 has them there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made, _ = made_in(tmp_path / "here")
    export.export(made, tmp_path / "shared", "parquet")
    table = pq.read_table(tmp_path / "shared" / "data")
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = table.take(pa.array(order))
    contents = [value["bytes"] for value in shuffled["image"].to_pylist()]
    plain = pa.table(
        {"img": contents, "fine_label": shuffled["label"], "row": shuffled["row"]}
    ).replace_schema_metadata(None)
    pq.write_table(plain, tmp_path / "p.parquet")
    again, _ = made_in(tmp_path / "there", f'dots/file(path="{tmp_path / "p.parquet"}")')
    assert torch.equal(again.images.pixels, made.images.pixels)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"label": [1, 2]}, "has 0 columns of pictures among label"),
        ({"a": [b"x"], "b": [b"y"]}, "has 2 columns of pictures among a, b"),
        ({"image": [b"no picture"], "label": [1]}, "cannot be read"),
        ({"image": [{"bytes": None, "path": "a.png"}], "label": [1]}, "by their paths alone"),
    ],
)
def test_parquet_that_is_no_set_of_pictures_is_refused(
    tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if "by their" in says:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(columns["image"], kind), "label": columns["label"]})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(DataError, match=says):
        load_published(tmp_path / "p.parquet")
    (tmp_path / "q.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_published(tmp_path / "q.parquet")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hugging_faces_library_reads_an_export_by_its_card(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    made, _ = made_in(tmp_path / "here")
    export.export(made, tmp_path / "shared", "parquet")
    loaded = datasets.load_dataset(str(tmp_path / "shared"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    train = loaded["train"]
    assert isinstance(train.features["image"], datasets.Image)
    assert train.features["label"].num_classes == made.images.classes
    assert train["label"] == made.images.labels.tolist()
    for row in (0, len(train) - 1):
        pixels = np.asarray(train[row]["image"]).transpose(2, 0, 1)
        assert np.array_equal(pixels, made.images.pixels[row].numpy())
    info = datasets.load_dataset_builder(str(tmp_path / "shared")).info
    assert info.splits["train"].num_examples == len(train)
    # and back: what that library writes is read here
    train.to_parquet(tmp_path / "again.parquet")
    again = load_published(tmp_path / "again.parquet")
    assert torch.equal(again.values, made.images.pixels)
    assert again.labels is not None
    assert torch.equal(again.labels, made.images.labels)


def test_inspect_says_what_a_file_is_and_what_it_does(tmp_path: Path) -> None:
    made, _ = made_in(tmp_path / "here")
    clean = made.clean
    delta = (made.images.pixels.short() - clean.pixels.short()).float() / 255
    torch.save({"delta": delta, "labels": clean.labels}, tmp_path / "p.pt")
    facts = look_into(tmp_path / "p.pt", clean=clean)
    assert facts["form"] == "pt file"
    assert facts["entries"]["delta"]["shape"] == list(delta.shape)
    assert facts["entries"]["delta"]["type"] == "float32"
    assert facts["guess"] == "perturbation"
    assert facts["labels"] == len(clean)
    assert facts["size"]["linf"]["max"] == pytest.approx(float(delta.abs().max()))
    length = float(delta.flatten(1).norm(dim=1).max())
    assert facts["size"]["l2"]["max"] == pytest.approx(length, rel=1e-5)
    assert facts["marks"] == []
    np.save(tmp_path / "i.npy", made.images.pixels.float().numpy() / 255)
    assert "images or a perturbation: say" in look_into(tmp_path / "i.npy")["guess"]
    export.export(made, tmp_path / "shared", "parquet")
    shared = look_into(tmp_path / "shared")
    assert shared["form"] == "1 Parquet files"
    assert shared["export"]["key"] == made.key
    assert shared["guess"] == "images"
    np.save(tmp_path / "w.npy", np.zeros((3, 3, 5, 5), np.float32))
    assert "has shape (3, 3, 5, 5), expected" in look_into(tmp_path / "w.npy", "", clean)["guess"]
    with pytest.raises(DataError, match="is not there"):
        look_into(tmp_path / "nothing")


def test_inspect_says_which_entries_there_are_to_choose_from(tmp_path: Path) -> None:
    noise = np.zeros((3, 3, 4, 4), np.float32)
    np.savez(tmp_path / "two.npz", first=noise, second=noise)
    said = "nothing yet: name the entry that is meant, of first, second"
    assert look_into(tmp_path / "two.npz")["guess"] == said
    assert look_into(tmp_path / "two.npz", "first")["guess"] == "perturbation"


def test_the_commands_inspect_and_poison_from(tmp_path: Path) -> None:
    made, _ = made_in(tmp_path / "here")
    export.export(made, tmp_path / "shared", "parquet")
    where = ["--out", str(tmp_path / "out"), "--data", str(tmp_path)]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["inspect", str(tmp_path / "shared"), "--against", "dots", *where]) == 0
        words = ["poison", "dots", "lsp(patch=4)", "--from", str(tmp_path / "shared")]
        assert main([*words, *where]) == 0
    text = out.getvalue()
    assert f"export key   {made.key}" in text
    assert "size linf" in text
    assert f"key            {made.key}" in text
    facts = Store(tmp_path / "out" / "store").meta("poison", made.key)
    assert facts is not None
    assert "adopted" in facts["facts"]
