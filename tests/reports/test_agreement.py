"""Measured cells beside printed ones: which number stands for which, and what is made of pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raygrid.cli.main import main
from raygrid.core.errors import DataError
from raygrid.core.spec import Part
from raygrid.literature import lookup
from raygrid.reports.analysis.agreement import TIE_DIFFERENCE, agreement
from raygrid.reports.analysis.counterparts import group_order
from raygrid.reports.figures.agreement import draw_agreement
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.render import markdown
from raygrid.reports.tables.trial_lines import trial_lines
from raygrid.storage.store import ResultLog

WHERE = "small_airbench/supervised/fast(rung=minutes)"


def row(attack: str, defense: str, accuracy: float, seed: int = 0, where: str = WHERE) -> Any:
    spec = f"cifar10/{attack}/{defense}/{where}/{seed}"
    return {
        **{"spec": spec, "key": spec, "status": "done", "final_acc": accuracy},
        **{"peak_acc": accuracy, "probes": {"clean_test": {"n": 10_000, "acc": accuracy}}},
    }


def printed(attack: str, defense: str) -> float:
    found = lookup.find(f"cifar10/{attack}/{defense}/resnet18/supervised/fast/0")
    assert found is not None
    return found.best.value


DEFENSES = ("none", "standard", "cutout", "grayscale", "jpeg", "bdr")
SHIFTED = [row(a, d, printed(a, d) + 0.02) for a in ("lsp", "ops") for d in DEFENSES]


def test_a_shifted_copy_of_the_papers_agrees_in_every_rank() -> None:
    found = agreement(SHIFTED)
    assert len(found.cells) == 12
    assert all(cell["difference_acc"] == pytest.approx(0.02) for cell in found.cells)
    assert {cell["group"] for cell in found.cells} == {"as printed"}
    by = {line["attack"]: line for line in found.correlations}
    assert {name: line["n"] for name, line in by.items()} == {"all": 12, "lsp": 6, "ops": 6}
    for line in by.values():
        assert line["spearman"] == pytest.approx(1.0)
        assert line["kendall"] == pytest.approx(1.0)
        assert line["mean_error_acc"] == pytest.approx(0.02)
        assert line["far"] == 0
    assert {line["same"] for line in found.winners} == {"yes"}
    assert {line["loss_acc"] for line in found.winners} == {0.0}


def test_an_upside_down_copy_disagrees_and_its_far_cells_are_marked() -> None:
    turned = [row("lsp", d, 1 - printed("lsp", d)) for d in DEFENSES]
    found = agreement(turned)
    (line, _) = found.correlations
    assert line["spearman"] == pytest.approx(-1.0)
    far = sorted(d for d in DEFENSES if abs(1 - 2 * printed("lsp", d)) > 0.15)
    assert [cell["defense"] for cell in found.cells if cell["far"]] == far
    assert line["far"] == len(far)
    (winner,) = found.winners
    proper = [d for d in DEFENSES if d not in ("none", "standard")]  # augmentation defends nothing
    best = max(proper, key=lambda d: printed("lsp", d))
    worst = min(proper, key=lambda d: printed("lsp", d))
    assert (winner["by_printed"], winner["by_measured"]) == (best, worst)
    assert winner["loss_acc"] == pytest.approx(printed("lsp", best) - printed("lsp", worst))


def test_the_strongest_attack_is_the_one_with_the_lowest_accuracy() -> None:
    rows = [row("lsp", "jpeg", 0.2), row("ops", "jpeg", 0.6), row("ar", "jpeg", 0.8)]
    (winner,) = agreement(rows).winners
    strongest = min(("lsp", "ops", "ar"), key=lambda a: printed(a, "jpeg"))
    assert winner["question"] == "strongest attack"
    assert (winner["by_measured"], winner["by_printed"]) == ("lsp", strongest)


def winner(*rows: Any) -> Any:
    (found,) = [line for line in agreement(rows).winners if line["question"] == "strongest attack"]
    return found


def test_defenses_that_know_more_than_others_may_are_never_the_best() -> None:
    """`early_stopping` chooses by the test set, `avatar` here has seen the clean training set."""
    seen = "avatar(centered=false, diffusion_data=clean_train)"
    accuracies = {"early_stopping": 0.9, seen: 0.8, "jpeg": 0.7, "bdr": 0.6}
    found = agreement([row("lsp", *each) for each in accuracies.items()])
    assert len(found.cells) == 4, "beside the printed numbers they stand like all others"
    (winner,) = found.winners
    assert (winner["by_measured"], winner["by_printed"], winner["among"]) == ("jpeg", "jpeg", 2)


def test_the_order_of_the_log_changes_nothing() -> None:
    measured = [row(a, d, printed(a, d) ** 2) for a in ("lsp", "ops", "ar") for d in DEFENSES]
    there, back = agreement(measured), agreement(reversed(measured))
    assert (there.cells, there.correlations, there.winners) == (
        *(back.cells, back.correlations, back.winners),
    )


def test_winners_that_no_measurement_tells_apart_tie() -> None:
    """Printed without a defense: AR 11.74, LSP 13.06 %."""
    near = winner(row("ar", "standard", 0.1085), row("lsp", "standard", 0.1))
    assert (near["by_printed"], near["by_measured"], near["same"]) == ("ar", "lsp", "tie")
    assert near["loss_acc"] == pytest.approx(printed("lsp", "standard") - printed("ar", "standard"))
    far = winner(row("ar", "standard", 0.1 + TIE_DIFFERENCE + 0.001), row("lsp", "standard", 0.1))
    assert far["same"] == "no"


def test_winners_within_the_spread_of_seeds_tie() -> None:
    loose = [row("ar", "standard", acc, seed) for seed, acc in enumerate((0.1, 0.2))]
    tight = [row("ar", "standard", 0.15, seed) for seed in (0, 1)]
    lsp = [row("lsp", "standard", 0.1, seed) for seed in (0, 1)]
    assert winner(*loose, *lsp)["same"] == "tie"
    assert winner(*tight, *lsp)["same"] == "no"


def test_winners_that_print_does_not_tell_apart_tie() -> None:
    """Printed behind `gaussian`: OPS 13.38, AR 13.83 %; behind `bdr`: 37.32 and 36.14 %."""
    close = winner(row("ops", "gaussian", 0.5), row("ar", "gaussian", 0.2))
    assert (close["by_printed"], close["by_measured"], close["same"]) == ("ops", "ar", "tie")
    assert close["loss_acc"] == pytest.approx(0.0045)
    apart = winner(row("ops", "bdr", 0.2), row("ar", "bdr", 0.5))
    assert (apart["by_printed"], apart["by_measured"], apart["same"]) == ("ar", "ops", "no")


def test_poisons_of_another_surrogate_stand_apart_and_seeds_are_averaged() -> None:
    made = "tap(batch_size=500, steps=20, surrogate=small_airbench, surrogate_epochs=4)"
    rows = [row("lsp", "none", 0.1), row("lsp", "none", 0.3, seed=1), row(made, "none", 0.2)]
    cells = {cell["group"]: cell for cell in agreement(rows).cells}
    assert cells["as printed"]["measured_acc"] == pytest.approx(0.2)
    assert cells["as printed"]["n"] == 2
    assert cells["other surrogate"]["printed_acc"] == printed("tap", "none")
    classwise = "em(mode=class, surrogate=small_airbench)"
    (cell,) = agreement([row(classwise, "standard", 0.2)]).cells
    assert cell["printed_acc"] == printed("em(mode=class)", "standard")


def test_a_poison_of_the_papers_own_surrogate_is_the_printed_one() -> None:
    (own,) = agreement([row("pil", "cutout", 0.11)]).cells
    assert (own["group"], own["printed_acc"]) == ("as printed", printed("pil", "cutout"))
    (other,) = agreement([row("pil(surrogate=linear)", "cutout", 0.11)]).cells
    assert other["group"] == "other surrogate"


@pytest.mark.parametrize(
    "attack",
    [
        "dune(color=false, surrogate=small_airbench)",
        "tap(steps=60, targeted=false)",
        "em(max_rounds=10, rectify=true)",
        "sep(last_means=false)",
    ],
)
def test_a_parameter_that_no_paper_printed_makes_another_attack(attack: str) -> None:
    """Other networks and steps apart, which make the same one: see `Attack.effort`."""
    plain = Part.parse(attack).name
    effort = f"{plain}(batch_size=100, steps=9, surrogate=small_airbench)"
    (cell,) = agreement([row(effort, "standard", 0.2)]).cells
    assert (cell["group"], cell["printed_acc"]) == ("other surrogate", printed(plain, "standard"))
    with pytest.raises(DataError):
        agreement([row(attack, "standard", 0.2)])


def group(attack: str, defense: str, where: str, **facts: Any) -> tuple[str, float]:
    (cell,) = agreement([{**row(attack, defense, 0.2, where=where), **facts}]).cells
    return cell["group"], cell["printed_acc"]


def test_a_number_of_another_method_of_the_same_name_stands_apart() -> None:
    """D-VAE ran `em_remrepo`, `tap_remrepo` and a float `bdr`, APBench `rem_apb`."""
    apbench, dvae = (f"resnet18/supervised/{paper}" for paper in ("apbench", "dvae"))
    assert group("em", "grayscale", dvae) == ("other method", pytest.approx(0.1950))
    assert group("em_remrepo", "grayscale", dvae) == ("as printed", pytest.approx(0.1950))
    assert group("rem", "standard", apbench) == ("other method", pytest.approx(0.1747))
    assert group("rem_apb", "standard", apbench) == ("as printed", pytest.approx(0.1747))
    assert group("tap", "standard", dvae)[0] == "other method"
    assert group("tap(steps=60)", "standard", dvae)[0] == "other surrogate, other method"
    assert group("lsp", "bdr", dvae)[0] == "other method"
    assert group("lsp", "bdr(variant=float)", dvae)[0] == "as printed"


def test_a_poison_that_the_paper_made_with_another_network_is_of_another_surrogate() -> None:
    """Learned Faster asked a ResNet-50 where `pgd` asks a ResNet-18."""
    where = "resnet18/supervised/learned_faster"
    assert group("pgd(steps=100)", "standard", where)[0] == "other surrogate"
    assert group("pgd(steps=100, surrogate=resnet50)", "standard", where)[0] == "as printed"


def test_cells_of_other_data_than_the_papers_stand_apart() -> None:
    marks = ["not the official data: cifar10 (10,000 of 50,000 images)"]
    where = "resnet18/supervised/apbench"
    assert group("lsp", "standard", where, marks=marks) == ("other data", pytest.approx(0.1306))
    assert group("lsp", "standard", where)[0] == "as printed"
    assert group("clean", "standard", where, marks=marks)[0] == "control"


def test_the_control_is_listed_and_not_correlated() -> None:
    found = agreement([*SHIFTED, row("clean", "standard", 0.87)])
    (control,) = [cell for cell in found.cells if cell["group"] == "control"]
    assert control["printed_acc"] == pytest.approx(0.9432)
    assert found.correlations[0]["n"] == 12


def test_a_table_that_varies_steps_is_compared_with_the_row_of_so_many() -> None:
    """Parameters that papers name are kept, those by which a poison was made shorter are not."""
    made = "pgd(steps={}, surrogate=small_airbench, surrogate_epochs=10)"
    ten, hundred = agreement([row(made.format(n), "standard", 0.5) for n in (10, 100)]).cells
    assert ten["printed_acc"] == printed("pgd(steps=10)", "standard")
    assert hundred["printed_acc"] == printed("pgd(steps=100)", "standard") != ten["printed_acc"]
    with pytest.raises(DataError):
        agreement([row(made.format(20), "standard", 0.5)])


MOBILE = "small_mobilenet/supervised/fast(rung=minutes)"


def test_a_small_network_is_compared_with_those_that_it_stands_in_for() -> None:
    """ResNet-18 is no MobileNet: of what was printed for it alone nothing is compared."""
    where = [row(a, "standard", 0.3, where=MOBILE) for a in ("lsp", "ar", "clean")]
    cells = {cell["attack"]: cell for cell in agreement(where).cells}
    assert {cell["printed_on"] for cell in cells.values()} == {"mobilenetv2"}
    assert cells["lsp"]["group"] == cells["ar"]["group"] == "other network"
    assert cells["lsp"]["printed_acc"] == pytest.approx(0.1682)  # APBench's table 7
    assert cells["clean"]["group"] == "control"
    assert printed("lsp", "cutout") > 0
    with pytest.raises(DataError):
        agreement([row("lsp", "cutout", 0.3, where=MOBILE)])
    with pytest.raises(DataError):
        agreement([row("lsp", "cutout", 0.3, where="resnet50/supervised/dvae")])


def test_the_fast_family_and_resnet_18_itself_are_compared_with_resnet_18() -> None:
    networks = ("small_airbench", "airbench(widths=32:96:96)", "resnet18")
    rows = [row("lsp", "cutout", 0.3, where=f"{name}/supervised/fast") for name in networks]
    cells = agreement(rows).cells
    assert {(cell["group"], cell["printed_on"]) for cell in cells} == {("as printed", "resnet18")}
    assert {cell["printed_acc"] for cell in cells} == {printed("lsp", "cutout")}
    assert len({cell["setting"] for cell in cells}) == 3


def test_of_several_printed_networks_the_one_with_most_numbers_comes_first() -> None:
    (cell,) = agreement([row("lsp", "standard", 0.3, where="small_resnet/supervised/fast")]).cells
    assert cell["printed_on"] == "resnet50"
    assert lookup.printed_networks()[0] == "resnet18"
    assert {"resnet50", "resnet34", "mobilenetv2"} < set(lookup.printed_networks())


def test_a_smaller_purifier_stands_apart_beside_the_number_of_the_usual_one() -> None:
    """DUNE's main table prints 34.18 % for CUDA behind ECLIPSE."""
    small = "eclipse(size=tiny, stride=4, updates=4000)"
    cells = agreement([row("cuda", small, 0.5), row("cuda", "eclipse", 0.4)]).cells
    found = [(cell["group"], cell["printed_acc"], cell["source"]) for cell in cells]
    assert found == [
        ("other purifier", pytest.approx(0.3418), "dune main"),
        ("as printed", pytest.approx(0.3418), "dune main"),
    ]
    with pytest.raises(DataError):  # other noise is another defense, whatever its size
        agreement([row("cuda", "eclipse(noise=0.1, size=tiny)", 0.5)])


