"""DC's noise network and its look-ahead beside kingfengji/DeepConfuse@1f49274 (CIFAR)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.unet import UNet
from raygrid.attacks.dc import Dc, Search
from raygrid.core.seeds import Stream
from tests.conftest import toy


def double_conv(layers: nn.Module, x: Tensor, widths: tuple[int, ...] = ()) -> Tensor:
    """models/unet.py: twice a 3x3 convolution, batch norm and ReLU, with the weights of `layers`.

    widths: of the parts of x in the order of ours, which are the other way round there.
    """
    convs = [m for m in layers.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in layers.modules() if isinstance(m, nn.BatchNorm2d)]
    for conv, norm in zip(convs, norms, strict=True):
        weight = conv.weight
        if widths and conv is convs[0]:
            weight = torch.cat(weight.split(widths, 1)[::-1], 1)
        x = f.relu(norm(f.conv2d(x, weight, conv.bias, padding=1)))
    return x


def noise_of_the_code(net: UNet, x: Tensor) -> Tensor:
    kept = [double_conv(net.down[0], x)]
    for layers in net.down[1:]:
        kept.append(double_conv(layers, f.avg_pool2d(kept[-1], 2)))
    x = kept.pop()
    for layers in net.up:
        skipped = kept.pop()
        x = f.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        widths = skipped.shape[1], x.shape[1]
        x = double_conv(layers, torch.cat([x, skipped], 1), widths)
    conv, norm = net.last[0], net.last[1]
    assert isinstance(conv, nn.Conv2d)
    return torch.tanh(norm(f.conv2d(x, conv.weight, conv.bias)))


def test_the_noise_network_of_dc_is_that_of_its_code() -> None:
    torch.manual_seed(0)
    net, x = UNet(8, 4).double(), torch.rand(3, 3, 16, 16).double()
    other = copy.deepcopy(net)
    torch.testing.assert_close(net(x), noise_of_the_code(other, x))
    torch.testing.assert_close(net.eval()(x), noise_of_the_code(other.eval(), x))


@pytest.mark.slow
def test_a_trial_of_dc_is_an_epoch_of_its_code() -> None:
    """train.py: before each classifier's step the copy goes up the clean loss after that step.

    Noise of the fixed network in eval mode; another network of the same weights takes the step, so
    that its clean pass has batch statistics of its own; SGD without momentum, Adam on the copy.
    """
    part = "dc(surrogate=small_cnn, width=8, levels=3, batch_size=16, inner_epochs=2, "
    attack = ATTACKS.make(f"{part}classifier_lr=0.1, generator_lr=0.001, held_out=0.25)")
    assert isinstance(attack, Dc)
    context = AttackContext(Stream("originals"))
    search = Search(attack, toy(64), context)
    fixed, copied = copy.deepcopy(search.generator), copy.deepcopy(search.learner).train()
    before, train = copy.deepcopy(copied), search.train
    search.judge = lambda number: None  # type: ignore[method-assign]
    search.trial(0)
    classifier = search.fresh(0)
    optimizer = torch.optim.Adam(copied.parameters(), lr=0.001)
    for rows in search.batches(0):
        x, y = train.floats(rows), train.labels[rows]
        shown = (x + attack.radius * copied(x)).clamp(0, 1)
        loss, weights = f.cross_entropy(classifier(shown), y), list(classifier.parameters())
        slopes = torch.autograd.grad(loss, weights, create_graph=True)
        moved = {
            name: weight - 0.1 * slope
            for (name, weight), slope in zip(classifier.named_parameters(), slopes, strict=True)
        }
        stepped = copy.deepcopy(classifier)
        optimizer.zero_grad()
        (-f.cross_entropy(torch.func.functional_call(stepped, moved, (x,)), y)).backward()
        optimizer.step()
        with torch.no_grad():
            noise = attack.radius * fixed(x)
        loss = f.cross_entropy(classifier((x + noise).clamp(0, 1)), y)
        with torch.no_grad():
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.sub_(slope, alpha=0.1)
    with torch.no_grad():
        x = train.floats()
        ours, theirs, first = (net.eval()(x) for net in (search.learner, copied, before))
    change = float((theirs - first).abs().max())
    assert change > 0.02
    assert float((ours - theirs).abs().max()) < 1e-3 * change
