"""Which printed number stands for a measured cell, and in what the two are not the same trial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.airbench import AirBench
from raygrid.attacks import ATTACKS
from raygrid.core.spec import Part, TrialSpec, parse_chain
from raygrid.defenses import DEFENSES
from raygrid.literature import lookup
from raygrid.literature.lookup import PublishedValue
from raygrid.literature.shared_names import methods_of
from raygrid.reports.tables.cells import Cell
from raygrid.trials.contest import CONTROLS

CONTROL_GROUP, AS_PRINTED = "control", "as printed"
OTHER_NETWORK, OTHER_SURROGATE = "other network", "other surrogate"
OTHER_PURIFIER = "other purifier"
OTHER_METHOD, OTHER_DATASET, PARTLY_POISONED = "other method", "other data", "partly poisoned"
DIFFERENCES = (
    OTHER_NETWORK,
    OTHER_SURROGATE,
    OTHER_PURIFIER,
    OTHER_METHOD,
    OTHER_DATASET,
    PARTLY_POISONED,
)
"""In what a cell may differ from what papers mostly printed; a group is named after all it does."""
RESNET18 = Part("resnet18")
"""The network of most printed numbers, with which the family of `airbench` is compared."""


@dataclass(frozen=True)
class Counterpart:
    """A printed number for a measured cell.

    group: `control` without a poison, `as printed`, or which DIFFERENCES there are, with commas.
    network: the printed architecture.
    """

    group: str
    network: str
    found: PublishedValue


def group_order(group: str) -> tuple[int, ...]:
    """The place of a group among all: as printed first, then by how much and what is other."""
    if group == CONTROL_GROUP:
        return (-1,)
    named = [DIFFERENCES.index(name) for name in group.split(", ") if name in DIFFERENCES]
    return (len(named), *named)


def counterpart(cell: Cell, metric: str) -> Counterpart | None:
    """The closest printed number of a cell that is not marked as suspect, None without any.

    metric: `final_acc` or `peak_acc`.
    """
    trial = cell.spec()
    control = trial.attack.name in CONTROLS
    data = {OTHER_DATASET} if cell.facts.get("other_data") else set()
    for differences, spec in _candidates(trial):
        found = lookup.find(spec, metric)
        if found is not None and not found.best.suspect:
            other = {*differences, *_unlike(spec, found.best), *data}
            group = ", ".join(name for name in DIFFERENCES if name in other) or AS_PRINTED
            return Counterpart(
                CONTROL_GROUP if control else group, str(spec.architecture), found.best
            )
    return None


def _candidates(spec: TrialSpec) -> Iterator[tuple[set[str], TrialSpec]]:
    """Specs whose printed number may stand for a trial, the closest first, and what is other."""
    part = {PARTLY_POISONED} if spec.poison_ratio < 1 else set()
    for other_network, network in _networks(spec.architecture):
        for other_surrogate, attack in _attacks(spec.attack):
            for other_purifier, chain in _chains(spec.defense):
                other = {*other_network, *other_surrogate, *other_purifier, *part}
                yield other, spec.replace(attack=attack, defense=chain, architecture=network)


def _unlike(spec: TrialSpec, printed: PublishedValue) -> Iterator[str]:
    """In what the paper ran something else under the names of a trial."""
    attack, chain, network, dataset = printed.made
    our_attack, our_chain, our_network, our_dataset = methods_of(spec)
    if attack != our_attack:
        parts = map(Part.parse, (attack, our_attack))
        yield OTHER_SURROGATE if len(set(map(_attack_at_full_effort, parts))) == 1 else OTHER_METHOD
    if chain != our_chain:
        chains = map(parse_chain, (chain, our_chain))
        yield OTHER_PURIFIER if len(set(map(_chain_at_full_effort, chains))) == 1 else OTHER_METHOD
    if network != our_network:
        yield OTHER_NETWORK
    if dataset != our_dataset:
        yield OTHER_DATASET


def _networks(network: Part) -> Iterator[tuple[tuple[str, ...], Part]]:
    """The network itself, ResNet-18 for the `airbench` family, then those that it stands in for.

    Of several that it stands in for the one that is printed most comes first.
    """
    yield (), network
    if network.name in ARCHITECTURES and issubclass(ARCHITECTURES[network.name], AirBench):
        yield (), RESNET18
    for name in lookup.printed_networks():
        if name != network.name and ARCHITECTURES[name].stand_in == network.name:
            yield (OTHER_NETWORK,), Part(name)


def _attacks(attack: Part) -> Iterator[tuple[tuple[str, ...], Part]]:
    """The attack itself, then as papers name it where another network or other steps made it."""
    yield (), attack
    usual = _attack_at_full_effort(attack)
    if usual != attack:
        yield (OTHER_SURROGATE,), usual


def _attack_at_full_effort(attack: Part) -> Part:
    """The attack without what says how it was made, unless papers tell its versions apart by it."""
    effort = ATTACKS[attack.name].effort if attack.name in ATTACKS else frozenset()
    return _without(attack, effort - lookup.printed_parameters(attack.name))


def _chains(chain: tuple[Part, ...]) -> Iterator[tuple[tuple[str, ...], tuple[Part, ...]]]:
    """The defenses themselves, then with networks of the usual size, fitted as long as usual."""
    yield (), chain
    usual = _chain_at_full_effort(chain)
    if usual != chain:
        yield (OTHER_PURIFIER,), usual


def _chain_at_full_effort(chain: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple(
        _without(part, DEFENSES[part.name].effort) if part.name in DEFENSES else part
        for part in chain
    )


def _without(method: Part, names: frozenset[str]) -> Part:
    return Part.of(method.name, **{k: v for k, v in method.params if k not in names})
