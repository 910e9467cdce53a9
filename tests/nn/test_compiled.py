"""Which compiled steps train the bytes of eager ones; `beside_apbench.md` says which do not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.nn.counters import drop_counters
from raygrid.nn.networks import to_device
from raygrid.nn.steps import autocast

CPU = torch.device("cpu")
OPTIONS = {
    "compile_threads": 1,
    "size_asserts": False,  # batch norm in bf16 returns another layout than is declared
}


def trained(precision: str, compiled: bool) -> dict[str, Tensor]:
    """What ten steps of small_cnn leave: weights, statistics, momentum and losses."""
    torch._dynamo.reset()
    network = to_device(ARCHITECTURES.make("small_cnn").build(10, 32, 0), CPU, True)
    drop_counters(network)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=5e-4, fused=True)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        with autocast(precision, CPU):
            logits = network(x)
        return nn.functional.cross_entropy(logits.float(), y)

    step: Any = torch.compile(loss_of, mode="lite", fullgraph=True) if compiled else loss_of
    rng, y, losses = torch.Generator().manual_seed(0), torch.arange(32) % 10, []
    for _ in range(10):
        loss = step(torch.rand(32, 3, 32, 32, generator=rng), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
    rest = {f"momentum {number}": value for number, value in enumerate(momenta)}
    return {**network.state_dict(), **rest, "losses": torch.stack(losses)}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles with g++")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_step_that_keeps_torchs_kernels_trains_the_same(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with torch._inductor.config.patch(OPTIONS):
        eager, compiled = trained(precision, False), trained(precision, True)
    assert eager.keys() == compiled.keys()
    assert [name for name in eager if not torch.equal(eager[name], compiled[name])] == []
    assert eager["losses"].diff().abs().min() > 0
