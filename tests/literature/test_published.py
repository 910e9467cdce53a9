"""Published numbers: shipped as they are, every row mapped, found by the axes of a trial."""

from __future__ import annotations

import csv
import re
from decimal import Decimal
from importlib import resources
from pathlib import Path

import pytest

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.core.errors import SpecError
from raygrid.core.spec import Part, TrialSpec
from raygrid.defenses import DEFENSES
from raygrid.learners import LEARNERS
from raygrid.literature import names
from raygrid.literature.lookup import find
from raygrid.literature.made import as_elsewhere
from raygrid.literature.printed import Apart
from raygrid.literature.reference import (
    ReferenceRow,
    load,
    printed_questions,
    printed_rows,
    restated,
    specs_of,
    tables_of,
)
from raygrid.literature.shared_names import cell_key
from raygrid.literature.toxic import BASELINES
from raygrid.protocols import PROTOCOLS

COUNTS = {  # rows, rows with a spec, rows marked as suspect
    "apbench": (751, 703, 13),
    "learned_faster": (123, 70, 0),
    "dvae": (557, 499, 17),
    "just_how_toxic": (40, 24, 0),
    "transferable": (465, 402, 6),
    "cuda": (42, 32, 0),
    "pil": (55, 55, 0),
    "dune": (45, 40, 1),
    "coin": (6, 0, 0),
    "op": (1, 0, 0),
    "entf": (1, 0, 0),
    "pue": (2, 0, 0),
}
FIRST = names.PAPER_NAMES[:5]
"""Whose numbers lie beside the checkout as well."""


def test_every_row_is_a_spec_or_has_a_reason() -> None:
    rows = load()
    assert len(rows) == sum(count for count, _, _ in COUNTS.values()) == 2088
    assert (rows["spec"].isna() != rows["reason"].isna()).all()
    for text in rows["cell"].dropna():
        assert str(TrialSpec.parse(text)) == text
    assert rows.loc[rows["spec"].notna(), "accuracy"].between(0, 1).all()


@pytest.mark.parametrize("paper", names.PAPER_NAMES)
def test_counts_are_those_of_the_files(paper: str) -> None:
    rows = load()
    rows = rows[rows["paper"] == paper]
    assert (len(rows), rows["spec"].notna().sum(), rows["suspect"].sum()) == COUNTS[paper]


@pytest.mark.parametrize("paper", FIRST)
def test_the_shipped_files_are_the_reference(paper: str, shared: Path) -> None:
    shipped = resources.files("raygrid.literature") / "data" / f"{paper}.csv"
    assert shipped.read_bytes() == (shared / "reference" / f"{paper}.csv").read_bytes()


