"""What a network looks at, against networks whose answer can be written down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import nn

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.networks.network import Network
from raygrid.core.errors import DataError, SpecError
from raygrid.core.seeds import Stream
from raygrid.reports.analysis.explanation import find_layer, grad_cam, patches, shapley
from raygrid.reports.analysis.records import Victim
from raygrid.trials.resolve import resolve
from tests.conftest import toy


def by_hand(body: nn.Module, width: int, architecture: str = "small_cnn") -> Victim:
    """A network of 3 classes whose explanations can be written down."""
    spec = f"photo_digits/clean/standard/{architecture}/supervised/quick/0"
    network = Network(body, width, 3)
    generator = Stream("weights").generator()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    network.eval().requires_grad_(False)
    return Victim(resolve(spec, None), network, toy(40, 8, 3), toy(6, 8, 3))


def pooled() -> Victim:
    conv = nn.Conv2d(3, 5, 1)
    return by_hand(nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 5)


def test_grad_cam_is_the_weighted_sum_of_maps() -> None:
    """Behind a mean, the gradient of a score is the head's weight over the number of pixels."""
    victim = pooled()
    x, y = victim.test.floats(), victim.test.labels
    maps = victim.network.body[0](x)  # type: ignore[index]
    sums = torch.relu(torch.einsum("nc,nchw->nhw", victim.network.head.weight[y], maps))
    low, high = sums.amin((1, 2), keepdim=True), sums.amax((1, 2), keepdim=True)
    expected = torch.where(high > low, (sums - low) / (high - low).clamp_min(1e-12), 0.0)
    assert torch.allclose(grad_cam(victim, x, y, "body.0"), expected, atol=1e-4)
    assert torch.equal(grad_cam(victim, x, y), grad_cam(victim, x, y, "body.0"))


def linear() -> Victim:
    return by_hand(nn.Flatten(), 192)


def test_shapley_values_of_a_linear_network_are_known() -> None:
    victim = linear()
    x, y = victim.test.floats(), victim.test.labels
    weights = victim.network.head.weight[y].view_as(x)
    black = shapley(victim, x, y, "sampling", samples=2)
    patch = patches(8)[0, 0]
    each = (weights * x).sum(1)
    for number in range(4):
        inside = patch == number
        sums = each[:, inside].sum(1)
        assert torch.allclose(black[:, inside].sum(1), sums, atol=1e-3)
    scores = victim(x).gather(1, y[:, None]) - victim(0 * x).gather(1, y[:, None])
    assert torch.allclose(black.sum((1, 2)), scores.squeeze(1), atol=1e-3)
    gradient = shapley(victim, x, y, samples=400)
    mean = victim.clean.floats().mean(0)
    exact = (weights * (x - mean)).sum(1)
    assert torch.corrcoef(torch.stack([gradient.flatten(), exact.flatten()]))[0, 1] > 0.99
    assert torch.equal(gradient, shapley(victim, x, y, samples=400))


@pytest.mark.parametrize(
    ("estimator", "samples"), [("gradient", {"n_samples": 200}), ("sampling", {"n_samples": 25})]
)
def test_shapley_values_take_as_many_samples_as_planned(
    estimator: Literal["gradient", "sampling"],
    samples: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GradientShap over 200 points between the image and 100 clean ones; 25 orders of patches."""
    import captum.attr

    calls: list[dict[str, Any]] = []
    name = {"gradient": "GradientShap", "sampling": "ShapleyValueSampling"}[estimator]
    method = getattr(captum.attr, name)
    attribute = method.attribute

    def note(self: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        calls.append({**named, "given": given})
        return attribute(self, inputs, *given, **{**named, "n_samples": 2})

    monkeypatch.setattr(method, "attribute", note)
    victim = replace(linear(), clean=toy(150, 8, 3))
    shapley(victim, victim.test.floats()[:1], victim.test.labels[:1], estimator)
    assert [call["n_samples"] for call in calls] == [samples["n_samples"]]
    if estimator == "gradient":
        (black,) = calls[0]["given"]
        assert black.shape == (100, 3, 8, 8)
        assert calls[0]["stdevs"] == 0


def test_patches_are_sampled_against_a_black_or_a_mean_image() -> None:
    victim = linear()
    x, y = victim.test.floats(), victim.test.labels
    mean = victim.clean.floats().mean(0, keepdim=True)
    for baseline, image in (("zero", 0 * mean), ("mean", mean)):
        values = shapley(victim, x, y, "sampling", 2, baseline)  # type: ignore[arg-type]
        scores = (victim(x) - victim(image)).gather(1, y[:, None])
        assert torch.allclose(values.sum((1, 2)), scores.squeeze(1), atol=1e-3), baseline


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [
        ("mobilenetv2_unpatched", "features.13"),  # 14 ends in a single pixel, its inside does not
        ("mobilenetv2", "features"),
        ("small_resnet", "5"),
        ("small_googlenet", "5"),
        ("small_vgg", "0"),
        ("vgg11", "0.27"),  # before the last pooling
    ],
)
def test_grad_cam_looks_at_the_last_whole_block_by_default(architecture: str, layer: str) -> None:
    network = ARCHITECTURES.make(architecture).build(10, 32, 0).eval()
    victim = replace(pooled(), network=network)
    found = find_layer(victim, "", torch.rand(1, 3, 32, 32))
    assert found is network.body.get_submodule(layer)


def test_layers_that_are_no_maps_are_refused() -> None:
    x = torch.rand(1, 3, 8, 8)
    victim = pooled()
    for layer, says in (
        ("body.9", r"small_cnn: unknown layer 'body.9' \(did you mean 'body"),
        ("body.2", "layer body.2 of small_cnn makes no feature map; body.0 does"),
        ("head", "layer head of small_cnn makes no feature map"),
    ):
        with pytest.raises(DataError, match=says):
            find_layer(victim, layer, x)
    with pytest.raises(DataError, match="makes a feature map"):
        find_layer(linear(), "", x)
    transformer = by_hand(nn.Flatten(), 192, "vit_small")
    with pytest.raises(DataError, match="vit_small has no feature maps"):
        find_layer(transformer, "", x)


def test_without_captum_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    victim = pooled()
    for explain in (grad_cam, shapley):
        with pytest.raises(SpecError, match="captum: uv run --extra figures, or pip install"):
            explain(victim, victim.test.floats(), victim.test.labels)
