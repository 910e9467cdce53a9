"""What every learner must hold by being registered: training, resuming, views, plans."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.core.errors import DivergedError, SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.core.speed import CPU
from raygrid.defenses import DEFENSES
from raygrid.defenses.chain import Chain
from raygrid.engine.costs.estimate import trial_seconds
from raygrid.engine.grid import plan
from raygrid.learners import LEARNERS
from raygrid.learners.common.probe import fit_probe
from raygrid.learners.common.two_views import TwoViews, TwoViewSession
from raygrid.learners.supervised import Supervised, SupervisedSession, augmented, with_frozen_views
from raygrid.nn.augment import CropFlip, Views
from raygrid.protocols import PROTOCOLS
from raygrid.trials.evaluate import score
from raygrid.trials.resolve import resolve
from raygrid.trials.result import Result
from tests.conftest import toy
from tests.learners.toys import (
    FRESH,
    PROBE,
    RECIPE,
    VIEWS,
    encoder,
    same,
    scenes,
    small,
    task_of,
    two_views,
)


@pytest.mark.parametrize("name", LEARNERS)
def test_training_lowers_the_loss(name: str) -> None:
    """Counted from the second epoch: MoCo's queue is full of noise in the first."""
    session = small(name).start(task_of(scenes(192), RECIPE.with_(lr=0.01)))
    losses = [session.epoch(e)["train_loss"] for e in range(7)]
    assert sum(losses[4:]) / 3 < losses[1]


@pytest.mark.parametrize("name", LEARNERS)
def test_resuming_gives_the_same_bits(name: str, images: Images) -> None:
    whole = small(name).start(task_of(images))
    whole.epoch(0)
    state = copy.deepcopy(whole.state_dict())
    numbers = whole.epoch(1)
    resumed = small(name).start(task_of(images))
    assert not same(state, resumed.state_dict())
    resumed.load_state_dict(state)
    assert resumed.epoch(1) == numbers
    assert same(whole.state_dict(), resumed.state_dict())
    x = images.floats()
    assert torch.equal(whole.classifier().eval()(x), resumed.classifier().eval()(x))
    assert torch.equal(whole.finish().eval()(x), resumed.finish().eval()(x))


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "linear_probe"])
def test_labels_matter_just_where_the_learner_says_so(name: str, images: Images) -> None:
    permuted = replace(images, labels=images.labels.sort().values)  # other pairs share a class
    encoders = []
    for each in (images, permuted):
        session = small(name).start(task_of(each))
        session.epoch(0)
        encoders.append(encoder(session))
    assert same(*encoders) != LEARNERS[name].labels


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_gives_classifiers(name: str, images: Images) -> None:
    session = small(name).start(task_of(images))
    session.epoch(0)
    for model in (session.classifier(), session.finish()):
        scores = model.eval()(images.floats())
        assert scores.shape == (len(images), images.classes)
        assert bool(torch.isfinite(scores).all())


@pytest.mark.parametrize("name", LEARNERS)
def test_every_image_is_seen_once_an_epoch_in_a_new_order(name: str, images: Images) -> None:
    trainer = small(name).start(task_of(images)).trainer  # type: ignore[attr-defined]
    orders = [torch.cat([b.index for b in trainer.batches(e)]) for e in (0, 1)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(len(images)))
    assert not torch.equal(*orders)


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_dropped_changes_from_epoch_to_epoch(name: str, images: Images) -> None:
    recipe = RECIPE.with_(batch_size=24, drop_last=True)
    trainer = small(name).start(task_of(images, recipe)).trainer  # type: ignore[attr-defined]
    seen = [set(torch.cat([b.index for b in trainer.batches(e)]).tolist()) for e in range(2)]
    assert [len(s) for s in seen] == [48, 48]
    assert seen[0] != seen[1]


@pytest.mark.parametrize("name", LEARNERS)
def test_a_loss_that_is_not_finite_ends_with_its_epoch(name: str, images: Images) -> None:
    session = small(name).start(task_of(images))
    session.epoch(0)
    with torch.no_grad():
        next(session.network.parameters()).fill_(float("nan"))  # type: ignore[attr-defined]
    with pytest.raises(DivergedError, match="epoch 2"):
        session.epoch(1)


