"""Printed tables as jobs at three scales."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import Architecture
from raygrid.attacks import ATTACKS
from raygrid.attacks.common.disentangled import Disentangled
from raygrid.attacks.dune import Dune
from raygrid.cli import main as cli
from raygrid.cli.reproduce import several
from raygrid.core.errors import SpecError
from raygrid.core.labels import short
from raygrid.core.spec import Part, TrialSpec
from raygrid.core.speed import CPU
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES
from raygrid.engine.costs.estimate import trial_seconds
from raygrid.engine.grid import Plan, plan
from raygrid.learners import LEARNERS
from raygrid.literature.lookup import find
from raygrid.literature.names import PAPER_NAMES as REFERENCES
from raygrid.literature.names import SIX_LEARNERS
from raygrid.literature.printed import Apart
from raygrid.literature.reference import printed_rows, specs_of, tables_of
from raygrid.literature.toxic import BASELINES
from raygrid.protocols import PROTOCOLS
from raygrid.reports.tables.kinds import TABLE_KINDS, table
from raygrid.reports.tables.layout import Panel
from raygrid.reports.tables.trial_lines import tier, trial_lines
from raygrid.reproduce.ablations import ABLATIONS
from raygrid.reproduce.beside import compared, with_printed
from raygrid.reproduce.papers import PAPERS, Scale
from raygrid.reproduce.scales import SMALL_EPOCHS, absent, scaled
from raygrid.reproduce.tables import (
    CONTROLLED_TABLES,
    Only,
    PaperTable,
    paper_table,
    paper_table_of,
)
from raygrid.trials.resolve import resolve

ROOT = Path(__file__).parents[2]
KINDS = {r.kind: r for r in (ARCHITECTURES, ATTACKS, DATASETS, DEFENSES, LEARNERS, PROTOCOLS)}


def test_the_paper_scale_is_the_printed_table() -> None:
    for paper in REFERENCES:
        for number in tables_of(paper):
            wanted = paper_table(paper, number)
            assert wanted.missing == ()
            named = ("/clean/",) if PAPERS[paper].setups else ("/withheld@",)
            controls = {text for text in wanted.specs if any(name in text for name in named)}
            assert set(wanted.specs) - controls == set(specs_of(paper, number)) - controls
            assert bool(controls) == (PAPERS[paper].setups or (paper, number) in CONTROLLED_TABLES)
    gone = TrialSpec.parse("nowhere/lsp/standard/resnet18/supervised/apbench/0")
    assert paper_table_of([gone], "paper", (0,)).missing == ("dataset nowhere",)
    assert absent(TrialSpec.parse("nowhere/lsp/standard+nothing/resnet18/nobody/apbench/0")) == [
        "dataset nowhere",
        "defense nothing",
        "learner nobody",
    ]


@pytest.mark.parametrize(
    ("paper", "number", "axis", "usual", "there"),
    [
        ("apbench", "5", "dataset", "imagenet100", "(test_per_class=40, train_per_class=200)"),
        ("apbench", "12", "dataset", "imagenet100", "(test_per_class=40, train_per_class=200)"),
        ("apbench", "5", "attack", "lsp", "(patch=32)"),
        (
            "dvae",
            "4",
            "attack",
            "em_remrepo",
            "(decay_every=1200, step=0.25, steps=7, train_steps=3000)",
        ),
        ("dvae", "4", "attack", "tap_remrepo", "(step=0.02, steps=100, surrogate_epochs=39)"),
        ("dvae", "4", "chain", "dvae", "(epochs=20, limit1=1.5)"),
        ("dvae", "11", "chain", "dvae", "(epochs=20, limit1=1.5)"),
        ("dvae", "4", "chain", "ueraser_max", "(lite_after=30)"),
        ("dvae", "11", "chain", "ueraser_max", "(lite_after=30)"),
    ],
)
def test_imagenet100_is_run_with_the_settings_that_it_has_in_print(
    paper: str, number: str, axis: str, usual: str, there: str
) -> None:
    specs = map(
        TrialSpec.parse, paper_table(paper, number, "paper", Only(dataset="imagenet100")).specs
    )
    named = {str(getattr(spec, axis)) for spec in specs}
    assert {text for text in named if text.partition("(")[0] == usual} == {usual + there}


@pytest.mark.parametrize(
    ("printed", "stand_in"),
    [
        ("lsp(patch=32)/standard/apbench", "lsp/standard"),
        ("lsp/dvae(epochs=20, limit1=1.5)/dvae", "lsp/dvae(batch_size=32, epochs=4, shrink=4)"),
        (
            "lsp/dvae(epochs=20, limit1=1.5, second=false)/dvae",
            "lsp/dvae(batch_size=32, epochs=4, second=false, shrink=4)",
        ),
        ("lsp/ueraser_max(lite_after=30)/dvae", "lsp/ueraser_max(lite_after=1)"),
        ("lsp/at(steps=5)/dvae", "lsp/at(step=1.6/255)"),
        (
            "lsp/dvae(epochs=20, limit1=1.5)/apbench",
            "lsp/dvae(batch_size=32, epochs=20, limit1=1.5, shrink=4)",
        ),
    ],
)
def test_stand_ins_have_what_the_paper_runs_on_small_images(printed: str, stand_in: str) -> None:
    """Unless it is another paper's protocol: then it is what somebody asked for."""
    attack, defense, protocol = printed.split("/")
    spec = f"imagenet100/{attack}/{defense}/resnet18/supervised/{protocol}/0"
    wanted = f"photo_digits/{stand_in}/small_cnn/supervised/quick/0"
    assert str(scaled(TrialSpec.parse(spec), "quick")) == wanted


