"""UEraser: its steps against what they should do, and the losses made of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raygrid import erasing
from raygrid.architectures import ARCHITECTURES
from raygrid.artifacts import purify
from raygrid.data import Images, to_uint8
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import Chain, Defense
from raygrid.spec import parse_chain
from tests.conftest import toy
from tests.test_defenses import batch, rng, session, smooth, workshop


def test_ueraser_lite_acts_once_or_every_epoch() -> None:
    lite, static = DEFENSES.make("ueraser_lite"), DEFENSES.make("ueraser_lite(static=true)")
    assert (lite.acts("purify"), lite.acts("augment")) == (False, True)
    assert (static.acts("purify"), static.acts("augment")) == (True, False)
    images = smooth(8)
    one, same, other = (purify(static, images, workshop(s)).pixels for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    x, y = batch()
    assert torch.equal(static.augment(x, y, rng())[0], x)


def test_plasma_happens_with_its_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = erasing._steps(0.5)[:2]  # without the shuffle and without TrivialAugment
    monkeypatch.setattr(erasing, "_steps", lambda p: steps)
    x = torch.full((400, 3, 16, 16), 0.4)
    out = erasing.erase(x, rng(), 0.5)
    untouched = (out == x).flatten(1).all(1).float().mean()
    assert untouched == pytest.approx(0.25, abs=0.06)


def test_ueraser_jpeg_codes_each_image_with_its_own_quality() -> None:
    x = smooth(1).floats().expand(32, -1, -1, -1)
    coded = erasing.random_jpeg(x, rng())
    qualities = [torch.randint(10, 100, (32,), generator=rng()).tolist()][0]
    first = purify(DEFENSES.make(f"jpeg(quality={qualities[0]})"), smooth(1), workshop())
    assert torch.equal(to_uint8(coded[:1]), first.pixels)
    assert len(coded.flatten(1).unique(dim=0)) > 10


def test_ueraser_max_takes_the_worst_draw_of_each_image() -> None:
    x, y = batch(32)
    network = ARCHITECTURES.make("small_cnn").build(10, 32, 0).eval()
    maximum = DEFENSES.make("ueraser_max(repeats=3)")
    loss, logits = maximum.loss(network, x, y, rng())
    draws = rng()
    each = torch.stack(
        [
            nn.functional.cross_entropy(network(erasing.erase(x, draws, 0.5)), y, reduction="none")
            for _ in range(3)
        ]
    )
    assert torch.allclose(loss, each.amax(0).mean())
    assert torch.allclose(nn.functional.cross_entropy(logits, y), loss)
    two_pass, _ = DEFENSES.make("ueraser_max(repeats=3, two_pass=true)").loss(network, x, y, rng())
    assert torch.allclose(two_pass, loss)  # the same without batch statistics
    single, _ = DEFENSES.make("ueraser_max(repeats=1)").loss(network, x, y, rng())
    assert torch.allclose(single, each[0].mean())


def test_ueraser_without_augmentation_is_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raygrid.defenses.ueraser_max.erase", lambda x, *_: x)
    x, y = batch(32)
    network = ARCHITECTURES.make("small_cnn").build(10, 32, 0).train()
    plain, _ = Defense().loss(network, x, y, rng())
    for settings in ("", "(two_pass=true)"):
        loss, _ = DEFENSES.make(f"ueraser_max{settings}").loss(network, x, y, rng())
        assert torch.allclose(loss, plain)


def test_ueraser_max_turns_to_lite() -> None:
    chain = Chain.make(parse_chain("cutout+ueraser_max(lite_after=2, p=0.3)"))
    assert chain.during(1) is chain
    assert str(chain.during(2)) == "cutout+ueraser_lite(p=0.3)"
    assert Chain.make(parse_chain("ueraser_max")).during(10**6).links[0].id == "ueraser_max"
    run = session(Chain.make(parse_chain("ueraser_max(repeats=2, lite_after=1)")), toy(32))
    lite = session(Chain.make(parse_chain("ueraser_lite")), toy(32))
    lite.load_state_dict(run.state_dict())
    assert run.epoch(1) == lite.epoch(1)


def test_stored_batches_are_drawn_and_put_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders come class by class: no class may have an operation of its own."""
    sizes: list[int] = []

    def numbered(x: Tensor, *_: object) -> Tensor:
        """The number of the batch in the place of the third channel."""
        sizes.append(len(x))
        return torch.cat([x[:, :2], torch.full_like(x[:, 2:], len(sizes) / 255)], 1)

    monkeypatch.setattr("raygrid.defenses.ueraser_lite.erase", numbered)
    n = 1000
    rows = torch.arange(n).view(n, 1, 1, 1).expand(n, 1, 2, 2)
    pixels = torch.cat([rows // 256, rows % 256, rows * 0], 1).to(torch.uint8)
    images = Images(pixels, torch.arange(n) // 250, 4)  # class by class
    static = DEFENSES.make("ueraser_lite(static=true)")
    out = purify(static, images, workshop()).pixels
    assert torch.equal(out[:, :2], pixels[:, :2]), "an image is in the place of another"
    assert sizes == [128] * 7 + [104]
    number = out[:, 2, 0, 0].long()
    table = torch.zeros(8, 4).index_put_((number - 1, images.labels), torch.ones(()), True)
    assert (table / table.sum(1, keepdim=True) - 0.25).abs().max() < 0.15
    sizes.clear()
    other = purify(static, images, workshop(1)).pixels
    assert not torch.equal(other[:, 2], out[:, 2])
