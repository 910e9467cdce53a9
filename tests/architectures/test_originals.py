"""Networks beside the forward passes of the code that they follow, with the weights copied.

A port reads weights and statistics in the order of the layers; strides, padding, groups, pools and
activations are its own. lafeat/apbench@9a6fb91 (nets/, which are kuangliu's) and
aks2203/poisoning-benchmark@97a67ae (models/). In eval mode, in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.nn.modules.batchnorm import _BatchNorm

from raygrid.architectures import ARCHITECTURES


class Weights:
    """The convolutions, norms and linear layers of a body, each kind in its order."""

    def __init__(self, body: nn.Module) -> None:
        modules = list(body.modules())
        self.convs = [m for m in modules if isinstance(m, nn.Conv2d)]
        self.norms = [m for m in modules if isinstance(m, _BatchNorm)]
        self.linears = [m for m in modules if isinstance(m, nn.Linear)]

    def conv(self, x: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
        layer = self.convs.pop(0)
        return f.conv2d(x, layer.weight, layer.bias, stride, padding, groups=groups)

    def norm(self, x: Tensor) -> Tensor:
        layer = self.norms.pop(0)
        mean, var = layer.running_mean, layer.running_var
        return f.batch_norm(x, mean, var, layer.weight, layer.bias, eps=1e-5)

    def linear(self, x: Tensor) -> Tensor:
        layer = self.linears.pop(0)
        return f.linear(x, layer.weight, layer.bias)

    def later(self, x: Tensor, at: int, stride: int) -> Tensor:
        """A 1x1 convolution without bias from further on in the order."""
        return f.conv2d(x, self.convs.pop(at).weight, None, stride)

    @property
    def left(self) -> int:
        return len(self.convs) + len(self.norms) + len(self.linears)


def basic_block(w: Weights, x: Tensor, stride: int, changed: bool) -> Tensor:
    out = f.relu(w.norm(w.conv(x, stride, 1)))
    out = w.norm(w.conv(out, 1, 1))
    return f.relu(out + (w.norm(w.conv(x, stride)) if changed else x))


def bottleneck(w: Weights, x: Tensor, stride: int, changed: bool, groups: int = 1) -> Tensor:
    out = f.relu(w.norm(w.conv(x)))
    out = f.relu(w.norm(w.conv(out, stride, 1, groups)))
    out = w.norm(w.conv(out))
    return f.relu(out + (w.norm(w.conv(x, stride)) if changed else x))


def resnet(w: Weights, x: Tensor, blocks: tuple[int, ...], wide: bool = False) -> Tensor:
    x = f.relu(w.norm(w.conv(x, 1, 1)))
    return stages(w, x, blocks, wide)


def stages(w: Weights, x: Tensor, blocks: tuple[int, ...], wide: bool) -> Tensor:
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage and block == 0 else 1
            if wide:
                x = bottleneck(w, x, stride, block == 0)
            else:
                x = basic_block(w, x, stride, bool(stage) and block == 0)
    return f.avg_pool2d(x, 4).flatten(1)


def resnet34_strided(w: Weights, x: Tensor) -> Tensor:
    return stages(w, f.relu(w.norm(w.conv(x, 2, 3))), (3, 4, 6, 3), False)


def resnet32_narrow(w: Weights, x: Tensor) -> Tensor:
    """clbd_resnet.py: shortcuts of every second pixel, a quarter of empty channels each side."""
    x = f.relu(w.norm(w.conv(x, 1, 1)))
    for stage, planes in enumerate((16, 32, 64)):
        for block in range(5):
            stride, short = 1, x
            if stage and block == 0:
                quarter = planes // 4
                stride, short = 2, f.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
            out = w.norm(w.conv(f.relu(w.norm(w.conv(x, stride, 1))), 1, 1))
            x = f.relu(out + short)
    return f.avg_pool2d(x, x.shape[3]).flatten(1)


def preact_resnet18(w: Weights, x: Tensor) -> Tensor:
    x = w.conv(x, 1, 1)
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and block == 0 else 1
            out = f.relu(w.norm(x))
            short = w.conv(out, stride) if stride == 2 else x
            out = w.conv(out, stride, 1)
            x = w.conv(f.relu(w.norm(out)), 1, 1) + short
    return f.avg_pool2d(x, 4).flatten(1)


def senet18(w: Weights, x: Tensor) -> Tensor:
    x = f.relu(w.norm(w.conv(x, 1, 1)))
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and block == 0 else 1
            out = f.relu(w.norm(x))
            short = w.later(out, 2, stride) if stride == 2 else x
            out = w.conv(f.relu(w.norm(w.conv(out, stride, 1))), 1, 1)
            gate = f.avg_pool2d(out, out.shape[2])
            gate = w.conv(f.relu(w.conv(gate))).sigmoid()
            x = out * gate + short
    return f.avg_pool2d(x, 4).flatten(1)


def resnext29(w: Weights, x: Tensor) -> Tensor:
    x = f.relu(w.norm(w.conv(x)))
    for stage in range(3):
        for block in range(3):
            x = bottleneck(w, x, 2 if stage and block == 0 else 1, block == 0, 32)
    return f.avg_pool2d(x, 8).flatten(1)


def vgg(w: Weights, x: Tensor, counts: tuple[int, ...], last: bool = False) -> Tensor:
    for count in counts:
        for _ in range(count):
            x = f.relu(w.norm(w.conv(x, 1, 1)))
        x = f.max_pool2d(x, 2)
    return (f.max_pool2d(x, 2) if last else x).flatten(1)


def mobilenet(w: Weights, x: Tensor) -> Tensor:
    x = f.relu(w.norm(w.conv(x, 1, 1)))
    for stride in (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1):
        x = f.relu(w.norm(w.conv(x, stride, 1, x.shape[1])))
        x = f.relu(w.norm(w.conv(x)))
    return f.avg_pool2d(x, 2).flatten(1)


def mobilenetv2(w: Weights, x: Tensor) -> Tensor:
    x = f.relu(w.norm(w.conv(x, 1, 1)))
    plan = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
    for planes, count, first in plan:
        for block in range(count):
            stride = 1 if block else first
            out = f.relu(w.norm(w.conv(x)))
            out = f.relu(w.norm(w.conv(out, stride, 1, out.shape[1])))
            out = w.norm(w.conv(out))
            short = x if x.shape[1] == planes or stride == 2 else w.norm(w.conv(x))
            x = out + short if stride == 1 else out
    return f.avg_pool2d(f.relu(w.norm(w.conv(x))), 4).flatten(1)


def shuffled(one: Tensor, two: Tensor) -> Tensor:
    x = torch.cat([one, two], 1)
    n, c, h, width = x.shape
    return x.view(n, 2, c // 2, h, width).transpose(1, 2).reshape(n, c, h, width)


def shufflenetv2(w: Weights, x: Tensor) -> Tensor:
    x = f.relu(w.norm(w.conv(x, 1, 1)))
    for count in (3, 7, 3):
        left = w.norm(w.conv(x, 2, 1, x.shape[1]))
        left = f.relu(w.norm(w.conv(left)))
        right = f.relu(w.norm(w.conv(x)))
        right = w.norm(w.conv(right, 2, 1, right.shape[1]))
        x = shuffled(left, f.relu(w.norm(w.conv(right))))
        for _ in range(count):
            still, out = x.split(x.shape[1] // 2, 1)
            out = f.relu(w.norm(w.conv(out)))
            out = w.norm(w.conv(out, 1, 1, out.shape[1]))
            x = shuffled(still, f.relu(w.norm(w.conv(out))))
    return f.avg_pool2d(f.relu(w.norm(w.conv(x))), 4).flatten(1)


def lenet(w: Weights, x: Tensor) -> Tensor:
    for _ in range(2):
        x = f.max_pool2d(f.relu(w.conv(x)), 2)
    x = x.flatten(1)
    return f.relu(w.linear(f.relu(w.linear(x))))


def alexnet_htbd(w: Weights, x: Tensor) -> Tensor:
    for stride, pooled in ((2, True), (1, True), (1, False), (1, False), (1, True)):
        x = f.relu(w.conv(x, stride, 1))
        x = f.max_pool2d(x, 3, 2) if pooled else x
    x = x.flatten(1)
    return f.relu(w.linear(f.relu(w.linear(x))))


PORTS: dict[str, Callable[[Weights, Tensor], Tensor]] = {
    "alexnet_htbd": alexnet_htbd,
    "lenet": lenet,
    "mobilenet": mobilenet,
    "mobilenetv2": mobilenetv2,
    "preact_resnet18": preact_resnet18,
    "resnet18": lambda w, x: resnet(w, x, (2, 2, 2, 2)),
    "resnet32_narrow": resnet32_narrow,
    "resnet34": lambda w, x: resnet(w, x, (3, 4, 6, 3)),
    "resnet34_strided": resnet34_strided,
    "resnet50": lambda w, x: resnet(w, x, (3, 4, 6, 3), wide=True),
    "resnext29": resnext29,
    "senet18": senet18,
    "shufflenetv2": shufflenetv2,
    "vgg11": lambda w, x: vgg(w, x, (1, 1, 2, 2, 2)),
    "vgg16_max": lambda w, x: vgg(w, x, (2, 2, 3, 3, 3), last=True),
    "vgg19": lambda w, x: vgg(w, x, (2, 2, 4, 4, 4)),
}
AT_64 = {"resnet34_strided", "vgg16_max"}  # the benchmark takes them at this side alone
QUICK = {"lenet", "resnet32_narrow"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in PORTS]
)
def test_features_are_those_of_the_code(name: str) -> None:
    side = 64 if name in AT_64 else 32
    body = ARCHITECTURES.make(name).build(10, side, 0).body.double().eval()
    rng = torch.Generator().manual_seed(0)
    for module in body.modules():
        if isinstance(module, _BatchNorm):
            for values in (module.running_mean, module.running_var, module.weight, module.bias):
                assert values is not None
                drawn = torch.rand(values.shape, generator=rng, dtype=torch.float64)
                values.data.copy_(drawn + 0.5 if values is module.running_var else drawn)
    x = torch.rand(2, 3, side, side, generator=rng, dtype=torch.float64)
    weights = Weights(body)
    with torch.no_grad():
        wanted, ours = PORTS[name](weights, x), body(x)
    assert weights.left == 0, "layers that the code does not have"
    assert float(wanted.std()) > 0
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