@pytest.mark.parametrize(("scale", "where"), [("paper", "cifar100"), ("quick", "photo_digits")])
def test_the_best_of_three_filters_is_asked_for_as_its_paper_ran_it(
    scale: Scale, where: str
) -> None:
    wanted = paper_table("dvae", "3", scale, Only(attacks=["lsp"], defenses=["iss"]))
    (spec,) = wanted.specs
    assert spec.startswith(f"{where}/lsp/iss(bdr=float)/")
    trained = [trial.spec.chain for trial in plan(wanted.specs, None).trials]
    assert trained == ["bdr(variant=float)", "grayscale", "jpeg"]


def test_smaller_scales_ask_the_same_of_smaller_things() -> None:
    spec = TrialSpec.parse("cifar10/lsp/grayscale/resnet18/supervised/apbench/0")
    assert str(scaled(spec, "quick")) == "photo_digits/lsp/grayscale/small_cnn/supervised/quick/0"
    assert str(scaled(spec, "small")) == str(spec).replace(
        "/apbench/", f"/apbench(epochs={SMALL_EPOCHS})/"
    )
    assert scaled(spec, "paper") == spec
    quick = paper_table("apbench", "3", "quick", seeds=(0, 1))
    assert "photo_digits/lsp/grayscale/small_cnn/supervised/quick/1" in quick.specs
    assert len(set(quick.specs)) == len(quick.specs)
    planned = plan(quick.specs, None)
    assert len(planned.trials) + len(planned.derived) + len(planned.skips) >= len(quick.specs)


@pytest.mark.parametrize("protocol", ["pil", "pil(epochs=30)", "pil(epochs=12)"])
def test_a_protocol_that_is_no_longer_than_scale_small_stays(protocol: str) -> None:
    spec = TrialSpec.parse(f"cifar10/pil/none/resnet18/supervised/{protocol}/0")
    assert scaled(spec, "small") == spec
    collision = TrialSpec.parse(BASELINES["feature_collision"])
    assert scaled(collision, "small") == collision, "20 epochs"
    polytope = TrialSpec.parse(BASELINES["convex_polytope"])
    assert dict(scaled(polytope, "small").protocol.params)["epochs"] == SMALL_EPOCHS, "of 60"


@pytest.mark.parametrize(
    ("dataset", "turn", "scale", "moved"),
    [
        ("cifar10", 50, "paper", 50),
        ("cifar10", 50, "small", 7),  # of 30 epochs, as 50 of 200
        ("cifar10", 50, "quick", 3),  # of 12
        ("cifar10", 50, "screen", 1),  # of 6
        ("cifar10", 50, "smoke", 1),  # of 2
        ("cifar10", 0, "quick", 0),
        ("cifar100", 30, "small", 3),  # as 30 of 300
        ("cifar100", 30, "quick", 1),
    ],
)
def test_a_defense_turns_at_the_same_share_of_a_shorter_training(
    dataset: str, turn: int, scale: Scale, moved: int
) -> None:
    spec = f"{dataset}/lsp/ueraser_max(lite_after={turn})/resnet18/supervised/dvae/0"
    (defense,) = scaled(TrialSpec.parse(spec), scale).defense
    assert str(defense) == f"ueraser_max(lite_after={moved})"


