"""Printed tables as lists of trials, at the paper's scale or at a smaller one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

from raygrid.core.errors import SpecError, unknown
from raygrid.core.spec import Part, TrialSpec
from raygrid.defenses import DEFENSES
from raygrid.literature import lookup, reference
from raygrid.literature.names import SIX
from raygrid.literature.questions import QUESTIONS, PrintedQuestion
from raygrid.literature.reference import specs_of
from raygrid.reports.tables.cells import Cell, with_published
from raygrid.reports.tables.layout import Panel
from raygrid.reproduce.scales import Scale, absent, scaled
from raygrid.trials.resolve import resolve


@dataclass(frozen=True)
class PaperTable:
    """The trials of a printed table at some scale, and what of it cannot be run here.

    printed: by trial (canonical, seed 0) the printed ones that it stands for. asked: the printed
    numbers that no row of a trial holds.
    """

    specs: tuple[str, ...]
    missing: tuple[str, ...]
    printed: Mapping[str, tuple[TrialSpec, ...]] = field(default_factory=dict)
    asked: tuple[PrintedQuestion, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """Of what was printed, in order."""
        return tuple(
            dict.fromkeys(str(each.dataset) for of in self.printed.values() for each in of)
        )

    @property
    def shared(self) -> tuple[str, ...]:
        """What stands for several printed ones, in words."""
        return shared(self.printed)

    def alone(self, dataset: str) -> dict[str, TrialSpec]:
        """By trial the printed one on this dataset, where it stands for just one there."""
        there = {
            text: [each for each in of if str(each.dataset) == dataset]
            for text, of in self.printed.items()
        }
        return {text: of[0] for text, of in there.items() if len(of) == 1}


@dataclass(frozen=True)
class Only:
    """A part of a table or figure: this dataset, these attacks and defenses; all by default.

    A name stands for the versions of a method too: `em` for `em_apb`, that of a dataset for what a
    paper has of it. With parameters it is that very part: `jpeg(quality=30)`.
    """

    dataset: str | None = None
    attacks: Sequence[str] = ()
    defenses: Sequence[str] = ()

    def of(self, specs: Sequence[TrialSpec]) -> list[TrialSpec]:
        """The trials that belong to it; raises SpecError for a name that none of them has."""
        kept = [s for s in specs if self.dataset in (None, str(s.dataset), s.dataset.name)]
        kept = _named("attack", self.attacks, kept, lambda spec: (spec.attack,))
        return _named("defense", self.defenses, kept, lambda spec: spec.defense)


def _named(
    kind: str,
    words: Sequence[str],
    specs: list[TrialSpec],
    parts: Callable[[TrialSpec], Sequence[Part]],
) -> list[TrialSpec]:
    def has(spec: TrialSpec, word: str) -> bool:
        if "(" in word:
            return Part.parse(word) in parts(spec)
        return any(f"{part.name}_".startswith(f"{word}_") for part in parts(spec))

    for word in words:
        if not any(has(spec, word) for spec in specs):
            named = "(" not in word
            known = {part.name if named else str(part) for spec in specs for part in parts(spec)}
            raise SpecError(unknown(f"{kind} here", word, known))
    return [spec for spec in specs if not words or any(has(spec, word) for word in words)]


CONTROLLED = {("dvae", "8")}
"""Tables over the poisoned share: what the clean part alone gives comes with every row of them."""


def paper_table(
    paper: str,
    number: str,
    scale: Scale = "paper",
    only: Only = Only(),
    seeds: Sequence[int] = (0,),
    checkpoint: str = "",
) -> PaperTable:
    """The trials behind table `number` of `paper`; raises SpecError for unknown names.

    scale: `paper` as printed; `grid` with fewer contrastive epochs; `small` with the paper's data
        and networks for 30 epochs; `quick` on the embedded digits with small networks, minutes on
        a CPU; `smoke` the same with a sixth of the images and the fewest epochs, to see that it
        runs.
    only: a part of the table. checkpoint: as `with_checkpoint`. What is not installed here is
    listed as missing. What is asked of a trial needs others too, which come with it, as the
    controls of partial poisoning do.
    """
    if scale not in get_args(Scale):
        raise SpecError(unknown("scale", scale, get_args(Scale)))
    listed = [TrialSpec.parse(text) for text in specs_of(paper, number)]
    chosen = dict.fromkeys(with_checkpoint(only.of(listed), checkpoint))
    if (paper, number) in CONTROLLED:
        alone = [s.replace(attack=Part("withheld")) for s in chosen if 0 < s.poison_ratio < 1]
        chosen.update(dict.fromkeys(alone))
    asked = []
    for each in reference.printed_questions(paper, number):
        every = tuple(with_checkpoint(each.about, checkpoint))
        here = tuple(spec for spec in every if spec in chosen)
        if here and (every[0] in chosen or QUESTIONS[each.question].mean):
            about = here if QUESTIONS[each.question].mean else every
            asked.append(replace(each, about=about))
            chosen.update(dict.fromkeys(about))
    return replace(paper_table_of(list(chosen), scale, seeds), asked=tuple(asked))


def with_checkpoint(specs: Sequence[TrialSpec], checkpoint: str) -> list[TrialSpec]:
    """The trials with this noise predictor in every defense that can load one, if it has a name."""
    loads = {name for name in DEFENSES if "checkpoint" in DEFENSES[name].__dataclass_fields__}
    given = {"checkpoint": checkpoint} if checkpoint else {}

    def loading(part: Part) -> Part:
        return part.with_params(**given) if part.name in loads else part

    return [spec.replace(defense=tuple(map(loading, spec.defense))) for spec in specs]


def paper_table_of(listed: Sequence[TrialSpec], scale: Scale, seeds: Sequence[int]) -> PaperTable:
    """The same for trials that somebody else listed."""
    specs: dict[str, None] = {}
    missing: dict[str, None] = {}
    printed: dict[str, dict[TrialSpec, None]] = {}
    for each in listed:
        spec = scaled(each, scale)
        lacking = absent(spec)
        missing.update(dict.fromkeys(lacking))
        if not lacking:
            specs.update((str(spec.replace(seed=seed)), None) for seed in seeds)
            canonical = str(resolve(spec, None).spec)
            printed.setdefault(canonical, {})[each] = None
    return PaperTable(
        tuple(specs), tuple(missing), {name: tuple(of) for name, of in printed.items()}
    )


def shared(printed: Mapping[str, Collection[TrialSpec]]) -> tuple[str, ...]:
    """Where printed trials differ that one trial stands for: `small_resnet for resnet34, ...`.

    printed: by trial all that it stands for.
    """
    named: dict[str, dict[str, None]] = {}
    for text, several in printed.items():
        for axis in fields(TrialSpec):
            values = dict.fromkeys(_of(each, axis.name) for each in several)
            if len(values) > 1:
                named.setdefault(_of(TrialSpec.parse(text), axis.name), {}).update(values)
    return tuple(f"{one} for {', '.join(sorted(of))}" for one, of in sorted(named.items()))


def _of(spec: TrialSpec, axis: str) -> str:
    return spec.chain if axis == "defense" else str(getattr(spec, axis))


def compared(panel: Panel, paper: str, wanted: PaperTable) -> list[Panel]:
    """A panel of stand-ins beside what was printed, once for each dataset that has numbers."""
    filled = [with_printed(panel, paper, wanted.alone(dataset)) for dataset in wanted.datasets]
    return [each for each in filled if each != panel] or [panel]


def with_printed(panel: Panel, paper: str, printed: Mapping[str, TrialSpec]) -> Panel:
    """A panel of attacks with the printed number in every cell that has none, for scale `quick`.

    printed: as in `Job.alone`, for the very trials whose cells these are. Such a number says which
    dataset it is of.
    """
    cells = dict(panel.cells)
    for place, cell in panel.cells.items():
        spec = _printed_for(cell, printed)
        measure = "final_acc" if cell.metric.startswith("worst") else cell.metric
        found = None if spec is None else lookup.find(spec, measure)
        if spec and found and found.best.paper == paper and cell.published is None:
            cells[place] = with_published(cell, replace(found, apart=f"{paper}, {spec.dataset}"))
    return replace(panel, cells=cells)


def _printed_for(cell: Cell, printed: Mapping[str, TrialSpec]) -> TrialSpec | None:
    """The printed trial of a cell; for `worst` that of a learner, with `worst` in its place."""
    worst = cell.axes["learner"] == "worst"
    for learner in SIX if worst else (cell.axes["learner"],):
        axes = {**cell.axes, "learner": learner}
        spec = printed.get(_text(axes))
        if spec is not None:
            return spec.replace(learner=Part("worst")) if worst else spec
    return None


def _text(axes: Mapping[str, Any]) -> str:
    """The spec of a cell's axes at seed 0."""
    ratio = "" if axes["attack"] == "clean" else f"@{axes['poison_ratio']}"
    names = ("defense", "architecture", "learner", "protocol")
    where = "/".join(str(axes[name]) for name in names)
    return str(TrialSpec.parse(f"{axes['dataset']}/{axes['attack']}{ratio}/{where}/0"))
