"""The table of targeted attacks: published beside measured, controls, errors, means of victims."""

from __future__ import annotations

from typing import Any

import pytest

from raygrid.reports.analysis.summary import over_seeds
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.render import markdown
from raygrid.reports.tables.trial_lines import trial_lines
from raygrid.trials.result import Result

SPEC = "cifar10/{}/standard/{}/{}/just_how_toxic(setups=/data/toxic)/{}"
BP = "bullseye_polytope"


def row(
    attack: str, victim: str, seed: int, hit: bool, learner: str = "linear_probe"
) -> dict[str, Any]:
    probes = {"clean_test": {"k": 90, "n": 100, "acc": 0.9, "loss": 0.3}}
    for name in ("target", "target_hflip", "target_clbd", "target_htbd"):
        probes[name] = {"k": int(hit), "n": 1, "acc": float(hit), "loss": 1.0, "logodds": 0.5}
    spec = SPEC.format(attack, victim, learner, seed)
    return Result(spec, spec, probes=probes, final_acc=0.9, last_acc=0.9).row()


def rows(victim: str, hits: int, n: int = 20, control: int = 2) -> list[dict[str, Any]]:
    made = [row(BP, victim, s, s < hits) for s in range(n)]
    return made + [row("clean", victim, s, s < control) for s in range(n)]


def test_success_stands_beside_its_control_and_the_published_rate() -> None:
    panel = table("success", trial_lines(rows("resnet18", 17))).panels[0]
    cell = panel.cells[BP, "resnet18"]
    assert (cell.value, cell.n, cell.printed.value) == (0.85, 20, 0.85)
    assert cell.printed.own
    assert cell.std == pytest.approx(0.1118, abs=1e-4)  # 3 failures: the floor, sqrt(0.25 / 20)
    assert (cell.low, cell.high) == pytest.approx((0.640, 0.948), abs=1e-3)
    assert cell.facts["control"] == 0.1
    assert cell.facts["excess"] == pytest.approx(0.75)
    assert (cell.facts["gained"], cell.facts["lost"]) == (15, 0)
    assert cell.facts["p"] == pytest.approx(2 / 2**15)
    assert panel.cells["clean", "resnet18"].facts.get("control") is None


def test_victims_of_one_poison_are_averaged_by_set_up() -> None:
    made = rows("vgg11", 2) + rows("mobilenetv2", 4)
    panel = table("success", trial_lines(made)).panels[0]
    mean = panel.cells[BP, "mean(of=vgg11:mobilenetv2)"]
    assert mean.value == pytest.approx(0.15)
    assert mean.n == 20
    assert mean.std == pytest.approx((0.15 * 0.85 / 40) ** 0.5), "of 40 trials in 20 set-ups"
    assert mean.printed.value == 0.085
    assert mean.interval == "bootstrap over set-ups"
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low < 0.15 < mean.high
    assert "p" not in mean.facts


def test_a_mean_that_no_paper_prints_has_not_the_number_of_its_first_victim() -> None:
    """Table 3 prints that of three victims for fresh ones alone."""
    made = [line for name in ("resnet18", "vgg11", "mobilenetv2") for line in rows(name, 4)]
    cells = table("success", trial_lines(made)).panels[0].cells
    assert cells[BP, "resnet18"].printed.value == 0.85
    mean = cells[BP, "mean(of=resnet18:vgg11:mobilenetv2)"]
    assert mean.printed is None
    flat = {name: mean.row()[name] for name in ("published", "source", "own", "differs")}
    assert flat == {"published": None, "source": None, "own": False, "differs": False}