def test_the_grid_tier_is_the_protocols_own() -> None:
    spec = TrialSpec.parse("cifar10/tp/standard/resnet18/simclr/tp/0")
    assert str(scaled(spec, "grid")) == "cifar10/tp/standard/resnet18/simclr/tp_grid/0"
    with pytest.raises(SpecError, match="protocol dvae has no grid tier"):
        scaled(spec.replace(protocol=Part("dvae")), "grid")


def test_quick_attacks_keep_what_the_table_varies_at_twice_the_budget() -> None:
    def quick(attack: str, learner: str = "supervised", protocol: str = "tp") -> str:
        text = f"cifar10/{attack}/standard/resnet18/{learner}/{protocol}/0"
        return str(scaled(TrialSpec.parse(text), "quick"))

    given = {**ATTACKS["tp"].quick, "budget": "16/255", "cl_steps": 3}
    assert quick("tp(cl_steps=3)") == (
        f"photo_digits/{Part.of('tp', **given)}/standard/small_cnn/supervised/quick/0"
    )
    assert "budget=32/255" in quick("tp(budget=16/255)")
    assert quick("lsp") == "photo_digits/lsp/standard/small_cnn/supervised/quick/0"
    dune = ATTACKS.make(TrialSpec.parse(quick("dune", protocol="wxl")).attack)
    assert isinstance(dune, Dune)
    assert (dune.spatial, dune.budget.value) == (16 / 255, 1.0), "its ceiling is not its noise"
    assert "budget=16/255" in quick("dune(budget=8/255)", protocol="wxl")
    assert quick("clean", "simclr", "apbench").endswith("simclr/quick(probe_data=clean)/0")
    assert quick("clean", "simclr").endswith("simclr/quick/0")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_has_a_small_one_of_its_family(name: str) -> None:
    kind = ARCHITECTURES[name]
    small = ARCHITECTURES[kind.stand_in]
    assert small.stand_in == kind.stand_in, "a small network stands for itself"
    assert small.gflop < 0.01
    low, high = small.sizes
    assert low <= DATASETS["photo_digits"].image_size <= high
    assert small.convolutional == kind.convolutional
    residual = {"resnet34", "resnet34_strided", "resnet50", "resnet32_narrow"}
    # Cousins in files of their own, whose small one is that of the blocks they are made of.
    residual |= {"dla34", "regnetx_200mf", "resnext29"}
    others = {"dpn92", "efficientnet_b0", "pnasnet5", "preact_resnet18", "shufflenetv2"}
    if name not in residual | others | {"resnet18"} and kind.stand_in != Architecture.stand_in:
        assert small.__module__ == kind.__module__, "a file is a family"
    assert (kind.stand_in == "small_resnet") == (name in residual | {"small_resnet"})
    made = scaled(TrialSpec.parse(f"cifar10/clean/none/{name}/supervised/tp/0"), "quick")
    assert made.architecture == Part(kind.stand_in)
    assert not absent(made)


def test_networks_of_one_table_are_told_apart_at_scale_quick() -> None:
    wanted = paper_table("transferable", "6", "quick")
    small = {TrialSpec.parse(text).architecture.name for text in wanted.specs}
    assert small == {"small_cnn", "small_resnet", "small_vgg", "small_densenet", "small_mobilenet"}
    assert len(wanted.printed) == len(wanted.specs) == len(specs_of("transferable", "6"))
    assert wanted.shared == ()
    six = paper_table("apbench", "7", "quick")
    assert len({TrialSpec.parse(text).architecture.name for text in six.specs}) == 6


