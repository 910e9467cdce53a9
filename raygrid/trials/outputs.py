"""What a trial leaves on request, so that later questions need no training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.architectures.base import network_size
from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.learners.common.features import answers_of, features_of
from raygrid.nn.networks import to_device
from raygrid.storage.store import Bundle, as_state

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network
    from raygrid.trials.trial import Trial


@dataclass
class Peak:
    """The weights of the epoch with the highest test accuracy so far, the first of several.

    A learner that scores an encoder by kNN leaves the encoder's, under `network.`.
    """

    accuracy: float = -1.0
    weights: dict[str, Tensor] | None = None

    def see(self, accuracy: float, model: nn.Module) -> None:
        if accuracy > self.accuracy:
            self.accuracy, self.weights = accuracy, weights_of(model)

    def bundle(self) -> Bundle:
        assert self.weights is not None, "no epoch was seen"
        return Bundle(self.weights, {"accuracy": self.accuracy})


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's state on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def network_from(trial: Trial, weights: Bundle, classes: int, device: torch.device) -> Network:
    """The network of a trial with the weights that it left.

    It is in eval mode and float32, without gradients, on the device. Of a linear probe it is its
    extractor with its head.
    """
    state = one_network(as_state(weights.tensors))
    network = trial.architecture.build(classes, trial.dataset.image_size, 0)
    # Whoever starts from an extractor has the extractor's normalization, which comes with it.
    if trial.recipe.normalize or "normalize.mean" in state:
        network.normalize_by(trial.dataset.mean, trial.dataset.std)
    trial.defense.prepare(network, {})
    network.load_state_dict(state)
    to_device(network, device, trial.architecture.convolutional)
    network.eval().requires_grad_(False)
    return network


def one_network(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a frozen classifier (`FrozenClassifier`) as that of one network."""
    inner = {name: value for name, value in state.items() if name.startswith("network.")}
    if not inner:
        return state
    plain = {name.removeprefix("network."): value for name, value in inner.items()}
    return plain | {name: value for name, value in state.items() if name not in inner}


def left_nbytes(trial: Trial, kinds: Iterable[str]) -> int:
    """Bytes that a trial leaves on request, of these kinds (`LEFT_BY_TRIALS` of `core.options`)."""
    kinds = list(kinds)
    if not kinds:  # asked of every plan, and most leave nothing: then no network is looked at
        return 0
    data = trial.dataset
    network = network_size(trial.architecture, data.classes, data.image_size)
    test_image = {"predictions": 2 * data.classes + 4, "features": 2 * network.width + 2}
    return sum(
        data.test_size * test_image[kind] if kind in test_image else network.nbytes
        for kind in kinds
    )


def left_by(
    kind: str, model: nn.Module, test: Images, view: Callable[[Tensor], Tensor], precision: str
) -> Bundle:
    """One kind of what a trained model leaves.

    weights: its state. predictions: `logits` float16 (N, classes) on the test images, `predicted`
    and `labels` int16 (N,). features: penultimate ones, float16 (N, width), and `labels`. What
    `peak` is shows during the training alone: see `Peak`.
    test: on the model's device; view: the defense's change at test time. In eval mode.
    """
    from raygrid.architectures.networks.network import Network

    if kind == "weights":
        return Bundle(weights_of(model))
    labels = test.labels.cpu().to(torch.int16)
    if kind == "predictions":
        logits = answers_of(model, model, test, precision, view).cpu()
        predicted = logits.argmax(1).to(torch.int16)
        return Bundle({"logits": logits.half(), "predicted": predicted, "labels": labels})
    if not isinstance(model, Network):
        raise DataError(f"a {type(model).__name__} has no penultimate features to keep")
    features = features_of(model, test, precision, view).cpu()
    return Bundle({"features": features.half(), "labels": labels})
