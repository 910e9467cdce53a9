"""Comparing two defenses: paired by seed on an attack, signed ranks over attacks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raygrid.cli import main as cli
from raygrid.core.errors import DataError, SpecError
from raygrid.reports.analysis.comparison import compare
from raygrid.reports.analysis.summary import over_seeds
from raygrid.reports.statistics import holm, signed_rank
from raygrid.trials.result import Result

Json = dict[str, Any]
TOY = "photo_digits/{}/{}/small_cnn/supervised/quick/{}"
FIRST = {"lsp": (0.5, 0.7, 0.6), "em": (0.4, 0.5), "ops": (0.3,), "clean": (0.1, 0.1, 0.1)}
SECOND = {"lsp": (0.4, 0.5, 0.1), "em": (0.3, None, 0.9), "ops": (0.25,), "clean": (0.9, 0.9, 0.9)}


def row(spec: str, acc: float | None) -> Json:
    made = Result(spec, key=spec, status="failed" if acc is None else "done")
    made.final_acc, made.peak_acc = acc, None if acc is None else 1 - acc
    return made.row()


def rows() -> list[Json]:
    sides = {"jpeg": FIRST, "grayscale": SECOND}
    return [
        row(TOY.format(attack, defense, seed), acc)
        for defense, values in sides.items()
        for attack, accuracies in values.items()
        for seed, acc in enumerate(accuracies)
    ]


def by_attack(found: list[Json]) -> dict[str, Json]:
    return {one["attack"]: one for one in found}


def test_differences_are_paired_by_seed() -> None:
    found = by_attack(compare(rows(), ["jpeg", "grayscale"]))
    lsp = found["lsp"]
    apart = np.array([0.1, 0.2, 0.5])  # not the spread of either side
    half = 4.302653 * apart.std(ddof=1) / math.sqrt(3)
    assert lsp["difference_acc"] == pytest.approx(apart.mean())
    assert (lsp["low_acc"], lsp["high_acc"]) == (
        pytest.approx(apart.mean() - half),
        pytest.approx(apart.mean() + half),
    )
    assert (lsp["first"], lsp["second"], lsp["n"], lsp["of"]) == ("jpeg", "grayscale", 3, 3)
    assert "note" not in lsp
    em, ops = found["em"], found["ops"]
    assert (em["n"], em["of"], em["seeds"]) == (1, 3, "0"), "seeds that one side lacks do not count"
    assert em["difference_acc"] == pytest.approx(0.1)
    assert (ops["low_acc"], ops["std_acc"]) == (None, None)
    turned = by_attack(compare(rows(), ["grayscale", "jpeg"]))["lsp"]
    assert turned["difference_acc"] == pytest.approx(-apart.mean())
    peak = by_attack(compare(rows(), ["jpeg", "grayscale"], "peak_acc"))["lsp"]
    assert peak["difference_acc"] == pytest.approx(-apart.mean())


def test_the_test_over_attacks_leaves_clean_out() -> None:
    over = by_attack(compare(rows(), ["jpeg", "grayscale"]))["all 3"]
    assert over["difference_acc"] == pytest.approx((0.8 / 3 + 0.1 + 0.05) / 3)
    assert over["p"] == over["p_holm"] == pytest.approx(0.25), "2 of 8 signs are as one-sided"
    only = [one for one in rows() if "/lsp/" in one["spec"] or "/clean/" in one["spec"]]
    assert [one["attack"] for one in compare(only, ["jpeg", "grayscale"])] == ["lsp", "clean"]


def test_signed_ranks_of_all_signs_by_hand() -> None:
    """-1, 2, 3, 4: the smaller rank sum is 1; of 16 signs 2 are as small, twice that is p."""
    assert signed_rank([-0.01, 0.02, 0.03, 0.04]) == pytest.approx(4 / 16)
    assert signed_rank([0.0, 0.0]) == 1.0


def test_p_values_are_corrected_for_their_number() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_several_pairs_are_corrected() -> None:
    more = [
        row(TOY.format(attack, "cutout", 0), acc - 0.3 * (attack != "em"))
        for attack, (acc, *_) in FIRST.items()
    ]
    found = compare([*rows(), *more], ["jpeg", "grayscale", "cutout"])
    pairs = {(one["first"], one["second"]): one for one in found if one["attack"] == "all 3"}
    assert set(pairs) == {("jpeg", "grayscale"), ("jpeg", "cutout"), ("grayscale", "cutout")}
    ps = [one["p"] for one in pairs.values()]
    assert [one["p_holm"] for one in pairs.values()] == holm(ps) != ps


def test_trials_stand_for_all_their_seeds() -> None:
    found = compare(rows(), [TOY.format("lsp", d, 7) for d in ("jpeg", "grayscale")])
    (one,) = found
    assert (one["attack"], one["n"], one["first"]) == ("lsp", 3, "jpeg")
    other = row(TOY.format("lsp", "none", 1).replace("small_cnn", "small_vgg"), 0.2)
    sides = [TOY.format("lsp", "jpeg", 0), other["spec"]]
    (two,) = compare([*rows(), other], sides)
    assert (two["first"], two["second"]) == ("small_cnn/jpeg", "small_vgg/none")
    assert (two["n"], two["difference_acc"]) == (1, pytest.approx(0.5))
    assert "defense" not in two


@pytest.mark.parametrize(
    ("sides", "error", "says"),
    [
        (["jpeg"], SpecError, "two that differ in more than the seed, not jpeg"),
        (["jpeg", "jpeg(quality=10)"], SpecError, "two that differ in more than the seed"),
        ([TOY.format("lsp", "jpeg", n) for n in (0, 1)], SpecError, "more than the seed"),
        (["jpeg", TOY.format("lsp", "jpeg", 0)], SpecError, "defenses or trials, not both"),
        (["jpeg", "grey"], SpecError, "unknown defense 'grey'"),
        (
            [TOY.format(a, "jpeg", 0) for a in ("lsp", "em")],
            SpecError,
            "trials of one attack, not of lsp, em",
        ),
        (["jpeg", "bdr"], DataError, "there is no result of bdr"),
    ],
)
def test_what_cannot_be_compared_is_said(
    sides: list[str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        compare(rows(), sides)


def test_sides_that_never_meet_are_an_error() -> None:
    apart = [row(TOY.format("lsp", "jpeg", 0), 0.1), row(TOY.format("em", "bdr", 0), 0.1)]
    with pytest.raises(DataError, match="jpeg and bdr have no setting in common"):
        compare(apart, ["jpeg", "bdr"])


def test_an_interval_of_two_seeds_is_said_to_be_wide() -> None:
    two = [one for one in rows() if not one["spec"].endswith("/2")]
    wide = "n = 2: the interval is the mean ± 8.98 s"
    assert by_attack(compare(two, ["jpeg", "grayscale"]))["lsp"]["note"] == wide
    spread = over_seeds([one for one in two if "/lsp/" in one["spec"]], "peak_acc")
    assert [one["note"] for one in spread] == [f"{wide}, from 0 to 1"] * 2
    assert [one["acc"] for one in spread] == [pytest.approx(0.55), pytest.approx(0.4)]
    assert 0.4 + 8.98 * spread[0]["std_acc"] > 1
    assert (spread[0]["low_acc"], spread[0]["high_acc"]) == (0, 1)


def test_comparing_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps(one) + "\n" for one in rows()]
    (tmp_path / "results.jsonl").write_text("".join(lines))
    words = ["--out", str(tmp_path), "--data", str(tmp_path / "data"), "--tracking", "off"]
    ask = ["evaluate", "compare", "jpeg", "grayscale", *words]
    assert cli.main([*ask, "--json"]) == 0
    found = by_attack(json.loads(capsys.readouterr().out))
    assert found["lsp"]["difference_acc"] == pytest.approx(0.8 / 3)
    assert cli.main([*ask, "--metric", "peak_acc"]) == 0
    text = capsys.readouterr().out
    assert "-26.67 %" in text
    assert "all 3" in text
    assert "0.25" in text
    assert cli.main(["evaluate", "compare", "jpeg", *words]) == 2
    assert cli.main(["evaluate", "seeds", "--metric", "peak_acc", "--json", *words]) == 0
    seeds = [one for one in json.loads(capsys.readouterr().out) if one["attack"] == "lsp"]
    assert [one["acc"] for one in seeds] == [pytest.approx(2 / 3), pytest.approx(0.4)]


def test_the_control_of_a_ratio_is_not_counted_among_attacks() -> None:
    values = {"lsp@0.5": (0.6, 0.5), "ops@0.5": (0.7, 0.5), "withheld@0.5": (0.9, 0.2)}
    made = [
        row(TOY.format(attack, defense, 0), acc)
        for attack, accuracies in values.items()
        for defense, acc in zip(("jpeg", "grayscale"), accuracies, strict=True)
    ]
    found = by_attack(compare(made, ["jpeg", "grayscale"]))
    assert found["withheld"]["difference_acc"] == pytest.approx(0.7)
    assert found["all 2"]["difference_acc"] == pytest.approx(0.15)


def test_only_seeds_with_a_value_are_named() -> None:
    made = [row(TOY.format("lsp", "jpeg", seed), acc) for seed, acc in enumerate((0.5, None, 0.6))]
    (found,) = over_seeds(made)
    assert (found["n"], found["seeds"]) == (2, "0 2")


def test_groups_and_seeds_stand_in_order_whatever_the_order_of_the_log() -> None:
    made = [row(TOY.format(a, "jpeg", s), 0.5) for a in ("tap", "lsp") for s in (10, 9, 2)]
    found = over_seeds(made)
    said = [(each["attack"], each["seeds"]) for each in found]
    assert said == [("lsp", "2 9 10"), ("tap", "2 9 10")]
    assert over_seeds(made[::-1]) == found
