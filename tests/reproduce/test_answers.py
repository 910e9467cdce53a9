"""What finished trials answer to the questions behind printed numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from raygrid.core.enforcement import size_of_change
from raygrid.core.errors import DataError
from raygrid.core.seeds import Stream
from raygrid.literature.questions import QUESTIONS
from raygrid.literature.reference import printed_questions
from raygrid.reports.analysis.fidelity import fidelity_of_purified, norms_of_disentangled
from raygrid.reports.analysis.questions import accuracy_on_sets, robustness, transferability
from raygrid.reports.tables.render import markdown
from raygrid.reproduce.questions import PSNR_MEASURES, FinishedTrials, answered
from tests.plugin import Dots
from tests.reproduce.evidence import CLEAN, JPEG, LSP, VAE, WHERE, first, only, question


def test_robustness_is_that_of_pairs_of_seeds(evidence: FinishedTrials) -> None:
    each = question("robustness", "pgd_blackbox_acc", CLEAN[:1], 0.5)
    cell = only(answered([each], evidence, "paper", (0, 1)))
    rows = robustness([evidence.records.victim(spec) for spec in CLEAN])
    assert cell.values == {seed: row["black_acc"] for seed, row in enumerate(rows)}
    alone = only(answered([each], evidence, "paper", (0,)))
    assert alone.value is None, "without another seed there is no black box"


def test_a_rate_is_that_of_each_victim_and_its_mean(evidence: FinishedTrials) -> None:
    about = [LSP, CLEAN[0]]
    cell = only(
        answered(
            [question("transferability", "attack_transfer_rate", about, 0.5)],
            evidence,
            "paper",
            (0,),
        )
    )
    records = evidence.records
    poisoned = records.poisoned("dots/lsp(budget=l2:3.0)")
    row = transferability([poisoned], [records.victim(CLEAN[0])])[0]
    assert cell.values == {0: row["rate"]}
    two = question("transferability", "attack_transfer_rate", [*about, LSP], 0.5)
    other = transferability([poisoned], [records.victim(LSP)])[0]
    mean = only(answered([two], evidence, "paper", (0,)))
    assert mean.value == pytest.approx((row["rate"] + other["rate"]) / 2)


def test_sets_fidelity_and_cost_are_those_of_the_commands(evidence: FinishedTrials) -> None:
    records = evidence.records
    sets = only(
        answered([question("sets", "clean_train_acc", [LSP], 0.9)], evidence, "paper", (0,))
    )
    assert sets.value == accuracy_on_sets(records, LSP, {})[0]["acc"]
    each = question("fidelity", "psnr", JPEG, 22.0)
    left = [fidelity_of_purified(records, spec)[0]["psnr"] for spec in JPEG]
    fidelity = only(answered([each], evidence, "paper", (0,)))
    assert fidelity.value == pytest.approx(sum(left) / 2)
    columns = QUESTIONS["cost"].metrics
    asks = [
        question("cost", name, [VAE], 1, row="vae", column=name, on="a GPU") for name in columns
    ]
    (table,) = answered(asks, evidence, "paper", (0,))
    fits, passes, training, total = (c.value or 0.0 for c in table.panels[0].cells.values())
    facts = records.store.meta("purified", evidence.rows[VAE]["artifacts"]["purified"])["facts"]
    assert 0 < fits == facts["fit_seconds"] / 60
    assert 0 < passes < facts["seconds"] / 60
    assert training == evidence.rows[VAE]["seconds"] / 60
    assert total == pytest.approx(training + facts["seconds"] / 60)
    printed = [cell.printed for cell in table.panels[0].cells.values()]
    assert not any(number.differs for number in printed), "another machine"
    assert "published (a GPU)" in markdown(table)


def test_what_no_paper_prints_stands_beside() -> None:
    pooled = first("dvae", "13", "psnr_pooled", "jpeg30")
    assert (pooled.value, pooled.question) == (None, "fidelity")
    assert pooled.about == first("dvae", "13", "psnr", "jpeg30").about
    for table, row, attack in (
        ("1", "lsp_dvae_recon", "dvae_recon(base=lsp)"),
        ("7", "ops_dvae_increase, 4 %", "dvae_grow(base=ops, share=0.04)"),
    ):
        metrics = [
            a.metric
            for a in printed_questions("dvae", table)
            if (a.dataset, a.row) == ("cifar10", row)
        ]
        assert metrics[-4:] == ["base_l2", "l2", "linf", "linf_max"]
        assert [str(s.attack) for s in first("dvae", table, row, "l2").about] == [attack]
    made = answered(printed_questions("dvae", "7"), None, "paper", (0,))
    assert [(table.kind, len(table.panels[0].rows)) for table in made] == [("norms", 16)]
    assert not any(cell.printed for cell in made[0].panels[0].cells.values())


def test_psnr_is_shown_by_image_and_pooled(evidence: FinishedTrials) -> None:
    asks = [question("fidelity", name, JPEG, 22.0, row=name) for name in PSNR_MEASURES]
    asks[1] = replace(asks[1], value=None)
    (table,) = answered(asks, evidence, "paper", (0,))
    left = [fidelity_of_purified(evidence.records, spec)[0] for spec in JPEG]
    for name, cell in zip(PSNR_MEASURES, table.panels[0].cells.values(), strict=True):
        assert cell.value == pytest.approx(sum(row[name] for row in left) / 2), name
    assert left[0]["psnr_pooled"] < left[0]["psnr"]
    lines = [line for line in markdown(table).splitlines() if line.startswith("| PSNR")]
    assert [line.split(" | ")[0] for line in lines] == ["| PSNR (dB)", f"| {POOLED}"]
    assert ["[22.00]" in line for line in lines] == [True, False]


POOLED = "PSNR of the mean error (dB)"
FITTED = "base=lsp, batch_size=32, epochs=1, shrink=8"


def test_norms_are_those_of_what_a_d_vae_found(evidence: FinishedTrials) -> None:
    """Of a grown poison without the images that are the base attack's own."""
    records = evidence.records
    base = records.poisoned("dots/lsp")
    clean = base.clean.pixels
    own = float(size_of_change(clean, base.images.pixels, "l2").mean())
    rng = Stream("poison", ("dots", "dvae_grow", 0)).child("dvae").generator("seed")
    grown = torch.randperm(128, generator=rng)[64:]
    everything = torch.arange(128)
    for name, rows in (("dvae_recon", everything), ("dvae_grow", grown)):
        attack = f"{name}({FITTED}{', share=0.5' if name == 'dvae_grow' else ''})"
        asks = [
            question("norms", metric, [WHERE.format(attack, "none", 0)], 0.0, column=metric)
            for metric in QUESTIONS["norms"].beside
        ]
        (table,) = answered(asks, evidence, "paper", (0,))
        found = {column: cell.value for (_, column), cell in table.panels[0].cells.items()}
        made = records.poisoned(f"dots/{attack}").images.pixels
        kept = (made == base.images.pixels).flatten(1).all(1)
        assert kept.nonzero().flatten().tolist() == sorted(set(range(128)) - set(rows.tolist()))
        l2, linf = (size_of_change(clean[rows], made[rows], norm) for norm in ("l2", "linf"))
        assert found == pytest.approx(
            {
                "base_l2": own,
                "l2": float(l2.mean()),
                "linf": float(linf.mean()),
                "linf_max": float(linf.max()),
            }
        ), name
        assert f"| {own:.3f} " in markdown(table)
    with pytest.raises(DataError, match="dots/lsp/0 was not made by a D-VAE"):
        norms_of_disentangled(records, "dots/lsp")


