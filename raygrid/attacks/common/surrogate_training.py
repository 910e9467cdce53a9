"""The training of surrogates: from a recipe and the clean set to a frozen network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.common.surrogates import SurrogateRecipe, augmentation
from raygrid.core.images import Images
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.core.seeds import Stream
from raygrid.nn.networks import freeze
from raygrid.nn.pgd import Ball, frozen
from raygrid.nn.recipes import precision_of
from raygrid.nn.steps import Batch, Step, StepFunction, classify_step
from raygrid.nn.trainer import Trainer
from raygrid.storage.checkpoints import NoProgress, Progress, load_state, save_state
from raygrid.storage.store import as_state

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


def train_surrogate(
    recipe: SurrogateRecipe,
    images: Images,
    stream: Stream,
    device: torch.device,
    progress: Progress | None = None,
) -> nn.Module:
    """Train on the clean set; returns a `Network`, or a ModuleList of those of the kept epochs.

    In eval mode and without gradients. Goes on from the checkpoint in `progress`, kept after every
    epoch.
    """
    progress = progress or NoProgress()
    fitting = _Fitting(recipe, images, stream, device)
    epochs = recipe.recipe.epochs
    for epoch in range(fitting.restore(progress), epochs):
        fitting.epoch(epoch)
        save_state(progress, fitting.state_dict(epoch + 1))
        progress.report(epoch + 1, epochs)
    return freeze(fitting.chosen())


class _Fitting:
    """A surrogate's training: the network as it is, and the weights that were kept on the way."""

    def __init__(
        self, recipe: SurrogateRecipe, images: Images, stream: Stream, device: torch.device
    ) -> None:
        self.recipe, self.images, self.device = recipe, images, device
        self.network = recipe.build(images, stream.seed("init"), device)
        train, self.held = _hold_out(images.to(device), recipe.held_out, stream)
        step = _step(recipe, self.network)
        self.trainer = Trainer(self.network, step, train, recipe.recipe, stream, pure=True)
        self.kept: dict[str, dict[str, Tensor]] = {}
        self.best: dict[str, Tensor] = {}
        self.best_accuracy = -1.0

    def epoch(self, epoch: int) -> None:
        self.trainer.epoch(epoch)
        state = self.network.state_dict()
        if epoch in self.recipe.kept:
            self.kept[str(epoch)] = as_state(state)
        if self.held is not None and (reached := accuracy(self.network, self.held)) > (
            self.best_accuracy
        ):
            self.best, self.best_accuracy = as_state(state), reached

    def chosen(self) -> nn.Module:
        """What the recipe keeps: the networks of some epochs, the best one, or the last."""
        if self.recipe.kept:
            networks = self.recipe.shell(self.images, self.device)
            assert isinstance(networks, nn.ModuleList)
            for network, epoch in zip(networks, self.recipe.kept, strict=True):
                network.load_state_dict(self.kept[str(epoch)])
            return networks
        if self.best:
            self.network.load_state_dict(self.best)
        return self.network

    def state_dict(self, done: int) -> dict[str, Any]:
        return {
            "done": done,
            "trainer": self.trainer.state_dict(),
            "kept": self.kept,
            "best": self.best,
            "best_accuracy": self.best_accuracy,
        }

    def restore(self, progress: Progress) -> int:
        """Go on from a checkpoint; returns the number of finished epochs."""
        state = load_state(progress)
        if state is None:
            return 0
        self.trainer.load_state_dict(state["trainer"])
        self.kept, self.best = state["kept"], state["best"]
        self.best_accuracy = state["best_accuracy"]
        return int(state["done"])


def _step(recipe: SurrogateRecipe, network: Network) -> StepFunction:
    augment = augmentation(recipe.augmentation, network)
    kind = ARCHITECTURES.make(recipe.architecture)
    precision = precision_of(recipe.recipe, kind.convolutional)

    def step(batch: Batch) -> Step:
        batch.x = augment(batch.x, batch.rng, batch.mirrored)
        if recipe.radius:
            steps, step = recipe.climb
            ball = Ball(recipe.radius, steps, step * recipe.radius)
            batch.x = harden(network, batch, ball)
        return classify_step(network, batch, precision)

    return step


def harden(network: nn.Module, batch: Batch, ball: Ball) -> Tensor:
    """The batch after signed steps that raise its loss (Madry et al. 2018).

    From a random start; the network's batch statistics and its mode stay as they were.
    """

    def loss(moved: Tensor) -> Tensor:
        return nn.functional.cross_entropy(network(moved), batch.y)

    with frozen(network):
        return ball.climb(loss, batch.x, ball.inside(batch.x, batch.rng))


def _hold_out(images: Images, count: int, stream: Stream) -> tuple[Images, Images | None]:
    """Random `count` images apart, at most half of them."""
    if count == 0:
        return images, None
    order = torch.randperm(len(images), generator=stream.generator("held_out"))
    cut = min(count, len(images) // 2)
    return images.rows(order[cut:].to(images.pixels.device)), images.rows(order[:cut])


@no_grad
def accuracy(network: nn.Module, images: Images) -> float:
    """Share of images that the network gets right in eval mode; its mode is restored."""
    training = network.training
    network.eval()
    hits = torch.zeros((), dtype=torch.int64, device=images.pixels.device)
    for start in range(0, len(images), 500):
        rows = slice(start, start + 500)
        hits += (network(images.floats(rows)).argmax(1) == images.labels[rows]).sum()
    network.train(training)
    return int(hits) / len(images)
