"""Printed tables as lists of trials, at the paper's scale or at a smaller one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

from raygrid.attacks import ATTACKS
from raygrid.core.errors import SpecError, unknown
from raygrid.core.registry import Registry
from raygrid.core.spec import Part, TrialSpec
from raygrid.defenses import DEFENSES
from raygrid.literature import reference
from raygrid.literature.questions import QUESTIONS, PrintedQuestion
from raygrid.literature.reference import specs_of
from raygrid.literature.shared_names import canonical
from raygrid.protocols import PROTOCOLS
from raygrid.reproduce.ablations import ABLATIONS, ablation
from raygrid.reproduce.papers import PAPERS, Scale
from raygrid.reproduce.scales import lacking, scaled
from raygrid.trials.resolve import resolve


@dataclass(frozen=True)
class PaperTable:
    """The trials of a printed table at some scale, and what of it cannot be run here.

    printed: by trial (canonical, seed 0) the printed ones that it stands for. questions: the
    printed numbers that no row of a trial holds.
    """

    specs: tuple[str, ...]
    missing: tuple[str, ...]
    printed: Mapping[str, tuple[TrialSpec, ...]] = field(default_factory=dict)
    questions: tuple[PrintedQuestion, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets of what was printed, in order."""
        return tuple(
            dict.fromkeys(str(each.dataset) for of in self.printed.values() for each in of)
        )

    @property
    def shared(self) -> tuple[str, ...]:
        """What stands for several printed ones, in words."""
        return shared(self.printed)

    @property
    def substitutes(self) -> tuple[str, ...]:
        """Attacks and defenses that are other ones than the printed, in words."""
        return substitutes(self.printed)

    def alone(self, dataset: str) -> dict[str, TrialSpec]:
        """The printed trial on this dataset by its stand-in, where that stands for just one."""
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
        wanted = () if self.dataset is None else (self.dataset,)
        kept = _named("dataset", wanted, list(specs), lambda spec: (spec.dataset,))
        kept = _named("attack", self.attacks, kept, lambda spec: (spec.attack,))
        return _named("defense", self.defenses, kept, lambda spec: spec.defense)


def _named(
    kind: str,
    words: Sequence[str],
    specs: list[TrialSpec],
    parts: Callable[[TrialSpec], Sequence[Part]],
) -> list[TrialSpec]:
    def has(spec: TrialSpec, word: str) -> bool:
        return any(_is(part, word) for part in parts(spec))

    for word in words:
        if not any(has(spec, word) for spec in specs):
            named = "(" not in word
            known = {part.name if named else str(part) for spec in specs for part in parts(spec)}
            raise SpecError(unknown(f"{kind} here", word, known))
    return [spec for spec in specs if not words or any(has(spec, word) for word in words)]


def _is(part: Part, word: str) -> bool:
    """Whether a word means a part: that very one, or any version of a method or dataset."""
    if "(" in word:
        return Part.parse(word) == part
    return f"{part.name}_".startswith(f"{word}_")


CONTROLLED_TABLES = {("dvae", "8"), ("cuda", "5")}
"""Tables over the poisoned share: what the clean part alone gives comes with every row of them."""


@dataclass(frozen=True)
class Files:
    """What trials load from files of the user's: text that takes the place of a parameter.

    checkpoint: a noise predictor, for every defense that can load one. setups: a folder with the
    official set-ups, for every protocol that draws some.
    """

    checkpoint: str = ""
    setups: str = ""

    def into(self, specs: Iterable[TrialSpec]) -> list[TrialSpec]:
        """The trials with these files in every part that can load them."""
        return [
            spec.replace(
                defense=tuple(
                    _loading(DEFENSES, part, "checkpoint", self.checkpoint) for part in spec.defense
                ),
                protocol=_loading(PROTOCOLS, spec.protocol, "setups", self.setups),
            )
            for spec in specs
        ]


def _loading(registry: Registry[Any], part: Part, name: str, file: str) -> Part:
    """A part that loads a file, where its method has a parameter of that name and there is one."""
    known = part.name in registry and name in registry[part.name].__dataclass_fields__
    return part.with_params(**{name: file}) if file and known else part


