"""UEraser: its steps against what they should do, and the losses made of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images, to_uint8
from raygrid.core.spec import parse_chain
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import Defense
from raygrid.defenses.chain import Chain
from raygrid.nn.augment import ueraser as erasing
from raygrid.nn.augment.jpeg import recode
from raygrid.nn.augment.ueraser import Erasing
from raygrid.trials.artifacts import purify
from tests.conftest import toy
from tests.defenses.toys import batch, fit_context, rng, session, smooth
from tests.distributions import distance


def test_ueraser_lite_acts_once_or_every_epoch() -> None:
    lite, static = DEFENSES.make("ueraser_lite"), DEFENSES.make("ueraser_lite(static=true)")
    assert (lite.acts("purify"), lite.acts("augment")) == (False, True)
    assert (static.acts("purify"), static.acts("augment")) == (True, False)
    images = smooth(8)
    one, same, other = (purify(static, images, fit_context(s)).pixels for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    x, y = batch()
    assert torch.equal(static.augment(x, y, rng())[0], x)


# --- the augmentation ----------------------------------------------------------------------------


def some_steps(which: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out all steps but these, whatever their parameters."""
    steps = erasing._steps
    monkeypatch.setattr(erasing, "_steps", lambda how: steps(how)[which])


def test_plasma_happens_with_its_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    some_steps(slice(2), monkeypatch)
    x = torch.full((400, 3, 16, 16), 0.4)
    out = Erasing().erase(x, rng())
    untouched = (out == x).flatten(1).all(1).float().mean()
    assert untouched == pytest.approx(0.25, abs=0.06)
    assert torch.equal(Erasing(p=0.0).erase(x, rng()), x)


@pytest.mark.parametrize(("strength", "roughness"), [(0.5, 0.3), (0.3, 0.1)])
def test_plasma_is_drawn_from_its_ranges(
    strength: float, roughness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rough: list[Tensor] = []
    bright: list[Tensor] = []

    def flat(like: Tensor, drawn: Tensor, rng: torch.Generator) -> Tensor:
        rough.append(drawn)
        return torch.full_like(like, 0.75)

    def brightened(x: Tensor, maps: Tensor, intensity: Tensor) -> Tensor:
        bright.append(intensity)
        return x

    monkeypatch.setattr(erasing, "plasma", flat)
    monkeypatch.setattr(erasing, "brightened", brightened)
    made = Erasing(p=1.0, strength=strength, roughness=roughness)
    made.erase(torch.rand(1000, 3, 4, 4, generator=rng()), rng())
    assert distance(bright[0], strength, 1.0) < 0.06
    assert distance(rough[0], 0.3, 0.7) < 0.06
    assert distance(rough[1], roughness, 0.7) < 0.06
    assert (Erasing().strength, Erasing().roughness) == (0.5, 0.3)


def test_channels_of_half_of_the_images_are_shuffled(monkeypatch: pytest.MonkeyPatch) -> None:
    some_steps(slice(3), monkeypatch)
    x = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(1200, -1, 4, 4)
    order = Erasing(p=0.0).erase(x, rng())[:, :, 0, 0].argsort(1)
    found, counts = order.unique(dim=0, return_counts=True)
    assert len(found) == 6
    kept = counts[(found == torch.arange(3)).all(1)]
    assert kept / 1200 == pytest.approx(1 / 2 + 1 / 12, abs=0.05)
    assert (counts / 1200 - 1 / 12).abs().sort().values[:5].max() < 0.03


def test_a_batch_has_one_operation_and_each_image_its_strength() -> None:
    """Of an even gray image, rotation, shears and shifts alone make an uneven one: 5 of 12."""
    x, draws = torch.full((6, 3, 16, 16), 0.6), rng()
    moved = []
    for _ in range(48):
        out = Erasing(p=0.0).erase(x, draws).flatten(1)
        uneven = out.amax(1) - out.amin(1) > 1e-5
        assert uneven.all() or not uneven.any(), "an image has an operation of its own"
        moved.append(bool(uneven.all()))
        if moved[-1]:
            assert len(out.unique(dim=0)) == 6, "images share a strength"
    assert sum(moved) / 48 == pytest.approx(5 / 12, abs=0.15)


def test_jpeg_comes_first_or_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "_steps", lambda _: (lambda x, rng: 1 - x,))
    images = smooth(48)
    x = images.floats()
    qualities = torch.randint(10, 100, (48,), generator=rng()).tolist()
    first = torch.cat([recode(p[None], q) for p, q in zip(images.pixels, qualities, strict=True)])
    last = recode(255 - images.pixels, 10)
    for jpeg, expected in (("before", 255 - first), ("after", last), ("none", 255 - images.pixels)):
        lite = DEFENSES.make(f"ueraser_lite(jpeg={jpeg})")
        assert torch.equal(to_uint8(lite.augment(x, images.labels, rng())[0]), expected)
    assert min(qualities) < 20
    assert max(qualities) > 90


# --- the worst of several ------------------------------------------------------------------------