@pytest.mark.parametrize(
    ("paper", "line", "spec", "measure", "accuracy"),
    [  # lines as in the file, counted from 1 with the header
        ("apbench", 3, "cifar10/dc/none/resnet18/supervised/apbench/0", "final_acc", 0.1417),
        ("apbench", 4, "cifar10/dc/standard/resnet18/supervised/apbench/0", "final_acc", 0.1519),
        (
            "learned_faster",
            4,
            "cifar10/pgd(steps=100, surrogate=resnet50)/standard/resnet18/supervised"
            "/learned_faster/0",
            "peak_acc",
            0.4502,
        ),
        ("transferable", 4, "cifar10/clean/standard/resnet18/simclr/tp/0", "final_acc", 0.9118),
        (
            "cuda",
            8,
            "cifar10/cuda/at(radius=4/255, step=0.6/255)/resnet18/supervised/cuda/0",
            "final_acc",
            0.4440,
        ),
        (
            "cuda",
            11,
            "cifar10/cuda/at(norm=l2, radius=0.25, step=0.0375)/resnet18/supervised/cuda/0",
            "final_acc",
            0.3905,
        ),
        (
            "pil",
            44,
            "cifar10/pil/affine_jitter(jitter=0.0, rotation=20.0, scale=0.0, shear=0.0)/resnet18"
            "/supervised/pil/0",
            "final_acc",
            0.1815,
        ),
        (
            "pil",
            46,
            "cifar10/pil/cutmix(box=clipped, p=0.5)+cutmix(box=clipped, p=0.5)/resnet18"
            "/supervised/pil/0",
            "final_acc",
            0.1105,
        ),
        ("cuda", 25, "cifar10/cuda@0.4/standard/resnet18/supervised/cuda/0", "final_acc", 0.9134),
        ("dune", 16, "cifar10/dune/ueraser_max/resnet18/supervised/wxl/0", "final_acc", 0.1955),
        ("dune", 39, "cifar10/cuda/coin/resnet18/supervised/wxl/0", "final_acc", 0.7202),
        ("pil", 13, "cifar10/pil/standard/resnet18/supervised/pil/0", "final_acc", 0.1277),
        ("pil", 42, "cifar10/pil/none/resnet18/supervised/pil/0", "final_acc", 0.1470),
        (
            "just_how_toxic",
            6,
            "cifar10/feature_collision(variant=released)/standard/resnet18/linear_probe"
            "/just_how_toxic/0",
            "target_success",
            0.22,
        ),
    ],
)
def test_rows_become_the_right_trials(
    paper: str, line: int, spec: str, measure: str, accuracy: float
) -> None:
    rows = load()
    row = rows[rows["paper"] == paper].iloc[line - 2]
    text = (resources.files("raygrid.literature") / "data" / f"{paper}.csv").read_text()
    printed = next(csv.DictReader([text.splitlines()[0], text.splitlines()[line - 1]]))
    assert row["value"] == printed["value"]
    assert (row["spec"], row["measure"], row["accuracy"]) == (spec, measure, accuracy)


@pytest.mark.parametrize(
    ("wanted", "attack", "defense", "learner", "table"),
    [
        ("em(mode=class)", "em_class", "none", "sl", "1"),
        ("tap", "pgd250", "none", "sl", "1"),
        ("regions(n=1024)", "regions1024", "none", "sl", "1"),
        ("low_frequency(n=8)", "lf8", "none", "sl", "1"),
        ("functional(parts=csd)", "functional_csd", "none", "sl", "1"),
        ("lsp(budget=l2:1.74)", "lsp", "standard", "sl", "6"),
        ("em(budget=16/255)", "em", "grayscale", "sl", "6"),
        ("cp(framework=moco)", "ucl", "jpeg", "moco", "10"),
        ("aap(targeted=false)", "ut_aap", "none", "byol", "1"),
        ("tp(align=3.0, uniform=1.0)", "tp_weight_3_1", "none", "sl", "4"),
    ],
)
def test_attack_ids_become_parts(
    wanted: str, attack: str, defense: str, learner: str, table: str
) -> None:
    rows = load().query(
        "attack == @attack and defense == @defense and learner == @learner and table == @table"
    )
    cells = set(rows["cell"].dropna())
    assert wanted in {str(TrialSpec.parse(cell).attack) for cell in cells}


def test_the_two_stages_of_ueraser_turn_sooner_on_imagenet() -> None:
    rows = load().query("paper == 'dvae' and defense == 'aa'")
    specs = [TrialSpec.parse(text) for text in rows["spec"].dropna()]
    found = {(spec.dataset.name, str(spec.defense[0])) for spec in specs}
    late, soon = (f"ueraser_max(lite_after={epochs})" for epochs in (50, 30))
    assert found == {("cifar10", late), ("cifar100", soon), ("imagenet100", soon)}


def test_apbench_runs_ueraser_in_three_forms() -> None:
    """apbench@9a6fb91: train.py, imagenet_train.py, the three functions of defense/ueraser.py."""
    rows = load().query("paper == 'apbench' and defense == 'ueraser_max' and metric == 'test_acc'")
    specs = {TrialSpec.parse(text) for text in rows["spec"].dropna()}
    large = "jpeg=before, lite_after=50, p=1.0, roughness=0.1, strength=0.3"
    for spec in specs:
        wanted = "ueraser_max"
        if spec.attack.name in ("tap", "ar"):
            wanted = "ueraser_max(jpeg=before, p=0.8)"
        if spec.dataset.name == "imagenet100":
            wanted = f"ueraser_max({large})"
        assert str(spec.defense[0]) == wanted, str(spec)
    assert {spec.attack.name for spec in specs} >= {"tap", "ar", "em_apb", "lsp"}
    assert "imagenet100" in {spec.dataset.name for spec in specs}


