"""Figures: the numbers that are drawn, their correlations, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from raygrid.core.errors import SpecError
from raygrid.literature.reference import load
from raygrid.reports.figures.curves import training_curves
from raygrid.reports.figures.partial import partial_poisoning, partial_under_defenses
from raygrid.reports.figures.scatters import answer_against, peak_against_final, speed_against_peak
from raygrid.reports.figures.write import write_figures
from raygrid.reports.statistics import _kendall, _spearman, correlate
from raygrid.reports.tables.frame import curves, frame
from raygrid.trials.result import OTHER_DATA
from tests.reports.rows import TOY, Json, as_if_run, trial


def run(attack: str, acc: float, seed: int = 0, defense: str = "standard", **fields: Any) -> Json:
    """A finished trial with a history of three epochs; `views` become probes."""
    views = fields.pop("views", {})
    row = trial(TOY.format(attack, defense, "supervised", seed), acc, **fields)
    losses = zip((2.0, 1.0, 0.4), (acc, acc + 0.05, acc), strict=True)
    row["history"] = [{"train_loss": loss, "test_acc": test} for loss, test in losses]
    row["probes"] |= {name: {"acc": a, "loss": b, "k": 1, "n": 1} for name, (a, b) in views.items()}
    return row


def drawn(figure: Figure, panel: int = 0) -> dict[str, tuple[list[float], list[float]]]:
    """What the labeled lines and error bars of a panel show: label to x and y values."""
    axes = figure.axes[panel]
    handles, labels = axes.get_legend_handles_labels()
    found = {}
    for handle, label in zip(handles, labels, strict=True):
        lined = handle[0] if isinstance(handle, tuple) else handle
        x, y = lined.get_data()  # type: ignore[union-attr]
        found[label] = (np.asarray(x, float).tolist(), np.asarray(y, float).tolist())
    return found


def test_the_published_scatter_has_the_published_correlations() -> None:
    """r = 0.62 and rho = 0.53 over the 25 poisons of the paper's table 1."""
    trials = as_if_run("learned_faster", "1")
    found = correlate(trials["final_acc"], trials["peak_acc"])
    assert found.n == 25
    assert round(found.pearson.value, 2) == 0.62
    assert round(found.spearman.value, 2) == 0.53
    assert 0 < found.pearson.low < found.pearson.value < found.pearson.high < 1
    figure = peak_against_final(trials)
    assert "n = 25; r = 0.62" in str(figure.get_label())
    points = drawn(figure)
    assert len(points) == 25
    assert next(v for k, v in points.items() if k.endswith("  tap")) == ([8.15], [57.3])


@pytest.mark.parametrize(
    ("against", "pearson", "spearman"), [("peak_acc", -0.17, -0.04), ("final_acc", None, 0.02)]
)
def test_transferability_hardly_correlates(
    against: str, pearson: float | None, spearman: float
) -> None:
    rows = load()
    rows = rows[(rows["paper"] == "learned_faster") & (rows["table"] == "2")]
    by = rows.pivot_table("accuracy", "attack", ["metric", "architecture"])
    found = correlate(by["attack_transfer_rate", "mean"], by[against, "resnet18"], 200)
    assert found.n == 10
    assert round(found.spearman.value, 2) == spearman
    if pearson is not None:
        assert round(found.pearson.value, 2) == pearson


