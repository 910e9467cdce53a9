"""Wang et al. 2024 (ECLIPSE): their code."""

from __future__ import annotations

from raygrid.nn.diffusion import DENOISER_SIZES
from tests.settings.dune import TRAINING
from tests.settings.rules import PrintedRow, Rule, defense

LINEAR = "12 of 1,000 linear steps have the noise of 100 of 4,000 cosine ones, for an eighth of "
LINEAR += "the time; eclipse(schedule=cosine, steps=100) goes those"
NETWORK = "its U-Net is that of AVATAR here, without a learned variance"


def channels(row: PrintedRow) -> int:
    return DENOISER_SIZES[str(defense("size")(row))].channels[0]


def blocks(row: PrintedRow) -> int:
    return DENOISER_SIZES[str(defense("size")(row))].layers


RULES = (
    Rule(r"code/eclipse/images", defense("few")),
    Rule(r"code/eclipse/enlarged_to", why="how is not in the code"),
    Rule(
        r"code/eclipse/images_from",
        defense("diffusion_data"),
        why="the victim is measured on the test set; diffusion_data=test has the leak",
        instead="clean_train",
    ),
    Rule(r"code/eclipse/updates", defense("updates")),
    Rule(r"code/eclipse/schedule", defense("schedule"), why=LINEAR, instead="linear"),
    Rule(r"code/eclipse/schedule_steps", why=LINEAR),
    Rule(r"code/eclipse/steps", defense("steps"), why=LINEAR, instead=12),
    Rule(r"code/eclipse/channels", channels),
    Rule(r"code/eclipse/residual_blocks", blocks, why=NETWORK, instead=2),
    Rule(r"code/eclipse/attention", why=NETWORK),
    Rule(r"code/eclipse/variance", why=NETWORK),
    Rule(r"code/eclipse/gray_probability", defense("gray")),
    Rule(r"code/eclipse/noise", defense("noise")),
    Rule(r"code/eclipse/storage", why="stored images are rounded, what training sees is cut off"),
    *TRAINING,
)