def test_all_forms_are_one_cell() -> None:
    """What papers print under one name is found and shown under it."""
    forms = ("tap/ueraser_max(jpeg=before, p=0.8)", "tap/ueraser_max", "lsp/ueraser_max")
    keys = [cell_key(TrialSpec.parse(f"cifar10/{x}/resnet18/supervised/apbench/0")) for x in forms]
    assert keys[0] == keys[1]
    assert keys[1].replace("tap", "lsp") == keys[2]
    other = "cifar10/lsp/ueraser_max(jpeg=before, p=0.8)/resnet18/supervised/apbench/0"
    assert cell_key(TrialSpec.parse(other)) != keys[2]


def test_pils_cutmix_mixes_twice_and_its_number_is_beside_no_other_cutmix() -> None:
    """jinlinll/pil, augmentations.py: CutMix(num_mix=2, prob=0.5), boxes cut off at the border."""
    rows = load().query("paper == 'pil' and defense == 'cutmix_twice'")
    assert dict(zip(rows["attack"], rows["accuracy"], strict=True)) == {
        "pil": 0.1105,
        "sep": 0.1048,
        "tap": 0.2030,
    }
    twice = "cutmix(box=clipped, p=0.5)+cutmix(box=clipped, p=0.5)"
    assert sum(f"/{twice}/" in spec for spec in specs_of("pil", "augmentation")) == 3
    assert find("cifar10/pil/cutmix/resnet18/supervised/pil/0") is None


def test_what_a_note_on_pil_quotes_says_so_of_every_augmentation() -> None:
    rows = load().query("paper == 'pil' and table == 'augmentation'")
    (note,) = set(rows["note"])
    assert len(rows) == 15
    assert note.endswith("whether its victims ran for 30 epochs or 100 is not said")


CLASS_WISE = r"(regions|lf)\d+$|em_class$"
RESTATED = {
    "last epoch": lambda row: row["metric"] == "test_acc",
    "epoch 100": lambda row: row["metric"] == "final_acc",
    "best epoch": lambda row: row["metric"] == "peak_acc",
    "best of 100 epochs on the test set": lambda row: row["metric"] == "peak_acc",
    "maximum of the six learners": lambda row: row["learner"] == "worst",
    "sample-wise": lambda row: not re.match(CLASS_WISE, row["attack"]),
    "class-wise": lambda row: re.match(CLASS_WISE, row["attack"]),
    "same as Table 4": lambda row: value_in("4", row) == row["value"],
    "repeats Table 1": lambda row: value_in("1", row) == row["value"],
    "ratio label stands once per block of four rows": lambda row: row["poison_ratio"],
    "ratio computed from counts": lambda row: row["poison_ratio"],
    "std column holds the printed +- term, which equals sqrt(p(1-p)/100)": lambda row: row["std"],
}
"""Remarks that need not be shown, and what their rows say in their place."""


def value_in(table: str, row: ReferenceRow) -> str:
    """The value that another table of the paper prints for the same."""
    axes = ("paper", "dataset", "attack", "defense", "architecture", "learner", "metric")
    at = {**{name: row[name] for name in axes}, "table": table}
    found = (r["value"] for r in printed_rows() if all(r[k] == v for k, v in at.items()))
    return next(found, "")


def test_a_remark_that_is_not_shown_is_said_by_the_column_that_the_data_name() -> None:
    used = set()
    for row in printed_rows():
        for remark in filter(None, row["note"].split("; ")):
            column = restated().get((row["paper"], remark))
            assert (remark in row["remarks"]) == (column is None)
            if column is None:
                continue
            used.add((row["paper"], remark))
            assert column in row
            text = remark.removeprefix("printed as ")
            same = RESTATED.get(remark, lambda row, text=text: is_percent(row["value"], text))
            assert same(row), (remark, row)
    assert used == restated().keys(), "each is a remark of the paper's file"