def test_the_batched_correlations_are_scipys_also_with_ties() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 7, 30)).astype(float)
    for row in range(7):
        assert _kendall(a, b)[row] == pytest.approx(stats.kendalltau(a[row], b[row]).statistic)
        assert _spearman(a, b)[row] == pytest.approx(stats.spearmanr(a[row], b[row]).statistic)
    assert _kendall(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(1 / 3)


def test_intervals_cover_and_repeat() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    found = correlate(x, y, 1000)
    assert found.pearson.low < 0.707 < found.pearson.high  # the true correlation
    assert found == correlate(x, y, 1000)
    line = correlate([1, 2, 3, 4, 5], [2, 4, 6, 8, 10], 200)
    assert (line.pearson.value, line.kendall.value) == (pytest.approx(1.0), pytest.approx(1.0))
    with pytest.raises(SpecError, match="4 points"):
        correlate([1, 2, 3, 4], [3, 4, 5, 7])
    with pytest.raises(SpecError, match="5 that vary"):
        correlate([1, 1, 1, 1, 1], [3, 4, 5, 6, 7])


@pytest.mark.parametrize(("points", "methods"), [(19, ["percentile"]), (20, ["BCa"])])
def test_intervals_are_of_ten_thousand_resamples_and_bca_from_twenty_points(
    points: int, methods: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy import stats

    calls: list[tuple[int, str]] = []
    bootstrap = stats.bootstrap

    def note(data: Any, statistic: Any, **settings: Any) -> Any:
        assert (settings["paired"], settings.get("confidence_level", 0.95)) == (True, 0.95)
        calls.append((settings["n_resamples"], settings["method"]))
        return bootstrap(data, statistic, **{**settings, "n_resamples": 50})

    monkeypatch.setattr(stats, "bootstrap", note)
    rng = np.random.default_rng(3)
    correlate(rng.normal(size=points), rng.normal(size=points))
    assert calls == [(10_000, method) for method in methods] * 3


def test_points_are_means_over_seeds_of_fully_poisoned_plain_trials() -> None:
    rows = [
        run("clean", 0.9),
        run("lsp", 0.2),
        run("lsp", 0.4, seed=1),
        run("lsp@0.4", 0.8),
        run("lsp", 0.7, defense="grayscale"),
    ]
    points = drawn(peak_against_final(frame(rows)))
    assert points == {
        "1  clean": ([pytest.approx(90.0)], [pytest.approx(95.0)]),
        "2  lsp": ([pytest.approx(30.0)], [pytest.approx(35.0)]),
    }


def test_a_loss_that_never_falls_stands_one_epoch_past_the_end() -> None:
    rows = [run("clean", 0.9, epochs_to_half=4), run("lsp", 0.2), run("lsp(patch=4)", 0.3)]
    rows[2]["epochs_to_half"] = 2
    figure = speed_against_peak(frame(rows))
    points = drawn(figure)
    assert [points[k][0] for k in sorted(points)] == [[4.0], [16.0], [2.0]]
    fills = [str(line.get_markerfacecolor()) for line in figure.axes[0].lines if line.get_label()]
    assert fills.count("white") == 1
    rows[1] |= {"epochs_run": 5, "stopped_early": True}
    assert sorted(xs[0] for xs, _ in drawn(speed_against_peak(frame(rows))).values())[-1] == 16.0


def test_no_epochs_are_drawn_to_a_loss_that_smoothed_labels_keep_above() -> None:
    rows = [run(a, 0.5, resolved={"recipe": {"smoothing": 0.2}}) for a in ("clean", "lsp")]
    with pytest.raises(SpecError, match="no finished trial has a loss that gets below"):
        speed_against_peak(frame(rows))
    plain = drawn(speed_against_peak(frame([*rows, run("regions", 0.5, epochs_to_half=3)])))
    assert [xs for xs, _ in plain.values()] == [[3.0]]


@pytest.mark.parametrize(("answer", "scale"), [("transfer_rate", 100.0), ("psnr", 1.0)])
@pytest.mark.parametrize("accuracy", ["peak_acc", "final_acc"])
def test_answers_about_poisons_are_drawn_against_accuracies(
    answer: str, scale: float, accuracy: str
) -> None:
    """Means over seeds, clean drawn and not correlated, partly poisoned and defended left out."""
    rows = [run("clean", 0.9), run("lsp", 0.2), run("lsp", 0.4, seed=1), run("regions", 0.1)]
    rows += [run("tap", 0.6), run("ar", 0.7), run("lsp@0.4", 0.8)]
    rows.append(run("lsp", 0.7, defense="grayscale"))
    asked = [0.01, 0.2, 0.3, 0.5, 0.9, np.nan, 0.6, 0.7]
    few = answer_against(frame(rows).assign(**{answer: asked}), answer, accuracy)
    assert few.get_label() == "Too few points for a correlation."
    rows += [run("ops", 0.5), run("sep", 0.2)]
    asked += [0.7, 0.4]
    trials = frame(rows).assign(**{answer: asked})
    figure = answer_against(trials, answer, accuracy)
    up = 5 if accuracy == "peak_acc" else 0
    shown = {name.split("  ")[1]: (x[0], y[0]) for name, (x, y) in drawn(figure).items()}
    assert shown == {
        "clean": (pytest.approx(scale * 0.01), pytest.approx(90 + up)),
        "lsp": (pytest.approx(scale * 0.25), pytest.approx(30 + up)),
        "regions": (pytest.approx(scale * 0.5), pytest.approx(10 + up)),
        "tap": (pytest.approx(scale * 0.9), pytest.approx(60 + up)),
        "ops": (pytest.approx(scale * 0.7), pytest.approx(50 + up)),
        "sep": (pytest.approx(scale * 0.4), pytest.approx(20 + up)),
    }
    given = {name: x / scale for name, (x, _) in shown.items() if name != "clean"}
    found = correlate(list(given.values()), [shown[name][1] for name in given])
    assert figure.get_label() == f"Without clean: {found}."
    assert "highest" in figure.axes[0].get_ylabel() or accuracy == "final_acc"


def test_answers_that_nobody_gave_are_refused() -> None:
    trials = frame([run("lsp", 0.2)]).assign(psnr=np.nan)
    with pytest.raises(SpecError, match="no finished trial has both psnr and final_acc"):
        answer_against(trials, "psnr", "final_acc")
    with pytest.raises(SpecError, match=r"unknown answer 'pnsr' \(did you mean 'psnr'"):
        answer_against(trials, "pnsr", "final_acc")
    with pytest.raises(SpecError, match="unknown accuracy 'last_acc'"):
        answer_against(trials, "psnr", "last_acc")


def views(acc: float) -> dict[str, tuple[float, float]]:
    return {
        "unlearnable": (acc, 0.1),
        "original": (acc - 0.2, 0.2),
        "clean_train": (acc - 0.1, 0.3),
    }


def test_partial_poisoning_draws_the_four_views() -> None:
    rows = [run("lsp@0.2", 0.6, views=views(0.9)), run("lsp@0.2", 0.6, seed=1, views=views(0.8))]
    rows += [run("lsp@0.4", 0.5, views=views(0.7)), run("lsp", 0.1), run("clean", 0.9)]
    points = drawn(partial_poisoning(frame(rows)))
    assert points["poisoned images"] == ([20, 40], [pytest.approx(85), pytest.approx(70)])
    assert points["their originals"] == ([20, 40], [pytest.approx(65), pytest.approx(50)])
    assert points["clean part of training set"][1] == [pytest.approx(75), pytest.approx(60)]
    assert points["test set (unseen)"][1] == [pytest.approx(60), pytest.approx(50)]
    assert partial_poisoning(frame(rows)).axes[0].get_ylim() == (0, 103), "room for `chance`"
    figure = partial_poisoning(frame(rows), "loss")
    figure.canvas.draw()
    assert {t.get_fontsize() for t in figure.axes[0].get_yticklabels(which="both")} == {8}
    assert figure.axes[0].get_yscale() == "log"
    assert drawn(figure)["their originals"][1] == [pytest.approx(0.2)] * 2
    with pytest.raises(SpecError, match="what is 'accuracy'"):
        partial_poisoning(frame(rows), "accuracy")
    with pytest.raises(SpecError, match="no trial was partly poisoned"):
        partial_poisoning(frame(rows[3:]))


def test_partial_poisoning_under_defenses_starts_at_the_clean_control() -> None:
    rows = [
        run(a, acc, defense=d)
        for d in ("standard", "grayscale")
        for a, acc in (("clean", 0.9), ("lsp@0.4", 0.6), ("lsp", 0.2))
    ]
    points = drawn(partial_under_defenses(frame(rows)))
    assert points["grayscale"] == ([0, 40, 100], [pytest.approx(v) for v in (90, 60, 20)])
    assert "clean part alone" not in points
    with pytest.raises(SpecError, match="two poison ratios"):
        partial_under_defenses(frame(rows[:1]))


def test_partial_poisoning_under_defenses_says_what_is_selected_on_what() -> None:
    names = ("iss", "standard", "early_stopping(mode=clean_val)", "early_stopping")
    rows = [run(attack, 0.5, defense=d) for d in names for attack in ("lsp@0.4", "lsp")]
    said = partial_under_defenses(frame(rows)).get_label()
    assert "early_stopping(mode=clean_val): selected on clean validation images. " in said
    assert said.endswith("early_stopping, iss: selected on the test set (an oracle).")
    assert "selected" not in partial_under_defenses(frame(rows[2:4])).get_label()


def test_every_line_under_a_defense_has_its_control_beside_it() -> None:
    """Trained on the clean part alone, with the same defense; no attack, so no panel of its own."""
    accs = {"standard": 0.0, "grayscale": 0.1}
    rows = [
        run(attack, acc - less, defense=defense)
        for defense, less in accs.items()
        for attack, acc in (
            ("clean", 0.9),
            *(("lsp@0.2", 0.7), ("lsp@0.4", 0.6), ("regions@0.2", 0.5), ("regions@0.4", 0.4)),
            *(("withheld@0.2", 0.85), ("withheld@0.4", 0.8)),
        )
    ]
    figure = partial_under_defenses(frame(rows))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["lsp", "regions"]
    for panel, axes in enumerate(shown):
        assert set(drawn(figure, panel)) == {"standard", "grayscale", "clean part alone"}
        crosses = [one for one in axes.lines if one.get_marker() == "x" and len(one.get_xdata())]
        handles, labels = axes.get_legend_handles_labels()
        colors = {
            name: handle[0].get_color()
            for handle, name in zip(handles, labels, strict=True)
            if name in accs
        }
        found = {one.get_color(): one.get_data() for one in crosses}
        assert len(crosses) == len(found) == 2
        for defense, less in accs.items():
            x, y = found[colors[defense]]
            assert list(x) == [0, 20, 40]
            assert list(y) == [pytest.approx(100 * (v - less)) for v in (0.9, 0.85, 0.8)], defense
    assert "Crosses: trained on the clean part alone" in str(figure.get_label())


def test_training_curves_are_grouped_and_leave_partial_poisoning_out() -> None:
    rows = [run("clean", 0.9), run("lsp", 0.2), run("lsp", 0.4, seed=1), run("lsp@0.4", 0.8)]
    rows.append(run("lsp(patch=4)", 0.3))
    figure = training_curves(curves(rows))
    assert [axes.get_title() for axes in figure.axes[:1]] == ["lsp"]
    points = drawn(figure, 1)
    assert points["lsp"] == ([1, 2, 3], [pytest.approx(v) for v in (30, 35, 30)])
    assert set(points) == {"clean", "lsp", "lsp(patch=4)"}
    grouped = training_curves(curves(rows), {"first": ["lsp"], "second": ["lsp(patch=4)"]})
    assert [axes.get_title() for axes in grouped.axes[:2]] == ["first", "second"]


@pytest.mark.filterwarnings("error::UserWarning")
def test_long_names_leave_panels_their_size() -> None:
    """A layout without room for them is given up by matplotlib with a warning, axes cut off."""
    long = "mifgsm(augmentation=affine_shift, momentum=0.9, start=normal, step=0.05)"
    sizes = []
    for name in ("mifgsm(step=0.05)", long):
        rows = [run(attack, 0.3) for attack in ("clean", "mifgsm", name, "tap", "lsp", "em")]
        places = [axes.get_position() for axes in training_curves(curves(rows)).axes]
        sizes.append([(place.width, place.height) for place in places])
    assert np.allclose(*sizes, atol=1e-3)
    assert min(width for width, _ in sizes[1]) > 0.15


def test_many_training_curves_stand_in_rows_of_five_by_short_names() -> None:
    names = ["ar", "em(max_rounds=4, step=0.5)", "hypo", "lsp", "ops", "regions", "tap"]
    rows = [run(name, 0.3) for name in ["clean", *names]]
    figure = training_curves(curves(rows))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown if axes.get_title()] == [
        name.partition("(")[0] for name in names
    ]
    assert len(shown) == 2 * len(names)
    assert len({round(axes.get_position().x0, 3) for axes in shown}) == 5
    legends = [axes.get_legend() for axes in shown if axes.get_legend()]
    assert [legend.get_texts()[1].get_text() for legend in legends if legend] == [
        name.partition("(")[0] for name in names
    ]
    loss = next(axes for axes in shown if axes.get_title() == "regions")
    named = [axes for axes in shown if "regions" in axes.get_legend_handles_labels()[1]]
    acc = next(axes for axes in named if not axes.get_legend())
    assert loss.get_position().x0 == pytest.approx(acc.get_position().x0)
    assert loss.get_position().y0 > acc.get_position().y0


def test_victims_are_never_mixed() -> None:
    rows = [run("lsp", 0.2), trial("photo_digits/lsp/standard/resnet18/supervised/quick/0", 0.3)]
    with pytest.raises(SpecError, match=r"these rows have 2: .*small_cnn.*resnet18"):
        peak_against_final(frame(rows))


def title(figure: Figure) -> str:
    """In one line; a narrow figure has it in several."""
    return " ".join(figure.get_suptitle().split())


def test_a_title_says_what_data_they_are_where_only_the_name_is_the_datasets() -> None:
    """In the words of the tables; of epochs as of trials, and how many where some are official."""
    other = "photo_digits (16 x 16 pixels)"
    rows = [run(a, 0.2, marks=[f"{OTHER_DATA}{other}"]) for a in ("clean", "lsp")]
    tail = ", protocol quick, small_cnn, supervised"
    for figure in (peak_against_final(frame(rows)), training_curves(curves(rows))):
        assert title(figure) == f"{other}{tail}"
    mixed = [*rows, run("em", 0.3)]
    said = f"photo_digits (in 2 of 3 trials {other}){tail}"
    assert title(peak_against_final(frame(mixed))) == said
    assert title(training_curves(curves(mixed))) == said
    assert title(peak_against_final(frame([run("lsp", 0.2)]))) == f"photo_digits{tail}"


def test_what_the_rows_suffice_for_is_written(tmp_path: Path, saved: list[Figure]) -> None:
    rows = [run("lsp@0.4", 0.6, views=views(0.9)), run("lsp", 0.1), run("clean", 0.9)]
    names = [path.name for path in write_figures(tmp_path, rows)]
    assert [name.split("-photo")[0] for name in names] == [
        "peak-final",
        "speed-peak",
        "partial-acc",
        "partial-loss",
        "partial-defenses",
        "curves",
    ]
    assert all((tmp_path / "figures" / name).read_bytes()[1:4] == b"PNG" for name in names)
    trials, epochs = frame(rows), curves(rows)
    expected = [
        peak_against_final(trials),
        speed_against_peak(trials),
        partial_poisoning(trials, "acc"),
        partial_poisoning(trials, "loss"),
        partial_under_defenses(trials),
        training_curves(epochs),
    ]
    for figure, same in zip(saved, expected, strict=True):
        assert figure.get_label() == same.get_label()
        for panel in range(len(same.axes)):
            assert drawn(figure, panel) == drawn(same, panel)
    assert drawn(saved[2])["their originals"] == ([40], [pytest.approx(70)])
    assert drawn(saved[3])["their originals"] == ([40], [pytest.approx(0.2)])
    assert write_figures(tmp_path, []) == []


def test_printed_tables_become_frames() -> None:
    trials = as_if_run("dvae", "9")
    assert isinstance(trials, pd.DataFrame)
    em = trials[trials["attack"] == "em_remrepo"].set_index("defense")
    assert em.loc["standard", "final_acc"] == 0.1226
    assert em.loc["ueraser_max(lite_after=50)", "peak_acc"] == 0.76
