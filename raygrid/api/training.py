"""The verb that trains a victim on images that somebody holds in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from raygrid.api.arrays import as_images
from raygrid.api.given import (
    UNNAMED,
    GivenImages,
    in_memory,
    place_of,
    refuse_derived,
    resolve_given,
)
from raygrid.core.errors import DivergedError, RaygridError, SpecError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.options import Options
from raygrid.engine.worker import best_device, ready_device
from raygrid.storage.store import Bundle
from raygrid.trials.context import TrialContext
from raygrid.trials.outputs import network_from
from raygrid.trials.run import run_trial

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from raygrid.architectures.networks.network import Network
    from raygrid.trials.result import History, Result
    from raygrid.trials.trial import Trial


class Trained(NamedTuple):
    """A trained network and how it got there.

    model: in eval mode and float32, without gradients; images float32 (n, 3, S, S) in [0, 1] ->
        scores (n, classes); `model.features` gives the penultimate layer. A contrastive learner's
        is its encoder with the linear probe.
    history: one dict of metrics an epoch: `train_loss`, `lr`, and with test images `test_acc` and
        `test_loss` (fractions, nats).
    """

    model: Network
    history: History


def train(  # noqa: PLR0913 - the keywords of a front door, each one axis of a trial
    images: Images | tuple[ArrayLike, ArrayLike],
    *,
    test: Images | tuple[ArrayLike, ArrayLike] | None = None,
    architecture: str = "small_cnn",
    learner: str = "supervised",
    protocol: str = "quick",
    defense: str = "standard",
    seed: int = 0,
    name: str = UNNAMED,
    classes: int | None = None,
) -> Trained:
    """Train a victim on a training set as a trial of a grid would, and hand it over.

    images, name, classes: see `poison`. test: images to test on after every epoch, in the same
    form; without it nothing is tested. architecture, learner, protocol, defense: as in a spec:
    `resnet18`, `simclr`, `quick(epochs=3)`, `grayscale+cutout`. seed: of weights and batches.

    Returns `Trained`, a pair (model, history). The GPU is used if there is one.
    Raises DataError for images of another form, SpecError for an unknown method or a combination
    that cannot run, DivergedError if numbers of the training, or of a network that the defense
    fits, stop being finite, and RaygridError with the words of any other error that ended it.

    >>> from raygrid.api.methods import dataset
    >>> digits = dataset("photo_digits(every=20)")
    >>> model, history = train(digits.train, test=digits.test, protocol="quick(epochs=1)")
    >>> sorted(name for name in history[0] if name.startswith("test"))
    ['test_acc', 'test_loss']
    """
    clean = as_images(images, classes)
    count = clean.classes
    shown = None if test is None else as_images(test, count, "test")
    given = GivenImages.of(clean, shown or clean.rows(torch.arange(1)), name)
    spec = f"{place_of(given)}/clean/{defense}/{architecture}/{learner}/{protocol}/{seed}"
    trial = resolve_given(spec, given)
    if trial.setup is not None and shown is None:
        raise SpecError(f"{protocol} puts every trial before a target, a test image: give test=")
    reason = trial.skip()
    if reason is not None:
        raise SpecError(reason)
    refuse_derived(trial, defense, "trains")
    result, weights = _run(trial)
    model = network_from(trial, weights, count, best_device())
    untested = () if shown is not None else ("test_acc", "test_loss")
    history = [{k: v for k, v in epoch.items() if k not in untested} for epoch in result.history]
    return Trained(model, history)


def _run(trial: Trial) -> tuple[Result, Bundle]:
    """The trial's row and its weights; raises what ended it."""
    left: dict[str, Bundle] = {}
    context = TrialContext(
        device=ready_device(), options=Options(keep=("weights",)), leave=left.__setitem__
    )
    result = run_trial(trial, in_memory(), context)
    if result.status == "diverged":
        raise DivergedError(words=result.error or "")
    if result.status != "done":
        raise RaygridError(f"training ended with an error: {result.error}")
    return result, left["weights"]