def is_percent(value: str, fraction: str) -> bool:
    return Decimal(value) == 100 * Decimal(fraction)


def test_remarks_that_only_begin_like_one_that_is_not_shown_are_shown() -> None:
    """The paper prints `< 2` where the value is 2."""
    (passes,) = (q for q in printed_questions("dvae", "12") if q.metric == "minutes_inference")
    assert passes.remarks == ("three passes", "printed as an upper bound (less than 2)")
    assert (passes.value, passes.on) == (2.0, "one RTX 3090")


def test_the_radius_that_cuda_ran_for_eps_4_is_noted() -> None:
    rows = load().query("paper == 'cuda' and defense == 'at4'")
    notes = rows.loc[rows["spec"].notna(), "note"]
    assert len(notes) == 5
    assert set(notes) == {"the command of the README for eps=4 has a radius of 0.015, 3.83/255"}


def test_avatar_as_printed_by_others_is_the_uncentered_one() -> None:
    rows = load().query("paper in ('apbench', 'dvae') and defense == 'avatar'")
    specs = [TrialSpec.parse(text) for text in rows["spec"].dropna()]
    assert {dict(spec.defense[0].params)["centered"] for spec in specs} == {False}


def test_parts_that_are_registered_here_can_be_made() -> None:
    for text in load()["spec"].dropna().unique():
        spec = TrialSpec.parse(text)
        for registry, parts in (
            (ATTACKS, (spec.attack,)),
            (DEFENSES, spec.defense),
            (ARCHITECTURES, (spec.architecture,)),
            (LEARNERS, (spec.learner,)),
            (PROTOCOLS, (spec.protocol,)),
        ):
            for part in parts:
                if part.name in registry:
                    registry.make(part)


def names_in(text: str) -> set[str]:
    """The names of attack, defenses, architecture, learner and protocol of a spec."""
    spec = TrialSpec.parse(text)
    parts = (spec.attack, *spec.defense, spec.architecture, spec.learner, spec.protocol)
    return {part.name for part in parts}


def cited() -> list[tuple[str, float]]:
    kinds = (ATTACKS, DEFENSES, ARCHITECTURES, LEARNERS, PROTOCOLS)
    return [
        item
        for registry in kinds
        for name in registry
        for item in registry[name].card.published.items()
    ]  # type: ignore[attr-defined]


def test_cards_cite_what_the_papers_print_under_the_method_that_they_ran() -> None:
    """A card stands alone only where a method is in no file of a paper, under any number."""
    wrong = {}
    printed = {name for row in printed_rows() if row["made"] for name in names_in(row["made"])}
    for text, value in cited():
        if not names_in(text) <= printed:
            continue
        found = find(text) or find(text, "target_success")
        if found is not None and found.best.paper not in names.PAPER_NAMES:
            found = None
        values = [] if found is None else [found.best.value, *(f.value for f in found.others)]
        if found is None or not found.own or value not in values:
            wrong[text] = (value, found and (found.apart, values))
    assert wrong == {}


def test_none_means_standard_training_except_in_apbench() -> None:
    rows = load()
    plain = rows[(rows["defense"] == "none") & rows["spec"].notna()]
    parts = plain["spec"].map(lambda text: str(TrialSpec.parse(text).defense[0]))
    assert set(parts[plain["paper"] == "apbench"]) == {"none"}
    toxic = plain["paper"] == "just_how_toxic"
    assert set(parts[(plain["paper"] != "apbench") & ~toxic]) == {"standard"}
    assert set(parts[toxic & (plain["table"] == "3")]) == {"standard"}
    assert set(parts[toxic & (plain["table"] == "2")]) == {"none"}, "no baseline augments"


def test_a_cell_finds_its_own_protocol_first_and_the_others_as_contradictions() -> None:
    found = find("cifar10/em_apb/grayscale/resnet18/supervised/apbench/2")
    assert found is not None
    assert found.own
    assert (found.best.value, found.best.std) == (0.9203, 0.0037)
    assert found.best.cite() == "apbench T3, T6, T17"
    assert [(f.paper, f.value) for f in found.contradicting] == [("dvae", 0.195)]
    other = find("cifar10/em_remrepo/grayscale/resnet18/supervised/dvae/0")
    assert other is not None
    assert (other.best.value, other.own) == (0.195, True)
    quick = find("cifar10/em/grayscale/resnet18/supervised/quick/0")
    assert quick is not None
    assert not quick.own


