"""What the papers contradict each other on: real at every scale, and judged by a rule."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from raygrid.attacks import ATTACKS
from raygrid.core.spec import TrialSpec
from raygrid.engine.grid import plan
from raygrid.literature.lookup import find
from raygrid.literature.shared_names import canonical
from raygrid.trials.resolve import resolve

SCALES = ("quick", "screen", "small", "grid", "paper")


class Script:
    """The modules of the script, which are no package."""

    def __init__(self) -> None:
        self.said = importlib.import_module("questions").CONTRADICTIONS
        self.scales: Any = importlib.import_module("scales")
        self.settling: Any = importlib.import_module("verdict")
        self.separable: Any = importlib.import_module("separable")
        self.rim: Any = importlib.import_module("rim")
        self.projected: Any = importlib.import_module("projected")

    def asked(self, scale: str) -> list[tuple[str, Any]]:
        """The questions of a scale with their names."""
        return [(n, c) for n, c in self.said.items() if not self.scales.lacking(c, scale)]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments" / "contradictions")
    return Script()


@pytest.mark.parametrize("scale", SCALES)
def test_every_contradiction_runs_at_every_scale(script: Script, scale: str) -> None:
    assert tuple(script.scales.COMPARISON_SIZES) == SCALES
    for name, claim in script.asked(scale):
        planned = plan(list(script.scales.specs(claim, scale, (0,))), None)
        assert not planned.skips, name
        clean = {str(t.spec) for t in planned.trials if t.spec.attack.name == "clean"}
        assert clean, name


@pytest.mark.parametrize("scale", SCALES)
def test_settings_are_different_trials_that_differ_in_what_they_say(
    script: Script, scale: str
) -> None:
    for name, claim in script.asked(scale):
        for case in script.scales.cases(claim):
            made = [
                TrialSpec.parse(script.scales.trial(claim, setting, case, scale, 0))
                for setting in claim.settings
            ]
            assert len({resolve(spec, None).key for spec in made}) == len(made), name
            for setting, spec in zip(claim.settings, made, strict=True):
                unlike = {a for a in vars(spec) if getattr(spec, a) != getattr(made[0], a)}
                assert unlike <= set(setting.change) | ({"attack"} if setting.small else set())
                assert len({s.name for s in claim.settings}) == len(made)


def test_what_settings_print_is_there_and_contradicts(script: Script) -> None:
    """Where a cell is declared a number is found, and every question with two has a gap."""
    gaps = {}
    for name, claim in script.said.items():
        for case in script.scales.cases(claim):
            figures = [script.settling.printed(s, case, claim.metric) for s in claim.settings]
            values = [figure.value for figure in figures if figure is not None]
            if len(values) > 1:
                gaps[name] = max(gaps.get(name, 0), 100 * (max(values) - min(values)))
            if case.defense == "standard" and case.attack != "em":
                assert len(values) == sum(bool(s.printed) for s in claim.settings), (name, case)
    assert set(gaps) == {
        "tap_generator",
        "rem_generator",
        "em_generator",
        "em_rectified",
        "peak_protocol",
        "ops_schedule",
        "ntga_schedule",
        "lsp_patch",
        "sem_adversary",
    }
    assert all(gap > 5 for gap in gaps.values())
    # 92.03 in APBench, 19.50 in D-VAE: EM after grayscale
    assert gaps["em_generator"] == pytest.approx(72.53)


def test_what_settings_print_was_made_by_what_they_run(script: Script) -> None:
    """Not where two papers ran two attacks, nor where it is not known what was run."""
    for name, claim in script.said.items():
        for setting, case in product(claim.settings, script.scales.cases(claim)):
            figure = script.settling.printed(setting, case, claim.metric)
            if figure is not None and name not in ("peak_protocol", "em_rectified"):
                spec = TrialSpec.parse(script.scales.trial(claim, setting, case, "paper", 0))
                assert figure.made[0] == canonical(ATTACKS, spec.attack), (name, setting.name)


def test_only_generators_are_cut_never_what_tells_them_apart(script: Script) -> None:
    """em_apb has five steps of a fifth of the budget, em twenty of a tenth, at every scale.

    But at scale screen, whose EM is that of the screening grid: eight.
    """
    claim = script.said["em_generator"]
    for scale in SCALES:
        plans = {}
        for setting in claim.settings[:3]:
            spec = script.scales.trial(claim, setting, script.scales.cases(claim)[0], scale, 0)
            attack = resolve(spec, None).attack
            plans[setting.name] = (attack.plan[0], attack.step, attack.batch_size)
        assert plans == {
            "em": (8 if scale == "screen" else 20, 0.1, 512),
            "em(mode=class)": (1, 0.1, 512),
            "em_apb": (5, 0.2, 128),
        }


def test_the_screen_asks_what_the_fast_victim_can_answer(script: Script) -> None:
    left_out = {n: script.scales.lacking(c, "screen") for n, c in script.said.items()}
    left_out = {name: why for name, why in left_out.items() if why}
    other_learners = {"frozen_views", "probe_data", "loss_scale", "tue_loss"}
    too_long = {"ntga_schedule", "ntga_time", "sep_budget", "dc_generator", "gue_selection"}
    assert set(left_out) == other_learners | too_long
    for name, why in left_out.items():
        wanted = "learner" if name in other_learners else "of which a poison takes"
        assert any(wanted in reason for reason in why), name
    for scale in SCALES:
        assert scale == "screen" or len(script.asked(scale)) == len(script.said)


def test_the_screen_runs_the_trials_of_the_screening_grid(script: Script) -> None:
    """By key: what the grid has measured is not measured again, but for what it has not."""
    folder = Path(__file__).parents[2] / "experiments"
    grids = runpy.run_path(str(folder / "full_grid.py"))["SCALES"]["screen"]
    grid = {trial.key for trial in plan([s for g in grids for s in g.specs()], None).trials}
    new = {}
    for name in ("tap_generator", "em_generator", "lf_scaling", "dune_ball", "cuda_rim"):
        made = plan(list(script.scales.specs(script.said[name], "screen", (0,))), None).trials
        new[name] = sorted({str(t.spec.attack).split("(")[0] for t in made if t.key not in grid})
        assert any(t.key in grid for t in made if t.spec.attack.name != "clean"), name
    assert new == {
        "tap_generator": ["tap_remrepo"],
        "em_generator": ["em_apb", "em_remrepo"],
        "lf_scaling": ["low_frequency"],  # by the deviation
        "dune_ball": ["dune"],  # without its color shift
        "cuda_rim": ["cuda"],  # with a mirrored border
    }


def test_budgets_are_raised_on_digits_alone(script: Script) -> None:
    part = script.scales.attack_part
    plain = importlib.import_module("settings").Setting("")
    budgets = {
        scale: [
            dict(part(name, plain, scale).params).get("budget") for name in ("tap", "lsp", "ops")
        ]
        for scale in SCALES
    }
    assert budgets == {
        "quick": ["16/255", "l2:3.48", None],
        **{scale: [None] * 3 for scale in SCALES[1:]},
    }


def test_settings_of_a_defense_share_what_is_without_one(script: Script) -> None:
    """OP's parts as the chains that its code trains with; one undefended trial for all settings."""
    claim = script.said["op_augmentation"]
    cases = script.scales.cases(claim)
    assert [(case.attack, case.defense) for case in cases] == [("ops", "op"), ("lsp", "op")]
    chains = {}
    for setting in claim.settings:
        spec = TrialSpec.parse(script.scales.trial(claim, setting, cases[0], "paper", 0))
        chains[setting.name] = spec.chain
    strong = "affine_jitter+cutmix(box=batch, p=0.5)"
    assert chains == {
        "projection and augmentation": f"op+{strong}",
        "projection alone": "op",
        "augmentation alone": strong,
    }
    bare = script.scales.undefended(claim, cases[0])
    specs = {script.scales.trial(claim, s, bare, "paper", 0) for s in claim.settings}
    assert {TrialSpec.parse(spec).chain for spec in specs} == {"standard"}
    assert len(specs) == 1
    assert specs < set(script.scales.specs(claim, "paper", (0,)))


