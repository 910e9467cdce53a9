"""A user's own arrays: what is taken as it is, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raygrid.api.arrays import as_images
from raygrid.core.errors import DataError, RaygridError
from tests.conftest import toy

N, SIDE = 6, 8
NHWC = np.arange(N * SIDE * SIDE * 3, dtype=np.int64).reshape(N, SIDE, SIDE, 3) % 256
PIXELS = NHWC.astype(np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS.transpose(0, 3, 1, 2)])
@pytest.mark.parametrize("wrap", [np.array, torch.tensor, np.ndarray.tolist])
def test_both_layouts_of_arrays_tensors_and_lists_are_the_same_images(
    pixels: Any, wrap: Any
) -> None:
    images = as_images((wrap(pixels.copy()), wrap(LABELS.copy())))
    assert images.pixels.dtype == torch.uint8
    assert images.shape == (3, SIDE, SIDE)
    assert images.classes == 3
    assert np.array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), PIXELS)
    assert images.labels.tolist() == LABELS.tolist()


def test_the_caller_keeps_the_arrays() -> None:
    mine = PIXELS.copy()
    images = as_images((mine, LABELS))
    mine[:] = 0
    assert np.array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), PIXELS)


@pytest.mark.parametrize("kind", [">i8", "<i2", "uint8", "uint16", "int64"])
def test_labels_are_any_whole_numbers(kind: str) -> None:
    assert as_images((PIXELS, LABELS.astype(kind))).labels.tolist() == LABELS.tolist()


def test_images_stay_and_are_named_by_their_content() -> None:
    images = toy(8)
    one, two = as_images(images), as_images((images.pixels, images.labels), images.classes)
    assert one.fingerprint == two.fingerprint != ""


@pytest.mark.parametrize(
    ("images", "classes", "says"),
    [
        (
            (PIXELS.astype("float32") / 255, LABELS),
            None,
            "float32 .* from 0 to 1; allowed is uint8",
        ),
        ((PIXELS / 127.5 - 1, LABELS), None, "from -1 to 1; .*undo the normalization first"),
        ((NHWC, LABELS), None, r"int64 \(6, 8, 8, 3\) from 0 to 255; allowed is uint8"),
        ((NHWC.astype("uint16"), LABELS), None, r"uint16 \(6, 8, 8, 3\) from 0 to 255; allowed"),
        (((NHWC - 1).tolist(), LABELS), None, r"int64 \(6, 8, 8, 3\) from -1 to 254; allowed"),
        ((PIXELS[..., :2], LABELS), None, r"uint8 \(6, 8, 8, 2\); allowed are \(N, 3, S, S\)"),
        ((PIXELS[0], LABELS), None, r"uint8 \(8, 8, 3\)"),
        ((PIXELS[:, :4], LABELS), None, "3 x 4 x 8, allowed are 3 channels and square images of 8"),
        ((PIXELS, LABELS[:4]), None, "6 pictures have 4 labels"),
        ((PIXELS, LABELS - 1), None, "label -1 is not allowed"),
        ((PIXELS, LABELS), 2, "label 2 is not allowed, those of 2 classes are 0 to 1"),
        ((PIXELS, LABELS + 0.5), None, r"labels are float64 \(6,\); allowed are whole numbers"),
        ((PIXELS, np.eye(3, dtype=int)[LABELS]), None, r"labels are int64 \(6, 3\)"),
        ((PIXELS, LABELS > 0), None, "labels are bool"),
        ((PIXELS[:0], LABELS[:0]), None, "is empty, wanted is one image or more"),
        (PIXELS, None, "is a ndarray, allowed are Images or a pair"),
        ((np.array(["a", "b"]), LABELS), None, "no array of numbers"),
    ],
)
def test_other_arrays_are_refused_with_what_was_given_and_what_is_allowed(
    images: Any, classes: int | None, says: str
) -> None:
    with pytest.raises(DataError, match=says) as fault:
        as_images(images, classes)
    assert isinstance(fault.value, RaygridError)
    assert "\n" not in str(fault.value)
