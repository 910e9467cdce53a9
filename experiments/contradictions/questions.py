"""What `contradictions.py` compares: the points on which papers and codes disagree.

The first four are of the contrastive sources, the others the list of where the sources of the
attacks disagree. Two points of that list no run can settle: APBench prints 50 epochs in one table
and 200 in its text, and other EM and REM rows for the same transformer in tables 4 and 7; D-VAE's
ImageNet tables 4 and 11 repeat cells of its CIFAR-100 ones.
"""

from __future__ import annotations

from later_questions import LATER
from settings import EM_SHORT, REM_CODE_SHORT, REM_SHORT, Contradiction, Setting, printed_in
from traps import TRAPS

from raygrid.attacks import ATTACKS
from raygrid.core.literals import Scalar

# A tenth of the steps, each ten times as long; the surrogates as at scale quick.
_TAP: dict[str, Scalar] = {**ATTACKS["tap"].quick, "steps": 25, "step": 0.5}
_TAP_REM = {**_TAP, "step": 0.08}
_NTGA: dict[str, Scalar] = {"validation": 0.02, "block": 128}
_SEP = ATTACKS["sep"].quick
_SCREENED_SEP = 4  # checkpoints
_PGD = ATTACKS["pgd"].quick

CONTRADICTIONS = {
    "frozen_views": Contradiction(
        "TransPoison's code draws both views of an image once, for the whole training",
        (
            Setting("fresh views"),
            Setting("frozen views", {"learner": {"frozen_views": True}}),
        ),
        ("clean", "lsp", "tp"),
        learners=("simclr", "supcl"),
    ),
    "probe_data": Contradiction(
        "Liu et al. and AUE fit the linear probe on poisoned images, CP and APBench on clean",
        (
            Setting("poisoned probe"),
            Setting("clean probe", {"protocol": {"probe_data": "clean"}}),
        ),
        ("lsp", "tp"),
        learners=("simclr", "supcl"),
    ),
    "loss_scale": Contradiction(
        "some codes multiply InfoNCE by T / 0.07 and others do not, at the same learning rate",
        (
            Setting("times T / 0.07"),
            Setting("unscaled", {"learner": {"loss_scale": "none"}}),
        ),
        ("clean", "tp"),
        learners=("simclr", "moco"),
        sgd=True,
    ),
    "tue_loss": Contradiction(
        "TUE's published commands switch its contrastive loss off, the paper describes both",
        (
            Setting("separability alone"),
            Setting("with contrastive loss", {"attack": {"ssl": 1.0}}),
        ),
        ("tue",),
        learners=("supervised", "simclr"),
    ),
    "tap_generator": Contradiction(
        "APBench and Liu et al. run TAP's code, D-VAE the program of that name in the REM code",
        (
            Setting("tap", small=_TAP, printed=printed_in("apbench")),
            Setting("tap_remrepo", {"attack": "tap_remrepo"}, _TAP_REM, printed_in("dvae")),
        ),
        ("tap",),
    ),
    "tap_restarts": Contradiction(
        "TAP's paper keeps the best of eight runs, its code's default and APBench make one",
        (
            Setting("one run", small=_TAP, printed=printed_in("apbench")),
            Setting("tap_full", {"attack": "tap_full"}, {**_TAP, "restarts": 3}),
        ),
        ("tap",),
    ),
    "tap_target": Contradiction(
        "TAP is targeted by its text, APBench's code is untargeted by default",
        (
            Setting("targeted", small=_TAP, printed=printed_in("apbench")),
            Setting("untargeted", {"attack": {"targeted": False}}, _TAP),
        ),
        ("tap",),
    ),
    "rem_generator": Contradiction(
        "APBench's REM is another algorithm than the paper's, which D-VAE runs",
        (
            Setting("rem", small=REM_SHORT, printed=printed_in("dvae")),
            Setting("rem_apb", {"attack": "rem_apb"}, EM_SHORT, printed_in("apbench")),
        ),
        ("rem",),
        ("standard", "grayscale"),
    ),
    "em_generator": Contradiction(
        "four programs make EM, and grayscale undoes it or does not",
        (
            Setting("em", small=EM_SHORT, printed=printed_in("tp")),
            Setting(
                "em(mode=class)",
                {"attack": "em(mode=class)"},
                EM_SHORT,
                printed_in("learned_faster", "em(mode=class)"),
            ),
            Setting("em_apb", {"attack": "em_apb"}, EM_SHORT, printed_in("apbench")),
            Setting("em_remrepo", {"attack": "em_remrepo"}, REM_CODE_SHORT, printed_in("dvae")),
        ),
        ("em",),
        ("standard", "grayscale"),
    ),
    "em_place": Contradiction(
        "the REM code keeps the noise of cropped and flipped images for the images as they are, "
        "which may be why grayscale does not undo D-VAE's EM",
        (
            Setting("em_remrepo", small=REM_CODE_SHORT, printed=printed_in("dvae")),
            Setting("in place", {"attack": {"augmentation": "none"}}, REM_CODE_SHORT),
        ),
        ("em_remrepo",),
        ("standard", "grayscale"),
    ),
    "em_rectified": Contradiction(
        "EM's official loader drops all negative noise; who measured with it is not known",
        (
            Setting("whole noise", small=EM_SHORT, printed=printed_in("tp")),
            Setting(
                "rectified", {"attack": {"rectify": True}}, EM_SHORT, printed_in("learned_faster")
            ),
        ),
        ("em",),
    ),
    "peak_protocol": Contradiction(
        "peaks of the same attacks lie far apart in papers with other schedules; APBench's EM is "
        "another program too",
        (
            Setting(
                "200 epochs, halved",
                {"protocol": "apbench"},
                printed=printed_in("apbench", defense="early_stopping"),
            ),
            Setting(
                "100 epochs, a tenth",
                {"protocol": "learned_faster"},
                printed=printed_in("learned_faster"),
            ),
        ),
        ("em", "tap"),
        metric="peak_acc",
    ),
    "ops_schedule": Contradiction(
        "OPS under 60 cosine epochs and under 200 whose rate is halved once",
        (
            Setting("60 epochs, cosine", {"protocol": "dvae"}, printed=printed_in("dvae")),
            Setting("200 epochs, halved", {"protocol": "apbench"}, printed=printed_in("apbench")),
        ),
        ("ops",),
    ),
    "ntga_schedule": Contradiction(
        "NTGA's own file under 60 cosine epochs and under 200 whose rate is halved once",
        (
            Setting("60 epochs, cosine", {"protocol": "dvae"}, _NTGA, printed_in("dvae")),
            Setting("200 epochs, halved", {"protocol": "apbench"}, _NTGA, printed_in("apbench")),
        ),
        ("ntga",),
    ),
    "ntga_time": Contradiction(
        "NTGA's code defaults to t=64, its best file is t=8; its ten steps are one",
        (
            Setting("t=8", small=_NTGA, printed=printed_in("apbench")),
            Setting("t=64", {"attack": {"time": 64.0}}, _NTGA),
            Setting("t=8, ten steps", {"attack": {"mode": "pgd"}}, _NTGA),
        ),
        ("ntga",),
    ),
    "lsp_patch": Contradiction(
        "LSP on ImageNet-100: APBench has patch 32 and prints l2 1.3, which its code's formula "
        "grows with the side, D-VAE patch 8, grown too; on 32 pixels the same shares of both",
        (
            Setting(
                "patch 32, l2 1.3",
                {"attack": {"patch": 32, "budget": "l2:1.3"}},
                {"patch": 5, "budget": "l2:0.186"},
            ),
            Setting(
                "patch 32, grown",
                {"attack": {"patch": 32}},
                {"patch": 5},
                "imagenet100/lsp/{defense}/resnet18/{learner}/apbench",
            ),
            Setting(
                "patch 8, grown",
                {},
                {"patch": 1},
                "imagenet100/lsp/{defense}/resnet18/{learner}/dvae",
            ),
        ),
        ("lsp",),
        dataset="imagenet100",
    ),
    "sep_budget": Contradiction(
        "SEP's code has 2/255, D-VAE 8/255; variance reduction takes 15 checkpoints or 30, and the "
        "features of the last one or of each",
        (
            Setting("8/255", printed=printed_in("dvae")),
            Setting("2/255", {"attack": {"budget": "2/255"}}),
            Setting(
                "twice the checkpoints",
                {"attack": {"checkpoints": 30}},
                {**_SEP, "checkpoints": 6},
                screen={"checkpoints": 2 * _SCREENED_SEP},
            ),
            Setting("features of each", {"attack": {"last_means": False}}),
        ),
        ("sep",),
    ),
    "dc_generator": Contradiction(
        "DC's paper and code have 0.032 and batches of 64 or 256, APBench applies it at 8/255",
        (
            Setting("8/255", printed=printed_in("apbench")),
            Setting("0.032", {"attack": {"budget": "0.032"}}),
            Setting(
                "batches of 64",
                {"attack": {"batch_size": 64}},
                {**ATTACKS["dc"].quick, "batch_size": 32},
            ),
        ),
        ("dc",),
    ),
    "lf_scaling": Contradiction(
        "the paper of the low-frequency noises does not say how it scales them to 8/255",
        (
            Setting("by the largest value", printed=printed_in("learned_faster")),
            Setting("by the deviation", {"attack": {"scaling": "clip"}}),
        ),
        ("low_frequency",),
    ),
    "mifgsm_variant": Contradiction(
        "the same paper does not say which MI-FGSM it ran; its code has another mode",
        (
            Setting("classic", printed=printed_in("learned_faster")),
            Setting(
                "the code's mode",
                {
                    "attack": "mifgsm(variant=mompgd, momentum=0.9, step=0.05, start=normal, "
                    "augmentation=affine_shift)"
                },
            ),
        ),
        ("mifgsm",),
    ),
    "pgd_surrogate": Contradiction(
        "the same paper makes PGD of ten steps on a ResNet-50, all others on a ResNet-18",
        (
            Setting("resnet18"),
            Setting(
                "resnet50",
                {"attack": {"surrogate": "resnet50"}},
                {**_PGD, "surrogate": "small_resnet"},
                printed_in("learned_faster", "pgd(surrogate=resnet50)"),
            ),
        ),
        ("pgd",),
    ),
    **LATER,
    **TRAPS,
}
