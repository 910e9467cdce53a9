"""What trials leave on request, and the questions and figures that are answered from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from raygrid.api.run_grid import Options, run_grid
from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.networks.network import Network
from raygrid.attacks import ATTACKS
from raygrid.cli import main as cli
from raygrid.cli.plan import PlanStatus, plan_text
from raygrid.core.budget import Budget
from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images
from raygrid.core.options import LEFT
from raygrid.core.seeds import Stream
from raygrid.engine.grid import plan
from raygrid.nn.pgd import Ball
from raygrid.reports.analysis.classes import confusion, entropy
from raygrid.reports.analysis.explanation import find_layer, grad_cam, patches, shapley
from raygrid.reports.analysis.fidelity import change
from raygrid.reports.analysis.questions import (
    adversarial,
    robustness,
    transferability,
    with_answers,
)
from raygrid.reports.analysis.records import Records, Victim
from raygrid.reports.figures.changes import draw_changes
from raygrid.reports.figures.embeddings import apart, sample
from raygrid.reports.figures.maps import examples
from raygrid.reports.figures.scatters import ACCURACIES, ANSWERS
from raygrid.storage.mirrored import open_store
from raygrid.storage.store import DATA, META, Bundle, Store
from raygrid.trials.evaluate import score
from raygrid.trials.outputs import left_nbytes
from raygrid.trials.resolve import resolve
from raygrid.trials.result import Result
from tests import plugin
from tests.conftest import toy

pytestmark = pytest.mark.usefixtures("undrawn")

assert plugin.CARD
CLEAN = "dots/clean/none/small_cnn/supervised/brief/{}"
LSP = "dots/lsp(budget=l2:3.0)/none/small_cnn/supervised/brief/0"
BARE = "dots/clean/grayscale/small_cnn/supervised/brief/0"
SPECS = [CLEAN.format(0), CLEAN.format(1), LSP]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three finished trials that left everything, and one that left nothing."""
    folder = tmp_path_factory.mktemp("analysis")
    assert not run_grid(SPECS, options(folder, LEFT)).failed
    assert not run_grid([BARE], options(folder)).failed
    return folder


def options(out: Path, keep: tuple[str, ...] = ()) -> Options:
    return Options(out=out, data=out / "data", executor="inline", keep=keep)


@pytest.fixture
def records(out: Path) -> Records:
    return Records(Store(out / "store"), out / "data")


def result_of(out: Path, spec: str) -> Result:
    rows = Store(out / "store").results(out / "results.jsonl").rows()
    return next(Result.from_row(row) for row in rows if row["spec"] == spec)


# --- keeping -------------------------------------------------------------------------------------


def test_a_kept_network_is_the_one_that_was_scored(out: Path, records: Records) -> None:
    for spec in SPECS:
        victim = records.victim(spec)
        again = score(victim.network, victim.test, lambda x: x, "bf16")  # as in its trial
        assert again.row() == result_of(out, spec).probes["clean_test"]
        assert not victim.network.training


def test_predictions_and_features_belong_together(out: Path, records: Records) -> None:
    trial = records.trial(LSP)
    said, seen = (records.left(trial, kind).tensors for kind in ("predictions", "features"))
    assert (said["logits"].dtype, said["predicted"].dtype) == (torch.float16, torch.int16)
    assert torch.equal(said["logits"].argmax(1).short(), said["predicted"])
    assert torch.equal(said["labels"], seen["labels"])
    hits = int((said["predicted"] == said["labels"]).sum())
    assert hits == result_of(out, LSP).probes["clean_test"]["k"]
    head = records.victim(LSP).network.head
    assert torch.allclose(head(seen["features"].float()), said["logits"].float(), atol=0.05)


def test_the_network_of_the_peak_is_the_one_that_reached_it(out: Path) -> None:
    records = Records(Store(out / "store"), out / "data", epoch="peak")
    for spec in SPECS:
        victim = records.victim(spec)
        found = score(victim.network, victim.test, lambda x: x, "bf16")
        assert found.acc == result_of(out, spec).peak_acc
        assert records.left(victim.trial, "peak").facts == {"accuracy": found.acc}
    with pytest.raises(DataError, match="is an encoder without a linear probe"):
        records.victim(LSP.replace("supervised", "simclr").replace("brief", "quick"))


