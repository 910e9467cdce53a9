"""Every printed setting is what raygrid has, or has a reason why not."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

import pytest

from raygrid.literature.names import CODE_PAPERS, PAPER_NAMES, PrintedRow
from tests.settings import (
    apbench,
    bridgepure,
    coin,
    cuda,
    dune,
    dvae,
    eclipse,
    entf,
    gue,
    just_how_toxic,
    learned_faster,
    op,
    pil,
    pue,
    rsk,
    sem,
    transferable,
    udp,
)
from tests.settings.rules import Rule

RULES = {
    "apbench": apbench.RULES,
    "learned_faster": learned_faster.RULES,
    "dvae": dvae.RULES,
    "just_how_toxic": just_how_toxic.RULES,
    "transferable": transferable.RULES,
    "cuda": cuda.RULES,
    "pil": pil.RULES,
    "dune": dune.RULES,
    "coin": coin.RULES,
    "op": op.RULES,
    "entf": entf.RULES,
    "pue": pue.RULES,
    "eclipse": eclipse.RULES,
    "sem": sem.RULES,
    "udp": udp.RULES,
    "gue": gue.RULES,
    "bridgepure": bridgepure.RULES,
    "rsk": rsk.RULES,
}
FILES = ("settings.csv", "settings_later.csv")


def rows_of(paper: str) -> list[PrintedRow]:
    folder = resources.files("raygrid.literature") / "data"
    texts = [(folder / name).read_text() for name in FILES]
    rows = [row for text in texts for row in csv.DictReader(text.splitlines())]
    return [row for row in rows if row["paper"] == paper]


def said(row: PrintedRow) -> str:
    return ",".join(row[name] for name in ("paper", "table", "item", "setting", "value"))


def rules_of(row: PrintedRow) -> list[Rule]:
    return [rule for rule in RULES[row["paper"]] if rule.covers(row)]


def test_all_papers_are_asked() -> None:
    assert tuple(RULES) == (*PAPER_NAMES, *CODE_PAPERS)
    assert sum(len(rows_of(paper)) for paper in PAPER_NAMES[:5]) == 519
    assert sum(len(rows_of(paper)) for paper in (*PAPER_NAMES[5:], *CODE_PAPERS)) == 222


def test_the_shipped_settings_are_the_reference(shared: Path) -> None:
    shipped = resources.files("raygrid.literature") / "data" / "settings.csv"
    assert shipped.read_bytes() == (shared / "reference" / "settings.csv").read_bytes()


@pytest.mark.parametrize("paper", RULES)
def test_every_printed_setting_has_one_place_or_reason(paper: str) -> None:
    found = {said(row): [rule.rows for rule in rules_of(row)] for row in rows_of(paper)}
    wrong = [f"{text}: {rules or 'no rule'}" for text, rules in found.items() if len(rules) != 1]
    assert not wrong, "\n".join(["", *wrong])


@pytest.mark.parametrize("paper", RULES)
def test_what_raygrid_has_is_what_is_printed_or_what_the_reason_says(paper: str) -> None:
    faults = [
        f"{said(row)}: {fault}"
        for row in rows_of(paper)
        for rule in rules_of(row)
        if (fault := rule.fault(row)) is not None
    ]
    assert not faults, "\n".join(["", *faults])


@pytest.mark.parametrize("paper", RULES)
def test_every_rule_is_about_some_row(paper: str) -> None:
    rows = rows_of(paper)
    idle = [rule.rows for rule in RULES[paper] if not any(map(rule.covers, rows))]
    assert idle == []


@pytest.mark.parametrize("paper", RULES)
def test_another_value_would_be_noticed(paper: str) -> None:
    """No look says what the row says, whatever that is."""
    for row in rows_of(paper):
        (rule,) = rules_of(row)
        if rule.has is not None and not rule.why:
            for other in (f"{row['value']}1", f"1{row['value']}", "yes", "no"):
                if other != row["value"]:
                    assert rule.fault({**row, "value": other}) is not None, (said(row), other)
