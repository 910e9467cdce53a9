"""Transferability: poisons made with one architecture, victims of another (APBench, table 7).

python experiments/transferability.py [--scale quick|small|paper]

And victims that begin with a network which other classes have trained, on which no poison works, as
Li et al. 2026 (BAIT) report: all of it trained on or a new head alone, beside one that begins
afresh.
"""

import sys

from raygrid.cli.run import experiment_main
from raygrid.engine.grid import Grid

ATTACKS = ("clean", "em", "rem", "lsp", "ar")
VICTIMS = ("resnet18", "resnet50", "senet18", "mobilenetv2", "densenet121", "vit_small")
EM_QUICK = "em(batch_size=128, budget=16/255, max_rounds=4, step=0.5, steps=2, surrogate=small_cnn)"
LEARNERS = ("supervised", "finetune", "linear_probe")
SCALES = {
    "quick": (
        Grid(
            attacks=("clean", "lsp(budget=l2:3.48)", EM_QUICK),
            architectures=("small_cnn", "small_resnet"),
        ),
        Grid(
            datasets=("photo_digits_last",),
            attacks=("clean", "lsp(budget=l2:3.48)", "pil(budget=16/255)", "cuda"),
            learners=LEARNERS,
            protocols=("pretrained_quick",),
        ),
    ),
    "small": (
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "em", "lsp", "ar"),
            architectures=("resnet18", "mobilenetv2", "densenet121"),
            protocols=("dvae",),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "lsp", "pil", "cuda"),
            architectures=("resnet18",),
            learners=LEARNERS,
            protocols=("pretrained",),
        ),
    ),
    "paper": (
        Grid(
            datasets=("cifar10",),
            attacks=ATTACKS,
            defenses=("standard", "grayscale", "jpeg", "early_stopping", "ueraser_max"),
            architectures=VICTIMS,
            protocols=("apbench",),
            seeds=(0, 1, 2),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=(*ATTACKS, "pil", "cuda"),
            architectures=("resnet18",),
            learners=LEARNERS,
            protocols=("pretrained",),
            seeds=(0, 1, 2),
        ),
    ),
}

if __name__ == "__main__":
    sys.exit(experiment_main("transferability", SCALES, __doc__))
