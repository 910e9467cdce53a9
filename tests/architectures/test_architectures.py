"""Every network: its size against published counts, its features, its weights, one step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import network_size, weights_nbytes
from raygrid.architectures.networks.network import Network
from raygrid.architectures.networks.vit import with_shifts
from raygrid.core.errors import SpecError
from raygrid.core.registry import Combination
from raygrid.core.seeds import forked
from raygrid.engine.grid import plan

# parameters for 10 classes, million multiply-accumulates at 32 and at 64 pixels, feature width
SIZES: dict[str, tuple[int, float, float | None, int]] = {
    "airbench": (1_971_640, 118.1, None, 256),
    "alexnet_fc": (1_756_426, 33, None, 192),
    "alexnet_htbd": (20_126_538, 43, None, 4096),
    "cait_small": (8_488_522, 477.4, None, 512),
    "densenet121": (6_956_298, 888.4, 3553.4, 1024),
    "dla34": (15_232_314, 911.4, 3645.6, 512),
    "dpn92": (34_998_602, 2085.4, 8341.4, 2688),
    "efficientnet_b0": (4_020_358, 32.0, 126.0, 1280),
    "googlenet": (5_602_474, 1451.0, 5804.1, 1024),
    "lenet": (62_006, 0.6517, None, 84),
    "linear": (30_720, 0.03072, 0.12288, 3072),
    "linear_product": (30_820, 0.03082, 0.12298, 10),
    "mobilenet": (3_217_226, 46.4, 185.4, 1024),
    "mobilenetv2": (2_296_922, 91.2, 364.7, 1280),
    "mobilenetv2_unpatched": (2_236_682, 6.1, None, 1280),
    "pnasnet5": (81_779_878, 882.9, 3531.6, 4320),
    "preact_resnet18": (11_171_146, 555.4, 2221.7, 512),
    "regnetx_200mf": (2_319_482, 220.9, 883.4, 368),
    "resnet18": (11_173_962, 555.4, 2221.7, 512),
    "resnet32_narrow": (464_154, 68.9, None, 64),
    "resnet34": (21_282_122, 1159.4, 4637.6, 512),
    "resnet34_strided": (21_289_802, 291.8, 1167.3, 512),
    "resnet50": (23_520_842, 1297.8, 5191.3, 2048),
    "resnext29": (4_774_218, 772.5, 3089.9, 1024),
    "senet18": (11_260_354, 555.5, None, 512),
    "shufflenetv2": (1_263_854, 45.0, 180.0, 1024),
    "small_airbench": (294_328, 24.09, None, 96),
    "small_alexnet": (137_642, 2.540, None, 64),
    "small_cait": (89_770, 1.224, None, 64),
    "small_cnn": (24_346, 1.586, 6.341, 64),
    "small_densenet": (24_250, 2.761, 11.04, 48),
    "small_googlenet": (18_210, 1.103, 4.412, 64),
    "small_mobilenet": (22_074, 1.625, 6.497, 64),
    "small_resnet": (78_042, 3.126, 12.501, 64),
    "small_senet": (78_545, 3.127, 12.501, 64),
    "small_vgg": (24_458, 2.802, 11.207, 64),
    "small_vit": (115_404, 1.893, None, 64),
    "timm": (11_181_642, 37.02, 148.05, 512),
    "two_layer": (9_470_986, 9.468, 151.1, 3072),
    "vgg11": (9_231_114, 152.8, 611, 512),
    "vgg11_narrow": (9_227_040, 152.8, None, 2),
    "vgg16": (14_728_266, 313.2, 1253, 512),
    "vgg16_max": (14_728_266, 313.2, 1253, 512),
    "vgg19": (20_040_522, 398.1, 1593, 512),
    "vit_small": (9_622_512, 647.2, None, 512),
}
# Seconds each on one core; their shapes are checked without numbers in the default tier too.
LARGE = {
    *("cait_small", "densenet121", "googlenet", "resnet34", "resnet50"),
    *("resnet34_strided", "senet18", "vgg16", "vgg16_max", "vgg19"),
    *("dla34", "dpn92", "pnasnet5", "preact_resnet18", "resnext29", "regnetx_200mf"),
    *("efficientnet_b0", "shufflenetv2", "timm"),
}
STEEP = {"dla34": 1e-3, "pnasnet5": 1e-5}
"""Steps that go down where the usual one goes too far; the gradient of pnasnet5 has norm 1,230."""
BUILT = [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in ARCHITECTURES]
# A second each on one core, even without numbers.
DEEP = {"dla34", "dpn92", "efficientnet_b0", "pnasnet5", "regnetx_200mf", "shufflenetv2", "timm"}
SHAPED = [pytest.param(n, marks=[pytest.mark.slow] * (n in DEEP)) for n in ARCHITECTURES]


def network(name: str, side: int = 32, seed: int = 0, classes: int = 10) -> Network:
    return ARCHITECTURES.make(name).build(classes, side, seed)


def images(n: int, side: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(n))


def millions(name: str, side: int) -> float:
    """Multiply-accumulates of one image, counted on shapes alone."""
    with torch.device("meta"):
        net = network(name, side).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, side, side))
    return counter.get_total_flops() / 2e6


def test_every_network_of_the_benchmark_is_here() -> None:
    """The files of lafeat/apbench@9a6fb91 (nets/), by the networks that stand for them."""
    files = "cait_small densenet dla dpn efficientnet googlenet lenet mobilenet mobilenetv2 "
    files += "pnasnet preact_resnet regnet resnet resnext senet shufflenetv2 vgg vit_small"
    for name in files.split():
        assert any(known.startswith(name) for known in ARCHITECTURES), name


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in DEEP)) for n in SIZES]
)
def test_sizes_are_the_published_ones(name: str) -> None:
    parameters, at_32, at_64, width = SIZES[name]
    with torch.device("meta"):
        net = network(name)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.width == net.head.in_features == width
    assert millions(name, 32) == pytest.approx(at_32, rel=8e-3)
    if at_64 is not None:
        assert millions(name, 64) == pytest.approx(at_64, rel=5e-3)


@pytest.mark.parametrize("name", SHAPED)
def test_the_declared_cost_is_the_counted_one(name: str) -> None:
    with torch.device("meta"):
        net = network(name)
    assert net.width == net.head.in_features
    assert ARCHITECTURES[name].gflop == pytest.approx(2 * millions(name, 32) / 1000, rel=0.03)


@pytest.mark.parametrize("name", BUILT)
def test_features_and_scores_at_both_sizes(name: str) -> None:
    smallest, largest = ARCHITECTURES[name].sizes
    for side in (side for side in (32, 64) if smallest <= side <= largest):
        net = network(name, side, classes=7).eval()
        x = images(2, side)
        with torch.no_grad():
            features = net.features(x)
            assert features.shape == (2, net.width)
            assert torch.allclose(net(x), net.head(features), atol=1e-5)
            assert net(x).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_side_that_is_not_refused_is_taken(name: str) -> None:
    """DLA's trees do not join at 28 pixels."""
    kind = ARCHITECTURES.make(name)
    for side in (16, 28, 32, 33, 64, 96, 111, 112, 120, 128, 224):
        if kind.skip(cast(Combination, SimpleNamespace(image_size=side))) is None:
            with torch.device("meta"):
                scores = kind.build(7, side, 0).eval()(torch.empty(2, 3, side, side))
            assert scores.shape == (2, 7), side