@pytest.mark.parametrize("kind", LEFT)
def test_the_plan_knows_the_size_of_what_is_kept(kind: str, out: Path, records: Records) -> None:
    trial = records.trial(LSP)
    assert left_nbytes(trial, (kind,)) == records.left(trial, kind).nbytes
    said = plan_text(plan([LSP], records.catalog), PlanStatus(keep=(kind,)))
    assert f"kept: {kind} of 1 trials, about 0.00 GB of disk" in said


def test_what_is_kept_lies_in_the_results_folder(out: Path, records: Records) -> None:
    folder = out / "store" / "results" / records.trial(LSP).key
    assert sorted(p.name for p in folder.iterdir()) == sorted(LEFT)
    assert {p.name for p in (folder / "weights").iterdir()} == {DATA, META}


def test_a_finished_trial_runs_again_only_for_what_it_did_not_leave(out: Path) -> None:
    assert run_grid(SPECS, options(out, LEFT)).submitted == 0
    assert run_grid([*SPECS, BARE], options(out)).submitted == 0
    assert run_grid([SPECS[0], BARE], options(out, ("predictions",))).submitted == 1
    assert run_grid([BARE], options(out, ("predictions",))).submitted == 0


def test_unknown_things_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown keep 'weight' \(did you mean 'weights'"):
        run_grid([BARE], options(tmp_path, ("weight",)))


def test_kept_files_are_mirrored(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'remote'}"
    one, other = (open_store(url, tmp_path / name) for name in ("one", "other"))
    one.put("weights", "abc", Bundle({"w": torch.ones(2)}))
    assert (tmp_path / "remote" / "results" / "abc" / "weights" / META).exists()
    found = other.get("weights", "abc")
    assert found is not None
    assert torch.equal(found.tensors["w"], torch.ones(2))
    assert list(other.results().rows()) == []


@pytest.mark.slow
def test_networks_changed_by_a_defense_are_restored(tmp_path: Path) -> None:
    spec = "dots/clean/advcl(steps=1)/small_cnn/simclr/quick(epochs=1)/0"
    assert not run_grid([spec], options(tmp_path, ("weights",))).failed
    victim = Records(Store(tmp_path / "store"), tmp_path / "data").victim(spec)
    hits = (victim(victim.test.floats()).argmax(1) == victim.test.labels).sum()
    assert int(hits) == result_of(tmp_path, victim.name).probes["clean_test"]["k"]


def test_what_was_not_kept_is_one_clear_error(records: Records) -> None:
    with pytest.raises(DataError, match="left no weights: run it with --keep weights"):
        records.victim(BARE)
    with pytest.raises(DataError, match=r"is derived and left nothing; it comes from .*/standard"):
        records.victim(LSP.replace("/none/", "/early_stopping/"))


# --- questions -----------------------------------------------------------------------------------


def test_transferability_counts_what_clean_victims_get_wrong(records: Records) -> None:
    victims = [records.victim(spec) for spec in SPECS[:2]]
    poison = records.poisoned("dots/lsp(budget=l2:3)")
    rows = transferability([poison, records.poisoned("dots/clean")], victims)
    x = poison.images.floats()
    for row, victim in zip(rows, victims, strict=False):
        wrong = int((victim(x).argmax(1) != poison.images.labels).sum())
        assert (row["k"], row["n"]) == (wrong, 128)
        assert row["rate"] == pytest.approx(wrong / 128)
    assert rows[2]["rate"] == pytest.approx((rows[0]["rate"] + rows[1]["rate"]) / 2)
    assert all(row["rate"] == row["clean_rate"] for row in rows[3:])
    assert not any("target_rate" in row for row in rows), "neither attack has a target class"
    with pytest.raises(DataError, match="was trained on other images"):
        transferability([records.poisoned("photo_digits/clean")], victims)


def undecided(records: Records, draw: int = 0) -> Victim:
    """A random linear network in place of a trained one: it gives every class to some images."""
    network = Network(nn.Flatten(), 768, 4)
    weight = torch.randn(4, 768, generator=Stream("weights").generator(draw))
    network.head.load_state_dict({"weight": weight, "bias": -weight.sum(1) / 2})
    return replace(records.victim(SPECS[0]), network=network)


@pytest.mark.parametrize(
    ("attack", "offset"),
    [
        ("tap", 1),
        ("aap", 1),
        ("sep", 2),  # half of four classes
        ("functional(targeted=true)", 1),
        ("tp(variant=tap_based)", 1),
        ("dvae_recon(base=tap)", 1),
        *((untargeted, None) for untargeted in ("tap(targeted=false)", "functional", "tp", "em")),
    ],
)
def test_transferability_counts_the_intended_class(
    attack: str, offset: int | None, records: Records
) -> None:
    victim = undecided(records)
    poison = replace(records.poisoned("dots/lsp(budget=l2:3)"), attack=ATTACKS.make(attack))
    row, mean = transferability([poison], [victim])
    rates = [name for name in row if name.endswith("rate")]
    if offset is None:
        assert rates == ["rate", "clean_rate"]
        return
    labels = poison.clean.labels
    shares = set()
    for name, images in (("", poison.images), ("clean_", poison.clean)):
        said = victim(images.floats()).argmax(1)
        each = [int((said == (labels + k) % 4).sum()) / 128 for k in range(4)]
        assert row[f"{name}target_rate"] == mean[f"{name}target_rate"] == each[offset]
        assert row[f"{name}rate"] == 1 - each[0]
        shares |= set(each)
    assert len(shares) == 8, "else this test could not tell the classes apart"


def test_robustness_of_victims_and_pairs_of_seeds(records: Records) -> None:
    victims = [records.victim(spec) for spec in SPECS]
    none = robustness(victims, Ball(0.0, 3, 0.01), images=40)
    for row in none:
        assert row["n"] == 40
        assert row["white_acc"] == row["clean_acc"]
    strong = robustness(victims, Ball(16 / 255, 5, 4 / 255), images=40)
    assert [row["source"] for row in strong] == [victims[1].name, victims[0].name, None]
    for row in strong[:2]:
        assert row["white_acc"] <= row["black_acc"] <= row["clean_acc"]
        assert row["white_acc"] < row["clean_acc"]
    assert strong[2]["black_acc"] is None


def test_adversarial_images_stay_in_their_ball(records: Records) -> None:
    victim = records.victim(SPECS[0])
    x = victim.test.floats()
    one, same = (
        adversarial(victim, victim.test, Ball(0.02, 4, 0.01), Stream("test").generator())
        for _ in range(2)
    )
    assert torch.equal(one, same)
    assert (one - x).abs().max() <= 0.02 + 1e-6
    assert one.min() >= 0
    assert one.max() <= 1
    loss = nn.functional.cross_entropy
    assert loss(victim(one), victim.test.labels) > loss(victim(x), victim.test.labels)


@pytest.mark.parametrize("how", ["python", "command"])
def test_robustness_is_asked_by_pgd_20_from_a_uniform_start(
    how: str, out: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 steps of 2/255 within 8/255, the whole test set, from anywhere in the ball."""
    starts: list[tuple[Ball, torch.Tensor]] = []
    slopes: list[torch.Tensor] = []
    climb, grad = Ball.climb, torch.autograd.grad

    def note(ball: Ball, loss: Any, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        starts.append((ball, torch.stack([x, start])))
        return climb(ball, loss, x, start)

    def count(*given: Any, **named: Any) -> Any:
        slopes.append(given[1].detach())
        return grad(*given, **named)

    monkeypatch.setattr(Ball, "climb", note)
    monkeypatch.setattr(torch.autograd, "grad", count)
    if how == "python":
        assert robustness([records.victim(SPECS[0])])[0]["n"] == 64
    else:
        assert command(out, "evaluate", "robustness", SPECS[0]) == 0
    ((ball, (x, start)),) = starts
    assert ball == Ball(radius=8 / 255, steps=20, step=2 / 255)
    assert len(slopes) == 20
    assert torch.equal(slopes[0], start)
    noise = (start - x)[(x > 9 / 255) & (x < 246 / 255)] * 255 / 8  # where nothing is clipped
    assert noise.abs().max() <= 1 + 1e-4
    counts = torch.histc(noise, 8, -1, 1) / len(noise)
    assert torch.allclose(counts, torch.full((8,), 1 / 8), atol=0.01), "uniform over the ball"
    moves = (slopes[1] - slopes[0]) * 255
    assert moves.abs().max() == pytest.approx(2, abs=1e-3)


# --- explanations --------------------------------------------------------------------------------


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


# --- pictures ------------------------------------------------------------------------------------


def test_examples_and_samples_are_fixed() -> None:
    assert examples(toy(12, 8, 3), 2).tolist() == [0, 1]
    labels = np.repeat(np.arange(3), [500, 10, 300])
    rows = sample(labels)
    assert np.array_equal(rows, sample(labels))
    assert np.bincount(labels[rows]).tolist() == [200, 10, 200]


def test_numbers_beside_tsne_are_leave_one_out() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    points = rng.normal(size=(60, 4)).astype(np.float32) + 1.2 * labels[:, None]
    right = [
        KNeighborsClassifier(10)
        .fit(np.delete(points, i, 0), np.delete(labels, i))
        .predict(points[i : i + 1])[0]
        == labels[i]
        for i in range(60)
    ]
    assert apart(points, labels)[0] == pytest.approx(np.mean(right))


# --- commands ------------------------------------------------------------------------------------


def command(out: Path, *words: str) -> int:
    places = ["--out", str(out), "--data", str(out / "data"), "--tracking", "off"]
    return cli.main([*words, *places, "--import", "tests.plugin"])


def test_questions_from_the_command_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = "dots/lsp(budget=l2:3)"
    assert command(out, "evaluate", "sets", LSP, "--on", on, "--json") == 0
    rows = {row["set"]: row for row in json.loads(capsys.readouterr().out)}
    asked = result_of(out, LSP).probes["clean_test"]
    assert rows["clean_test"]["k"] == asked["k"]
    assert rows["clean_test"]["loss"] == pytest.approx(asked["loss"], rel=1e-5)  # as precise, too
    assert rows["train"]["k"] == rows[on]["k"]
    assert rows["train"]["acc"] > rows["clean_train"]["acc"]
    assert command(out, "evaluate", "robustness", SPECS[0], "--steps", "1", "--images", "8") == 0
    assert "clean_acc" in capsys.readouterr().out
    assert command(out, "evaluate", "transferability", on, "--victims", SPECS[0]) == 0
    assert " %" in capsys.readouterr().out


@pytest.mark.slow
def test_a_set_asked_later_counts_what_the_row_counted_in_bf16(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row's own answer was given by the network in memory, in the precision it trained in."""
    spec = "photo_digits(every=10)/lsp/none/small_resnet/supervised/quick(epochs=3)/0"
    assert resolve(spec, None).recipe.precision == "bf16"
    assert command(tmp_path, "run", spec, "--executor", "inline", "--keep", "weights") == 0
    asked = result_of(tmp_path, spec).probes["clean_test"]
    capsys.readouterr()
    assert command(tmp_path, "evaluate", "sets", spec, "--json") == 0
    rows = {row["set"]: row for row in json.loads(capsys.readouterr().out)}
    for name in ("k", "n", "loss"):
        assert rows["clean_test"][name] == asked[name], name


def changed(*levels: int, gray: int = 100) -> tuple[Images, Images]:
    """Flat images of 32 pixels, and each of them lighter by so many levels in every value."""
    n = len(levels)
    before = Images(torch.full((n, 3, 32, 32), gray, dtype=torch.uint8), torch.arange(n), n)
    lighter = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1)
    return before, before.with_pixels(before.pixels + lighter)


def test_fidelity_is_that_of_the_stored_pixels() -> None:
    """Landmarks: 8/255 in every value of 32 x 32 x 3 is l2 1.739 and 30.07 dB."""
    before, after = changed(0, 8, 8, 0)
    pixels = after.pixels.clone()
    pixels[3, 0, 5, 5] += 51  # 20 log10(5) + 10 log10(3072)
    row = change(before, before.with_pixels(pixels))
    alone = 20 * np.log10(5) + 10 * np.log10(3072)
    each = np.array([30.07, 30.07, alone])
    assert (row["n"], row["identical"]) == (4, 0.25)
    assert row["psnr"] == pytest.approx(each.mean(), abs=0.01)
    assert row["psnr_std"] == pytest.approx(each.std(ddof=1), abs=0.01)
    assert (row["psnr_min"], row["psnr_max"]) == (
        pytest.approx(30.07, abs=0.01),
        pytest.approx(alone, abs=0.01),
    )
    assert row["psnr_pooled"] == pytest.approx(
        -10 * np.log10((10 ** (-each / 10)).mean()), abs=0.01
    )
    sizes = {"linf": [8 / 255, 8 / 255, 0.2], "l2": [1.739, 1.739, 0.2], "l0": [1024, 1024, 1]}
    for norm, values in sizes.items():
        assert row[norm] == pytest.approx(np.mean(values), abs=1e-3), norm
        assert row[f"{norm}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-3), norm
        ends = row[f"{norm}_min"], row[f"{norm}_max"]
        assert ends == pytest.approx((min(values), max(values)), abs=1e-3), norm
    assert not {"budget", "violations", "ssim"} & set(row)
    assert change(before, before) == {"n": 4, "identical": 1.0}
    lone = change(*changed(8))
    assert (lone["psnr_std"], lone["l2_std"]) == (None, None)


def test_ssim_of_flat_images_is_that_of_their_means() -> None:
    """Without any variance (2 a b + c) / (a^2 + b^2 + c) is left, c = 0.01^2 for values to 1."""
    levels = [2, 6] * 300  # more than go at a time
    row = change(*changed(*levels, gray=0), ssim=torch.device("cpu"))
    each = np.array([1e-4 / ((number / 255) ** 2 + 1e-4) for number in levels])
    assert row["ssim"] == pytest.approx(each.mean(), abs=1e-3)
    assert row["ssim_std"] == pytest.approx(each.std(ddof=1), abs=1e-3)
    assert (row["ssim_min"], row["ssim_max"]) == pytest.approx((each[1], each[0]), abs=1e-3)


@pytest.mark.parametrize(
    ("levels", "budget", "violations"),
    [
        ((8, 9, 0, 8), "8/255", 1),
        ((8, 8, 0, 8), "8/255", 0),
        ((8, 9, 0, 1), "l2:1.7", 1),  # 1.739, beside the 0.109 that rounding takes; 1.956
        ((8, 9, 0, 1), "l0:1024", 0),
        ((8, 9, 0, 1), "l0:1023", 3),
    ],
)
def test_images_beyond_a_budget_are_counted(
    levels: tuple[int, ...], budget: str, violations: int
) -> None:
    limit = Budget.parse(budget, Budget("linf", 1.0))
    row = change(*changed(*levels), limit)
    assert (row["budget"], row["violations"]) == (budget, violations)


def test_fidelity_from_the_command_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(out, "evaluate", "fidelity", "dots/lsp(budget=l2:3)@0.5", BARE, "--json") == 0
    poison, given, clean = json.loads(capsys.readouterr().out)
    assert (poison["set"], poison["against"], poison["identical"]) == (
        "dots/lsp(budget=l2:3.0)@0.5/0",
        "clean",
        0.5,
    )
    assert poison["l2_max"] == pytest.approx(3, abs=0.05)
    assert (poison["budget"], poison["violations"]) == ("l2:3.0", 0)
    assert 0 < poison["ssim_min"] <= poison["ssim"] <= poison["ssim_max"] < 1
    assert (given["against"], clean["against"]) == ("poisoned", "clean")
    assert given["psnr"] == clean["psnr"] > 0  # the attack is none
    assert given["ssim"] == clean["ssim"]
    assert "budget" not in clean, "a purifier has none"
    assert command(out, "evaluate", "fidelity", "dots/lsp(budget=l2:3)@0.5") == 0
    said = dict(line.split() for line in capsys.readouterr().out.replace(" %", "%").splitlines())
    assert said["identical"] == "50.00%"
    assert said["ssim_max"] == f"{poison['ssim_max']:.3f}"
    assert command(out, "evaluate", "fidelity", LSP) == 2
    assert "has no purified set" in capsys.readouterr().err


def test_seeds_and_costs_from_the_command_line(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(out, "evaluate", "seeds", *SPECS[:2], "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    values = [result_of(out, spec).final_acc or 0.0 for spec in SPECS[:2]]
    assert (row["n"], row["interval"], row["seeds"]) == (2, "t", "0 1")
    assert row["acc"] == pytest.approx(np.mean(values))
    assert row["std_acc"] == pytest.approx(np.std(values, ddof=1))
    half = 8.9846 * np.std(values, ddof=1)
    assert row["high_acc"] - row["low_acc"] == pytest.approx(2 * half, rel=1e-3)
    assert command(out, "evaluate", "cost", BARE, LSP, "--json") == 0
    bare, lsp = json.loads(capsys.readouterr().out)
    assert bare["training_s"] == result_of(out, BARE).seconds
    assert bare["purified_s"] >= 0
    assert lsp["purified_s"] is None
    assert lsp["poison_s"] > 0
    assert lsp["memory_mb"] > 0
    assert command(out, "evaluate", "cost") == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_classes_are_those_of_scikit_learn(
    out: Path, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    from scipy.stats import entropy as scipy_entropy
    from sklearn.metrics import confusion_matrix, recall_score

    assert command(out, "evaluate", "classes", LSP, SPECS[1], "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    said = records.left(records.trial(LSP), "predictions").tensors
    labels, predicted = said["labels"].numpy(), said["predicted"].numpy()
    *each, every = rows[: len(rows) // 2]
    counts = confusion_matrix(labels, predicted)
    assert [row["confusion"] for row in each] == counts.tolist() != counts.T.tolist()
    assert [row["acc"] for row in each] == pytest.approx(
        recall_score(labels, predicted, average=None).tolist()
    )
    assert [row["predicted"] for row in each] == np.bincount(predicted).tolist()
    assert [row["class"] for row in each] == list(range(len(each)))
    assert every["acc"] == result_of(out, LSP).final_acc
    assert (every["class"], every["n"]) == ("all", len(labels))
    shares = np.bincount(predicted) / len(predicted)
    assert every["entropy_bits"] == pytest.approx(scipy_entropy(shares, base=2))
    assert every["most_bits"] == np.log2(len(each))
    assert {row["victim"] for row in rows[len(rows) // 2 :]} == {SPECS[1]}
    assert command(out, "evaluate", "classes", LSP) == 0
    assert "entropy_bits" in capsys.readouterr().out


def test_a_collapsed_network_says_nothing_in_bits() -> None:
    assert entropy(torch.tensor([0, 40, 0])) == 0.0
    assert entropy(torch.tensor([10, 10, 0, 20])) == pytest.approx(1.5)
    counts = confusion(torch.tensor([0, 0, 2]), torch.tensor([1, 0, 1], dtype=torch.int16), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_answers_are_those_about_the_poison_of_each_row(records: Records) -> None:
    noise = "dots/noise/none/small_cnn/supervised/brief/0"
    names = [CLEAN.format(0), LSP, noise, LSP[:-1] + "1"]
    victims = [undecided(records), undecided(records, 1)]
    table = with_answers(records, [{"spec": name} for name in names], "transfer_rate", victims)
    assert list(table["spec"]) == names
    poisons = [("dots/clean", 0), ("dots/lsp(budget=l2:3)", 0), ("dots/noise", 0)]
    poisons.append(("dots/lsp(budget=l2:3)", 1))
    made = [records.poisoned(*poison) for poison in poisons]
    expected = [transferability([one], victims)[-1]["rate"] for one in made]
    assert table["transfer_rate"].tolist() == expected
    assert len(set(expected)) == 4, "else this test could not tell the rows apart"


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [("transfer-peak", "peak_acc"), ("transfer-final", "final_acc"), ("psnr-final", "final_acc")],
)
def test_trials_are_drawn_against_answers_about_their_poisons(
    name: str, accuracy: str, out: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    victims = [SPECS[1]] if name.startswith("transfer") else []
    words = ["--victims", *victims] if victims else []
    path = tmp_path / "scatter.png"
    assert command(out, "figure", name, *SPECS, *words, "--file", str(path)) == 0
    assert path.exists()
    rate = {"lsp": 0.0, "clean": 0.0}
    for attack, text in (("lsp", "dots/lsp(budget=l2:3)"), ("clean", "dots/clean")):
        poison = records.poisoned(text)
        if victims:
            row = transferability([poison], [records.victim(SPECS[1])])[-1]
            rate[attack] = 100 * row["rate"]
        elif attack == "lsp":
            rate[attack] = change(poison.clean, poison.images)["psnr"]
    accs = {"lsp": [LSP], "clean": SPECS[:2]}
    expected = {
        attack: (rate[attack], 100 * np.mean([getattr(result_of(out, s), accuracy) for s in own]))
        for attack, own in accs.items()
        if victims or attack == "lsp"  # an unchanged image has no PSNR
    }
    (figure,) = saved
    answer = "transfer_rate" if victims else "psnr"
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (ANSWERS[answer], ACCURACIES[accuracy])
    handles, labels = axes.get_legend_handles_labels()
    shown = {
        label.split("  ")[1]: tuple(float(v[0]) for v in handle.get_data())  # type: ignore[union-attr]
        for handle, label in zip(handles, labels, strict=True)
    }
    assert shown == {attack: pytest.approx(place) for attack, place in expected.items()}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("figure", "transfer-peak", LSP, "--file", "x.png"), "transfer-peak needs --victims"),
        (("evaluate", "transferability", "dots/lsp"), "needs --victims"),
        (("evaluate", "sets"), "sets needs the spec of a trial or poison"),
        (("evaluate", "norms", "dots/lsp"), "dots/lsp/0 was not made by a D-VAE"),
        (("evaluate", "seeds", CLEAN.format(9)), "there is no result of dots/clean/none"),
        (("evaluate", "robustness", LSP, "--radius", "2"), "radius 2"),
        (("evaluate", "robustness", LSP, "--steps", "-1"), "steps -1"),
        (
            ("evaluate", "classes", CLEAN.format(9)),
            "left no predictions: run it with --keep predictions",
        ),
        (("evaluate", "robustness", BARE), "left no weights: run it with --keep weights"),
        (("figure", "tsne", BARE, "--file", "x.png"), "left no features"),
        (("figure", "tsne", "dots/clean", "--file", "x.png"), "changed no image"),
        (("figure", "perturbations", "dots/clean", "--file", "x.png"), "nothing was changed"),
        (("figure", "perturbations", "dots/withheld@0.5", "--file", "x.png"), "withholds images"),
        (("figure", "perturbations", "dots/lsp", "--gain", "0", "--file", "x.png"), "gain is 0"),
        (("figure", "grad-cam", LSP, "--layer", "body.77", "--file", "x.png"), "unknown layer"),
    ],
)
def test_questions_that_have_no_answer(
    words: tuple[str, ...], says: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(out, *words) == 2
    assert says in capsys.readouterr().err


def drawn(
    out: Path, tmp_path: Path, saved: list[Figure], name: str, specs: list[str], *extra: str
) -> Figure:
    """The figure that a command wrote into a folder of its own."""
    path = tmp_path / "new" / f"{name}.png"
    assert command(out, "figure", name, *specs, "--file", str(path), *extra) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = saved
    return figure


def test_t_sne_of_trials_has_their_test_images(
    out: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    figure = drawn(out, tmp_path, saved, "tsne", SPECS)
    assert len(figure.axes) == 3
    for axes, spec in zip(figure.axes, SPECS, strict=True):
        left = records.left(records.trial(spec), "features").tensors
        near, silhouette = apart(left["features"].float().numpy(), left["labels"].numpy())
        said = f"10-NN {100 * near:.1f} %, silhouette {silhouette:.2f}"
        assert axes.get_title().splitlines()[-1] == said
        (points,) = axes.collections
        assert points.get_offsets().shape == (64, 2)
        seen = {
            (int(y), tuple(c)) for y, c in zip(left["labels"], points.get_facecolors(), strict=True)
        }
        assert len(seen) == len(dict(seen)) == len({c for _, c in seen}) == 4, "a color a class"


def test_t_sne_of_poisons_has_what_they_changed(
    out: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    poison = records.poisoned("dots/lsp", 1)
    figure = drawn(out, tmp_path, saved, "tsne", ["dots/lsp", "dots/noise"], "--seed", "1")
    change = (poison.images.floats() - poison.clean.floats()).flatten(1).numpy()
    near, silhouette = apart(change, poison.clean.labels.numpy())
    title = figure.axes[0].get_title().splitlines()
    assert title == ["lsp", f"10-NN {100 * near:.1f} %, silhouette {silhouette:.2f}"]
    assert [len(axes.collections[0].get_offsets()) for axes in figure.axes] == [128, 128]


def test_perturbations_are_drawn_as_they_were_asked_for(
    out: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    specs = ["dots/lsp@0.5", "dots/noise@0.5"]
    words = ["--normalize", "gain", "minmax", "--gain", "7"]
    figure = drawn(out, tmp_path, saved, "perturbations", specs, *words)
    poisons = [records.poisoned(spec) for spec in specs]
    names = ["lsp@0.5", "noise@0.5"]
    sets = {name: (p.clean, p.images) for name, p in zip(names, poisons, strict=True)}
    expected = draw_changes(sets, ("gain", "minmax"), 7.0)
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["clean", *names]
    assert figure.axes[4].get_title(loc="left") == "changes, gain 7"
    for axes, same in zip(figure.axes, expected.axes, strict=True):
        assert len(axes.images) == len(same.images)
        for one, other in zip(axes.images, same.images, strict=True):
            assert np.array_equal(one.get_array(), other.get_array())


@pytest.mark.parametrize("name", ["grad-cam", "shapley"])
def test_maps_are_those_of_each_trial(
    name: str, out: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    """An image a class; of Shapley values those of the label, here of the predicted class."""
    extra = ["--of", "predicted"] if name == "grad-cam" else ["--samples", "4"]
    figure = drawn(out, tmp_path, saved, name, SPECS[1:], *extra)
    victims = [records.victim(spec) for spec in SPECS[1:]]
    test = victims[0].test
    images = test.rows(examples(test))
    grid = np.array(figure.axes).reshape(3, 4)
    assert images.labels.tolist() == [0, 1, 2, 3]
    for n, axes in enumerate(grid[0]):
        assert np.array_equal(axes.images[0].get_array(), images.pixels[n].permute(1, 2, 0))
    for line, victim in zip(grid[1:], victims, strict=True):
        x, y = images.floats(), images.labels
        if name == "grad-cam":
            maps = grad_cam(victim, x, victim(x).argmax(1))
        else:
            maps = shapley(victim, x, y, samples=4)
        shown = np.stack([axes.images[-1].get_array() for axes in line])
        assert np.allclose(shown, maps.numpy(), atol=1e-6)
        assert shown.any()