def test_weights_lost_in_the_last_step_are_seen(images: Images) -> None:
    """Its loss was finite, and no other step follows."""
    recipe = RECIPE.with_(lr=1e38, batch_size=len(images), epochs=1)
    session = small("supervised").start(task_of(images, recipe))
    with pytest.raises(DivergedError, match=r"epoch 1: norm of the weights is (inf|nan)"):
        session.epoch(0)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_protocol_recipe_can_start(name: str) -> None:
    for protocol in PROTOCOLS:
        if PROTOCOLS.make(protocol).has(name):
            trial = resolve(f"photo_digits/clean/standard/small_cnn/{name}/{protocol}/0", None)
            assert trial.skip() is None
            trial.learner.start(task_of(toy(32), trial.recipe.with_(batch_size=16)))


# Defenses without meaning for learners made of views, by what their reason has to say.
NO_VIEWS = {
    "at": "has no meaning",
    "cutmix": "has no meaning",
    "early_stopping": "scored by kNN only",
    "mixup": "has no meaning",
    "none": "made of augmentation",
    "ueraser_max": "has no meaning",
}
ONLY_VIEWS = {"advcl": {"simclr"}, "rocl": set(VIEWS)}  # learners that they mean something for
PACKAGE = "needs the package"  # another reason, of the machine


@pytest.mark.parametrize("name", FRESH)
@pytest.mark.parametrize("defense", DEFENSES)
def test_the_matrix_of_defenses_and_learners(defense: str, name: str) -> None:
    """Every cell: it runs, or it is skipped with a reason that names the defense or learner."""
    trial = resolve(f"photo_digits/clean/{defense}/small_cnn/{name}/tp/0", None)
    reason = str(trial.skip())
    if PACKAGE in reason:
        pytest.skip(reason)
    if name in ONLY_VIEWS.get(defense, {name}) and not (defense in NO_VIEWS and name in VIEWS):
        assert reason == "None" or "mode=" in reason
        return
    assert NO_VIEWS.get(defense, "") in reason
    assert reason != "None"
    assert name in reason
    longer = defense if defense == "none" else f"grayscale+{defense}"
    chained = resolve(f"photo_digits/clean/{longer}/small_cnn/{name}/tp/0", None)
    assert chained.skip() == reason, "a chain is skipped for its link"


@pytest.mark.parametrize("name", FRESH)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_made_without_the_learner(attack: str, name: str) -> None:
    """A poison does not know its victim: all learners of a cell run or none."""
    text = f"photo_digits/{attack}/standard/small_cnn/{{}}/tp/0"
    mine, other = (resolve(text.format(learner), None) for learner in (name, "supervised"))
    assert mine.skip() == other.skip()
    assert mine.poison.key == other.poison.key


@pytest.mark.parametrize("name", VIEWS)
def test_a_batch_of_one_is_refused_before_anything_runs(name: str) -> None:
    text = f"photo_digits/clean/standard/small_cnn/{name}/quick(batch_size=1)/0"
    with pytest.raises(SpecError, match="batch_size is 1, allowed are 2 and more"):
        plan([text], None)


def test_a_queue_is_checked_in_the_plan() -> None:
    text = "photo_digits/clean/standard/small_cnn/moco(queue={})/quick(batch_size=48)/0"
    (skip,) = plan([text.format(100)], None).skips
    assert skip.reason == "queue is 100, allowed are multiples of the batch size 48"
    with pytest.raises(SpecError, match="queue is 100"):
        plan([text.format(100)], None, strict=True)
    assert not plan([text.format(96)], None).skips


@pytest.mark.parametrize("name", VIEWS)
def test_two_views_differ_and_change_from_epoch_to_epoch(name: str, images: Images) -> None:
    session = two_views(name, images)
    pairs = [session.pair(next(session.trainer.batches(e))) for e in (0, 0, 1)]
    (a, b), again, later = pairs
    assert (a - b).flatten(1).abs().amax(1).min() > 0.01
    assert torch.equal(a, again[0])
    assert torch.equal(b, again[1])
    one, two = (session.trainer.batches(e) for e in (0, 1))
    first, second = (torch.cat([session.pair(x)[0] for x in batches]) for batches in (one, two))
    order = [torch.cat([b.index for b in session.trainer.batches(e)]).argsort() for e in (0, 1)]
    gap = (first[order[0]] - second[order[1]]).flatten(1).abs().amax(1)
    assert gap.min() > 0.01, "an image got the same view in two epochs"
    assert later[0].shape == a.shape


