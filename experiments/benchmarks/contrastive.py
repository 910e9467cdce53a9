"""What contrastive learning costs: TP beside its bare passes, and six learners on one poison.

    python experiments/benchmarks/contrastive.py [tp] [row]

One CPU thread; every figure is CPU time. `tp`: an epoch of TP with a shared ResNet-18 against the
forward and backward passes that it consists of and nothing else; at least 90 % of the time has to
go into these. `row`: LSP on photo_digits against the six learners under protocol quick, training,
kNN and probe; under 10 minutes together. Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.rounds import alternating
from raygrid.attacks.tp import Crafting, Tp
from raygrid.core.seeds import Stream
from raygrid.datasets import DATASETS
from raygrid.literature.names import SIX_LEARNERS
from raygrid.nn.pgd import frozen
from raygrid.trials.evaluate import score
from raygrid.trials.resolve import resolve
from raygrid.trials.run import task_of

sys.path.insert(0, str(Path(__file__).parent))
from augmentation import photos
from header import header

STREAM = Stream("benchmark")
BATCH, BATCHES, STEPS = 32, 1, 2


def seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def tp() -> bool:
    """The share of an epoch of TP that goes into passes of the network."""
    images = photos(BATCH * BATCHES)
    attack = Tp(batch_size=BATCH, cl_steps=STEPS, sl_steps=STEPS)
    crafting = Crafting(attack, images, AttackContext(STREAM), attack.radius)
    students = [crafting.contrastive(), crafting.supervised()]

    epoch = alternating(crafting.noise, students, 3, BATCH, crafting.context).round
    epoch(0)
    bare, whole = [], []
    for number in (1, 2):  # in turns, so that a slower machine slows both
        bare.append(passes(crafting.network))
        whole.append(seconds(lambda n=number: epoch(n)))  # type: ignore[misc]
    share = min(bare) / min(whole)
    print(f"an epoch of TP, {BATCH * BATCHES} images, {STEPS}:{STEPS} steps {min(whole):7.2f} s")
    print(f"its forward and backward passes            {min(bare):7.2f} s  ({share:.1%})")
    return share >= 0.9


def passes(network: nn.Module) -> float:
    """Seconds of the passes of an epoch of TP: two views count twice, noise steps have no weights'
    gradients."""
    x = torch.rand(2 * BATCH, 3, 32, 32, generator=STREAM.generator("pixels"))

    def train(batch: Tensor) -> None:
        network(batch).sum().backward()

    def descend(batch: Tensor) -> None:
        leaf = batch.clone().requires_grad_()
        torch.autograd.grad(network(leaf).sum(), leaf)

    def one_batch() -> None:
        for half in (x, x[:BATCH]):
            network.train()
            train(half)
            with frozen(network):
                for _ in range(STEPS):
                    descend(half)

    return seconds(lambda: [one_batch() for _ in range(BATCHES)])


def row() -> bool:
    """Seconds of each learner on a poison of LSP."""
    split = DATASETS.make("photo_digits").load(Path())
    attack = ATTACKS.make("lsp(budget=l2:3.48)")
    poison = attack.poison(split.train, AttackContext(STREAM))
    train = split.train.with_pixels(poison.pixels)
    total = 0.0
    for learner in SIX_LEARNERS:
        trial = resolve(f"photo_digits/lsp/standard/small_cnn/{learner}/quick/0", None)
        session = trial.learner.start(task_of(trial, train, split.train, train.pixels.device))
        started = time.process_time()
        for epoch in range(trial.recipe.epochs):
            session.epoch(epoch)
            score(session.classifier(), split.test, trial.defense.view)
        found = score(session.finish(), split.test, trial.defense.view)
        spent = time.process_time() - started
        total += spent
        print(f"{learner:12} {spent:7.1f} s, accuracy {found.acc:.1%}")
    print(f"six learners {total:7.1f} s")
    return total < 600


def main() -> int:
    torch.set_num_threads(1)
    print(f"{header()}, one thread")
    chosen = sys.argv[1:] or ["tp", "row"]
    met = [{"tp": tp, "row": row}[name]() for name in chosen]
    print("all bounds met" if all(met) else "a bound is missed")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