def paper_table(
    paper: str,
    number: str,
    scale: Scale = "paper",
    only: Only = Only(),
    seeds: Sequence[int] = (0,),
    files: Files = Files(),
) -> PaperTable:
    """The trials behind table `number` of `paper`; raises SpecError for unknown names.

    scale: `paper` as printed; `grid` with fewer contrastive epochs; `small` with the paper's data
        and networks for 30 epochs at most; `screen` with the paper's data and a fast victim,
        minutes of a core a trial and up to about an hour for a poison or a purified set; `quick` on
        the embedded digits with small networks, minutes on a CPU; `smoke` the same with a sixth of
        the images and the fewest epochs, to see that it runs.
    only: a part of the table. What is not installed here is listed as missing. What is asked of a
    trial needs others too, which come with it, as controls do.
    """
    if scale not in get_args(Scale):
        raise SpecError(unknown("scale", scale, get_args(Scale)))
    if number in ABLATIONS.get(paper, ()):
        listed, questions = list(ablation(number)), []
    else:
        listed = [TrialSpec.parse(text) for text in specs_of(paper, number)]
        questions = reference.printed_questions(paper, number)
    chosen = dict.fromkeys(files.into(only.of(listed)))
    chosen.update(dict.fromkeys(controls(paper, number, chosen)))
    kept = []
    for each in questions:
        every = tuple(files.into(each.about))
        here = tuple(spec for spec in every if spec in chosen)
        if here and (every[0] in chosen or QUESTIONS[each.question].mean):
            about = here if QUESTIONS[each.question].mean else every
            kept.append(replace(each, about=about))
            chosen.update(dict.fromkeys(about))
    return replace(paper_table_of(list(chosen), scale, seeds), questions=tuple(kept))


def controls(paper: str, number: str, specs: Iterable[TrialSpec]) -> list[TrialSpec]:
    """What trials of a table are held against, beyond what the paper printed.

    Over the poisoned share that is the clean part alone; a targeted attack's success means little
    beside what a clean victim of the same set-ups says.
    """
    if PAPERS[paper].setups:
        return [spec.replace(attack=Part("clean")) for spec in specs]
    if (paper, number) in CONTROLLED_TABLES:
        return [s.replace(attack=Part("withheld")) for s in specs if 0 < s.poison_ratio < 1]
    return []


def paper_table_of(listed: Sequence[TrialSpec], scale: Scale, seeds: Sequence[int]) -> PaperTable:
    """The same for trials that somebody else listed."""
    specs: dict[str, None] = {}
    missing: dict[str, None] = {}
    printed: dict[str, dict[TrialSpec, None]] = {}
    for each in listed:
        reasons = lacking(each, scale)
        missing.update(dict.fromkeys(reasons))
        if not reasons:
            spec = scaled(each, scale)
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


def substitutes(printed: Mapping[str, Collection[TrialSpec]]) -> tuple[str, ...]:
    """Where a trial has another attack or defense than the printed: `tap(steps=60) for tap, ...`.

    printed: as for `shared`.
    """
    named: dict[str, dict[str, None]] = {}
    for text, several in printed.items():
        for ours, theirs in _methods_beside(TrialSpec.parse(text), several):
            if ours != theirs:
                named.setdefault(ours, {})[theirs] = None
    return tuple(f"{one} for {', '.join(sorted(of))}" for one, of in sorted(named.items()))


def _methods_beside(spec: TrialSpec, several: Collection[TrialSpec]) -> Iterator[tuple[str, str]]:
    """The attack and each defense of a trial beside those of the printed ones."""
    for each in several:
        yield str(spec.attack), canonical(ATTACKS, each.attack)
        for ours, theirs in zip(spec.defense, each.defense, strict=True):
            yield str(ours), canonical(DEFENSES, theirs)


def _of(spec: TrialSpec, axis: str) -> str:
    return spec.chain if axis == "defense" else str(getattr(spec, axis))