@pytest.mark.parametrize("name", BUILT)
def test_the_seed_decides_the_weights_and_nothing_global_is_drawn(name: str) -> None:
    before = torch.random.get_rng_state()
    one = network(name, seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    same, other = network(name, seed=1).state_dict(), network(name, seed=2).state_dict()
    assert all(torch.equal(tensor, same[key]) for key, tensor in one.items())
    assert not torch.equal(one["head.weight"], other["head.weight"])
    body = [k for k in one if k.startswith("body") and k.endswith("weight") and one[k].std()]
    assert body or name == "linear"  # which is its head alone
    assert not any(torch.equal(one[k], other[k]) for k in body[:1])


@pytest.mark.parametrize("name", BUILT)
def test_a_step_lowers_the_loss(name: str) -> None:
    net = network(name).train()
    x, y = images(8), torch.arange(8)

    def loss() -> torch.Tensor:
        with forked(0):  # the same dropout before and after
            return nn.functional.cross_entropy(net(x), y)

    before = loss()
    before.backward()
    grads = [p.grad for p in net.parameters()]
    assert all(g is not None for g in grads), "a parameter takes no part"
    torch.optim.SGD(net.parameters(), lr=STEEP.get(name, 1e-2)).step()
    assert loss() < before


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("vgg11", "images of 32 to 224 pixels, not 16"),
        ("mobilenetv2_unpatched", "images of 32 to 224 pixels, not 16"),
    ],
)
def test_impossible_sizes_are_skipped(
    spec: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raygrid.datasets.photo_digits import PhotoDigits

    monkeypatch.setattr(PhotoDigits, "image_size", 16)
    made = plan([f"photo_digits/clean/standard/{spec}/supervised/quick/0"], None)
    assert says in made.skips[0].reason


@pytest.mark.parametrize(
    ("side", "says"), [(36, "divisible by 8, not 36"), (224, "16 to 64 pixels, not 224")]
)
@pytest.mark.parametrize("name", ["vit_small", "cait_small"])
def test_transformers_take_whole_patches(
    name: str, side: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raygrid.datasets.photo_digits import PhotoDigits

    monkeypatch.setattr(PhotoDigits, "image_size", side)
    made = plan([f"photo_digits/clean/standard/{name}/supervised/quick/0"], None)
    assert says in made.skips[0].reason


@pytest.mark.parametrize("name", ["small_cnn", "small_resnet"])
def test_bad_widths_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match="width is 0"):
        ARCHITECTURES.make(f"{name}(width=0)")


def test_shifted_copies_move_by_a_pixel() -> None:
    x = images(1, 4)
    out = with_shifts(x)
    assert torch.equal(out[:, :3], x)
    assert torch.equal(out[:, 3:6, :, 1:], x[:, :, :, :-1])
    assert torch.equal(out[:, 6:9, :, :-1], x[:, :, :, 1:])
    assert torch.equal(out[:, 9:12, 1:], x[:, :, :-1])
    assert torch.equal(out[:, 12:, :-1], x[:, :, 1:])
    assert out[:, 3:6, :, 0].sum() == 0


def test_no_token_of_the_vit_attends_to_itself() -> None:
    layer = network("vit_small").eval().body.layers[0]  # type: ignore[union-attr, index]
    tokens = torch.randn(1, 65, 512, generator=torch.Generator().manual_seed(0))
    moved = tokens.clone()
    moved[0, 5] += 1.0
    change = (layer._attend(moved) - layer._attend(tokens)).norm(dim=2)[0]
    # Token 5 asks another question of the others' values; alone, its own value is not among them.
    with torch.no_grad():
        layer.qkv.weight[: 2 * 512] = 0  # questions and keys are gone: plain means of the others
    alone = (layer._attend(moved) - layer._attend(tokens)).norm(dim=2)[0]
    assert change.max() > 0
    assert alone[5] < 1e-5
    assert (alone[torch.arange(65) != 5] > 1e-3).all()


def test_the_vit_temperature_starts_at_the_usual_one() -> None:
    layer = network("vit_small").body.layers[0]  # type: ignore[union-attr, index]
    assert layer.log_scale.exp().item() == pytest.approx(64**-0.5)


def body(name: str) -> Any:
    """The layers of a network in training mode."""
    return network(name).train().body


def test_attention_weights_are_not_dropped_in_training() -> None:
    """The softmax of the scores times the values, as in apbench@9a6fb91 (nets/vit_small.py)."""
    layer = body("small_vit").layers[0]
    tokens = torch.randn(2, 17, 64, generator=torch.Generator().manual_seed(0))
    q, k, v = (part.unflatten(2, (4, 16)).transpose(1, 2) for part in layer.qkv(tokens).chunk(3, 2))
    scores = q @ k.transpose(2, 3) * layer.log_scale.exp()
    scores.diagonal(dim1=2, dim2=3).fill_(-torch.inf)
    wanted = (scores.softmax(3) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer._attend(tokens), wanted, rtol=1e-4, atol=1e-5)


def test_talking_heads_are_not_dropped_in_training() -> None:
    """Heads mixed before and after the softmax: apbench@9a6fb91 (nets/cait_small.py)."""
    layer = body("small_cait").patch_layers[0]
    layer.out[1].p = 0.0  # the dropout that the original has, after the projection
    tokens = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(0))
    q, k, v = (
        part.unflatten(2, (4, 16)).transpose(1, 2)
        for part in (layer.query(tokens), *layer.key_value(tokens).chunk(2, 2))
    )
    scores = (q @ k.transpose(2, 3)) * 16**-0.5
    weights = (layer.talk_before.T @ scores.flatten(2)).view_as(scores).softmax(3)
    mixed = (layer.talk_after.T @ weights.flatten(2)).view_as(scores) @ v
    wanted = layer.out[0](mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer._attend(tokens, tokens), wanted, rtol=1e-4, atol=1e-5)


