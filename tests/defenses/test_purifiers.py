"""Purifiers that fit a network: their parts against closed forms, and what they do to poison."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.core.errors import DataError, DivergedError, SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import FitContext
from raygrid.defenses.dvae import DVae
from raygrid.defenses.dvae_detect import DVaeDetect
from raygrid.defenses.vae import Vae
from raygrid.engine.grid import plan
from raygrid.nn.trainer import Trainer
from raygrid.nn.vae import (
    Parts,
    VaeSize,
    cleaned,
    fitting,
    in_chunks,
    marked,
    relative_cost,
)
from raygrid.nn.vae.autoencoders import rate_loss
from raygrid.nn.vae.fitting import objective
from raygrid.nn.vae.networks import AutoEncoder, divergence
from raygrid.protocols import PROTOCOLS
from raygrid.trials.artifacts import purify
from raygrid.trials.evaluate import detection
from tests.conftest import toy
from tests.defenses.toys import fit_context, refused, smooth
from tests.nn.toys import rng


def mse(one: Images, two: Images) -> float:
    return float((one.floats() - two.floats()).square().mean())


# --- the networks --------------------------------------------------------------------------------


def test_the_networks_have_the_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        dvae, vae = AutoEncoder(VaeSize(32, 10)), AutoEncoder(VaeSize(32))
        per_class = AutoEncoder(VaeSize(32, 100, spatial=False))
        deep = AutoEncoder(VaeSize(224, deep=True))

    def count(*modules: torch.nn.Module) -> int:
        return sum(p.numel() for m in modules for p in m.parameters())

    assert count(dvae) == 1_181_382
    assert count(dvae.encoder, dvae.mean, dvae.log_var, dvae.project) == 478_912
    assert count(dvae.decoder) == count(dvae.branch) == 187_395
    assert dvae.table.numel() == 327_680
    assert count(vae) == 478_912 + 187_395
    assert per_class.table.shape == (100, 128, 1, 1)
    convolutions = [m for m in deep.encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 15


@pytest.mark.parametrize("plan_", [VaeSize(32, 10), VaeSize(224, 10, deep=True, spatial=False)])
@pytest.mark.parametrize("shrink", [2, 16])
def test_a_shrunk_network_has_a_part_of_every_channel(plan_: VaeSize, shrink: int) -> None:
    with torch.device("meta"):
        whole, small = AutoEncoder(plan_), AutoEncoder(replace(plan_, shrink=shrink))
    pairs = zip(whole.named_parameters(), small.named_parameters(), strict=True)
    for (name, large), (same, little) in pairs:
        assert name == same
        for one, other in zip(large.shape, little.shape, strict=True):
            assert one == other * shrink or (one == other and (one <= 16 or name == "table"))


def test_a_shrunk_network_takes_and_gives_images() -> None:
    parts = AutoEncoder(VaeSize(32, 3, shrink=16))(
        torch.rand(2, 3, 32, 32), torch.tensor([0, 2]), rng()
    )
    assert parts.image.shape == (2, 3, 32, 32)
    assert parts.perturbation is not None
    assert relative_cost(1) == 1
    assert relative_cost(4) == pytest.approx(0.125)
    for name in ("vae", "dvae", "dvae_detect"):
        with pytest.raises(
            SpecError, match="shrink is 5, allowed are 1, 2, 4, 8, 16; the nearest is 4"
        ):
            DEFENSES.make(f"{name}(shrink=5)")
        whole, part = (DEFENSES.make(f"{name}(shrink={s})") for s in (1, 4))
        assert part.purify_cost < whole.purify_cost


def test_a_pass_costs_what_the_paper_says() -> None:
    network = AutoEncoder(VaeSize(32, 10)).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 3, 32, 32), torch.zeros(1).long(), rng())
    assert counter.get_total_flops() / 2e6 == pytest.approx(419, abs=0.5)


@pytest.mark.parametrize(
    ("plan_", "grid"),
    [(VaeSize(32, 3), 16), (VaeSize(64, 3, spatial=False), 32), (VaeSize(48, deep=True), 6)],
)
def test_outputs_have_the_shape_and_range_of_images(plan_: VaeSize, grid: int) -> None:
    network = AutoEncoder(plan_)
    x = torch.rand(2, 3, plan_.side, plan_.side, generator=rng())
    assert plan_.grid == grid
    assert network.encoder(x).shape[-2:] == (grid, grid)
    parts = network(x, torch.tensor([0, 2]), rng())
    assert parts.image.shape == x.shape
    assert parts.image.min() >= 0
    assert parts.image.max() <= 1
    assert (parts.perturbation is None) == (plan_.classes == 0)


def test_the_perturbation_depends_on_the_label_and_the_image_does_not() -> None:
    network = AutoEncoder(VaeSize(16, 3)).eval()
    x = torch.rand(1, 3, 16, 16, generator=rng())
    one, two = (network(x, torch.tensor([label]), rng()) for label in (0, 1))
    assert torch.equal(one.image, two.image)
    assert not torch.allclose(one.perturbation, two.perturbation)


def test_the_perturbation_knows_the_image_through_its_latent_alone() -> None:
    """Else nothing would bound what it can carry: no way around the rate from the features."""
    network = AutoEncoder(VaeSize(16, 3)).eval()
    torch.nn.init.zeros_(network.project.weight)
    torch.nn.init.zeros_(network.project.bias)
    one, two = torch.rand(2, 1, 3, 16, 16, generator=rng())
    y = torch.tensor([1])
    assert torch.equal(network(one, y, rng()).perturbation, network(two, y, rng()).perturbation)
    torch.nn.init.ones_(network.project.weight)
    assert not torch.equal(network(one, y, rng()).perturbation, network(two, y, rng()).perturbation)


def test_the_latent_is_sampled_in_eval_mode_too() -> None:
    network = AutoEncoder(VaeSize(16)).eval()
    x, y = torch.rand(1, 3, 16, 16, generator=rng()), torch.zeros(1).long()
    one, same, other = (network(x, y, rng(seed)).image for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    narrow = AutoEncoder(VaeSize(16, width=4)).eval()
    assert torch.equal(narrow(x, y, rng(0)).image, narrow(x, y, rng(1)).image)


# --- the losses ----------------------------------------------------------------------------------


def test_the_divergence_is_that_of_sampling() -> None:
    zero = torch.zeros(2, 8, 3, 3)
    assert divergence(zero, zero) == 0
    mean, log_var = torch.tensor(0.7), torch.tensor(-0.4)
    draws = mean + (log_var / 2).exp() * torch.randn(400_000, generator=rng())
    inside = torch.distributions.Normal(mean, (log_var / 2).exp()).log_prob(draws)
    outside = torch.distributions.Normal(0.0, 1.0).log_prob(draws)
    sampled = 8 * (inside - outside).mean()
    exact = divergence(mean.expand(2, 8, 3, 3), log_var.expand(2, 8, 3, 3))
    assert exact == pytest.approx(float(sampled), rel=0.01)


@pytest.mark.parametrize(("limit", "weight"), [(0.5, 0.5), (1.0, 0.01), (3.0, 0.01)])
def test_the_rate_is_free_below_its_limit(limit: float, weight: float) -> None:
    for rate, slope in ((0.9 * limit, 0.0), (1.1 * limit, weight)):
        value = torch.tensor(rate, requires_grad=True)
        rate_loss(value, limit).backward()
        assert value.grad == pytest.approx(slope)


def test_the_objective_is_the_sum_of_its_terms() -> None:
    x, image = (torch.rand(2, 3, 4, 4, generator=rng(s)) for s in (0, 1))
    p = torch.randn(2, 3, 4, 4, generator=rng(2)) * 0.3
    rate = torch.tensor(2.0)
    plain = float(((image - x) ** 2).mean()) + 0.01 * 2.0
    both = plain + float((((image + p).clip(0, 1) - x) ** 2).mean())
    assert objective(Parts(image, None, rate), x, 1.0, late=True) == pytest.approx(plain)
    assert objective(Parts(image, p, rate), x, 1.0, late=False) == pytest.approx(both)
    late = both + float((p**2).mean())
    assert objective(Parts(image, p, rate), x, 1.0, late=True) == pytest.approx(late)
    tiny = objective(Parts(image, p * 1e-3, rate), x, 1.0, late=True)
    early = objective(Parts(image, p * 1e-3, rate), x, 1.0, late=False)
    assert tiny - early == pytest.approx(0.002, abs=1e-6)


def test_the_amplitude_counts_from_the_twelfth_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(parts: Parts, x: torch.Tensor, limit: float, late: bool) -> torch.Tensor:
        seen.append(late)
        return objective(parts, x, limit, late)

    monkeypatch.setattr(fitting, "objective", spy)
    how = fitting.VaeFit(VaeSize(8, 4), 1.0, epochs=13)
    fitting.fit(how, toy(8, 8), fit_context())
    assert seen == [False] * 11 + [True] * 2


def test_a_fit_follows_the_code_of_the_paper() -> None:
    """And what comes out of it is in eval mode: the passes go by the running statistics."""
    recipe = fitting.VaeFit(VaeSize(8, 4), 1.0, epochs=60).recipe
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("adam", 5e-3, 0.0)
    assert (recipe.schedule, recipe.lr_end, recipe.warmup_epochs) == ("cosine", 0.0, 0)
    assert (recipe.batch_size, recipe.drop_last, recipe.shuffle) == (128, True, True)
    assert recipe.grad_clip == 5.0
    network = fitting.fit(
        fitting.VaeFit(VaeSize(8, 4, shrink=8), 1.0, epochs=1), toy(8, 8), fit_context()
    )
    assert not any(module.training for module in network.modules())


# --- the passes ----------------------------------------------------------------------------------


class Known(AutoEncoder):
    """Says that the image is half as bright and the perturbation its label times 0.1."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, rng: torch.Generator) -> Parts:
        shift = 0.1 * y.view(-1, 1, 1, 1).expand_as(x).float()
        return Parts(x / 2, shift, torch.zeros(()))


