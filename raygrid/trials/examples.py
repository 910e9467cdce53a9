"""A few images before and after an attack: what a picture of its poison is drawn of."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from raygrid.core.errors import StoreError
from raygrid.core.images import Images, Poison
from raygrid.core.lazy import torch
from raygrid.storage.store import Bundle, Store

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
EXAMPLES_KIND = "examples"
"""The kind of their entries in a store, under the key of their poison."""
EXAMPLE_COUNT = 10  # images, one a class


def keep_examples(store: Store, key: str, clean: Images, poison: Poison) -> None:
    """Leave examples of a poison in the store unless they are there.

    A store that refuses them costs the picture, with a warning, and no trial.
    """
    try:
        if not store.has(EXAMPLES_KIND, key) and (found := examples_of(clean, poison)) is not None:
            store.put(EXAMPLES_KIND, key, found)
    except StoreError as error:
        log.warning("no picture of the poison %s: %s", key, error)


def examples_of(clean: Images, poison: Poison) -> Bundle | None:
    """`before` and `after` uint8 (n, C, H, W) and `labels` int64 (n,); None if nothing is changed.

    Of each of the first EXAMPLE_COUNT classes the first image that the attack replaces.
    """
    if poison.withheld or len(poison.indices) == 0:
        return None
    at = first_of_classes(clean.labels[poison.indices], EXAMPLE_COUNT)
    rows = poison.indices[at]
    tensors = {
        "before": clean.pixels[rows],
        "after": poison.pixels[at],
        "labels": clean.labels[rows],
    }
    return Bundle(tensors)


def first_of_classes(labels: Tensor, count: int) -> Tensor:
    """The position of the first label of each of the first `count` classes there are, int64."""
    return torch.stack([(labels == kind).nonzero()[0, 0] for kind in labels.unique()[:count]])