def test_what_stands_for_several_printed_trials_is_said() -> None:
    where = "{}/clean/standard/{}/supervised/apbench/0"
    cells = [("cifar10", "resnet34"), ("cifar10", "resnet50"), ("svhn", "vgg11")]
    wanted = paper_table_of([TrialSpec.parse(where.format(*cell)) for cell in cells], "quick", (0,))
    assert len(wanted.specs) == 2
    assert wanted.shared == ("small_resnet for resnet34, resnet50",)
    assert wanted.datasets == ("cifar10", "svhn")
    assert wanted.alone("cifar10") == {}
    assert [spec.architecture.name for spec in wanted.alone("svhn").values()] == ["vgg11"]
    (said,) = several(wanted)
    assert "small_resnet for resnet34, resnet50)." in said
    assert several(paper_table("transferable", "6", "quick")) == []
    assert paper_table("apbench", "12", "quick").shared == (
        "photo_digits for cifar10, cifar100, "
        "imagenet100(test_per_class=40, train_per_class=200), svhn",
    )


def test_the_attackers_networks_shrink_with_the_victims() -> None:
    def quick(attack: str, protocol: str = "just_how_toxic") -> dict[str, object]:
        text = f"cifar10/{attack}/none/vgg16/linear_probe/{protocol}/0"
        return dict(scaled(TrialSpec.parse(text), "quick").attack.params)

    assert quick("feature_collision(surrogate=vgg16)")["surrogate"] == "small_vgg"
    assert quick("htbd(surrogate=alexnet_htbd)")["surrogate"] == "small_alexnet"
    assert quick("htbd")["surrogate"] == "small_cnn"
    three = quick("bullseye_polytope(surrogate=resnet18:vgg11:resnet34)")["surrogate"]
    assert three == "small_cnn:small_vgg:small_resnet"
    assert quick("pgd(surrogate=resnet50)")["surrogate"] == "small_resnet"


def test_smoke_is_quick_with_less_of_everything() -> None:
    """The same trials; images are fewer, and epochs of victims and of what methods fit."""
    epochs, once = re.compile(r"\b((classifier_)?epochs|updates|lite_after)=\d+"), r"\1=1"
    for paper in REFERENCES:
        for number in tables_of(paper):
            quick, smoke = (paper_table(paper, number, scale) for scale in ("quick", "smoke"))
            assert smoke.missing == quick.missing == ()
            assert len(smoke.specs) == len(quick.specs)
            for one, other in zip(quick.specs, smoke.specs, strict=True):
                large, few = TrialSpec.parse(one), TrialSpec.parse(other)
                assert dict(few.protocol.params) == {**dict(large.protocol.params), "epochs": 2}
                assert str(few.dataset) in ("photo_digits(every=6)", "photo_digits_last")
                assert few.dataset.name == large.dataset.name
                for axis in ("attack", "chain"):
                    said = str(getattr(large, axis))
                    assert str(getattr(few, axis)) in (epochs.sub(once, said), said)
                rest = few.replace(dataset=large.dataset, protocol=large.protocol)
                assert rest.replace(attack=large.attack, defense=large.defense) == large


def test_smoke_keeps_the_epochs_that_a_table_varies() -> None:
    def smoke(defense: str) -> str:
        spec = f"cifar10/lsp/{defense}/resnet18/supervised/dvae/0"
        return scaled(TrialSpec.parse(spec), "smoke").chain

    assert smoke("vae") == "vae(batch_size=32, epochs=1, shrink=4)"
    assert smoke("vae(epochs=20)") == "vae(batch_size=32, epochs=20, shrink=4)"


def check_job(printed: tuple[str, str], wanted: PaperTable, planned: Plan) -> None:
    """A table of a paper asks for no more trials than it prints, and each of them is planned."""
    control = "/clean/" if PAPERS[printed[0]].setups else "/withheld@"
    stand_ins = [text for text in wanted.specs if control not in text]
    assert len(stand_ins) <= len(specs_of(*printed))
    assert len(wanted.printed) == len(wanted.specs) or wanted.shared
    assert bool(planned.trials or planned.skips) == bool(wanted.specs)
    assert wanted.specs or wanted.missing
    for reason in wanted.missing:
        kind, method = reason.split()[:2]
        assert method not in KINDS[kind] or "unknown" in reason