def test_a_set_goes_through_in_order() -> None:
    images = toy(300, 8, 3)  # more than a chunk
    network = Known(VaeSize(8, 3))
    x, y = images.floats(), images.labels
    shift = 0.1 * y.view(-1, 1, 1, 1)
    same = in_chunks(network, images.pixels, y, fit_context(), lambda x, parts: x)
    assert torch.equal(same, x)
    less = in_chunks(network, images.pixels, y, fit_context(), cleaned)
    assert torch.allclose(less, (x - shift).clamp(0, 1))
    more = in_chunks(network, images.pixels, y, fit_context(), marked)
    assert torch.equal(more, to_uint8(x + shift))


def test_without_a_perturbation_stage_1_is_the_identity() -> None:
    class Silent(Known):
        def forward(self, x: torch.Tensor, y: torch.Tensor, rng: torch.Generator) -> Parts:
            return Parts(x, torch.zeros_like(x), torch.zeros(()))

    images = toy()
    network = Silent(VaeSize(16, 4))
    out = to_uint8(in_chunks(network, images.pixels, images.labels, fit_context(), cleaned))
    assert torch.equal(out, images.pixels)


def test_the_stages_of_dvae(monkeypatch: pytest.MonkeyPatch) -> None:
    """With known networks the result can be written down: two shifts, then half the brightness."""
    fits: list[tuple[float, Images]] = []

    def known(how: fitting.VaeFit, images: Images, fit_context: FitContext) -> AutoEncoder:
        fits.append((how.limit, images))
        return Known(how.plan)

    monkeypatch.setattr("raygrid.defenses.dvae.fit", known)
    images = toy(8, 8, 3)
    x, shift = images.floats(), 0.1 * images.labels.view(-1, 1, 1, 1)
    once = to_uint8((x - shift).clamp(0, 1))
    variants: list[tuple[DVae, torch.Tensor]] = [
        (DVae(), (once.float() / 255 - shift).clamp(0, 1) / 2),
        (DVae(subtract=False), once.float() / 255 / 2),
        (DVae(first=False), (x - shift).clamp(0, 1) / 2),
        (DVae(second=False), once.float() / 255),
    ]
    for dvae, expected in variants:
        fits.clear()
        assert torch.equal(dvae.purify(images, fit_context()).pixels, to_uint8(expected))
        assert [limit for limit, _ in fits] == [1.0] * dvae.first + [3.0] * dvae.second
        if dvae.first and dvae.second:
            assert torch.equal(fits[1][1].pixels, once), "stage 2 is fitted to the stored stage 1"


