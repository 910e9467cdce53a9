"""Wang et al. 2025 (BridgePure): their code."""

from __future__ import annotations

from raygrid.nn.diffusion import DENOISER_SIZES
from raygrid.nn.diffusion.bridge import DATA_SIGMA, LEAST_SIGMA, MOST_SIGMA, noise_levels
from raygrid.nn.diffusion.denoisers import most_kept
from tests.settings.rules import Getter, PrintedRow, Rule, defense, dig

FEWER = "here fewer of a smaller network: bridgepure(size=m, updates=100000) is nearest to it"


def fitted(path: str) -> Getter:
    """A field of the recipe that the bridge is fitted by."""
    return lambda row: dig(defense("plan")(row).recipe(), path)  # type: ignore[attr-defined]


def curve(row: PrintedRow) -> int:
    """The root of the noise levels that lies in equal steps."""

    def bend(root: int) -> float:
        first, second, *_, last = (level ** (1 / root) for level in noise_levels(40)[:-1])
        return abs(39 * (first - second) - (first - last))

    return min(range(1, 20), key=bend)


def channels(row: PrintedRow) -> int:
    return DENOISER_SIZES[str(defense("size")(row))].channels[0]


RULES = (
    Rule(r"code/bridge/least_sigma", lambda row: LEAST_SIGMA),
    Rule(r"code/bridge/most_sigma", lambda row: MOST_SIGMA),
    Rule(r"code/bridge/data_sigma", lambda row: DATA_SIGMA),
    Rule(r"code/bridge/curve", curve),
    Rule(r"code/bridgepure/steps", defense("steps")),
    Rule(r"code/bridgepure/guidance", defense("guidance")),
    Rule(r"code/bridgepure/churn", defense("churn")),
    Rule(r"code/bridgepure/other_churn", why="bridgepure(churn=0.8) has it; one is the default"),
    Rule(r"code/bridgepure/learning_rate", fitted("lr")),
    Rule(r"code/bridgepure/batch_size", fitted("batch_size")),
    Rule(r"code/bridgepure/weight_decay", fitted("weight_decay")),
    Rule(r"code/bridgepure/average", lambda row: most_kept(100_000)),
    Rule(r"code/bridgepure/updates", defense("updates"), why=FEWER, instead=20_000),
    Rule(r"code/bridgepure/channels", channels, why=FEWER, instead=64),
    Rule(r"code/bridgepure/pairs", defense("pairs")),
    Rule(
        r"code/bridgepure/purified",
        why="the victim trains on the whole set here, the images of the pairs replaced",
    ),
)
