"""How far images were changed: PSNR, SSIM and norms, of a poison and of what a purifier makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygrid.attacks.common.disentangled import Disentangled
from raygrid.core.budget import Budget
from raygrid.core.enforcement import beyond, size_of_change
from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.spec import split_outside
from raygrid.reports.analysis.records import EvaluationRow, Records
from raygrid.trials.artifacts import purified_of
from raygrid.trials.poisons import Poisoned

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 500  # images whose SSIM is taken at a time: its maps are many


def fidelity_of_poison(poisoned: Poisoned, ssim: torch.device | None = None) -> list[EvaluationRow]:
    """The changes of a poisoned set (see `change`); raises DataError if it withholds images."""
    if not poisoned.replaced:
        raise DataError(f"{poisoned.spec} withholds images: there is nothing to compare")
    found = change(poisoned.clean, poisoned.images, poisoned.limit, ssim)
    return [{"set": poisoned.spec, "against": "clean", **found}]


def fidelity_of_purified(
    records: Records, spec: str, ssim: torch.device | None = None
) -> list[EvaluationRow]:
    """What a trial's purifiers changed: against what they were given, and against clean images."""
    trial = records.trial(spec)
    given, clean = records.training_set(trial), records.world(trial).train
    if trial.purified is None or len(given) != len(clean):
        raise DataError(f"{trial.spec} has no purified set beside its images")
    made = purified_of(records.worker.fetch(trial.purified))
    against = {"poisoned": given, "clean": clean}
    rows = {name: change(images, made, ssim=ssim) for name, images in against.items()}
    return [{"set": str(trial.spec), "against": name, **row} for name, row in rows.items()]


def norms_of_disentangled(records: Records, text: str, seed: int = 0) -> EvaluationRow:
    """How large the changes are that a D-VAE found in a poison (`dvae_recon`, `dvae_grow`).

    base_l2: mean over all images under the base attack. n images that the D-VAE changed, without
    those that a grown poison took over from the base attack, and of these l2 and linf, means in
    [0, 1], and the largest linf_max. Raises DataError for other attacks.
    """
    found = records.poisoned(text, seed)
    attack = found.attack
    if not isinstance(attack, Disentangled):
        raise DataError(f"{found.spec} was not made by a D-VAE, as dvae_recon and dvae_grow are")
    dataset = next(iter(split_outside(text, "/")))
    base = records.poisoned(f"{dataset}/{attack.attack.part()}", seed).images.pixels
    clean, made, rows = found.clean.pixels, found.images.pixels, found.mask
    if attack.grown:  # no D-VAE hits all pixels of another poison
        rows = rows & (made != base).flatten(1).any(1)
    l2, linf = (size_of_change(clean[rows], made[rows], norm) for norm in ("l2", "linf"))
    return {
        "set": found.spec,
        "base_l2": float(size_of_change(clean, base, "l2").mean()),
        "n": len(l2),
        "l2": float(l2.mean()),
        "linf": float(linf.mean()),
        "linf_max": float(linf.max()),
    }


def change(
    before: Images,
    after: Images,
    limit: Budget | None = None,
    ssim: torch.device | None = None,
) -> EvaluationRow:
    """Facts of stored pixels: n images, the share of `identical` ones, and of the others these.

    psnr: dB; psnr_pooled: dB, of the mean square over all of them. linf, l2 in [0, 1], l0 in
    pixels. ssim: in [-1, 1], only if a device is given to compute it on, since it takes
    milliseconds an image on a CPU. Each is a mean over images, with its `_std` (of a sample; None
    for one image), `_min` and `_max`. violations: how many images changed by more than `limit`,
    if there is one.
    """
    moved = (before.pixels != after.pixels).flatten(1).any(1)
    one, two = before.pixels[moved], after.pixels[moved]
    row: EvaluationRow = {"n": len(moved), "identical": 1 - int(moved.sum()) / len(moved)}
    if limit is not None:
        row |= {"budget": str(limit), "violations": int(beyond(one, two, limit).sum())}
    if not len(one):
        return row
    error = (two.float() - one.float()).div_(255).square_().flatten(1).mean(1)
    row |= _spread("psnr", -10 * error.log10())
    row["psnr_pooled"] = float(-10 * torch.log10(error.mean()))
    for norm in ("linf", "l2", "l0"):
        row |= _spread(norm, size_of_change(one, two, norm))
    return row if ssim is None else {**row, **_spread("ssim", similarity(one, two, ssim))}


def _spread(name: str, each: Tensor) -> EvaluationRow:
    """Mean, sample standard deviation and range of a measure (n,) over images, n > 0."""
    std = float(each.std()) if len(each) > 1 else None
    ends = {f"{name}_min": float(each.min()), f"{name}_max": float(each.max())}
    return {name: float(each.mean()), f"{name}_std": std, **ends}


def similarity(before: Tensor, after: Tensor, device: torch.device) -> Tensor:
    """SSIM of each pair of images uint8 (n, C, H, W), float32 (n,): a Gaussian window of 11."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    def of(one: Tensor, two: Tensor) -> Tensor:
        made, given = (part.to(device).float().div_(255) for part in (two, one))
        return structural_similarity_index_measure(made, given, data_range=1.0, reduction="none")

    pairs = zip(before.split(_CHUNK), after.split(_CHUNK), strict=True)
    return torch.cat([of(*pair).cpu() for pair in pairs])