def test_cait_leaves_out_layers_in_training_only() -> None:
    cait = body("cait_small")
    layers = cait.patch_layers
    with forked(0):
        counts = {len(cait._present(layers, None)) for _ in range(200)}
    assert counts > {6, 5}
    cait.eval()
    assert {len(cait._present(layers, None)) for _ in range(20)} == {6}


def test_cait_as_printed_leaves_out_layers_at_test_time() -> None:
    """One layer in twenty of every batch, the same ones whenever the batch is shown."""
    batches = torch.rand(400, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    dropping, ran = body("cait_small(drop_at_test=true)").eval(), list[int]()
    for layer in (*dropping.patch_layers, *dropping.class_layers):
        layer.forward = lambda x, *others: (ran.append(0), x)[1]
    left = []
    for batch in batches:
        ran.clear()
        dropping(batch)
        left.append(len(ran))
    missing = 8 - torch.tensor(left).float()
    assert missing.mean() == pytest.approx(8 * 0.05, abs=0.1)
    assert missing.max() >= 2
    with torch.no_grad():
        whole, dropping = body("cait_small").eval(), body("cait_small(drop_at_test=true)").eval()
        state = torch.get_rng_state()
        outputs = [dropping(batches[missing.argmax()]) for _ in range(2)]
        assert torch.equal(*outputs)
        assert torch.equal(torch.get_rng_state(), state)
        assert not torch.equal(outputs[0], whole(batches[missing.argmax()]))
        assert torch.equal(dropping(batches[missing.argmin()]), whole(batches[missing.argmin()]))


def test_response_norm_is_over_nine_channels() -> None:
    """TensorFlow's depth radius 4 with alpha 0.001 / 9 a channel, 1 added, to the power 0.75."""
    norm = next(m for m in network("alexnet_fc").modules() if isinstance(m, nn.LocalResponseNorm))
    out = norm(torch.full((1, 64, 1, 1), 30.0)).flatten()
    for channel, neighbors in ((0, 5), (1, 6), (4, 9), (31, 9), (63, 5)):
        wanted = 30.0 / (1 + 0.001 / 9 * neighbors * 900) ** 0.75
        assert out[channel].item() == pytest.approx(wanted, rel=1e-5)


def test_what_is_left_of_large_images_is_reduced_by_its_maximum() -> None:
    """Two max-pools end VGG-16 in poisoning-benchmark@97a67ae; at 32 pixels nothing is left."""
    plain, largest = body("vgg16").eval(), body("vgg16_max").eval()
    with torch.no_grad():
        maps = largest[0](images(2, 64))
        assert maps.shape == (2, 512, 2, 2)
        assert torch.equal(largest(images(2, 64)), nn.functional.max_pool2d(maps, 2).flatten(1))
        assert torch.equal(largest(images(2, 32)), plain(images(2, 32)))


def test_the_strided_resnet_halves_images_and_pools_nothing() -> None:
    layers = body("resnet34_strided").eval()
    shapes = {}
    for name in ("conv1", "maxpool", "layer1", "layer4"):
        keep = lambda m, x, out, name=name: shapes.update({name: tuple(out.shape[1:])})  # noqa: E731
        getattr(layers, name).register_forward_hook(keep)
    with torch.no_grad():
        layers(images(1, 64))
    half = (64, 32, 32)
    assert shapes == {"conv1": half, "maxpool": half, "layer1": half, "layer4": (512, 4, 4)}


@pytest.mark.parametrize("name", SHAPED)
def test_the_size_that_a_plan_tells_is_that_of_the_weights(name: str) -> None:
    """Within 3 %: the stated size is of 10 classes and three digits."""
    made = ARCHITECTURES.make(name)
    side = min(max(32, made.sizes[0]), made.sizes[1])
    counted = network_size(made, 10, side).nbytes
    assert weights_nbytes(made, 10, side) == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize("name", SHAPED)
def test_a_norm_has_a_scale_and_a_bias_or_neither(name: str) -> None:
    """CUDA's backward of one with a bias alone gives a gradient of no length, which raises."""
    with torch.device("meta"):
        net = network(name)
    for part in net.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            assert (part.weight is None) == (part.bias is None)