@pytest.mark.parametrize(
    ("attack", "settings", "apart"),
    [
        ("clbd", {"patch": 5}, "patch=3"),
        ("clbd", {"poisons": 50, "per_class": 500}, "its own poisons and its own per_class"),
        ("feature_collision", {"poisons": 5, "per_class": 50}, "poisons=50 and per_class=5000"),
        ("convex_polytope", {"optimizer": "sgd"}, "optimizer=adam"),
        ("htbd", {"pretrain": "cifar100"}, "pretrain=cifar10"),
    ],
)
def test_the_number_of_another_setting_of_a_paper_says_which(
    attack: str, settings: dict[str, str | int], apart: str
) -> None:
    """Table 2's number stands beside a setting with one thing changed."""
    base = TrialSpec.parse(BASELINES[attack])
    changed = base.replace(protocol=base.protocol.with_params(**settings))
    own, found = find(base, "target_success"), find(changed, "target_success")
    assert own is not None
    assert found is not None
    assert (own.best, own.apart) == (found.best, Apart())
    assert (found.apart, found.own) == (Apart("just_how_toxic", apart), False)


def test_a_protocol_of_other_length_finds_its_own_papers_number_first() -> None:
    found = find("cifar10/lsp/jpeg/resnet18/supervised/dvae(epochs=30)/0")
    assert found is not None
    assert (found.best.paper, str(found.apart)) == ("dvae", "dvae with its own epochs")
    gone = find("cifar10/lsp/jpeg/resnet18/supervised/dvae(of_old=30)/0")
    assert gone is not None
    assert (gone.best.paper, gone.apart) == ("dvae", Apart("dvae")), "a row of an older version"
    shared = find("cifar10/em/jpeg/resnet18/supervised/dvae(epochs=30)/0")
    assert shared is not None
    assert shared.apart == Apart("dvae", "its own epochs", ("em_remrepo",))
    assert str(shared.apart) == "dvae with its own epochs, em_remrepo"


def test_what_a_paper_ran_under_a_shared_name_is_told_apart() -> None:
    """APBench's REM is another algorithm than the REM of the others."""
    theirs = find("cifar10/rem_apb(budget=16/255)/standard/resnet18/supervised/apbench/0")
    official = find("cifar10/rem(budget=16/255)/standard/resnet18/supervised/apbench/0")
    assert theirs is not None
    assert official is not None
    assert (theirs.best.value, theirs.own) == (0.1980, True)
    assert (official.best.value, official.own) == (0.1980, False)
    assert str(official.apart) == "rem_apb(budget=16/255)"
    assert specs_of("apbench", "9")[0].startswith("cifar10/rem_apb(against=grayscale)/")
    filters = specs_of("dvae", "10")
    assert "cifar100/em_remrepo/bdr(variant=float)/resnet18/supervised/dvae/0" in filters


EM = "em_remrepo(decay_every=1200, step=0.25, steps=7, train_steps=3000)"


