"""Schwarzschild et al. 2021 (Just How Toxic): table 1, sections 3 and 5."""

from __future__ import annotations

from functools import cache
from typing import Any

from raygrid.attacks import ATTACKS
from raygrid.core.spec import TrialSpec
from raygrid.datasets import DATASETS
from raygrid.literature.reference import load
from raygrid.literature.toxic import BASELINES, NETWORKS_64, members
from raygrid.protocols import PROTOCOLS
from raygrid.protocols.setups import SetupRule
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial
from tests.settings.rules import Getter, PrintedRow, Rule, attack, every, recipe, words

SIX = (
    *("feature_collision", "convex_polytope", "bullseye_polytope", "witches_brew"),
    *("clbd", "htbd"),
)
LEARNERS = {
    "frozen_extractor": "linear_probe",
    "end_to_end": "finetune",
    "from_scratch": "supervised",
}
BENCHMARK: Any = PROTOCOLS.make("just_how_toxic")
OTHER = "the attack's authors tried this too; its baseline is the setting that section 3 describes"


@cache
def baseline(attack: str) -> Trial:
    return resolve(BASELINES[attack], None)


def trial(row: PrintedRow) -> Trial:
    """The baseline of the row's attack."""
    return baseline(row["item"])


def attacker(row: PrintedRow) -> Any:
    return trial(row).attack


def rule(row: PrintedRow) -> SetupRule:
    """How set-ups of a baseline are drawn."""
    found: Any = trial(row).setup
    return found.rule


def normalizes(made: Trial) -> bool:
    """Whether the victim's network does, which may have come from an extractor."""
    if made.pretraining is None:
        return made.recipe.normalize
    return made.pretraining.extractor(made.architecture.id).recipe.normalization == "data"


def box(row: PrintedRow) -> str:
    """What the attacker of a baseline knows of the victim."""
    protocol: Any = trial(row).protocol
    if attacker(row).surrogate != trial(row).architecture.id:
        return "black_box"
    return "grey_box" if protocol.checkpoint else "white_box"


def ticked(row: PrintedRow) -> bool:
    """Whether a column of table 1 is true of a baseline."""
    made = trial(row)
    return {
        "normalization": normalizes(made),
        "augmentation": str(made.defense) == "standard",
        "sgd": made.recipe.optimizer == "sgd",
        "ensembles": ":" in attacker(row).surrogate,
        **{name: made.learner.id == learner for name, learner in LEARNERS.items()},
        **{name: box(row) == name for name in ("white_box", "grey_box", "black_box")},
    }[row["setting"]]


def arena(path: str) -> Getter:
    """A field of the set-ups of the benchmark's cell that the row names."""

    def look(row: PrintedRow) -> object:
        name, _, how = row["item"].partition(" ")
        transfer = how == "transfer"
        last = "_last" if name == "tinyimagenet" and transfer else ""
        return getattr(BENCHMARK.setup_rule(name + last, transfer), path)

    return look


def train_size(row: PrintedRow) -> object:
    """Images that the victim is trained on, of all classes together."""
    each: Any = arena("per_class")(row)
    return each * DATASETS["cifar10"].classes


def cells(row: PrintedRow, box: str) -> list[TrialSpec]:
    """Those of table 3 on a data set, where it transfers."""
    rows = load().query("paper == 'just_how_toxic' and table == '3' and learner == 'sl_transfer'")
    rows = rows[(rows["dataset"] == row["item"]) & (rows["metric"] == f"success_rate_{box}")]
    return [TrialSpec.parse(text) for text in rows["made"]]


def given_model(row: PrintedRow) -> object:
    """The architecture that attackers have, which is that of the white-box victims."""
    known = {spec.architecture.name for spec in cells(row, "whitebox")}
    attacks: list[Any] = [ATTACKS.make(spec.attack) for spec in cells(row, "whitebox")]
    return printed(known.pop()) if known == {each.surrogate for each in attacks} else known


def unseen_models(row: PrintedRow) -> object:
    cells_ = cells(row, "blackbox")
    found = {tuple(printed(part.name) for part in members(s.architecture)) for s in cells_}
    return found.pop() if len(found) == 1 else found


def printed(network: str) -> str:
    """What the paper calls a network, whose form at 64 pixels has a name of its own here."""
    return {made: name for name, made in NETWORKS_64.items()}.get(network, network)


def pretraining(path: str, dataset: str) -> Getter:
    return lambda row: getattr(BENCHMARK.pretraining(dataset), path)


def augmentation(row: PrintedRow) -> object:
    """What images go through in all cells and before, if their networks normalize."""
    where = "cifar10/clean/standard/resnet18/{}/just_how_toxic/0"
    made = [resolve(where.format(name), None) for name in LEARNERS.values()]
    before = [each.pretraining.extractor("resnet18").recipe for each in made if each.pretraining]
    kinds = {*(each.dataset.augmentation for each in made), *(each.augmentation for each in before)}
    return kinds.pop() if len(kinds) == 1 and all(map(normalizes, made)) else kinds


