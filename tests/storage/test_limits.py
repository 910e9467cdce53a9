"""Files that are damaged, locked or built to fill a machine: one line, before they are unpacked."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raygrid.core.errors import DataError
from raygrid.datasets import DATASETS
from raygrid.datasets.common.holdings import extract
from raygrid.storage import limits
from raygrid.storage.array_files import load_entries
from raygrid.storage.pictures import opened

CONTENT = np.random.default_rng(0).integers(0, 9, 30_000).astype(np.uint8).tobytes()


def zipped(path: Path) -> bytearray:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("train/a/0.png", CONTENT)
    return bytearray(path.read_bytes())


def encrypted(path: Path) -> None:
    """The bit of both headers that says so."""
    raw = zipped(path)
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)


def unknown_method(path: Path) -> None:
    raw = zipped(path)
    raw[8:10] = struct.pack("<H", 97)
    place = raw.index(b"PK\x01\x02") + 10
    raw[place : place + 2] = struct.pack("<H", 97)
    path.write_bytes(raw)


def flipped(path: Path) -> None:
    raw = zipped(path)
    raw[2000] ^= 255
    path.write_bytes(raw)


def tar(path: Path, mode: str) -> bytes:
    with tarfile.open(path, mode) as tape:
        entry = tarfile.TarInfo("train/a/0.png")
        entry.size = len(CONTENT)
        tape.addfile(entry, io.BytesIO(CONTENT))
    return path.read_bytes()


def flipped_gzip(path: Path) -> None:
    """Bytes of the content are others, everything else is as it was, but for the checksum."""
    whole = bytearray(gzip.decompress(tar(path, "w:gz")))
    ending = struct.pack("<II", zlib.crc32(whole), len(whole))
    whole[1000] ^= 1
    packer = zlib.compressobj(wbits=-15)
    head = b"\x1f\x8b\x08\x00" + bytes(6)
    path.write_bytes(head + packer.compress(bytes(whole)) + packer.flush() + ending)


def garbled(path: Path) -> None:
    raw = bytearray(tar(path, "w:gz"))
    raw[200:4000:7] = bytes(len(raw[200:4000:7]))
    path.write_bytes(raw)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "locked.zip": encrypted,
    "method.zip": unknown_method,
    "flipped.zip": flipped,
    "flipped.tar.gz": flipped_gzip,
    "garbled.tar.gz": garbled,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_locked_archive_is_one_line(tmp_path: Path, name: str) -> None:
    """R8 and R10: tracebacks of zipfile, and a tar.gz with flipped bits was taken as it was."""
    path = tmp_path / "cifar10" / name
    path.parent.mkdir()
    DAMAGE[name](path)
    with pytest.raises(DataError, match=rf"{name} cannot be unpacked \(.+\); replace it") as error:
        extract(path, tmp_path / "there")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=name):
        DATASETS.make("cifar10").load(tmp_path)


def large_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("train/a/0.png", bytes(3_000_000))


def large_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tape:
        for number in range(3):
            entry = tarfile.TarInfo(f"train/a/{number}.png")
            entry.size = 1_000_000
            tape.addfile(entry, io.BytesIO(bytes(entry.size)))


@pytest.mark.parametrize(("make", "name"), [(large_zip, "a.zip"), (large_tar, "a.tar.gz")])
def test_an_archive_is_bounded_and_a_person_can_raise_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], name: str
) -> None:
    path = tmp_path / name
    make(path)
    assert path.stat().st_size < 10_000
    monkeypatch.setenv(limits.MAX_GIB_VARIABLE, "0.002")
    with pytest.raises(DataError, match=r"comes to 0.002\d* GiB unpacked, allowed here are 0.002"):
        extract(path, tmp_path / "small")
    monkeypatch.setenv(limits.MAX_GIB_VARIABLE, "0.01")
    extract(path, tmp_path / "large")
    assert sum(f.stat().st_size for f in (tmp_path / "large").rglob("*.png")) == 3_000_000


def bomb_npz(path: Path) -> None:
    np.savez_compressed(path, delta=np.zeros(40_000_000, np.int8))


def bomb_sparse(path: Path) -> None:
    where = torch.zeros(4, 1, dtype=torch.int64)
    torch.save(
        torch.sparse_coo_tensor(where, torch.ones(1), (40_000, 3, 500, 500), check_invariants=True),
        path,
    )


def bomb_expanded(path: Path) -> None:
    torch.save(torch.zeros(1).expand(30_000_000_000), path)


@pytest.mark.parametrize(
    ("make", "name"),
    [(bomb_npz, "p.npz"), (bomb_sparse, "sparse.pt"), (bomb_expanded, "expanded.pt")],
)
def test_arrays_that_are_small_in_a_file_alone_are_refused_unread(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    """R10: an npz of 600 MB took that and more of memory, whatever the dataset."""
    make(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"GiB unpacked, allowed here are 0.0186; RAYGRID_MAX_GIB"):
        load_entries(tmp_path / name, most=2e7)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_picture_is_bounded_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R10: a PNG of 13,000 x 13,000 was decoded; R8: one of 30,000 x 30,000 was a traceback."""
    path = tmp_path / "a.png"
    Image.new("1", (9000, 9000)).save(path)
    with (
        pytest.raises(DataError, match=r"has 9000x9000 pixels, allowed are 6.4e\+07 in all"),
        opened(path),
    ):
        pass
    monkeypatch.setenv(limits.MAX_PIXELS_VARIABLE, "1e8")
    with opened(path) as image:
        assert image.size == (9000, 9000)
    Image.MAX_IMAGE_PIXELS, before = 1000, Image.MAX_IMAGE_PIXELS
    try:
        with pytest.raises(DataError, match=r"cannot be read \(Image size"), opened(path):
            pass
    finally:
        Image.MAX_IMAGE_PIXELS = before


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan"])
def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(limits.MAX_GIB_VARIABLE, text)
    with pytest.raises(DataError, match=f"RAYGRID_MAX_GIB is '{text}', allowed are numbers above"):
        limits.check_bytes(Path("x"), 1, 1e9)


def test_a_disk_without_room_is_said_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limits.MAX_GIB_VARIABLE, "1e9")
    with pytest.raises(DataError, match=f"and {tmp_path} has .* left; TMPDIR names a larger disk"):
        limits.check_disk(Path("x"), 2 * shutil.disk_usage(tmp_path).free, tmp_path)