@pytest.mark.parametrize(("scale", "artifact", "all_"), [("quick", 1.0, 8.0), ("smoke", 0.1, 0.7)])
@pytest.mark.parametrize("paper", PAPERS)
def test_every_table_is_a_job_that_takes_hours_at_most_on_one_core(
    paper: str, scale: Scale, artifact: float, all_: float
) -> None:
    """By estimate, in hours: each of its artifacts, and a table with all that it needs."""
    for number in tables_of(paper):
        wanted = paper_table(paper, number, scale)
        planned = plan(wanted.specs, None)
        check_job((paper, number), wanted, planned)
        made = {a.label: a.seconds(CPU) for a in planned.artifacts}
        longest = max(made, key=lambda label: made[label], default="")
        assert not made or made[longest] < 3600 * artifact, longest
        trained = [trial_seconds(trial, CPU) for trial in planned.trials]
        assert sum(trained) + sum(made.values()) < 3600 * all_, number


def test_quick_defenses_keep_what_the_table_varies() -> None:
    spec = TrialSpec.parse("cifar10/lsp/avatar(steps=100)/resnet18/supervised/dvae/0")
    (defense,) = scaled(spec, "quick").defense
    assert dict(defense.params) == {**DEFENSES["avatar"].quick, "steps": 100}


def test_quick_disentangled_poisons_have_a_quick_base_at_twice_its_budget() -> None:
    def quick(attack: str) -> Any:
        text = f"cifar10/{attack}/standard/resnet18/supervised/dvae/0"
        return ATTACKS.make(scaled(TrialSpec.parse(text), "quick").attack)

    em = quick("dvae_recon(base=em)").attack
    assert em.surrogate == "small_cnn"
    assert em.budget.value == pytest.approx(16 / 255)
    assert quick("dvae_grow(base=lsp, share=0.04)").attack == ATTACKS.make("lsp")
    assert quick("dvae_grow(base=lsp, share=0.04)").share == 0.04


@pytest.mark.parametrize("scale", ["paper", "quick"])
def test_a_table_over_the_poisoned_share_has_the_clean_part_alone_beside(scale: Scale) -> None:
    """Once for all attacks, with each defense at each share, and as far as they are chosen."""
    for only, cells in ((Only(), 8), (Only(defenses=("jpeg",)), 4), (Only(attacks=("lsp",)), 8)):
        listed = [TrialSpec.parse(text) for text in paper_table("dvae", "8", scale, only).specs]
        controls = [spec for spec in listed if spec.attack.name == "withheld"]
        assert len(controls) == len({(s.chain, s.poison_ratio) for s in controls}) == cells
        poisoned = {(s.chain, s.poison_ratio) for s in listed if s.attack.name != "withheld"}
        assert {(s.chain, s.poison_ratio) for s in controls} == {
            cell for cell in poisoned if cell[1] < 1
        }


@pytest.mark.parametrize("name", [name for name in DEFENSES if DEFENSES[name].quick])
def test_quick_parameters_make_a_small_defense(name: str) -> None:
    small = DEFENSES.make(Part.of(name, **DEFENSES[name].quick))
    assert small.purify_cost < DEFENSES.make(name).purify_cost / 3
    assert getattr(small, "flip", None) is not True, "a mirrored digit is another one"


@pytest.mark.parametrize("name", [name for name in ATTACKS if ATTACKS[name].quick])
def test_quick_parameters_make_a_small_attack(name: str) -> None:
    attack = ATTACKS.make(Part.of(name, **ATTACKS[name].quick))
    base = attack.attack if isinstance(attack, Disentangled) else attack
    assert base.surrogate == "small_cnn"  # type: ignore[attr-defined]
    assert getattr(attack, "flip", False) is False, "a mirrored digit is another one"
    assert attack.resolved() != ATTACKS.make(name).resolved()


@pytest.mark.parametrize("scale", ["quick", "grid", "paper"])
@pytest.mark.parametrize("number", ["1", "2", "3", "4", "5", "6", "7", "10"])
def test_the_tables_of_tp_are_jobs_of_one_tier(number: str, scale: Scale) -> None:
    wanted = paper_table("transferable", number, scale)
    assert wanted.missing == ()
    parsed = [TrialSpec.parse(text) for text in wanted.specs]
    assert {tier(spec.protocol) for spec in parsed} == {scale}
    if scale == "paper":
        assert set(wanted.specs) == set(specs_of("transferable", number))
    six: dict[object, set[str]] = {(s.dataset, s.attack, s.architecture): set() for s in parsed}
    for spec in parsed:
        six[spec.dataset, spec.attack, spec.architecture].add(spec.learner.name)
    assert all(learners == set(SIX_LEARNERS) for learners in six.values())


