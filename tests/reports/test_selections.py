"""Tables say what a derived row was selected on, and never mix two of them."""

from __future__ import annotations

import csv
import io
import json
from typing import get_args

from raygrid.defenses import DEFENSES
from raygrid.defenses.base import Selection
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.latex import latex
from raygrid.reports.tables.layout import SELECTIONS, Table
from raygrid.reports.tables.render import json_text, markdown, plain_text
from raygrid.reports.tables.tidy import csv_text
from raygrid.reports.tables.trial_lines import trial_lines
from tests.reports.rows import ES, HELD, VAL, cell, derived


def test_numbers_selected_on_different_images_never_stand_in_one_panel() -> None:
    chains = ("standard", "jpeg", VAL, ES, "iss", HELD, f"jpeg+{ES}")
    for kind in ("defense", "peak"):
        for panel in table(kind, trial_lines(derived(*chains))).panels:
            cells = panel.cells.values()
            assert len({c.facts["selection"] for c in cells} - {""}) < 2
            assert {c.facts["selection"] for c in cells} - {""} <= {panel.where["selection"]}
    made = table("defense", trial_lines(derived(*chains)))
    shown = {panel.where["selection"]: set(panel.columns) for panel in made.panels}
    plain = {"standard", "jpeg"}
    assert shown == {
        "clean_val": plain | {VAL},
        "poison_val": plain | {HELD},
        "test": plain | {ES, "iss", f"jpeg+{ES}"},
    }
    assert all(panel.rows == ("clean", "lsp") for panel in made.panels)
    titles = {panel.where["selection"]: panel.title for panel in made.panels}
    assert titles["clean_val"].endswith("100 % poisoned, selections on clean validation images")
    assert titles["poison_val"].endswith("selections on held-out poisoned images")
    assert titles["test"].endswith("selections on the test set (an oracle)")
    assert len({panel.slug for panel in made.panels}) == 3, "each has a picture of its own"


def test_what_defenses_select_on_is_said_in_every_format() -> None:
    made = table("defense", trial_lines(derived("standard", "iss", ES, f"jpeg+{ES}", VAL)))
    oracle = f"{ES}, iss, jpeg+{ES}: selected on the test set (an oracle), so unmarked."
    honest = f"{ES}: selected on clean validation images, so unmarked."
    assert f"- {ES}: {VAL}." in markdown(made)
    typeset = latex(made).replace(r"\_", "_").replace(r"\allowbreak{}", "")
    for text in (markdown(made), plain_text(made, width=400), typeset):
        assert oracle in text
        assert honest in text
    rows = {row["defense"]: row["selection"] for row in json.loads(json_text(made))}
    images = {"standard": "", "iss": "test", ES: "test", f"jpeg+{ES}": "test", VAL: "clean_val"}
    assert rows == images
    for kind in ("peak", "worst-learner"):
        more = [row for n in ("supervised", "byol") for row in derived(ES, "iss", "jpeg")]
        more += [{**row, "spec": row["spec"].replace("/supervised/", "/byol/")} for row in more]
        panels = table(kind, trial_lines(more)).panels
        for panel in panels:
            text = markdown(Table(kind, "", (panel,)))
            defense = panel.where["defense"]
            assert ("oracle" in panel.title) == (defense != "jpeg")
            assert (f"{defense}: selected on the test set" in text) == (defense != "jpeg")
            assert {c.facts["selection"] for c in panel.cells.values()} == {images.get(defense, "")}


def test_nothing_is_said_of_selections_where_there_are_none() -> None:
    made = table("defense", trial_lines(derived("standard", "jpeg")))
    (panel,) = made.panels
    assert panel.where["selection"] == ""
    assert panel.title.endswith("100 % poisoned")
    assert "select" not in plain_text(made)
    (alone,) = table("defense", trial_lines(derived("standard", ES))).panels
    assert alone.columns == ("standard", ES)


def test_what_won_among_several_is_visible() -> None:
    made = table("defense", trial_lines(derived("iss", "standard")))
    clean, lsp = cell(made, "clean", "iss"), cell(made, "lsp", "iss")
    assert clean.facts["winners"] == {"jpeg": 2, "bdr": 1}
    assert lsp.facts["winners"] == {"bdr": 2, "grayscale": 1}
    assert "winners" not in cell(made, "lsp", "standard").facts
    text = plain_text(made, width=400)
    assert "51.0 ± 1.0 (2 jpeg, 1 bdr)" in text
    assert "51.0 ± 1.0 (2 bdr, 1 grayscale)" in text
    assert "In brackets: the defense that won, with its seeds where several did." in text
    rows = {(r["attack"], r["defense"]): r for r in json.loads(json_text(made))}
    assert rows["lsp", "iss"]["winners"] == {"bdr": 2, "grayscale": 1}
    (line,) = (
        line
        for line in csv.DictReader(io.StringIO(csv_text(made)))
        if (line["attack"], line["defense"]) == ("lsp", "iss")
    )
    assert line["winners"] == "bdr 2, grayscale 1"
    one = table("defense", trial_lines(derived("iss")[:1]))
    assert "50.0 (jpeg)" in plain_text(one)
    assert "the defense that won" not in plain_text(table("defense", trial_lines(derived(ES))))
    lost = [{**row, "status": "failed", "error": "x"} for row in derived("iss")]
    assert "winners" not in cell(table("defense", trial_lines(lost)), "lsp", "iss").facts


def test_whatever_is_derived_says_what_it_selects_on() -> None:
    assert {name for name in DEFENSES if DEFENSES.make(name).selection} == {
        name for name in DEFENSES if DEFENSES[name].derived
    }
    assert SELECTIONS.keys() == set(get_args(Selection)) - {""}