def test_predictors_differ_in_what_they_have_seen_alone(script: Script) -> None:
    claim = script.said["eclipse_leak"]
    (case,) = script.scales.cases(claim)
    for scale in SCALES:
        made = [
            resolve(script.scales.trial(claim, setting, case, scale, 0), None)
            for setting in claim.settings
        ]
        links = [trial.defense.links[0] for trial in made]
        assert [link.seen for link in links] == ["test", "held_out", "clean_train", "poisoned"]  # type: ignore[attr-defined]
        assert len({replace(link, diffusion_data="") for link in links}) == 1  # type: ignore[call-arg]
        assert len({(t.data, t.attack, str(t.spec.protocol)) for t in made}) == 1
        held = made[1].dataset.train_size - made[1].data.train_size
        assert held >= links[0].few, "as many held-out images as others see"  # type: ignore[attr-defined]


class TestVerdict:
    """On made-up rows. APBench prints 92.03, D-VAE 19.50."""

    @pytest.fixture
    def figures(self) -> tuple[Any, Any]:
        texts = (
            "cifar10/em_apb/grayscale/resnet18/supervised/apbench/0",
            "cifar10/em_remrepo/grayscale/resnet18/supervised/dvae/0",
        )
        made = [found.best for text in texts if (found := find(text)) is not None]
        return made[0], made[1]

    def judged(self, script: Script, *sides: tuple[Any, ...], first: bool = True) -> str:
        compared = [script.settling.Side(*side) for side in sides]
        said = script.settling.verdict(compared, first)
        assert isinstance(said, str)
        return said

    def test_nothing_is_said_of_what_is_not_there(self, script: Script) -> None:
        assert self.judged(script, ("a", [10.0, 11], []), ("b", [], [])) == "not measured"
        said = self.judged(script, ("a", [10.0], []), ("b", [30.0], []))
        assert said == "undecided: one seed has no spread; 20.0 points apart"
        idle = [(name, [80.0, 60], [80.0, 80], None, False) for name in "ab"]
        assert self.judged(script, *idle) == "undecided: no setting works here"

    def test_without_printed_numbers_the_widest_pair_counts(self, script: Script) -> None:
        a, b, c = ("a", [10.0, 12], []), ("b", [13.0, 13], []), ("c", [31.0, 31], [])
        assert self.judged(script, a, b).startswith("no setting differs: 2.0 points at most, 5.0")
        assert self.judged(script, a, b, c) == "the setting moves it: a to c +20.0"
        wide = ("c", [11.0, 51], [])  # sd 28.3: 20 points are no difference
        assert self.judged(script, a, wide).startswith("no setting differs: 20.0 points at most")

    def test_printed_pairs_are_held_against_the_measured(
        self, script: Script, figures: tuple[Any, Any]
    ) -> None:
        high, low = figures

        def said(one: list[float], other: list[float]) -> str:
            return self.judged(script, ("x", one, [], high), ("y", other, [], low))

        assert said([80.0, 82], [30.0, 30]) == (
            "x to y -72.5 printed, -51.0 here: the setting does it"
        )
        assert said([30.0, 30], [80.0, 82]).endswith("+51.0 here: the other way round")
        assert said([30.0, 30], [33.0, 33]).endswith("no such difference")

    def test_further_defenses_count_where_the_attack_works_without(
        self, script: Script, figures: tuple[Any, Any]
    ) -> None:
        high, low = figures
        idle = ("y", [30.0, 30], [], low, False)
        worked = ("z", [50.0, 50], [])
        said = self.judged(script, ("x", [80.0, 80], [], high, False), idle, worked)
        assert said.startswith("undecided as printed, not both work here; the setting moves it: x")
        said = self.judged(script, ("x", [80.0, 80], [], high), idle, first=False)
        assert said == "undecided: fewer than two settings work here"
        said = self.judged(script, ("x", [80.0, 80], [], high), idle)
        assert said == (
            "undecided as printed, not both work here; the setting moves it: x to y -50.0"
        )