def test_a_group_names_all_that_is_other() -> None:
    tap = "tap_remrepo(steps=60, surrogate=small_airbench)"
    lsp = row("lsp", "dvae(epochs=10, shrink=4)", 0.5, where="small_vgg/supervised/fast")
    em = "em_apb(max_rounds=10, surrogate=small_airbench)"
    cells = agreement([row(tap, "dvae(epochs=10)", 0.5), row(em, "standard", 0.5, where=MOBILE)])
    assert [cell["group"] for cell in cells.cells] == [
        "other network, other surrogate",
        "other surrogate, other purifier",
    ]
    with pytest.raises(DataError):
        agreement([lsp])  # behind D-VAE no VGG was printed with it
    groups = ["partly poisoned", "other network, other surrogate", "other surrogate", "as printed"]
    assert sorted(groups, key=group_order) == [groups[3], groups[2], groups[0], groups[1]]


def test_unprinted_cells_have_no_counterpart() -> None:
    with pytest.raises(DataError, match="none of these trials has a number that a paper printed"):
        agreement([row("lsp@0.5", "none", 0.5), row("noise", "random_blur", 0.5)])


def test_a_number_that_looks_wrong_in_its_paper_is_no_counterpart() -> None:
    specs = [f"svhn/ar/{d}/resnet18/supervised/apbench/0" for d in ("standard", "early_stopping")]
    rows = [{**row("ar", "standard", 0.2), "spec": spec, "key": spec} for spec in specs]
    found = agreement(rows).cells
    assert [(one["defense"], one["printed_acc"]) for one in found] == [("standard", 0.1923)]


