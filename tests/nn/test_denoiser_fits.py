"""What a noise predictor is fitted to, what that costs and what it marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.core.speed import GPU
from raygrid.defenses import DEFENSES
from raygrid.defenses.avatar import Avatar
from raygrid.engine.grid import plan
from raygrid.nn.context import FitContext
from raygrid.nn.diffusion import DenoiserPlan, fitted
from raygrid.nn.diffusion.denoisers import Averaged, of_unet
from raygrid.nn.diffusion.process import in_parts
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import Artifact, DenoiserArtifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial
from tests.conftest import toy
from tests.defenses.toys import fit_context, refused
from tests.nn.toys import CPU


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("avatar(steps=1001)", "steps is 1001"),
        ("avatar(stride=0)", "stride is 0, allowed are numbers from 1"),
        ("avatar(steps=200)", "horizon is 150, allowed are 200 to 1000"),
        ("avatar(diffusion_data=mismatch)", "unknown diffusion_data 'mismatch'"),
        ("avatar(diffusion_data=cifar_100)", "did you mean 'cifar100'"),
        ("avatar(diffusion_data=clean_trian)", "did you mean 'clean_train'"),
        ("avatar(checkpoint=them/small)", "diffusion_data is not given: say what them/small has"),
        ("avatar(updates=0)", "updates is 0, allowed are numbers from 1"),
    ],
)
def test_bad_parameters_are_refused(part: str, says: str) -> None:
    assert says in refused(part)


def test_what_a_predictor_has_seen_is_always_said() -> None:
    """In the key by one name; of a checkpoint nobody else can tell."""
    plain, named = (DEFENSES.make(part) for part in ("avatar", "avatar(diffusion_data=poisoned)"))
    assert plain == named
    assert plain.resolved()["diffusion_data"] == "poisoned"
    held = DEFENSES.make("avatar(checkpoint=them/small, diffusion_data=poisoned)")
    assert held.resolved()["diffusion_data"] == "poisoned"
    assert DEFENSES.make(str(held.part())) == held


def test_larger_predictors_are_fitted_for_longer() -> None:
    fits = {size: Avatar(size=size).resolved()["updates"] for size in ("xs", "s", "m")}  # type: ignore[arg-type]
    assert fits == {"xs": 100_000, "s": 100_000, "m": 300_000}
    assert Avatar(size="m", updates=7).plan.updates == 7


QUICK = "avatar(diffusion_data={}, size=xs, steps=2, updates=2)"


def resolved(attack: str, data: str, store: Store, root: Path, seed: int = 0) -> Trial:
    defense = QUICK.format(data)
    spec = f"photo_digits(every=15)/{attack}/{defense}/small_cnn/supervised/quick/{seed}"
    return resolve(spec, Catalog(store, root))


def prior(trial: Trial) -> DenoiserArtifact:
    assert trial.purified is not None
    assert isinstance(trial.purified.prior, DenoiserArtifact)
    return trial.purified.prior


def test_one_predictor_of_clean_images_serves_every_poison_and_seed(
    store: Store, tmp_path: Path
) -> None:
    made = [
        resolved(attack, "clean_train", store, tmp_path, seed)
        for attack, seed in (("lsp", 0), ("regions", 0), ("lsp", 1))
    ]
    assert len({prior(trial).key for trial in made}) == 1
    assert len({trial.purified.key for trial in made if trial.purified}) == 3
    assert prior(made[0]).needs() == (made[0].data,)
    own = resolved("lsp", "poisoned", store, tmp_path)
    assert own.purified is not None
    assert own.purified.prior is None
    other = resolved("lsp", "photo_digits_last", store, tmp_path)
    assert prior(other).data.dataset.part() != other.data.dataset.part()
    assert prior(other).key != prior(made[0]).key
    keys = {trial.key for trial in (made[0], own, other)}
    assert len(keys) == 3


def test_each_part_of_the_data_has_a_predictor_of_its_own(store: Store, tmp_path: Path) -> None:
    """Of the test set too, one for all poisons; what is held out is no part of the training set."""
    at = "photo_digits(every=15)/lsp/{}/small_cnn/supervised/quick(validation=0.25)/0"
    catalog = Catalog(store, tmp_path)
    parts = ("clean_train", "held_out", "test")
    made = [resolve(at.format(QUICK.format(data)), catalog) for data in parts]
    assert [prior(trial).part for trial in made] == ["train", "val", "test"]
    assert len({prior(trial).key for trial in made}) == 3
    assert len({trial.key for trial in made}) == 3
    train, held, test = (prior(trial) for trial in made)
    assert train.key == DenoiserArtifact(train.data, train.content, train.plan).key
    assert test.label == f"xs on test images of {test.data.label}"
    assert held.key != test.key
    assert [trial.defense.links[0].sees_test for trial in made] == [False, False, True]


def test_as_many_images_of_any_part_cost_the_same() -> None:
    few = "photo_digits/lsp/eclipse(few=500, diffusion_data={})/small_cnn/supervised/{}/0"
    parts = ("clean_train", "held_out", "test")
    made = [resolve(few.format(data, "quick(validation=0.12)"), None) for data in parts]
    train, held, test = (prior(trial).cost for trial in made)
    assert train == pytest.approx(held)
    assert train == pytest.approx(test)


def test_held_out_images_have_to_be_there() -> None:
    spec = "photo_digits/lsp/{}(diffusion_data=held_out)/small_cnn/supervised/{}/0"
    for name in ("avatar", "eclipse"):
        (skipped,) = plan([spec.format(name, "quick")], None).skips
        assert f"{name}(diffusion_data=held_out) needs held-out images" in skipped.reason
        assert "quick(validation=0.1)" in skipped.reason
        assert not plan([spec.format(name, "quick(validation=0.1)")], None).skips


def test_a_chain_hands_each_link_its_own_predictor(store: Store, tmp_path: Path) -> None:
    chain = f"jpeg+{QUICK.format('clean_train')}+grayscale"
    spec = f"photo_digits(every=15)/lsp/{chain}/small_cnn/supervised/quick/0"
    last = resolve(spec, Catalog(store, tmp_path)).purified
    assert last is not None
    middle = last.before
    assert middle is not None
    first = middle.before
    assert first is not None
    assert [part.prior is not None for part in (first, middle, last)] == [False, True, False]
    assert [type(need).__name__ for need in middle.needs()] == [
        "PurifiedArtifact",
        "DenoiserArtifact",
    ]


def test_other_data_have_to_have_the_same_size() -> None:
    spec = "photo_digits/lsp/avatar(diffusion_data=imagenet100)/small_cnn/supervised/quick/0"
    assert "imagenet100 has 224 pixels, not 32" in plan([spec], None).skips[0].reason


def test_what_a_predictor_costs_is_planned() -> None:
    spec = "cifar10/lsp/avatar(diffusion_data=clean_train{})/resnet18/supervised/apbench/0"
    trial = resolve(spec.format(""), None)
    assert trial.purified is not None
    epoch = GPU.seconds(3.3, 50_000)
    assert prior(trial).seconds(GPU) / epoch == pytest.approx(740, rel=0.02)
    assert trial.purified.seconds(GPU) / epoch == pytest.approx(58, rel=0.1)
    assert prior(trial).nbytes == pytest.approx(36e6, rel=0.02)
    held = resolve(spec.format(", checkpoint=some/where"), None)
    assert held.purified is not None
    assert held.purified.prior is None


@pytest.mark.slow
def test_a_predictor_of_the_test_set_marks_what_it_purified(
    store: Store, tmp_path: Path, fetch: Callable[[Artifact], Bundle]
) -> None:
    """It is fitted to the test images alone, which the defense never holds."""
    trial = resolved("lsp(budget=l2:4)", "test", store, tmp_path)
    data, found = fetch(trial.data), fetch(prior(trial)).tensors
    test = Images(data.tensors["test_pixels"], data.tensors["test_labels"], 10)
    stream = Stream("prior", (trial.dataset.id,))
    fit_context = FitContext(stream, CPU, augmentation=trial.dataset.augmentation)
    expected = fitted(prior(trial).plan, test, fit_context)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert trial.purified is not None
    marks = fetch(trial.purified).facts["marks"]
    assert "avatar's noise predictor was fitted to the test set" in marks
    honest = resolved("lsp(budget=l2:4)", "clean_train", store, tmp_path)
    assert honest.purified is not None
    assert not [m for m in fetch(honest.purified).facts["marks"] if "test set" in m]


@pytest.mark.slow
def test_the_declared_data_and_nothing_else_reach_the_fit(
    store: Store, tmp_path: Path, fetch: Callable[[Artifact], Bundle]
) -> None:
    """The predictor is that of the clean images, made once; the defense gets weights alone."""
    trial = resolved("lsp(budget=l2:4)", "clean_train", store, tmp_path)
    artifact = prior(trial)
    data = fetch(trial.data)
    clean = Images(data.tensors["train_pixels"], data.tensors["train_labels"], 10)
    stream = Stream("prior", (trial.dataset.id,))
    fit_context = FitContext(stream, CPU, augmentation=trial.dataset.augmentation)
    expected = fitted(artifact.plan, clean, fit_context)
    found = fetch(artifact).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert trial.purified is not None
    after = fetch(trial.purified).tensors["pixels"]
    assert after.shape == clean.pixels.shape
    assert not torch.equal(after, clean.pixels)
    assert set(store.names("denoiser")) == {artifact.key}


class Halting:
    """Progress that stops a fit after some epochs and keeps what it saved."""

    def __init__(self, after: int) -> None:
        self.after, self.kept = after, None
        self.done: list[int] = []

    def report(self, done: int, total: int, **facts: float) -> None:
        self.done.append(done)
        if done == self.after:
            raise KeyboardInterrupt

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.kept = ({k: v.clone() for k, v in tensors.items()}, dict(facts))  # type: ignore[assignment]

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        return self.kept


@pytest.mark.slow
def test_a_fit_that_was_cut_off_goes_on_where_it_was() -> None:
    plan, images = DenoiserPlan("xs", 4, 150, True), toy(140, 8)
    whole = fitted(plan, images, fit_context())
    progress = Halting(2)
    with pytest.raises(KeyboardInterrupt):
        fitted(plan, images, fit_context(), progress)
    again = fitted(plan, images, fit_context(), progress)
    assert progress.done == [1, 2, 3, 4]
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_averaged_weights_are_those_of_torchs_own() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))

    def rule(means: list[Tensor], now: list[Tensor], count: Tensor | int) -> None:
        decay = min(0.999, (1 + int(count)) / (10 + int(count)))
        for mean, value in zip(means, now, strict=True):
            mean.lerp_(value, 1 - decay)

    theirs = AveragedModel(network, multi_avg_fn=torch.no_grad()(rule))
    mine = Averaged(network, 0.999)
    for _ in range(4):
        with torch.no_grad():
            for value in (*network.parameters(), network[1].running_mean):
                value.add_(torch.randn_like(value))
        theirs.update_parameters(network)
        mine.update(network)
        again = Averaged(network, 0.999)
        again.load_state_dict(mine.state_dict())
        mine = again
    found = theirs.module.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in mine.network.state_dict().items())


def test_large_images_go_through_a_network_a_few_at_a_time() -> None:
    for side, most in ((16, 250), (32, 250), (64, 62), (256, 3), (1024, 1)):
        seen: list[int] = []

        def ask(part: Tensor, labels: Tensor, seen: list[int] = seen) -> Tensor:
            assert len(part) == len(labels)
            seen.append(len(part))
            return part[:, 0, 0, 0]

        count = most + 1
        in_parts(ask, torch.zeros(count, 1, 1, 1).expand(-1, 3, side, side), torch.zeros(count))
        assert seen == [most, 1]
    sizes: list[int] = []

    class Network(torch.nn.Module):
        def forward(self, x: Tensor, steps: Tensor) -> SimpleNamespace:
            assert len(x) == len(steps)
            sizes.append(len(x))
            return SimpleNamespace(sample=x + steps[:, None, None, None])

    x = torch.zeros(7, 3, 256, 256)
    found = of_unet(Network(), 256).noise(x, 5)
    assert sizes == [3, 3, 1]
    assert found.shape == x.shape
    assert len(found.unique()) == 1
