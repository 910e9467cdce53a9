"""The best defense so far against each attack of a grid that runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from raygrid.core.spec import Part, TrialSpec
from raygrid.trials import contest
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial

UNDEFENDED = (Part("none"),)


@dataclass(frozen=True)
class Leader:
    """A defense that leads: its cell, a spec of seed 0, and its final accuracy over the seeds."""

    cell: str
    accuracy: float


def cell_of(spec: TrialSpec) -> TrialSpec:
    """The trial that stands for all seeds."""
    return spec.replace(seed=0)


class Leaders:
    """Final accuracies as tables take them, of attacks on all images and of defenses proper.

    An attack on a target is judged by its success there, which no defense raises.
    """

    def __init__(self) -> None:
        self._seeds: dict[TrialSpec, dict[int, float]] = defaultdict(dict)

    def add(self, trial: Trial, result: Result) -> None:
        """Take a finished trial into account, if it takes part in the contest."""
        spec = trial.spec
        attacks = contest.is_attack(str(spec.attack)) and not trial.attack.on_target
        defended = spec.poison_ratio == 1 and contest.is_defense(spec.chain)
        if attacks and defended and result.final_acc is not None:
            self._seeds[cell_of(spec)][spec.seed] = result.final_acc

    def hardest(self, count: int) -> list[Leader]:
        """The best defense of each attack and setting, those first that leave least."""
        return sorted(self._best(), key=lambda leader: leader.accuracy)[:count]

    def _best(self) -> Iterator[Leader]:
        settings: dict[TrialSpec, list[Leader]] = defaultdict(list)
        for cell, seeds in self._seeds.items():
            leader = Leader(str(cell), fmean(seeds.values()))
            settings[cell.replace(defense=UNDEFENDED)].append(leader)
        for met in settings.values():
            yield max(met, key=lambda leader: leader.accuracy)