def test_differences_are_marked_and_gaps_explained(evidence: FinishedTrials) -> None:
    measured = fidelity_of_purified(evidence.records, JPEG[0])[0]["psnr"]
    for value, differs in ((measured + 0.9, False), (measured + 1.1, True)):
        cell = only(
            answered([question("fidelity", "psnr", JPEG[:1], value)], evidence, "paper", (0,))
        )
        assert (cell.printed.differs, cell.printed.own) == (differs, True)
    gone = WHERE.format("clean", "grayscale", 0)
    (table,) = answered([question("sets", "clean_train_acc", [gone], 0.9)], evidence, "paper", (0,))
    assert "left no weights: run it with --keep weights" in markdown(table)
    dry = only(answered([question("sets", "clean_train_acc", [LSP], 0.9)], None, "paper", (0,)))
    assert (dry.value, dry.printed.value, dry.why) == (None, 0.9, None)


def test_answers_of_other_data_are_not_held_against_printed_numbers(
    evidence: FinishedTrials, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = question("fidelity", "psnr", JPEG[:1], 1.0)
    own = only(answered([each], evidence, "paper", (0,)))
    assert (own.printed.own, own.printed.differs) == (True, True)
    monkeypatch.setattr(Dots, "train_size", 512)  # the images at hand stay as they are
    cell = only(answered([each], evidence, "paper", (0,)))
    assert str(cell.printed.apart) == "on other data than dots (128 of 512 images)"
    assert (cell.value, cell.printed.value, cell.printed.differs) == (own.value, 1.0, False)


def test_stand_ins_say_what_they_stand_for() -> None:
    (table,) = answered(printed_questions("apbench", "11"), None, "quick", (0, 1))
    assert [panel.metric for panel in table.panels] == ["pgd_blackbox_acc", "pgd_whitebox_acc"]
    cell = table.panels[1].cells["em", "at"]
    assert (cell.printed.value, cell.printed.differs) == (0.2860, False)
    assert str(cell.printed.apart) == "apbench, cifar10"
    assert "photo_digits/" in cell.facts["trials"]
    assert table.panels[0].title.startswith("photo_digits, protocol quick, for cifar10")
