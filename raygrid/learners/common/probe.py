"""The linear probe: a linear classifier on features of a frozen encoder."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from raygrid.core.errors import DivergedError
from raygrid.core.images import Images
from raygrid.core.lazy import nn
from raygrid.core.seeds import Stream, forked
from raygrid.learners.common.features import features_of
from raygrid.nn.augment import Views
from raygrid.nn.recipes import Probing
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


class Fitted(NamedTuple):
    """A network with a probe as its head, and the head's weights after each epoch, on the CPU."""

    network: Network
    heads: list[dict[str, Tensor]]


def fit_probe(
    network: Network,
    labeled: Images,
    probing: Probing,
    views: Views,
    stream: Stream,
    precision: str,
) -> Fitted:
    """A copy of the network with a new head fitted on `labeled`; the encoder stays bit for bit.

    Features are computed once and kept: of the images as they are, or of `probing.passes` passes
    through `views`, one after the other epoch by epoch. Raises DivergedError.
    """
    cache = _cache(network, labeled, probing.passes, views, stream, precision)
    with forked(stream.seed("init")):
        linear = nn.Linear(network.width, labeled.classes).to(labeled.device)

    def step(batch: Batch) -> Step:
        logits = linear(cache[batch.epoch % len(cache)][batch.index])
        loss = nn.functional.cross_entropy(logits, batch.target(batch.y, labeled.classes))
        return Step(loss, (logits.argmax(1) == batch.y).sum(), len(batch.y))

    trainer = Trainer(linear, step, labeled.blank(), probing.recipe, stream)
    heads = []
    try:
        for epoch in range(probing.recipe.epochs):
            trainer.epoch(epoch)
            heads.append({name: w.detach().cpu().clone() for name, w in linear.named_parameters()})
    except DivergedError as error:
        raise error.of("linear probe") from None
    probed = copy.deepcopy(network)
    probed.head = linear
    return Fitted(probed, heads)


def _cache(
    network: Network, labeled: Images, passes: int, views: Views, stream: Stream, precision: str
) -> list[Tensor]:
    """Features float32 (N, width) of each pass."""
    if passes == 0:
        return [features_of(network, labeled, precision)]
    rngs = [stream.generator("views", number) for number in range(passes)]
    return [features_of(network, labeled, precision, partial(views, generator=r)) for r in rngs]
