"""Pictures of every kind become the 8-bit RGB that a person sees, or are refused with a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raygrid.core.errors import DataError
from raygrid.storage.pictures import (
    EIGHT_BIT_MODES,
    SIXTEEN_BIT_MODES,
    TRANSPARENT_MODES,
    as_rgb,
    opened,
    pictures_in,
    subfolders,
)


def read(path: Path) -> np.ndarray:
    with opened(path) as image:
        return np.asarray(as_rgb(image, path))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_gray_is_scaled(tmp_path: Path, suffix: str, order: str) -> None:
    """Pillow's own conversion gives 255 everywhere: github.com/pytorch/vision/issues/2218."""
    levels = np.array([[0, 257, 128, 129], [256 * 257 - 257, 40 * 257, 65535, 32896]], order)
    path = tmp_path / f"deep.{suffix}"
    mode = "I;16" if order == "<u2" else "I;16B"
    Image.frombytes(mode, (4, 2), levels.tobytes()).save(path)
    expected = [[0, 1, 0, 1], [255, 40, 255, 128]]
    assert read(path).tolist() == [[[v] * 3 for v in row] for row in expected]


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_of_pillow_is_scaled_or_refused(mode: str) -> None:
    """A mode that Pillow adds later is refused, since nobody looked at its range."""
    image = Image.new(mode, (2, 2))
    if mode in EIGHT_BIT_MODES + TRANSPARENT_MODES + SIXTEEN_BIT_MODES:
        assert as_rgb(image, Path("x")).mode == "RGB"
    else:
        with pytest.raises(DataError, match=f"x has Pillow's mode {mode}, whose range"):
            as_rgb(image, Path("x"))


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_eight_bit_modes_keep_a_middle_gray(mode: str) -> None:
    gray = Image.new("RGB", (2, 2), (102, 102, 102))
    back = np.asarray(as_rgb(gray.convert(mode), Path("x"))).astype(int)
    assert np.abs(back - 102).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.full((4, 4), 0.5, np.float32), "mode F"),
        (np.full((4, 4), 70_000, np.int32), "mode I"),
    ],
)
def test_values_of_unknown_range_are_refused(tmp_path: Path, pixels: np.ndarray, says: str) -> None:
    Image.fromarray(pixels).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=rf"x\.tif has Pillow's {says}, whose range is not known"):
        read(tmp_path / "x.tif")


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_all_but_the_first_frame_are_not_dropped_silently(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), (60 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds 3 frames, allowed is one"):
        read(tmp_path / f"x.{suffix}")


def test_orientation_is_ignored_as_torchvision_does(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "x.jpg", exif=exif)
    assert read(tmp_path / "x.jpg").shape == (2, 4, 3)


@pytest.mark.parametrize(
    "suffix", ["png", "PNG", "jpg", "JpEg", "webp", "bmp", "gif", "tif", "TIFF"]
)
def test_every_suffix_counts_in_any_case(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / f"a.{suffix}")
    assert [p.name for p in pictures_in(tmp_path)] == [f"a.{suffix}"]


def test_what_systems_leave_behind_is_skipped(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).touch()
    for name in (".ipynb_checkpoints", "__MACOSX", "cat"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "b.png").touch()
    assert [p.name for p in subfolders(tmp_path)] == ["cat"]
    (tmp_path / "cat" / "b.png").unlink()
    assert [p.name for p in pictures_in(tmp_path)] == ["a.png"]


def test_nothing_else_is_left_out_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "deeper").mkdir()
    for name in ("b.png", "c.webp"):
        (tmp_path / "deeper" / name).touch()
    with pytest.raises(DataError, match="has 2 pictures in subfolders such as deeper/"):
        pictures_in(tmp_path)
    (tmp_path / "deeper").rename(tmp_path / ".deeper")
    (tmp_path / "x.heic").touch()
    with pytest.raises(DataError, match=r"has 1 files that are no pictures, such as x\.heic"):
        pictures_in(tmp_path)
