"""Attacks by D-VAE: what they keep of the base attack, and what they put on clean images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raygrid.api.run_grid import Options, run_grid
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common import disentangled
from raygrid.attacks.common.disentangled import Disentangled
from raygrid.core.budget import Budget
from raygrid.core.enforcement import enforce
from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.datasets import DATASETS
from raygrid.engine.grid import plan
from raygrid.nn.context import FitContext
from raygrid.nn.vae import Parts, VaeFit
from raygrid.nn.vae.networks import AutoEncoder
from raygrid.storage.store import Store
from raygrid.trials.artifacts import PoisonArtifact
from raygrid.trials.artifacts.poison import poison_of
from tests import plugin
from tests.conftest import toy

pytestmark = pytest.mark.usefixtures("undrawn")

assert plugin.CARD


class Known(AutoEncoder):
    """Says that the perturbation is the label times 0.1, less half the image."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, rng: torch.Generator) -> Parts:
        shift = 0.1 * y.view(-1, 1, 1, 1) - x / 2
        return Parts(x, shift, torch.zeros(()))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[VaeFit, Images]]:
    """What is fitted, with known networks in place of learned ones."""
    seen: list[tuple[VaeFit, Images]] = []

    def known(how: VaeFit, images: Images, fit_context: FitContext) -> AutoEncoder:
        seen.append((how, images))
        return Known(how.plan)

    monkeypatch.setattr(disentangled, "fit", known)
    return seen


def context(name: str) -> AttackContext:
    return AttackContext(Stream("poison", ("toy", name, 0)))


def base(images: Images, part: str = "lsp") -> torch.Tensor:
    """The base attack's pixels as the grid makes them."""
    attack = ATTACKS.make(part)
    return attack.poison(images, context(attack.id)).pixels


def shown_there(clean: Images, found: torch.Tensor) -> torch.Tensor:
    """Stored perturbations as the code puts them on images: in levels, clipped, cut off.

    yuyi-sd/D-VAE@9d62e4c: main_vae_disentangle.py keeps them in perturbation0.pt, PoisonCIFAR10 of
    dataset.py reads them.
    """
    noise = found.mul(255).clamp(-255, 255)
    return (clean.pixels.float() + noise).clamp(0, 255).to(torch.uint8)


def test_recon_adds_what_is_found_in_the_grids_own_poison(
    images: Images, fits: list[tuple[VaeFit, Images]]
) -> None:
    made = ATTACKS.make("dvae_recon(base=lsp, epochs=7)").poison(images, context("dvae_recon"))
    ((how, fitted),) = fits
    poisoned = base(images)
    assert torch.equal(fitted.pixels, poisoned)
    assert (how.limit, how.epochs, how.late) == (1.0, 7, 11)
    found = 0.1 * images.labels.view(-1, 1, 1, 1) - poisoned.float() / 255 / 2
    assert torch.equal(made.pixels, to_uint8(images.floats() + found))
    rounded = made.pixels.short() - shown_there(images, found).short()
    assert set(rounded.unique().tolist()) == {0, 1}, "rounded here, cut off there"


def test_a_budget_bounds_what_is_found(images: Images, fits: list[tuple[VaeFit, Images]]) -> None:
    part = "dvae_recon(base=lsp, base_budget=l2:3, budget=8/255)"
    made = ATTACKS.make(part).poison(images, context("dvae_recon"))
    poisoned = base(images, "lsp(budget=l2:3)")
    assert torch.equal(fits[0][1].pixels, poisoned)
    found = 0.1 * images.labels.view(-1, 1, 1, 1) - poisoned.float() / 255 / 2
    assert torch.equal(made.pixels, enforce(images.pixels, found, Budget("linf", 8 / 255)))


def test_grow_keeps_the_seed_and_marks_all_others(fits: list[tuple[VaeFit, Images]]) -> None:
    images = toy(100)
    made = context("dvae_grow")
    grown = ATTACKS.make("dvae_grow(base=lsp, share=0.2)").poison(images, made).pixels
    poisoned = base(images)
    kept = (grown == poisoned).flatten(1).all(1)
    assert int(kept.sum()) == made.facts["seed_images"] == 20
    assert torch.equal(fits[0][1].pixels, poisoned[kept])
    assert torch.equal(fits[0][1].labels, images.labels[kept])
    x = images.floats()
    marked = to_uint8(x + 0.1 * images.labels.view(-1, 1, 1, 1) - x / 2)
    assert torch.equal(grown[~kept], marked[~kept])
    found = 0.1 * images.labels.view(-1, 1, 1, 1) - x / 2
    rounded = (grown.short() - shown_there(images, found).short())[~kept]
    assert set(rounded.unique().tolist()) == {0, 1}, "rounded here, cut off there"