def test_dvae_may_truncate_what_it_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raygrid.defenses.dvae.fit", lambda how, *_: Known(how.plan))
    images = toy(8, 8, 3)
    x, shift = images.floats(), 0.1 * images.labels.view(-1, 1, 1, 1)
    once = ((x - shift).clamp(0, 1) * 255).floor() / 255
    twice = ((once - shift).clamp(0, 1) / 2 * 255).floor()
    cut = DVae(quant="trunc")
    assert torch.equal(cut.purify(images, fit_context()).pixels, twice.to(torch.uint8))
    only = replace(cut, second=False).purify(images, fit_context()).pixels
    assert torch.equal(only.float() / 255, once)
    assert not torch.equal(DVae().purify(images, fit_context()).pixels, twice.to(torch.uint8))
    shown: list[torch.Tensor] = []

    def knows(
        self: DVaeDetect, bad: Images, images: Images, fit_context: FitContext
    ) -> torch.Tensor:
        shown.append(bad.pixels)
        return torch.ones(8, dtype=torch.bool)

    monkeypatch.setattr(DVaeDetect, "_knows", knows)
    detected = DVaeDetect(quant="trunc").purify(images, fit_context())
    assert torch.equal(detected.pixels, twice.to(torch.uint8))
    assert torch.equal(shown[0], ((x + shift).clamp(0, 1) * 255).floor().to(torch.uint8))