def test_partly_poisoned_cells_stand_apart_beside_the_number_of_their_ratio() -> None:
    """Most of them are near the clean accuracy: among the others they would help any ranking."""
    parts = [row(f"cuda@{ratio}", "standard", acc) for ratio, acc in ((0.2, 0.9), (0.8, 0.8))]
    found = agreement([*SHIFTED, *parts, row("withheld@0.8", "standard", 0.8)])
    apart = {
        (cell["group"], cell["attack"], cell["poison_ratio"]): cell["printed_acc"]
        for cell in found.cells
        if cell["poison_ratio"] < 1
    }
    assert apart == {
        ("partly poisoned", "cuda", 0.2): pytest.approx(0.9328),
        ("partly poisoned", "cuda", 0.8): pytest.approx(0.8561),
        ("control", "withheld", 0.8): pytest.approx(0.8430),
    }
    counts = {(line["group"], line["attack"]): line["n"] for line in found.correlations}
    assert counts[("as printed", "all")] == 12
    assert counts[("partly poisoned", "all")] == counts[("partly poisoned", "cuda")] == 2
    assert {line["group"] for line in found.winners} == {"as printed"}
    assert [len(axes.get_title()) > 0 for axes in draw_agreement(found).axes] == [True, True]


def test_the_figure_has_a_panel_for_each_kind_of_poison() -> None:
    made = "tap(surrogate=small_airbench)"
    one = draw_agreement(agreement(SHIFTED))
    assert "chance" in [text.get_text().strip() for text in one.axes[0].texts]
    assert "Bars" not in str(one.get_label()), "of one seed there are none"
    two = draw_agreement(agreement([*SHIFTED, row(made, "none", 0.2)]))
    assert [len(one.axes), len(two.axes)] == [1, 2]
    assert "as printed: 12 cells, mean error 2.0 points, ρ = 1.00" in one.get_label()
    assert "other surrogate: 1 cell, too few" in two.get_label()