@pytest.mark.parametrize(
    ("settings", "epochs", "late"),
    [
        ("steps=epochs", 6, 11),
        ("steps=matched", 60, 110),
        ("steps=matched, batch_size=32", 120, 220),
    ],
)
def test_a_few_images_get_as_many_updates_as_all(
    settings: str, epochs: int, late: int, fits: list[tuple[VaeFit, Images]]
) -> None:
    """1,280 images are 10 updates an epoch, 5 % of them 1; in batches of 32 they are 40 and 2."""
    attack = ATTACKS.make(f"dvae_grow(base=lsp, share=0.05, epochs=6, {settings})")
    attack.poison(toy(1280, 4), context("dvae_grow"))
    assert (fits[0][0].epochs, fits[0][0].late) == (epochs, late)


def test_a_grid_makes_the_base_once_and_it_is_its_own(tmp_path: Path) -> None:
    """Whoever asks for shares of one poison and for that poison has it made once, alike."""
    attacks = [f"dvae_grow(base=regions, epochs=1, share={s}, shrink=16)" for s in (0.2, 0.4)]
    specs = [f"dots/{a}/none/small_cnn/supervised/brief/0" for a in ("regions", *attacks)]
    outcome = run_grid(specs, Options(tmp_path, tmp_path, executor="inline", quiet=True))
    assert not outcome.failed
    artifacts = outcome.plan.artifacts
    poisons = {a.label: a for a in artifacts if isinstance(a, PoisonArtifact)}
    assert len(poisons) == 3
    grown = [poison for label, poison in poisons.items() if "grow" in label]
    assert all(poison.needs() == (poison.data, poisons["regions on dots"]) for poison in grown)
    store = Store(tmp_path / "store")
    train = DATASETS.make("dots").load(tmp_path).train
    for poison in grown:
        alone = context("dvae_grow")
        alone.stream = Stream("poison", ("dots", "dvae_grow", 0))
        kept = store.get("poison", poison.key)
        assert kept is not None
        by_itself = poison.attack.poison(train, alone)
        assert torch.equal(poison_of(kept).pixels, by_itself.pixels)


def test_the_key_follows_the_base_attack() -> None:
    def key(part: str) -> object:
        return ATTACKS.make(part).resolved()

    assert key("dvae_recon") == key("dvae_recon(base=em, base_budget=8/255)")
    assert key("dvae_recon(base=lsp)") != key("dvae_recon(base=lsp, base_budget=l2:2)")
    tap = ATTACKS.make("dvae_recon(base=tap)")
    assert isinstance(tap, Disentangled)
    assert tap.needs() == ATTACKS.make("tap").needs() != ()


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("dvae_recon(base=taps)", "did you mean 'tap'"),
        ("dvae_recon(base=clean)", "allowed are attacks that perturb by themselves"),
        ("dvae_recon(base=dvae_grow)", "allowed are attacks that perturb by themselves"),
        ("dvae_recon(base=lsp, base_budget=8/255)", "lsp takes l2"),
        ("dvae_recon(epochs=0)", "epochs is 0"),
        ("dvae_recon(batch_size=1)", "batch_size is 1, allowed are 2 and more"),
        ("dvae_recon(shrink=3)", "shrink is 3, allowed are 1, 2, 4, 8, 16; the nearest is 2"),
        ("dvae_recon(rate=-1)", "rate is -1.0"),
        ("dvae_grow(share=1)", "share is 1.0, allowed are numbers between 0 and 1"),
    ],
)
def test_bad_parameters_are_refused(part: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        ATTACKS.make(part)
    assert says in str(caught.value)


def test_too_few_images_and_odd_sides_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from raygrid.datasets.photo_digits import PhotoDigits

    with pytest.raises(DataError, match=r"share 0\.01 of 64 images is 1, 2 are needed"):
        ATTACKS.make("dvae_grow(base=lsp)").poison(toy(64), context("dvae_grow"))
    with pytest.raises(DataError, match="divisible by 2, not 17"):
        ATTACKS.make("dvae_recon(base=lsp)").poison(toy(4, 17), context("dvae_recon"))
    monkeypatch.setattr(PhotoDigits, "image_size", 33)
    made = plan(["photo_digits/dvae_recon/none/small_cnn/supervised/quick/0"], None)
    assert "dvae_recon takes sides divisible by 2, not 33" in made.skips[0].reason