def test_what_a_paper_ran_on_one_dataset_alone_is_told_apart() -> None:
    """On ImageNet-100 methods have settings of their own, and APBench has 200 images a class."""
    few = "imagenet100(test_per_class=40, train_per_class=200)"
    for made, usual, apart, value in (
        (
            f"{few}/lsp(patch=32)/standard/resnet18/supervised/apbench/0",
            "imagenet100/lsp/standard/resnet18/supervised/apbench/0",
            f"lsp(patch=32), {few}",
            0.3852,
        ),
        (
            f"imagenet100/{EM}/dvae(epochs=20, limit1=1.5)/resnet18/supervised/dvae/0",
            f"imagenet100/{EM}/dvae/resnet18/supervised/dvae/0",
            "dvae(epochs=20, limit1=1.5)",
            0.7480,
        ),
        (
            f"imagenet100/{EM}/ueraser_max(lite_after=30)/resnet18/supervised/dvae/0",
            f"imagenet100/{EM}/ueraser_max(lite_after=50)/resnet18/supervised/dvae/0",
            "ueraser_max(lite_after=30)",
            0.0382,
        ),
        (
            f"imagenet100/{EM}/at(steps=5)/resnet18/supervised/dvae/0",
            "imagenet100/em_remrepo/at(steps=5)/resnet18/supervised/dvae/0",
            EM,
            0.5674,
        ),
        (
            "cifar100/em_remrepo/avatar(centered=false, diffusion_data=cifar10)/resnet18"
            "/supervised/dvae/0",
            "cifar100/em_remrepo/avatar(centered=false, diffusion_data=clean_train)/resnet18"
            "/supervised/dvae/0",
            "avatar(centered=false, diffusion_data=cifar10)",
            None,
        ),
    ):
        theirs, other = find(made), find(usual)
        assert theirs is not None
        assert other is not None
        assert theirs.own
        assert value in (None, theirs.best.value)
        assert (other.best.value, str(other.apart)) == (theirs.best.value, apart)
    for elsewhere in (
        "cifar10/lsp/dvae(epochs=20, limit1=1.5)/resnet18/supervised/dvae/0",
        "cifar10/lsp/ueraser_max(lite_after=30)/resnet18/supervised/dvae/0",
        "cifar10/lsp(patch=32)/standard/resnet18/supervised/apbench/0",
    ):
        assert find(elsewhere) is None
    usual = find("imagenet100/lsp/standard/resnet18/supervised/dvae/0")
    assert usual is not None
    assert (usual.best.value, usual.own) == (0.0250, True), "D-VAE has patch 8 on all datasets"
    assert [(f.paper, f.value) for f in usual.contradicting] == [("apbench", 0.3852)]


def test_the_best_of_three_filters_has_the_members_of_its_paper() -> None:
    """D-VAE's bits are those of floats, in table 10 as in the best of its filters."""
    cell = "cifar100/lsp/{}/resnet18/supervised/dvae/0"
    theirs, ours = find(cell.format("iss(bdr=float)")), find(cell.format("iss"))
    assert theirs is not None
    assert ours is not None
    assert (theirs.best.value, theirs.own) == (0.5306, True)
    assert (ours.best.value, ours.own) == (0.5306, False)
    assert ours.apart == Apart(methods=("iss(bdr=float)",))
    asked = {text for n in "345" for text in specs_of("dvae", n) if "/iss" in text}
    assert len(asked) == 8 + 5 + 5
    assert all("/iss(bdr=float)/" in text for text in asked)
    members = [str(part) for (part,) in DEFENSES.make("iss(bdr=float)").sources()]
    printed = {TrialSpec.parse(text).chain for text in specs_of("dvae", "10")}
    assert set(members) <= printed


def test_where_weights_lie_makes_no_other_method() -> None:
    for place in ("", "checkpoint=some/where, "):
        text = f"avatar(centered=false, {place}diffusion_data=clean_train)"
        found = find(f"cifar10/lsp/{text}/resnet18/supervised/apbench/0")
        assert found is not None
        assert (found.best.value, found.own) == (0.7690, True)
    plain = find("cifar10/lsp/avatar/resnet18/supervised/apbench/0")
    assert plain is not None
    assert str(plain.apart) == "avatar(centered=false, diffusion_data=clean_train)"


def test_suspect_numbers_stay_marked_and_never_win() -> None:
    found = find("cifar10/em/standard/vit_small/supervised/apbench/0")
    assert found is not None
    assert (found.best.value, found.best.suspect) == (0.3714, False)
    assert [(f.value, f.suspect) for f in found.others] == [(0.2147, True)]
    assert found.contradicting == ()
    alone = find("svhn/ar/early_stopping/resnet18/supervised/apbench/0")
    assert alone is not None
    assert alone.best.suspect


