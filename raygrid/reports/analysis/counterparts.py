"""Which printed number stands for a measured cell, and in what the two are not the same trial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.airbench import AirBench
from raygrid.attacks import ATTACKS
from raygrid.core.spec import Part, TrialSpec
from raygrid.defenses import DEFENSES
from raygrid.literature import lookup
from raygrid.literature.lookup import PublishedValue
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.trial_lines import CONTROLS

CONTROL, PRINTED = "control", "as printed"
OTHER = ("other network", "other surrogate", "other purifier", "partly poisoned")
"""In what a cell may differ from what papers mostly printed; a group is named after all it does."""
RESNET = Part("resnet18")
"""The network of most printed numbers, with which the family of `airbench` is compared."""


@dataclass(frozen=True)
class Counterpart:
    """A printed number for a measured cell.

    group: `control` without a poison, `as printed`, or what of OTHER is the case, with commas.
    network: the printed architecture.
    """

    group: str
    network: str
    found: PublishedValue


def group_order(group: str) -> tuple[int, ...]:
    """The place of a group among all: as printed first, then by how much and what is other."""
    if group == CONTROL:
        return (-1,)
    named = [OTHER.index(name) for name in group.split(", ") if name in OTHER]
    return (len(named), *named)


def counterpart(cell: Cell, metric: str) -> Counterpart | None:
    """The closest printed number of a cell that is not marked as suspect, None without any.

    metric: `final_acc` or `peak_acc`.
    """
    for differences, spec in _candidates(cell.spec()):
        found = lookup.find(spec, metric)
        if found is not None and not found.best.suspect:
            group = ", ".join(name for name in OTHER if name in differences) or PRINTED
            control = spec.attack.name in CONTROLS
            return Counterpart(CONTROL if control else group, str(spec.architecture), found.best)
    return None


def _candidates(spec: TrialSpec) -> Iterator[tuple[set[str], TrialSpec]]:
    """Specs whose printed number may stand for a trial, the closest first, and what is other."""
    part = {"partly poisoned"} if spec.poison_ratio < 1 else set()
    for other_network, network in _networks(spec.architecture):
        for other_surrogate, attack in _attacks(spec.attack):
            for other_purifier, chain in _chains(spec.defense):
                other = {*other_network, *other_surrogate, *other_purifier, *part}
                yield other, spec.replace(attack=attack, defense=chain, architecture=network)


def _networks(network: Part) -> Iterator[tuple[tuple[str, ...], Part]]:
    """The network itself, ResNet-18 for the `airbench` family, then those that it stands in for.

    Of several that it stands in for the one that is printed most comes first.
    """
    yield (), network
    if network.name in ARCHITECTURES and issubclass(ARCHITECTURES[network.name], AirBench):
        yield (), RESNET
    for name in lookup.printed_networks():
        if name != network.name and ARCHITECTURES[name].stand_in == network.name:
            yield ("other network",), Part(name)


def _attacks(attack: Part) -> Iterator[tuple[tuple[str, ...], Part]]:
    """The attack itself, then as papers name it where another network or other steps made it."""
    yield (), attack
    if attack.name not in ATTACKS:
        return
    learned = {"surrogate", "base"} & set(ATTACKS[attack.name].__dataclass_fields__)
    telling = lookup.printed_parameters(attack.name)
    meant = {name: value for name, value in attack.params if name in telling}
    if learned and len(meant) < len(attack.params):
        yield ("other surrogate",), Part.of(attack.name, **meant)


def _chains(chain: tuple[Part, ...]) -> Iterator[tuple[tuple[str, ...], tuple[Part, ...]]]:
    """The defenses themselves, then with networks of the usual size, fitted as long as usual."""
    yield (), chain
    usual = tuple(map(_at_full_effort, chain))
    if usual != chain:
        yield ("other purifier",), usual


def _at_full_effort(defense: Part) -> Part:
    effort = DEFENSES[defense.name].effort if defense.name in DEFENSES else frozenset()
    return Part.of(defense.name, **{k: v for k, v in defense.params if k not in effort})