def batch_size(row: PrintedRow) -> object:
    """The same in all trainings."""
    victims = every(recipe("batch_size", "{item}"), *LEARNERS.values())(row)
    before = {pretraining("batch_size", name)(row) for name in ("cifar100", "tinyimagenet_first")}
    return victims if before == {victims} else (victims, before)


RULES = (
    Rule(
        r"1/(feature_collision|clbd)/normalization",
        ticked,
        why="the networks of this protocol normalize their input, all of them",
        instead=True,
    ),
    Rule(
        r"1/feature_collision/frozen_extractor|1/convex_polytope/(end_to_end|ensembles)",
        ticked,
        why=OTHER,
        instead=False,
    ),
    Rule(
        r"1/clbd/augmentation",
        ticked,
        why="the attack's authors tried this too; section 4 says that no baseline has it",
        instead=False,
    ),
    Rule(r"1/convex_polytope/(grey|black)_box", ticked, why=OTHER, instead=False),
    Rule(
        r"1/convex_polytope/white_box",
        ticked,
        why="its authors never tried it, but section 3 fine-tunes the attacker's own network",
        instead=True,
    ),
    Rule(
        r"1/clbd/smallest_epsilon_linf",
        lambda row: attacker(row).budget.value,
        why=OTHER,
        instead=16 / 255,
    ),
    Rule(r"1/(convex_polytope|htbd)/smallest_epsilon_linf", lambda row: attacker(row).budget.value),
    Rule(
        r"1/(convex_polytope|htbd)/normalization"
        r"|1/(?!clbd/)\w+/augmentation"
        r"|1/\w+/(sgd|from_scratch)"
        r"|1/(?!feature_collision/)\w+/frozen_extractor"
        r"|1/(?!convex_polytope/)\w+/(end_to_end|white_box|grey_box|black_box|ensembles)",
        ticked,
    ),
    Rule(r"text/\w+/baseline_poisons", lambda row: rule(row).poisons),
    Rule(r"text/\w+/baseline_patch", lambda row: rule(row).patch),
    Rule(r"text/\w+/baseline_epsilon", lambda row: attacker(row).budget.value),
    Rule(r"text/feature_collision/baseline_finetune_epochs", lambda row: trial(row).recipe.epochs),
    Rule(
        r"text/convex_polytope/baseline_finetune_images_per_class", lambda row: rule(row).per_class
    ),
    Rule(r"text/benchmark/epsilon", every(attack("budget.value"), *SIX)),
    Rule(
        r"text/benchmark/trials(_tinyimagenet_scratch)?",
        why="a trial has one set-up, its seed; how many there are is said with the job: `--seeds`",
    ),
    Rule(  # Tiny ImageNet's is 8 pixels wide: the benchmark's code, against its paper
        r"text/benchmark/backdoor_patch",
        every(arena("patch"), "cifar10 transfer", "cifar10 scratch"),
    ),
    Rule(r"text/cifar10 transfer/images_per_class", arena("per_class")),
    Rule(r"text/cifar10 transfer/train_size", train_size),
    Rule(r"text/(cifar10|tinyimagenet) (transfer|scratch)/poisons", arena("poisons")),
    Rule(r"text/(cifar10|tinyimagenet)/attacker_model", given_model),
    Rule(r"text/(cifar10|tinyimagenet)/black_box_models", unseen_models),
    Rule(r"text/cifar10 transfer/pretraining_set", lambda row: DATASETS["cifar10"].pretraining),
    Rule(
        r"text/tinyimagenet transfer/pretraining_set",
        words(
            lambda row: DATASETS["tinyimagenet_last"].pretraining,
            {"tinyimagenet_first": "first 100 classes"},
        ),
    ),
    Rule(r"text/pretraining cifar100/epochs", pretraining("epochs", "cifar100")),
    Rule(r"text/pretraining cifar100/learning_rate", pretraining("lr", "cifar100")),
    Rule(r"text/pretraining tinyimagenet/epochs", pretraining("epochs", "tinyimagenet_first")),
    Rule(r"text/pretraining tinyimagenet/learning_rate", pretraining("lr", "tinyimagenet_first")),
    Rule(r"text/fine-tuning/epochs", every(recipe("epochs", "{item}"), "linear_probe", "finetune")),
    Rule(
        r"text/fine-tuning/learning_rate", every(recipe("lr", "{item}"), "linear_probe", "finetune")
    ),
    Rule(r"text/scratch/epochs", every(recipe("epochs", on="{item}"), "cifar10", "tinyimagenet")),
    Rule(
        r"text/scratch/learning_rate", every(recipe("lr", on="{item}"), "cifar10", "tinyimagenet")
    ),
    Rule(r"text/benchmark/batch_size", batch_size),
    Rule(
        r"text/benchmark/augmentation",
        words(
            augmentation,
            {"crop_flip": "per-channel normalization, random crops, horizontal flips"},
        ),
    ),
)