def test_apbench_made_its_contrastive_poisons_for_the_learner() -> None:
    pairs = {(s.attack, s.learner.name) for s in map(TrialSpec.parse, specs_of("apbench", "10"))}
    frameworks: dict[str, set[str]] = {"cp": set(), "tue": set()}
    for attack, learner in pairs:
        assert ATTACKS.make(attack).framework == learner  # type: ignore[attr-defined]
        frameworks[attack.name].add(learner)
    assert frameworks == {"cp": {"simclr", "moco"}, "tue": {"simclr", "moco"}}


def halves(wanted: PaperTable) -> Panel:
    """The panel of attacks against learners whose trials all end at 50 %."""
    done = {"status": "done", "final_acc": 0.5}
    specs = [str(resolve(text, None).spec) for text in wanted.specs]
    rows = [{"spec": spec, "key": spec, **done} for spec in specs]
    (panel,) = table("worst-learner", trial_lines(rows)).panels
    return panel


def test_quick_tables_show_what_was_printed_for_the_real_thing() -> None:
    wanted = paper_table("transferable", "5", "quick")
    panel = halves(wanted)
    assert all(cell.printed is None for cell in panel.cells.values())
    (filled,) = compared(panel, ("transferable", "5"), wanted)
    names = short(filled.rows)
    assert set(names.values()) == {
        "tp",
        *(f"tp(cl_steps={n}, sl_steps={n})" for n in (3, 7, 9)),
        "tp(sl_steps=3)",
        "tp(cl_steps=3)",
    }
    (row,) = (label for label, name in names.items() if name == "tp(cl_steps=3)")
    assert filled.cells[row, "simclr"].printed.value == pytest.approx(0.4564)
    assert filled.cells[row, "worst"].printed.value == pytest.approx(0.4811)
    assert str(filled.cells[row, "worst"].printed.apart) == "transferable, cifar10"
    assert not any(cell.printed.differs for cell in filled.cells.values())


def test_a_stand_in_for_several_datasets_is_compared_with_each() -> None:
    wanted = paper_table("transferable", "3", "quick")
    shown = compared(halves(wanted), ("transferable", "3"), wanted)
    printed = [TrialSpec.parse(text) for text in specs_of("transferable", "3")]
    figures = {(str(s.dataset), s.attack.name, s.learner.name): find(s) for s in printed}
    assert len(shown) == len(wanted.datasets) == 2
    for panel, dataset in zip(shown, wanted.datasets, strict=True):
        for (_, learner), cell in panel.cells.items():
            if learner != "worst":
                attack = Part.parse(cell.axes["attack"]).name
                figure = figures.pop((dataset, attack, learner))
                assert figure is not None
                assert cell.printed.value == figure.best.value
                assert cell.printed.apart == Apart("transferable", data=dataset)
    assert not {name for _, _, name in figures} & set(SIX_LEARNERS), (
        "every printed number stands somewhere"
    )


@pytest.mark.parametrize(
    ("paper", "number", "cell", "printed", "elsewhere"),
    [
        ("dvae", "11", "imagenet100/lsp/jpeg/resnet18", 0.5306, 0.3683),
        ("apbench", "7", "cifar10/em_apb/avatar/vit_small", 0.5484, 0.7281),
        ("pil", "augmentation", "cifar10/pil/standard/resnet18", 0.1287, 0.1277),
        ("pil", "main", "cifar10/pil/standard/resnet18", 0.1277, 0.1277),
    ],
)
def test_a_table_shows_its_own_number_where_another_prints_one_too(
    paper: str, number: str, cell: str, printed: float, elsewhere: float
) -> None:
    wanted = paper_table(paper, number)
    (text,) = (text for text in wanted.specs if short_of(TrialSpec.parse(text)) == cell)
    made = str(resolve(text, None).spec)
    rows = [{"spec": made, "key": "0", "status": "done", "final_acc": 0.5}]
    (panel,) = table("defense", trial_lines(rows)).panels
    usual = next(each for each in panel.cells.values() if each.value is not None)
    assert usual.printed.value == pytest.approx(elsewhere)
    (own,) = compared(panel, (paper, number), wanted)
    shown = next(each for each in own.cells.values() if each.value is not None)
    assert (shown.printed.value, shown.printed.own) == (pytest.approx(printed), True)
    assert number in shown.printed.source