@pytest.mark.parametrize(
    ("words", "seeds"), [([], {0}), (["--seed", "1"], {1}), (["--seeds", "0", "2"], {0, 2})]
)
def test_the_seeds_of_a_question_are_given_as_to_a_grid(
    words: list[str],
    seeds: set[int],
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask = ["contradictions", "--which", "em_generator", "--dry-run", "--json", *words]
    monkeypatch.setattr(sys, "argv", ask)
    main = runpy.run_path(str(Path(script.scales.__file__).with_name("__main__.py")))["main"]
    assert main() == 0
    planned = [trial["spec"] for trial in json.loads(capsys.readouterr().out)["trials"]]
    assert {TrialSpec.parse(spec).seed for spec in planned} == seeds


def test_rows_become_a_table(script: Script) -> None:
    """Every row of a made-up log is found: clean 85, em 20, em_remrepo after grayscale 25."""
    claim = script.said["em_generator"]
    cases, trial = script.scales.cases(claim), script.scales.trial
    rows = {}
    for case in cases:
        for setting in claim.settings:
            for seed in range(2):
                clean = trial(claim, setting, case._replace(attack="clean"), "quick", seed)
                rows[clean] = {"final_acc": 0.8535 + 0.01 * seed, "peak_acc": 1.0}
                held = case.defense == "standard" or "remrepo" in setting.name
                spec = trial(claim, setting, case, "quick", seed)
                rows[spec] = {"final_acc": (0.2 if held else 0.8), "peak_acc": 1.0}
    lines = list(script.settling.table("em_generator", claim, "quick", (0, 1), rows))
    assert (
        "| em | grayscale | supervised | em_apb | 92.03 (apbench T3, T6, T17) | 80.0 ± 0.0 (2) | "
        "85.9 ± 0.7 (2) |"
    ) in lines
    gray = next(line for line in lines if line.startswith("- em, grayscale"))
    assert "em_apb to em_remrepo -72.5 printed, -60.0 here: the setting does it" in gray
    assert "em to em_remrepo -71.6 printed, -60.0 here: the setting does it" in gray
    lines = list(script.settling.table("em_generator", claim, "quick", (0,), rows))
    assert (
        "- em, grayscale, supervised: undecided: one seed has no spread; 60.0 points apart."
        in lines
    )
    lines = list(script.settling.table("em_generator", claim, "small", (0,), rows))
    assert "- em, grayscale, supervised: not measured." in lines


def test_what_defenses_are_varied_on_stands_above_them(script: Script) -> None:
    """Made-up rows: OPS leaves 15, the projection alone gives 40, with augmentation 80."""
    claim = script.said["op_augmentation"]
    trial = script.scales.trial
    left = {"standard": 0.15, "op": 0.4}
    rows = {}
    for case in script.scales.cases(claim)[:1]:
        for setting, seed in product(claim.settings, range(2)):
            for where in (case, script.scales.undefended(claim, case)):
                clean = trial(claim, setting, where._replace(attack="clean"), "quick", seed)
                rows[clean] = {"final_acc": 0.9}
                spec = trial(claim, setting, where, "quick", seed)
                rows[spec] = {"final_acc": left.get(TrialSpec.parse(spec).chain, 0.8)}
    lines = list(script.settling.table("op_augmentation", claim, "quick", (0, 1), rows))
    at = lines.index("| ops | standard | supervised | any | – | 15.0 ± 0.0 (2) | 90.0 ± 0.0 (2) |")
    assert [line.split(" | ")[3] for line in lines[at + 1 : at + 4]] == [
        "projection and augmentation",
        "projection alone",
        "augmentation alone",
    ]
    assert (
        "- ops, op, supervised: the setting moves it: projection and augmentation to projection "
        "alone -40.0." in lines
    )
    assert "- lsp, op, supervised: not measured." in lines
    leak = list(
        script.settling.table("eclipse_leak", script.said["eclipse_leak"], "quick", (0,), {})
    )
    assert "| em | standard | supervised | any | – | – | – |" in leak
    assert "| em | eclipse | supervised | test images | 82.07 (dune main) | – | – |" in leak


def test_separability_is_judged_on_noises_that_were_not_fitted(script: Script) -> None:
    """A direction by class is separable, draws without one are not, though both are fitted."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 4
    draws = torch.randn(160, 100, generator=generator)
    centers = 3 * torch.randn(4, 100, generator=generator)
    fitted, held = script.separable.accuracies(draws, labels, 0)
    assert fitted == 1
    assert held < 0.5
    fitted, held = script.separable.accuracies(draws + centers[labels], labels, 0)
    assert fitted == held == 1


def test_a_detector_of_edges_is_asked_about_images_that_it_has_not_met(script: Script) -> None:
    """Dark rims are told apart; of images that are drawn alike it can only guess."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(60, 200, (300, 3, 8, 8), generator=generator, dtype=torch.uint8)
    more = torch.randint(60, 200, (500, 3, 8, 8), generator=generator, dtype=torch.uint8)
    edges = script.rim.edges
    assert edges(pixels).shape == (300, 12)
    assert edges(pixels)[0, 0] == pixels[0, 0, 0].sum()
    assert edges(pixels)[0, 11] == pixels[0, 2, :, -1].sum()
    assert abs(script.rim.told_apart(edges(pixels), edges(more), 0) - 0.5) < 0.1
    dark = pixels.clone()
    dark[:, :, 0] //= 2
    assert script.rim.told_apart(edges(dark), edges(more), 0) > 0.98


def test_what_bytes_bring_back_of_a_projection(script: Script) -> None:
    """Along a direction of one pixel: a projected pixel is 0, which bytes have; half of two
    opposite pixels, of which one is below 0 and clipped, comes back."""
    pixels = torch.zeros(1, 1, 1, 2, dtype=torch.uint8)
    pixels[0, 0, 0, 0] = 200
    first = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    assert script.projected.returned(pixels, first) == (0.0, 0.0)
    both = torch.tensor([[1.0], [1.0]], dtype=torch.float64) / 2**0.5
    back, clipped = script.projected.returned(pixels, both)
    assert back == pytest.approx(0.5)  # 100 and -100 become 100 and 0
    assert clipped == 0.5
