"""How far images were changed: PSNR and norms of a poison and of what a purifier makes of it."""

from __future__ import annotations

from typing import Any

import torch

from raygrid.analysis.records import Records
from raygrid.artifacts import purified_of
from raygrid.attacks.base import measure
from raygrid.data import Images
from raygrid.errors import DataError
from raygrid.poisons import Poisoned

Row = dict[str, Any]


def fidelity_of_poison(poisoned: Poisoned) -> list[Row]:
    """The changes of a poisoned set (see `change`); raises DataError if it withholds images."""
    if not poisoned.replaced:
        raise DataError(f"{poisoned.spec} withholds images: there is nothing to compare")
    row = {"set": poisoned.spec, "against": "clean"}
    return [{**row, **change(poisoned.clean, poisoned.images)}]


def fidelity_of_purified(records: Records, spec: str) -> list[Row]:
    """What a trial's purifiers changed: against what they were given, and against clean images."""
    trial = records.trial(spec)
    given, clean = records.training_set(trial), records.world(trial).train
    if trial.purified is None or len(given) != len(clean):
        raise DataError(f"{trial.spec} has no purified set beside its images")
    made = purified_of(records.worker.fetch(trial.purified))
    against = {"poisoned": given, "clean": clean}
    rows = {name: change(images, made) for name, images in against.items()}
    return [{"set": str(trial.spec), "against": name, **row} for name, row in rows.items()]


def change(before: Images, after: Images) -> Row:
    """Of stored pixels: n images, the share of `identical` ones, and of all others these.

    psnr, psnr_std, psnr_min: dB, over images; psnr_pooled: dB, of the mean square over all of
    them. linf, l2 in [0, 1], l0 in pixels: means over images; linf_max, l2_max, l0_max.
    """
    moved = (before.pixels != after.pixels).flatten(1).any(1)
    one, two = before.pixels[moved], after.pixels[moved]
    row: Row = {"n": len(moved), "identical": 1 - int(moved.sum()) / len(moved)}
    if not len(one):
        return row
    error = (two.float() - one.float()).div_(255).square_().flatten(1).mean(1)
    each = -10 * error.log10()
    row |= {"psnr": float(each.mean()), "psnr_min": float(each.min())}
    row["psnr_std"] = float(each.std()) if len(each) > 1 else None
    row["psnr_pooled"] = float(-10 * torch.log10(error.mean()))
    for norm in ("linf", "l2", "l0"):
        size = measure(one, two, norm)
        row |= {norm: float(size.mean()), f"{norm}_max": float(size.max())}
    return row
