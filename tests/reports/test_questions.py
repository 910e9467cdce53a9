"""Questions to finished trials, in Python and from the command line."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raygrid.architectures.networks.network import Network
from raygrid.attacks import ATTACKS
from raygrid.cli import evaluate, figure
from raygrid.cli.evaluate import add_evaluate
from raygrid.cli.figure import add_figure
from raygrid.core.errors import DataError
from raygrid.core.seeds import Stream
from raygrid.nn.pgd import Ball
from raygrid.reports.analysis.classes import confusion, entropy
from raygrid.reports.analysis.questions import (
    adversarial,
    robustness,
    transferability,
    with_answers,
)
from raygrid.reports.analysis.records import Records, Victim
from raygrid.trials.resolve import resolve
from tests.finished import BARE, CLEAN, LSP, SPECS, command, result_of

pytestmark = pytest.mark.usefixtures("undrawn")


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
    return replace(records.victim(SPECS[draw]), network=network)


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


def test_black_box_images_are_crafted_on_the_victim_of_the_next_seed(records: Records) -> None:
    victims = [undecided(records, draw) for draw in (0, 1)]
    ball = Ball(80 / 255, 5, 20 / 255)
    rows = robustness(victims, ball, images=40)
    for victim, source, row in zip(victims, reversed(victims), rows, strict=True):
        test = victim.test.rows(torch.arange(40))
        white, black = (
            adversarial(crafted_on, test, ball, Stream("robustness").generator(0))
            for crafted_on in (victim, source)
        )
        shown = (test.floats(), white, black)
        hits = [int((victim(x).argmax(1) == test.labels).sum()) / 40 for x in shown]
        assert [row[name] for name in ("clean_acc", "white_acc", "black_acc")] == hits
        assert len(set(hits)) == 3, "else this test could not tell the sources apart"
        assert row["source"] == source.name


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
    how: str, finished: Path, records: Records, monkeypatch: pytest.MonkeyPatch
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
        assert command(finished, "evaluate", "robustness", SPECS[0]) == 0
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


def test_questions_from_the_command_line(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on = "dots/lsp(budget=l2:3)"
    assert command(finished, "evaluate", "sets", LSP, "--on", on, "--json") == 0
    rows = {row["set"]: row for row in json.loads(capsys.readouterr().out)}
    asked = result_of(finished, LSP).probes["clean_test"]
    assert rows["clean_test"]["k"] == asked["k"]
    assert rows["clean_test"]["loss"] == pytest.approx(asked["loss"], rel=1e-5)  # as precise, too
    assert rows["train"]["k"] == rows[on]["k"]
    assert rows["train"]["acc"] > rows["clean_train"]["acc"]
    assert (
        command(finished, "evaluate", "robustness", SPECS[0], "--steps", "1", "--images", "8") == 0
    )
    assert "clean_acc" in capsys.readouterr().out
    assert command(finished, "evaluate", "transferability", on, "--victims", SPECS[0]) == 0
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


def test_seeds_and_costs_from_the_command_line(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(finished, "evaluate", "seeds", *SPECS[:2], "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    values = [result_of(finished, spec).final_acc or 0.0 for spec in SPECS[:2]]
    assert (row["n"], row["interval"], row["seeds"]) == (2, "t", "0 1")
    assert row["acc"] == pytest.approx(np.mean(values))
    assert row["std_acc"] == pytest.approx(np.std(values, ddof=1))
    half = 8.9846 * np.std(values, ddof=1)
    assert row["high_acc"] - row["low_acc"] == pytest.approx(2 * half, rel=1e-3)
    assert command(finished, "evaluate", "cost", BARE, LSP, "--json") == 0
    bare, lsp = json.loads(capsys.readouterr().out)
    assert bare["training_s"] == result_of(finished, BARE).seconds
    assert bare["purified_s"] >= 0
    assert lsp["purified_s"] is None
    assert lsp["poison_s"] > 0
    assert lsp["memory_mb"] > 0
    assert command(finished, "evaluate", "cost") == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_classes_are_those_of_scikit_learn(
    finished: Path, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    from scipy.stats import entropy as scipy_entropy
    from sklearn.metrics import confusion_matrix, recall_score

    assert command(finished, "evaluate", "classes", LSP, SPECS[1], "--json") == 0
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
    assert every["acc"] == result_of(finished, LSP).final_acc
    assert (every["class"], every["n"]) == ("all", len(labels))
    shares = np.bincount(predicted) / len(predicted)
    assert every["entropy_bits"] == pytest.approx(scipy_entropy(shares, base=2))
    assert every["most_bits"] == np.log2(len(each))
    assert {row["victim"] for row in rows[len(rows) // 2 :]} == {SPECS[1]}
    assert command(finished, "evaluate", "classes", LSP) == 0
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


GAIN = ("--normalize", "gain", "--gain", "0")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("figure", "transfer-peak", LSP, "--file", "x.png"), "transfer-peak needs --victims"),
        (("evaluate", "transferability", "dots/lsp"), "needs --victims"),
        (("evaluate", "sets"), "sets needs the spec of a trial or poison"),
        (("evaluate", "norms", "dots/lsp"), "dots/lsp/0 was not made by a D-VAE"),
        (
            ("evaluate", "norms", LSP),
            f"'{LSP}' has 7 pieces, expected 2: dataset/attack[@ratio] (did you mean 'dots/",
        ),
        (
            ("evaluate", "transferability", LSP, "--victims", LSP),
            f"'{LSP}' has 7 pieces, expected 2: dataset/attack[@ratio] (did you mean 'dots/",
        ),
        (("evaluate", "norms", "lsp"), "'lsp' has 1 pieces, expected 2: dataset/attack[@ratio]\n"),
        (("evaluate", "seeds", CLEAN.format(9)), "there is no result of dots/clean/none"),
        (("evaluate", "robustness", LSP, "--radius", "2"), "radius is 2, allowed are numbers"),
        (("evaluate", "robustness", LSP, "--steps", "-1"), "steps is -1, allowed are whole"),
        (("evaluate", "robustness", LSP, "--step", "0"), "step is 0, allowed are numbers above 0"),
        (("evaluate", "robustness", LSP, "--images", "0"), "images is 0, allowed are whole"),
        (("evaluate", "classes", LSP, "--epoch", "peak"), "--epoch: classes would ignore what is"),
        (
            ("evaluate", "seeds", "--epoch", "peak", "--victims", "x", "--steps", "3"),
            "--victims, --epoch, --steps: seeds would ignore what is set here; it takes --metric",
        ),
        (
            ("evaluate", "sets", LSP, "--seed", "1"),
            "--seed applies to poisons (dataset/attack) only, and",
        ),
        (("figure", "tsne", LSP, "--epoch", "peak", "--file", "x.png"), "--epoch: tsne would"),
        (
            ("figure", "perturbations", "dots/lsp", "--gain", "1", "--file", "x.png"),
            "--gain is the factor of --normalize gain, which is not given",
        ),
        (
            ("figure", "shapley", LSP, "--baseline", "mean", "--file", "x.png"),
            "--baseline is of --estimator sampling, which is not given",
        ),
        (
            ("evaluate", "classes", CLEAN.format(9)),
            "left no predictions: run it with --keep predictions",
        ),
        (("evaluate", "robustness", BARE), "left no weights: run it with --keep weights"),
        (("figure", "tsne", BARE, "--file", "x.png"), "left no features"),
        (("figure", "tsne", "dots/clean", "--file", "x.png"), "changed no image"),
        (("figure", "perturbations", "dots/clean", "--file", "x.png"), "nothing was changed"),
        (("figure", "perturbations", "dots/withheld@0.5", "--file", "x.png"), "withholds images"),
        (
            (*("figure", "perturbations", "dots/lsp", "--file", "x.png"), *GAIN),
            "gain is 0.0, allowed are numbers above 0",
        ),
        (("figure", "grad-cam", LSP, "--layer", "body.77", "--file", "x.png"), "unknown layer"),
    ],
)
def test_questions_that_have_no_answer(
    words: tuple[str, ...], says: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(finished, *words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("question", ["seeds", "cost", "agreement"])
def test_a_folder_without_results_is_no_empty_answer(
    question: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path / "resluts", "evaluate", question) == 2
    assert f"there are no results under {tmp_path / 'resluts'}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("evaluate", "cost"), ("show", BARE)])
def test_broken_lines_are_told_of_once(
    words: tuple[str, ...], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    with (tmp_path / "out" / "results.jsonl").open("a") as file:
        file.write("{broken\n")
    assert command(tmp_path / "out", *words) == 0
    assert capsys.readouterr().err.count("1 broken lines in ") == 1


def test_options_of_questions_are_all_in_the_table() -> None:
    for add, takes, own in (
        (add_evaluate, evaluate.QUESTION_OPTIONS, {"help", "question", "specs"}),
        (add_figure, figure.FIGURE_OPTIONS, {"help", "figure", "specs", "file"}),
    ):
        parser = argparse.ArgumentParser()
        add(parser)
        names = {name for taken in takes.values() for name in taken}
        assert {action.dest for action in parser._actions} - own == names