def test_the_figure_draws_the_setting_with_most_cells_and_counts_the_others() -> None:
    other = [row(a, "standard", 0.3, where=MOBILE) for a in ("lsp", "ar", "clean")]
    figure = draw_agreement(agreement([*other, *SHIFTED]))
    assert [axes.get_title() for axes in figure.axes] == ["as printed"]
    title = figure.get_suptitle()
    assert "small_airbench" in title
    assert "small_mobilenet" not in title
    assert "as printed: 12 cells" in figure.get_label()
    assert "other network" not in figure.get_label()
    assert f"Not drawn: 3 cells of cifar10/{MOBILE}." in figure.get_label()
    shown = [text.get_text() for text in figure.texts]
    assert figure.get_label() in shown, "the caption is drawn, too"


def test_four_groups_stand_in_two_rows() -> None:
    rows = [
        *SHIFTED,
        row("tap(surrogate=small_airbench)", "none", 0.2),
        row("cuda", "eclipse(size=tiny)", 0.5),
        row("cuda@0.2", "standard", 0.9),
        row("clean", "standard", 0.9),
    ]
    figure = draw_agreement(agreement(rows))
    assert [axes.get_title() for axes in figure.axes] == [
        *("as printed", "other surrogate", "other purifier", "partly poisoned")
    ]
    places = [axes.get_position() for axes in figure.axes]
    assert len({round(place.x0, 3) for place in places}) == 2
    assert len({round(place.y0, 3) for place in places}) == 2
    for axes in figure.axes:
        assert "clean" in [line.get_label() for line in axes.containers], "controls stand in each"