def short_of(spec: TrialSpec) -> str:
    """Dataset, attack, defense and network without their parameters."""
    parts = (spec.dataset, spec.attack, *spec.defense, spec.architecture)
    return "/".join(part.name for part in parts)


def test_every_measure_has_its_own_printed_number() -> None:
    wanted = paper_table("learned_faster", "2", "quick", Only(attacks=["regions"]))
    (text,) = (text for text in wanted.specs if "/regions" in text)
    made = str(resolve(text, None).spec)
    row = {"spec": made, "key": "0", "status": "done", "final_acc": 0.1, "peak_acc": 0.5}
    (panel,) = table("peak", trial_lines([row])).panels
    cells = with_printed(panel, ("learned_faster", "2"), wanted.alone("cifar10")).cells
    found = {column: cell.row()["published"] for (_, column), cell in cells.items()}
    assert (found["final_acc"], found["peak_acc"]) == (0.1164, 0.6658)
    assert {found[name] for name in ("gap", "peak_epoch", "epochs_to_half")} == {None}


def test_a_dataset_can_be_chosen_and_bad_names_are_refused() -> None:
    small = paper_table("apbench", "5", "small", Only(dataset="svhn"))
    assert all(text.startswith("svhn/") for text in small.specs)
    with pytest.raises(SpecError, match="did you mean 'quick'"):
        paper_table("apbench", "3", "quik")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="unknown paper"):
        paper_table("apbenches", "3")


@pytest.mark.parametrize(
    ("paper", "number", "scale"),
    [
        ("apbench", "6", "quick"),
        ("learned_faster", "2", "quick"),
        ("dvae", "9", "quick"),
        ("transferable", "1", "quick"),
        ("transferable", "4", "grid"),
        ("transferable", "10", "quick"),
        ("apbench", "10", "grid"),
        ("just_how_toxic", "3", "paper"),
        ("just_how_toxic", "patch", "quick"),
    ],
)
def test_a_table_of_a_paper_plans(
    paper: str, number: str, scale: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--dry-run", "--executor", "inline", "--out", str(tmp_path), "--data", str(tmp_path)]
    words = ["reproduce", paper, "--table", number, "--scale", scale, *places]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    wanted = paper_table(paper, number, scale)  # type: ignore[arg-type]
    planned = plan(wanted.specs, None)
    assert said.startswith(f"{len(planned.trials)} trials, ")
    rows = {str(trial.spec) for trial in (*planned.trials, *planned.derived)}
    assert f"0 of {len(rows)} rows are there" in said


def test_every_table_of_every_paper_is_listed_with_what_is_in_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_trials = {row["paper"] for row in printed_rows() if row["cell"]}
    assert set(PAPERS) == with_trials <= set(REFERENCES)
    for name, paper in PAPERS.items():
        assert set(paper.tables) == {*tables_of(name), *ABLATIONS.get(name, ())}
        assert {kind for table in paper.tables for kind in paper.kinds_of(table)} <= set(
            TABLE_KINDS
        )
        with pytest.raises(SystemExit) as end:
            cli.main(["reproduce", name, "--help"])
        assert end.value.code == 0
        said = capsys.readouterr().out
        assert all(text in said for text in (paper.source, *paper.tables.values(), *paper.notes))
        assert ("--setups" in said) == (name == "just_how_toxic")


def planned_by(
    script: str,
    words: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """What a script says to a dry run."""
    path = ROOT / "experiments" / script
    monkeypatch.syspath_prepend(path if path.is_dir() else path.parent)
    places = ["--dry-run", "--executor", "inline", "--out", str(folder), "--data", str(folder)]
    monkeypatch.setattr(sys, "argv", [str(path), *words, *places])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_contradictions_plan_in_words_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--which", "probe_data"]
    said = planned_by("contradictions", words, tmp_path, monkeypatch, capsys)
    assert said.startswith("12 trials, ")
    said = planned_by("contradictions", [*words, "--json"], tmp_path, monkeypatch, capsys)
    assert len(json.loads(said)["trials"]) == 12
