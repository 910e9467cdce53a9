"""MoCo v2: a queue of keys by a slow copy of the network."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from raygrid.architectures.networks.ghost_norm import GhostNorm
from raygrid.core.lazy import functional, torch
from raygrid.nn.contrastive.base import Branch, Framework, follow, moving_copy
from raygrid.nn.contrastive.losses import LossScale, loss_factor

if TYPE_CHECKING:
    from torch import Tensor


class MocoLoss(Framework):
    """He et al. 2020, Chen et al. 2020: InfoNCE of queries (view a) against keys (view b).

    Logits [q k+, q queue] / T; the loss times `loss_factor`. Before each step the key branch
    follows the query branch; the queue is read before the step's own keys enter it. lightly keeps
    its queue out of `state_dict`, here it is put back in. eager: keys enter the queue even where
    nothing else moves, if such batches fill it evenly.

    Behind `ghost_norms` keys are computed in an order of their own while it trains, drawn from the
    global stream: no key shares its part's statistics with the images that its query shares them.
    """

    def __init__(
        self,
        branch: Branch,
        queue: tuple[int, int],
        momentum: float,
        temperature: float,
        scale: LossScale,
        eager: bool = False,
    ) -> None:
        from lightly.models.modules.memory_bank import MemoryBankModule

        super().__init__(branch)
        self.slow = moving_copy(branch)
        self.queue = MemoryBankModule(size=queue)
        self.queue.register_buffer("bank", self.queue.bank)
        self.queue.register_buffer("bank_ptr", self.queue.bank_ptr)
        self.eager = eager
        self.by_parts = any(isinstance(module, GhostNorm) for module in branch.modules())
        self.momentum = momentum
        self.temperature = temperature
        self.factor = loss_factor(temperature, scale)

    def forward(
        self, a: Tensor, b: Tensor, y: Tensor, move: bool = True, dual: bool = False
    ) -> Tensor:
        if move:
            follow(self.slow, self.branch, self.momentum)
        q = functional.normalize(self.branch(a), dim=1)
        with nullcontext() if dual else torch.no_grad():
            k = functional.normalize(self.keys(b), dim=1)
        fits = len(self.queue.bank) % len(k) == 0
        _, negatives = self.queue(k, update=move or (self.eager and fits))
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ negatives], 1) / self.temperature
        first = torch.zeros(len(q), dtype=torch.int64, device=q.device)
        return self.factor * functional.cross_entropy(logits, first)

    def keys(self, b: Tensor) -> Tensor:
        """Projections float32 (n, dim) of the slow branch, a row for each image (n, C, H, W)."""
        if not (self.by_parts and self.training):
            out: Tensor = self.slow(b)
            return out
        order = torch.randperm(len(b)).to(b.device)
        shuffled: Tensor = self.slow(b[order])
        return shuffled[order.argsort()]