def test_truncation_leaves_whole_levels_alone() -> None:
    levels = torch.arange(256)
    for quant, below in (("trunc", 0.99), ("round", 0.49)):
        for more in (0.0, below):
            stored = to_uint8((levels + more) / 255, quant)  # type: ignore[arg-type]
            assert torch.equal(stored.long(), levels)
    assert to_uint8(torch.tensor([-0.2, 1.2]), "trunc").tolist() == [0, 255]


def test_dvae_without_any_stage_is_refused() -> None:
    with pytest.raises(SpecError, match="no stage is left"):
        DVae(first=False, second=False)


def test_smaller_batches_reach_both_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def known(how: fitting.VaeFit, images: Images, fit_context: FitContext) -> AutoEncoder:
        sizes.append(how.recipe.batch_size)
        return Known(how.plan)

    monkeypatch.setattr("raygrid.defenses.dvae.fit", known)
    DVae(batch_size=32).purify(toy(8, 8), fit_context())
    assert sizes == [32, 32]
    assert DVaeDetect(batch_size=32, epochs=7, limit1=2.0).dvae() == DVae(
        batch_size=32, epochs=7, limit1=2.0
    )
    monkeypatch.setattr("raygrid.defenses.vae.fit", known)
    Vae(batch_size=16).purify(toy(8, 8), fit_context())
    assert sizes == [32, 32, 16]
    assert fitting.VaeFit(VaeSize(8), 1.0, 1).recipe.batch_size == Vae().batch_size == 128


