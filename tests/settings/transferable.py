"""Liu et al. (Transferable Availability Poisoning): table 9, sections 4 and 5, appendix A."""

from __future__ import annotations

from typing import Any

import torch

from raygrid.datasets import DATASETS
from raygrid.literature.reference import load
from raygrid.nn.contrastive.losses import align_uniform
from raygrid.protocols import PROTOCOLS
from tests.settings.rules import Getter, PrintedRow, Rule, attack, dataset, every, learner, recipe

CONTRASTIVE = ("supcl", "simclr", "byol", "moco", "simsiam")


def images(row: PrintedRow) -> int:
    """Of both parts."""
    found = DATASETS.make(row["item"]).nominal
    return found.train_size + found.test_size


def a_class(part: str) -> Getter:
    """Images of each class in a part."""
    return lambda row: dataset(part)(row) / dataset("classes")(row)


def hours(row: PrintedRow) -> object:
    """As the number that is kept with the results, where it has no trial."""
    rows = load().query("paper == 'transferable' and metric == 'gpu_hours'")
    (found,) = rows[rows["attack"] == row["item"]].to_dict("records")
    return float(found["value"]) if found["reason"] == "cost in hours, no accuracy" else found


def half(name: str, path: str) -> Getter:
    """How the network of one half is trained while TP makes its noise."""
    return lambda row: getattr(attack("")(row).recipe(name), path)


def momentum(row: PrintedRow) -> object:
    found = {half(name, "momentum")(row) for name in ("cl", "sl")}
    return found.pop() if len(found) == 1 else found


def alpha(row: PrintedRow) -> float:
    """The power of the distance in the alignment."""
    origin = torch.zeros(2, 1)
    near, far = (align_uniform(origin + d, origin, 1.0, 0.0) for d in (1.0, 2.0))
    return float((far / near).log2())


def t(row: PrintedRow) -> float:
    """What multiplies the squared distance in the uniformity, here of orthogonal rows: 2."""
    return float(align_uniform(torch.eye(2), torch.eye(2), 0.0, 1.0)) / -2


def weight(row: PrintedRow) -> float:
    """Of the alignment against the uniformity."""
    found: Any = attack("")(row)
    return found.align / found.uniform


def probe(path: str) -> Getter:
    """How linear probes are fitted, the same for all learners."""
    made = PROTOCOLS.make("tp")
    return every(lambda row: getattr(made.probing(row["item"]).recipe, path), *CONTRASTIVE)


def large_rate(row: PrintedRow) -> object:
    """Of pre-training on images of 64 pixels, the same for both sets."""
    name = row["item"]
    return every(recipe("lr", name, on="{item}"), "tinyimagenet", "miniimagenet")(row)


def half_budget(row: PrintedRow) -> object:
    return attack("radius")(row) / 2


RULES = (
    Rule(r"9/.*/poison_generation_time", hours),
    Rule(r"text/(cifar10|miniimagenet)/images", images),
    Rule(r"text/\w+/classes", dataset("classes")),
    Rule(r"text/cifar100/images_per_class", lambda row: images(row) / dataset("classes")(row)),
    Rule(r"text/tinyimagenet/train_images_per_class", a_class("train_size")),
    Rule(r"text/tinyimagenet/test_images_per_class", a_class("test_size")),
    Rule(r"text/(tiny|mini)imagenet/image_size", dataset("image_size")),
    Rule(r"text/miniimagenet/train_size", dataset("train_size")),
    Rule(r"text/tp/epochs", attack("epochs")),
    Rule(r"text/tp/momentum", momentum),
    Rule(r"text/tp/weight_decay_supervised", half("sl", "weight_decay")),
    Rule(r"text/tp/learning_rate_supervised", half("sl", "lr")),
    Rule(r"text/tp/weight_decay_contrastive", half("cl", "weight_decay")),
    Rule(r"text/tp/learning_rate_contrastive", half("cl", "lr")),
    Rule(r"text/tp/lambda", weight),
    Rule(r"text/tp/alpha", alpha),
    Rule(r"text/tp/t", t),
    Rule(r"text/tp/pgd_steps_supervised", attack("sl_steps")),
    Rule(r"text/tp/pgd_steps_contrastive", attack("cl_steps")),
    Rule(r"text/tp/step_size", attack("step")),
    Rule(r"text/tp/budget_linf", attack("budget.value")),
    Rule(r"text/tp/surrogate", attack("surrogate")),
    Rule(r"text/sl/epochs", recipe("epochs")),
    Rule(r"text/sl/momentum", recipe("momentum")),
    Rule(r"text/sl/weight_decay", recipe("weight_decay")),
    Rule(r"text/sl/initial_learning_rate", recipe("lr")),
    Rule(r"text/pretraining/epochs", every(recipe("epochs", "{item}"), *CONTRASTIVE)),
    Rule(r"text/pretraining/momentum", every(recipe("momentum", "{item}"), *CONTRASTIVE)),
    Rule(r"text/pretraining/weight_decay", every(recipe("weight_decay", "{item}"), *CONTRASTIVE)),
    Rule(r"text/pretraining/schedule", every(recipe("schedule", "{item}"), *CONTRASTIVE)),
    Rule(r"text/\w+/temperature", learner("temperature")),
    Rule(r"text/(?!sl/|linear)\w+/initial_learning_rate", recipe("lr", "{item}")),
    Rule(r"text/\w+/initial_learning_rate_tiny_mini_imagenet", large_rate),
    Rule(r"text/linear probe/epochs", probe("epochs")),
    Rule(r"text/linear probe/momentum", probe("momentum")),
    Rule(r"text/linear probe/weight_decay", probe("weight_decay")),
    Rule(r"text/linear probe/initial_learning_rate", probe("lr")),
    Rule(r"text/hf/budget_each", half_budget),
)