def test_peak_and_final_are_found_apart() -> None:
    spec = "cifar10/tap/standard/resnet18/supervised/learned_faster/0"
    peak, final = find(spec, "peak_acc"), find(spec, "final_acc")
    assert peak is not None
    assert final is not None
    assert (peak.best.value, final.best.value) == (0.573, 0.0815)


def test_defaults_written_out_are_the_same_cell() -> None:
    short = find("cifar10/lsp/standard/resnet18/supervised/apbench/0")
    assert short == find("cifar10/lsp(patch=8)@1.0/standard/resnet18/supervised/apbench/0")
    assert find("cifar10/lsp(patch=4)/standard/resnet18/supervised/apbench/0") is None
    assert find("photo_digits/lsp/standard/resnet18/supervised/quick/0") is None


def test_contradictions_are_as_many_as_the_papers_have() -> None:
    """cifar10 EM, plain training: 12.26 to 32.83 in five papers."""
    found = find("cifar10/em/standard/resnet18/supervised/dvae/0")
    assert found is not None
    values = {f.paper: f.value for f in (found.best, *found.others)}
    assert values == {
        "dvae": 0.1226,
        "apbench": 0.2078,
        "learned_faster": 0.3283,
        "transferable": 0.1847,
        "dune": 0.1826,
    }
    assert {f.paper for f in found.contradicting} == values.keys() - {"dvae"}


def test_tables_become_lists_of_trials() -> None:
    table = specs_of("apbench", "3")
    assert len(table) == 9 * 13 + 1
    assert table[0] == "cifar10/clean/standard/resnet18/supervised/apbench/0"
    assert len(specs_of("learned_faster", "1")) == 25
    assert sum(text.startswith("svhn/") for text in specs_of("apbench", "5")) == 4 * 11
    worst = specs_of("transferable", "1")
    assert len(worst) == 11 * 6
    iss = specs_of("dvae", "3")
    assert len(iss) == 8 * 6
    assert "cifar100/em_remrepo/iss(bdr=float)/resnet18/supervised/dvae/0" in iss
    with pytest.raises(SpecError, match="did you mean 'apbench'"):
        specs_of("apbensh", "3")
    with pytest.raises(SpecError, match="'99'"):
        specs_of("apbench", "99")
    assert "11" in tables_of("apbench"), "asked of the trials"
    assert "18" not in tables_of("apbench")


def test_worst_is_the_largest_of_the_six_except_for_one_misprint() -> None:
    rows = load()
    rows = rows[(rows["paper"] == "transferable") & rows["cell"].notna()]
    cells = rows["cell"].map(TrialSpec.parse)
    where = [str(cell.replace(learner=Part("any"))) for cell in cells]
    slips = []
    for (table, cell), group in rows.groupby([rows["table"], where]):
        by = group.set_index("learner")["accuracy"]
        if "worst" in by.index and by.drop("worst").max() != by["worst"]:
            slips.append((table, TrialSpec.parse(cell).architecture.name, by["worst"]))
            assert by.drop("worst").idxmax() == "byol"
            assert group.set_index("learner").loc["worst", "suspect"]
    assert slips == [("6", "mobilenetv2", 0.4182)]


@pytest.mark.parametrize(
    ("dataset", "there", "elsewhere"),
    [
        ("imagenet100", f"{EM}/standard", "em_remrepo/standard"),
        (
            "imagenet100",
            "tap_remrepo(step=0.02, steps=100, surrogate_epochs=39)/at(steps=5)",
            "tap_remrepo/at(step=1.6/255)",
        ),
        (
            "cifar100",
            "clean/avatar(centered=false, diffusion_data=cifar10)",
            "clean/avatar(centered=false, diffusion_data=clean_train)",
        ),
        ("imagenet100", "lsp/dvae(epochs=20, limit1=1.5)", "lsp/dvae"),
    ],
)
def test_where_a_paper_asks_for_nothing_of_its_own_it_runs_its_own_methods(
    dataset: str, there: str, elsewhere: str
) -> None:
    where = f"{dataset}/{{}}/resnet18/supervised/dvae/0"
    assert as_elsewhere(TrialSpec.parse(where.format(there))) == TrialSpec.parse(
        where.format(elsewhere)
    )