def test_each_control_has_a_marker_of_its_own() -> None:
    others = [row(a, "standard", 0.5) for a in ("cuda", "cuda@0.2", "withheld@0.8", "ar", "pil")]
    axes = draw_agreement(agreement([*SHIFTED, *others, row("clean", "standard", 0.9)])).axes[0]
    handles, labels = axes.get_legend_handles_labels()
    markers = {n: h[0].get_marker() for n, h in zip(labels, handles, strict=True)}  # type: ignore[index]
    assert (markers.pop("clean"), markers.pop("withheld")) == ("*", "x")
    assert not {"*", "x"} & set(markers.values())


def test_tables_say_that_it_is_screening_and_keep_it_apart() -> None:
    other = [row("lsp", "none", 0.1, where="small_airbench/supervised/dvae")]
    made = table("defense", trial_lines([*SHIFTED, *other]))
    text = markdown(made)
    assert len(made.panels) == 2
    assert text.count("screening, protocol fast(rung=minutes)") == 1
    assert text.count("Screening: a victim of minutes") == 1


def test_the_command_prints_all_three_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ResultLog(tmp_path / "results.jsonl")
    for each in SHIFTED:
        log.append(each)
    assert main(["evaluate", "agreement", "--out", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {name: len(part) for name, part in said.items()} == {
        **{"cells": 12, "correlations": 3, "winners": 8, "far": 0}
    }
    assert main(["evaluate", "agreement", "--out", str(tmp_path)]) == 0
    assert "0 of 12 cells are more than 15 points off" in capsys.readouterr().out
    drawn = tmp_path / "agreement.png"
    assert main(["figure", "agreement", "--out", str(tmp_path), "--file", str(drawn)]) == 0
    assert drawn.stat().st_size > 10_000