def test_frozen_views_never_change(images: Images) -> None:
    session = two_views("simclr", images, frozen_views=True)
    views = []
    for epoch in (0, 1):
        batches = list(session.trainer.batches(epoch))
        order = torch.cat([b.index for b in batches]).argsort()
        views.append([torch.cat(v)[order] for v in zip(*map(session.pair, batches), strict=True)])
    assert torch.equal(views[0][0], views[1][0])
    assert torch.equal(views[0][1], views[1][1])
    assert not torch.equal(views[0][0], views[0][1])


def test_a_supervised_victim_can_keep_one_augmentation_of_each_image(images: Images) -> None:
    """As TP's code does: the same in every epoch, drawn like any other, once."""
    session = Supervised(frozen_views=True).start(task_of(images))
    assert isinstance(session, SupervisedSession)
    seen = []
    for epoch in (0, 1):
        batches = list(session.trainer.batches(epoch))
        order = torch.cat([b.index for b in batches]).argsort()
        every = [augmented(session.task, session.task.defense, b)[0] for b in batches]
        seen.append(torch.cat(every)[order])
    assert torch.equal(seen[0], seen[1])
    moved = (seen[0] - images.floats()).flatten(1).abs().amax(1) > 0.01
    assert moved.float().mean() > 0.5
    plain = task_of(images, augmentation=None)
    assert with_frozen_views(plain) is plain


@pytest.mark.parametrize("flip", [True, False])
def test_views_are_mirrored_only_where_the_dataset_may_be(images: Images, flip: bool) -> None:
    task = task_of(images, augmentation=CropFlip(2, flip=flip))
    learner = small("simclr")
    assert isinstance(learner, TwoViews)
    assert learner.pipeline(task).flip is flip


def test_the_defense_acts_on_each_view_after_the_learner(images: Images) -> None:
    class Darkener(Chain):
        def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
            return x * torch.rand(len(x), 1, 1, 1, generator=rng), y

    plain = two_views("simclr", images)
    batch = next(plain.trainer.batches(0))
    learner = small("simclr")
    defended = learner.start(task_of(images, defense=Darkener(plain.task.defense.links)))
    assert isinstance(defended, TwoViewSession)
    views = defended.pair(next(defended.trainer.batches(0)))
    before = plain.pair(batch)
    factors = [(v.sum((1, 2, 3)) / u.sum((1, 2, 3))) for v, u in zip(views, before, strict=True)]
    assert torch.allclose(views[0], before[0] * factors[0].view(-1, 1, 1, 1), atol=1e-5)
    assert factors[0].max() < 1
    assert not torch.allclose(factors[0], factors[1])


def test_too_few_images_are_refused() -> None:
    with pytest.raises(SpecError, match="has 1 image"):
        small("simclr").start(task_of(toy(1, classes=1)))


@pytest.mark.parametrize("passes", [0, 2])
def test_the_probe_learns_and_leaves_the_encoder_alone(passes: int) -> None:
    images, others = scenes(128), scenes(64, seed=1)
    session = two_views("simclr", images)
    session.epoch(0)
    before = {k: t.clone() for k, t in session.framework.state_dict().items()}
    probing = replace(PROBE, passes=passes, recipe=PROBE.recipe.with_(epochs=60, lr=0.2))
    stream = Stream("probe")
    probed = fit_probe(session.network, images, probing, session.views, stream, "fp32").network
    after = session.framework.state_dict()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), f"{key} was changed by the probe"
    assert same(encoder(session), encoder(type("S", (), {"network": probed})()))
    assert score(session.network, others, lambda x: x).acc < 0.4
    assert score(probed, others, lambda x: x).acc > 0.6


def test_a_probe_that_diverges_is_not_taken_for_its_encoder(images: Images) -> None:
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    probing = replace(PROBE, recipe=PROBE.recipe.with_(lr=1e38))
    with pytest.raises(DivergedError, match=r"linear probe: training diverged in epoch \d: "):
        fit_probe(network, images, probing, Views(), Stream("probe"), "fp32")