def test_a_mean_over_victims_has_nothing_of_its_first_victim_alone() -> None:
    """Its accuracy, its failures, and without a set-up that both have its very success."""
    made = rows("vgg11", 2) + rows("mobilenetv2", 4)
    for each in made:
        each["final_acc"] = 0.9 if "vgg11" in each["spec"] else 0.7
    made[-21] |= {"status": "failed", "probes": {}, "error": "a worker was lost"}
    assert "mobilenetv2" in made[-21]["spec"]
    assert "clean/" not in made[-21]["spec"]
    mean = table("success", trial_lines(made)).panels[0].cells[BP, "mean(of=vgg11:mobilenetv2)"]
    assert mean.final_acc == pytest.approx(0.8)
    assert (mean.n, mean.failed, mean.why) == (19, 1, "a worker was lost")
    apart = [r for r in made if ("vgg11" in r["spec"]) == (int(r["spec"].split("/")[-1]) < 5)]
    mean = table("success", trial_lines(apart)).panels[0].cells[BP, "mean(of=vgg11:mobilenetv2)"]
    assert (mean.value, mean.n, mean.std, mean.low, dict(mean.values)) == (None, 0, None, None, {})


def test_a_mean_over_victims_names_no_single_winner() -> None:
    """Each victim has its own: those of the first would pass for those of all."""
    made = [
        {**each, "spec": each["spec"].replace("/standard/", "/iss/"), "winner": winner}
        for victim, winner in (("vgg11", "jpeg"), ("mobilenetv2", "bdr"))
        for each in rows(victim, 2)
    ]
    cells = table("success", trial_lines(made)).panels[0].cells
    assert cells[BP, "vgg11"].facts["winners"] == {"jpeg": 20}
    mean = cells[BP, "mean(of=vgg11:mobilenetv2)"]
    assert (mean.facts["selection"], mean.facts.get("winners")) == ("test", None)


def test_a_backdoor_is_held_against_the_control_with_its_trigger() -> None:
    made = [row("clbd", "resnet18", s, hit=False) for s in range(10)]
    controls = [row("clean", "resnet18", s, hit=False) for s in range(10)]
    for each in controls[:3]:
        each["probes"]["target_clbd"]["acc"] = 1.0
    cell = table("success", trial_lines(made + controls)).panels[0].cells["clbd", "resnet18"]
    assert cell.facts["control"] == pytest.approx(0.3)
    assert cell.facts["excess"] == pytest.approx(-0.3)


def test_trials_without_a_target_make_no_such_table() -> None:
    plain = Result("cifar10/lsp/standard/resnet18/supervised/apbench/0", "k", final_acc=0.5).row()
    assert table("success", trial_lines([plain])).panels == ()


def test_the_text_says_what_the_numbers_are() -> None:
    text = markdown(table("success", trial_lines(rows("resnet18", 17))))
    assert "85.00 ± 11.18 (control 10.0; p = 6.1e-05)" in text
    assert "[85.00]" in text
    assert "Success on the target in percent; mean ± the benchmark's standard error" in text
    assert "over 20 set-ups" in text
    assert "A seed of the grid" not in text, "it is the number of a set-up"


def test_intervals_are_over_set_ups() -> None:
    made = table("success", trial_lines(rows("resnet18", 1, n=2))).with_intervals()
    text = markdown(made)
    assert "50.00 ± 35.36 (9.45 to 90.55; control 100.0)" in text
    assert "In round brackets: 95 % interval (Wilson over set-ups)." in text
    assert "Of two seeds" not in text


def test_a_mean_over_victims_has_the_control_of_all_or_of_none() -> None:
    """With a control of one victim alone, that stood beside the mean of two."""
    made = [r for r in rows("vgg11", 2) + rows("mobilenetv2", 4) if "clean/" not in r["spec"]]
    made += [r for r in rows("vgg11", 2) if "clean/" in r["spec"]]
    panel = table("success", trial_lines(made)).panels[0]
    assert panel.cells[BP, "vgg11"].facts["control"] == 0.1
    mean = panel.cells[BP, "mean(of=vgg11:mobilenetv2)"]
    assert not {"control", "excess"} & set(mean.facts)


def test_success_over_seeds_is_no_mean_of_two() -> None:
    (found,) = over_seeds(rows("vgg11", 1, n=2, control=0)[:2], "target_success")
    assert (found["n"], found["interval"]) == (2, "wilson")
    assert "note" not in found