def test_ueraser_max_takes_the_worst_draw_of_each_image() -> None:
    x, y = batch(32)
    network = ARCHITECTURES.make("small_cnn").build(10, 32, 0).eval()
    maximum = DEFENSES.make("ueraser_max(repeats=3)")
    loss, logits = maximum.loss(network, x, y, rng())
    draws = rng()
    each = torch.stack(
        [
            nn.functional.cross_entropy(network(Erasing().erase(x, draws)), y, reduction="none")
            for _ in range(3)
        ]
    )
    assert torch.allclose(loss, each.amax(0).mean())
    assert torch.allclose(nn.functional.cross_entropy(logits, y), loss)
    two_pass, _ = DEFENSES.make("ueraser_max(repeats=3, two_pass=true)").loss(network, x, y, rng())
    assert torch.allclose(two_pass, loss)  # the same without batch statistics
    single, _ = DEFENSES.make("ueraser_max(repeats=1)").loss(network, x, y, rng())
    assert torch.allclose(single, each[0].mean())


def test_tiled_versions_are_one_batch() -> None:
    x, y = batch(8)
    networks = [ARCHITECTURES.make("small_cnn").build(10, 32, 0).train() for _ in range(2)]
    tiled = DEFENSES.make("ueraser_max(repeats=3, tiled=true)")
    loss, logits = tiled.loss(networks[0], x, y, rng())
    scores = networks[1](Erasing().erase(torch.cat([x, x, x]), rng()))
    hard = y.argmax(1).repeat(3)
    each = nn.functional.cross_entropy(scores, hard, reduction="none").view(3, 8)
    assert torch.allclose(loss, each.amax(0).mean())
    assert torch.equal(logits, scores[each.argmax(0) * 8 + torch.arange(8)])
    for one, other in zip(networks[0].buffers(), networks[1].buffers(), strict=True):
        assert torch.equal(one, other), "batch statistics are not those of one batch"
    single, alone = (
        DEFENSES.make(f"ueraser_max(repeats=1, tiled={t})").loss(networks[0], x, y, rng())[0]
        for t in ("false", "true")
    )
    assert torch.equal(single, alone)


def test_ueraser_without_augmentation_is_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Erasing, "erase", lambda self, x, rng: x)
    x, y = batch(32)
    network = ARCHITECTURES.make("small_cnn").build(10, 32, 0).train()
    plain, _ = Defense().loss(network, x, y, rng())
    for settings in ("", "(two_pass=true)", "(tiled=true)"):
        loss, _ = DEFENSES.make(f"ueraser_max{settings}").loss(network, x, y, rng())
        assert torch.allclose(loss, plain)


def test_ueraser_max_turns_to_lite() -> None:
    chain = Chain.make(parse_chain("cutout+ueraser_max(lite_after=2, p=0.3)"))
    assert chain.during(1) is chain
    assert str(chain.during(2)) == "cutout+ueraser_lite(p=0.3)"
    rest = "jpeg=after, p=1.0, roughness=0.1, strength=0.3"
    chain = Chain.make(parse_chain(f"ueraser_max(lite_after=0, tiled=true, {rest})"))
    assert str(chain.during(0)) == f"ueraser_lite({rest})"
    assert Chain.make(parse_chain("ueraser_max")).during(10**6).links[0].id == "ueraser_max"
    run = session(Chain.make(parse_chain("ueraser_max(repeats=2, lite_after=1)")), toy(32))
    lite = session(Chain.make(parse_chain("ueraser_lite")), toy(32))
    lite.load_state_dict(run.state_dict())
    assert run.epoch(1) == lite.epoch(1)


# --- stored --------------------------------------------------------------------------------------


def test_stored_batches_are_drawn_and_put_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders come class by class: no class may have an operation of its own."""
    sizes: list[int] = []

    def numbered(self: Erasing, x: Tensor, rng: torch.Generator) -> Tensor:
        """The number of the batch in the place of the third channel."""
        sizes.append(len(x))
        return torch.cat([x[:, :2], torch.full_like(x[:, 2:], len(sizes) / 255)], 1)

    monkeypatch.setattr(Erasing, "erase", numbered)
    n = 1000
    rows = torch.arange(n).view(n, 1, 1, 1).expand(n, 1, 2, 2)
    pixels = torch.cat([rows // 256, rows % 256, rows * 0], 1).to(torch.uint8)
    images = Images(pixels, torch.arange(n) // 250, 4)  # class by class
    static = DEFENSES.make("ueraser_lite(static=true)")
    out = purify(static, images, fit_context()).pixels
    assert torch.equal(out[:, :2], pixels[:, :2]), "an image is in the place of another"
    assert sizes == [512, 488]
    number = out[:, 2, 0, 0].long()
    table = torch.zeros(2, 4).index_put_((number - 1, images.labels), torch.ones(()), True)
    assert (table / table.sum(1, keepdim=True) - 0.25).abs().max() < 0.15
    sizes.clear()
    other = purify(static, images, fit_context(1)).pixels
    assert not torch.equal(other[:, 2], out[:, 2])