def test_a_protocol_sets_parameters_that_a_spec_can_override() -> None:
    def learner(spec: str) -> Any:
        return resolve(f"photo_digits/clean/standard/small_cnn/{spec}/0", None)

    ours, aue = learner("simclr/tp"), learner("simclr/aue")
    assert (ours.learner.hidden, ours.learner.loss_scale) == (512, "base007")
    assert (aue.learner.hidden, aue.learner.loss_scale) == (2048, "none")
    assert str(aue.spec.learner) == "simclr"
    back = learner("simclr(hidden=512)/aue")
    assert back.learner.hidden == 512
    assert back.learner.loss_scale == "none"
    assert str(back.spec.learner) == "simclr(hidden=512)"
    assert learner(str(back.spec.learner) + "/aue").key == back.key
    assert learner("simclr(hidden=2048)/aue").key == aue.key
    assert len({ours.key, aue.key, back.key}) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_probe_is_judged_after_each_of_its_epochs(precision: str, images: Images) -> None:
    """By whole networks with each epoch's head; the last is what `finish` returns."""
    learner = small("simclr")
    session = learner.start(task_of(images, replace(RECIPE, precision=precision)))
    other = scenes(60, 5)

    def view(x: Tensor) -> Tensor:
        return 1 - x

    assert learner.probe_accuracies(session, other, view) == []
    final: Any = session.finish()
    accuracies = learner.probe_accuracies(session, other, view)
    assert len(accuracies) == PROBE.recipe.epochs
    assert accuracies[-1] == score(final, other, view, precision).acc
    assert isinstance(session, TwoViewSession)
    for head, accuracy in zip(session._heads, accuracies, strict=True):
        final.head.load_state_dict(head)
        assert score(final, other, view, precision).acc == accuracy
    assert len(set(accuracies)) > 1


def test_final_accuracies_are_those_that_the_source_prints() -> None:
    """TransPoison@2d08a9c and apbench@9a6fb91: the best over the probe's epochs; AUE: the last."""
    for text, printed in (
        ("tp", "peak"),
        ("apbench", "peak"),
        ("aue", "final"),
        ("quick", "final"),
    ):
        probing = PROTOCOLS.make(text).probing("simclr")
        assert probing.printed == printed
        row = Result("", "", resolved={"probing": probing.resolved()})
        row.history = [{"train_loss": 1.0, "test_acc": a} for a in (0.3, 0.9, 0.6)]
        row.probes = {"clean_test": {"k": 5, "n": 10, "acc": 0.5}}
        row.probe_peak, row.probe_final = 0.7, 0.5
        row.summarize()
        assert row.final_acc == row.last_acc == (0.7 if printed == "peak" else 0.5)
        assert (row.peak_acc, row.knn_peak, row.peak_epoch) == (None, 0.9, 2)
    row = Result("", "", resolved={"probing": None}, history=row.history, probes=row.probes)
    row.summarize()
    assert (row.final_acc, row.peak_acc, row.knn_peak) == (0.5, 0.9, None)


def test_the_probe_is_the_protocols() -> None:
    trial = resolve("photo_digits/clean/standard/resnet18/simclr/tp/0", None)
    assert trial.probing.recipe.epochs == 100
    rates = [trial.probing.recipe.rate(e) for e in (0, 59, 60, 75, 90, 99)]
    assert rates == pytest.approx([1.0, 1.0, 0.2, 0.04, 0.008, 0.008])
    quick = resolve("photo_digits/clean/standard/small_cnn/simclr/quick/0", None)
    assert quick.probing != trial.probing
    supervised = resolve("photo_digits/clean/standard/small_cnn/supervised/tp/0", None)
    assert supervised.resolved()["probing"] is None


@pytest.mark.parametrize("name", VIEWS)
def test_estimates_count_both_views_and_their_making(name: str) -> None:
    """Measured on a CPU core, small_cnn on digits: an epoch takes 2.2 to 3.5 supervised ones."""

    def longer(network: str) -> float:
        point = f"photo_digits/clean/standard/{network}/{{}}/quick(epochs=10)/0"
        own, supervised = (resolve(point.format(each), None) for each in (name, "supervised"))
        return trial_seconds(own, CPU) / trial_seconds(supervised, CPU)

    assert 2.2 < longer("small_cnn") < 3.6
    assert longer("resnet18") == pytest.approx(2, rel=0.1)