def test_a_network_that_diverges_is_an_error() -> None:
    images = toy(8, 8)

    class Lost(Known):
        def forward(self, x: torch.Tensor, y: torch.Tensor, rng: torch.Generator) -> Parts:
            lost = self.table[y].mean() * float("nan")
            return Parts(x + lost, x + lost, torch.zeros(()))

    with pytest.raises(DataError, match="NaN"):
        to_uint8(
            in_chunks(Lost(VaeSize(8, 4)), images.pixels, images.labels, fit_context(), cleaned)
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raygrid.nn.vae.networks.AutoEncoder", Lost)
        with pytest.raises(DivergedError):
            purify(DEFENSES.make("dvae(epochs=1)"), images, fit_context())


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("vae(limit=-1)", "limit is -1.0"),
        ("vae(epochs=0)", "epochs is 0"),
        ("vae(batch_size=1)", "batch_size is 1, allowed are 2 and more"),
        ("dvae(limit2=-1)", "limit2 is -1.0"),
        ("dvae(batch_size=1)", "batch_size is 1, allowed are 2 and more"),
        ("dvae_detect(classifier_epochs=0)", "classifier_epochs is 0"),
        ("dvae_detect(architecture=resnet19)", "did you mean 'resnet18'"),
    ],
)
def test_bad_parameters_are_refused(part: str, says: str) -> None:
    assert says in refused(part)


def test_odd_sides_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    from raygrid.datasets.photo_digits import PhotoDigits

    monkeypatch.setattr(PhotoDigits, "image_size", 33)
    for name in ("vae", "dvae", "dvae_detect"):
        made = plan([f"photo_digits/lsp/{name}/small_cnn/supervised/quick/0"], None)
        assert "divisible by 2, not 33" in made.skips[0].reason


# --- what they do --------------------------------------------------------------------------------


def poisoned(n: int, ratio: float = 1.0) -> tuple[Images, Images, torch.Tensor]:
    """Images whose labels say nothing, the same with LSP for their labels, and which have it."""
    clean = Images(smooth(n, 16).pixels, torch.arange(n) % 4, 4)
    attack = ATTACKS.make("lsp(budget=l2:2, patch=4)")
    poison = attack.poison(clean, AttackContext(Stream("poison")))
    return clean, *poison.overlay(clean, ratio, Stream("ratio"))


def test_a_vae_learns_its_images() -> None:
    images = smooth(16, 8)
    losses = [
        mse(purify(DEFENSES.make(f"vae(limit=3, epochs={n})"), images, fit_context()), images)
        for n in (1, 25)
    ]
    assert losses[1] < losses[0] / 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_higher_rate_keeps_more() -> None:
    images = smooth(32, 16)
    tight, loose = (
        mse(purify(DEFENSES.make(f"vae(limit={r}, epochs=200)"), images, fit_context()), images)
        for r in (0.25, 4.0)
    )
    assert loose < 0.95 * tight


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_dvae_takes_the_poison_out() -> None:
    """What LSP adds to every image of a class gets smaller, first in stage 1, then in stage 2."""
    clean, bad, _ = poisoned(64)
    dvae = DVae(epochs=100)

    def classwise(x: torch.Tensor) -> float:
        change = x - clean.floats()
        means = torch.stack([change[clean.labels == c].mean(0) for c in range(4)])
        return float((means - means.mean(0)).square().sum().sqrt())

    network = dvae.stage1(bad, fit_context())
    first = in_chunks(network, bad.pixels, bad.labels, fit_context(), cleaned)
    purified = dvae.purify_after(network, bad, fit_context())
    before = classwise(bad.floats())
    assert classwise(first) < 0.8 * before
    assert classwise(purified.floats()) < 0.6 * before


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_detection_finds_poison() -> None:
    """A network that learned the perturbations knows most poisoned images and few others."""
    _, bad, mask = poisoned(256, 0.5)
    settings = "epochs=50, classifier_epochs=20, architecture=small_cnn, augmentation=none"
    detector = DEFENSES.make(f"dvae_detect({settings})")
    assert isinstance(detector, DVaeDetect)
    network = detector.dvae().stage1(bad, fit_context())
    after = fit_context().part("mark")
    pixels = in_chunks(network, bad.pixels, bad.labels, after, marked)
    flags = detector._knows(bad.with_pixels(pixels), bad, fit_context().part("classifier"))
    recall, false = flags[mask].float().mean(), flags[~mask].float().mean()
    assert recall > 0.7
    assert recall > false + 0.3


def test_only_flagged_images_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    images = toy(8, 8, 3)
    flags = torch.tensor([True, False] * 4)
    monkeypatch.setattr("raygrid.defenses.dvae.fit", lambda how, *_: Known(how.plan))
    monkeypatch.setattr(DVaeDetect, "_knows", lambda self, marked, images, fit_context: flags)
    after = DVaeDetect().purify(images, fit_context())
    whole = DVae().purify(images, fit_context())
    assert torch.equal(after.pixels[flags], whole.pixels[flags])
    assert torch.equal(after.pixels[~flags], images.pixels[~flags])


@pytest.mark.parametrize("found", [0, 1, 4])
def test_a_purification_may_be_fitted_to_the_flagged_alone(
    found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, fits = toy(8, 8, 3), []

    def fit(how: fitting.VaeFit, images: Images, fit_context: FitContext) -> Known:
        fits.append(len(images))
        return Known(how.plan)

    flags = torch.arange(8) < found
    monkeypatch.setattr("raygrid.defenses.dvae.fit", fit)
    monkeypatch.setattr(DVaeDetect, "_knows", lambda self, marked, images, fit_context: flags)
    after = DVaeDetect(fit_on="flagged").purify(images, fit_context())
    assert fits == [8, 4, 4] if found == 4 else fits == [8]
    assert torch.equal(after.pixels[~flags], images.pixels[~flags])
    changed = (after.pixels != images.pixels).flatten(1).any(1)
    assert torch.equal(changed, flags if found == 4 else torch.zeros(8, dtype=torch.bool))


def test_what_is_flagged_is_what_a_network_of_the_papers_recipe_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trained on the marked images by D-VAE's protocol, asked about the others in eval mode."""
    marked, images, seen = toy(32, 8, 3, seed=1), toy(32, 8, 3), {}

    class Spy(Trainer):
        def __init__(self, module: torch.nn.Module, step: object, *rest: object) -> None:
            super().__init__(module, step, *rest)  # type: ignore[arg-type]
            seen["train"], seen["recipe"], _ = rest

    def agree(network: torch.nn.Module, asked: Images, *_: object) -> torch.Tensor:
        seen["asked"], seen["training"] = asked, network.training
        return torch.zeros(len(asked), dtype=torch.bool)

    monkeypatch.setattr("raygrid.defenses.dvae_detect.Trainer", Spy)
    monkeypatch.setattr("raygrid.defenses.dvae_detect.agreeing", agree)
    DVaeDetect(architecture="small_cnn", classifier_epochs=2)._knows(marked, images, fit_context())
    usual = PROTOCOLS.make("dvae").recipe("supervised", "cifar10", 8)
    assert seen["recipe"] == usual.with_(epochs=2)
    assert torch.equal(seen["train"].pixels, marked.pixels)
    assert torch.equal(seen["asked"].pixels, images.pixels)
    assert seen["training"] is False


def test_detection_rates_are_scikit_learns() -> None:
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    before = toy(40, 8)
    mask = torch.arange(40) < 12
    flagged = torch.rand(40, generator=rng()) < 0.4
    after = before.with_pixels(before.pixels ^ flagged.view(-1, 1, 1, 1))
    rates = detection(before, after, mask)
    truth = precision_recall_fscore_support(mask.numpy(), flagged.numpy(), average="binary")
    assert (rates["precision"], rates["recall"], rates["f1"]) == pytest.approx(truth[:3])
    assert rates["acc"] == pytest.approx(accuracy_score(mask.numpy(), flagged.numpy()))
    assert sum(rates[k] for k in ("tp", "fp", "fn", "tn")) == 40
    nothing = detection(before, after, torch.zeros(40, dtype=torch.bool))
    found = int(flagged.sum())
    assert nothing == {"tp": 0, "fp": found, "fn": 0, "tn": 40 - found, "fpr": found / 40}
    everything = detection(before, after, torch.ones(40, dtype=torch.bool))
    assert everything["precision"] == 1
