"""The figures of three papers as lists of trials, and how each is drawn.

Where APBench draws "no defense" it is `standard`, which is what its code trains with; "ISS" is
JPEG, the best of its three filters against most attacks. The steps of D-VAE's curves are not
printed: its rates are ours, the widths of its auto-encoders are those of its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product

from raygrid.core.spec import TrialSpec
from raygrid.literature.reference import specs_of
from raygrid.reports.figures.gallery import ChangeNormalization

VAE_LIMITS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # nats for each position
JPEG_QUALITIES = (2, 5, 10, 30, 50, 70, 90)
CODE_WIDTHS = (1, 2, 4, 8, 12, 16, 24, 28, 32, 64, 128, 256, 512)  # channels
PARTIAL_RATIOS = (0.2, 0.4, 0.6, 0.8)
PARTIAL_ATTACKS = ("em_apb", "rem_apb", "lsp", "ar")
COMPRESSED_ATTACKS = ("em_remrepo", "rem", "lsp")


@dataclass(frozen=True)
class PaperFigure:
    """A figure that shows data.

    drawing: in `raygrid.reproduce.figures`. trials: as the paper ran them. keep: what they have to
    leave. trained: False for pictures of images, which need no victim. groups: attacks by the
    panel that they stand in. normalizations: of the changes in a gallery.
    """

    title: str
    drawing: str
    trials: tuple[str, ...]
    keep: tuple[str, ...] = ()
    trained: bool = True
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    normalizations: tuple[ChangeNormalization, ...] = ("symmetric",)


def _trials(
    protocol: str, attacks: Iterable[str], defenses: Iterable[str] = ("standard",)
) -> tuple[str, ...]:
    """On CIFAR-10 with a ResNet-18, all attacks with all defenses."""
    return tuple(
        f"cifar10/{attack}/{defense}/resnet18/supervised/{protocol}/0"
        for attack, defense in product(attacks, defenses)
    )


def _with(attacks: Sequence[str], ratios: Sequence[float]) -> list[str]:
    return [f"{attack}@{ratio}" for attack, ratio in product(attacks, ratios)]


def _attacks(paper: str, table: str) -> list[str]:
    """The attacks of a printed table, in its order."""
    specs = map(TrialSpec.parse, specs_of(paper, table))
    return list(dict.fromkeys(str(spec.attack) for spec in specs))


def _of(paper: str, table: str, defense: str) -> tuple[str, ...]:
    """The trials of a printed table with a defense and a poison."""
    specs = [TrialSpec.parse(text) for text in specs_of(paper, table)]
    chosen = (s for s in specs if s.defense[0].name == defense and s.attack.name != "clean")
    return tuple(map(str, chosen))


def _stage1(trial: str) -> str:
    """A trial behind D-VAE with its first stage alone."""
    spec = TrialSpec.parse(trial)
    return str(spec.replace(defense=(spec.defense[0].with_params(second=False),)))


def _apbench() -> dict[str, PaperFigure | str]:
    seen = ("standard", "jpeg", "ueraser_max", "avatar(centered=false, diffusion_data=clean_train)")
    partial = _trials("apbench", [*_with((*PARTIAL_ATTACKS, "withheld"), PARTIAL_RATIOS)])
    clean = _trials("apbench", ["clean"])
    filters = ("standard", "grayscale", "jpeg", "ueraser_max")
    features = ("features",)
    return {
        "1": PaperFigure(
            "Unlearnable images and their perturbations",
            "residuals",
            _of("apbench", "3", "standard"),
            trained=False,
        ),
        "2": "a drawing of the system",
        "3": PaperFigure("Partial poisoning, accuracy of four views", "partial_acc", partial),
        "4": PaperFigure("Partial poisoning, loss of four views", "partial_loss", partial),
        "5": PaperFigure(
            "Partial poisoning under defenses",
            "partial_defenses",
            (
                *_trials("apbench", _with((*PARTIAL_ATTACKS, "withheld"), PARTIAL_RATIOS), filters),
                *clean,
            ),
        ),
        "6": PaperFigure(
            "Grad-CAM (EM, LSP) and Shapley values (REM, AR)",
            "maps",
            (*clean, *_trials("apbench", PARTIAL_ATTACKS, seen)),
            keep=("weights",),
            groups={"grad-cam": ("em_apb", "lsp"), "shapley": ("rem_apb", "ar")},
        ),
        "7": PaperFigure(
            "t-SNE of test features, TAP and OPS",
            "tsne",
            _trials("apbench", ("tap", "ops"), seen),
            keep=features,
        ),
        "8": PaperFigure(
            "t-SNE of test features, EM, REM, LSP and AR",
            "tsne",
            (*clean, *_trials("apbench", PARTIAL_ATTACKS, seen)),
            keep=features,
        ),
    }


def _learned_faster() -> dict[str, PaperFigure | str]:
    table = tuple(specs_of("learned_faster", "1"))
    attacks = _attacks("learned_faster", "1")
    regions = tuple(a for a in attacks if a.startswith("regions") and a != "regions(n=1024)")
    low = tuple(a for a in attacks if a.startswith("low_frequency"))
    selected = ("regions(n=1024)", "em(mode=class)", "tap")
    columns = {"selected": selected, "regions": regions, "low frequency": low}
    shown = ["clean", *selected, *regions, *low]
    return {
        "1": PaperFigure("Speed of learning against the peak", "speed_peak", table),
        "2": PaperFigure("Final against peak accuracy", "peak_final", table),
        "3": PaperFigure(
            "Perturbations of the poisons of table 1", "residuals", table, trained=False
        ),
        "4": PaperFigure(
            "Training loss and test accuracy by epoch",
            "curves",
            _trials("learned_faster", shown),
            groups=columns,
        ),
    }


def _dvae() -> dict[str, PaperFigure | str]:
    vaes = [f"vae(limit={limit})" for limit in VAE_LIMITS]
    jpegs = [f"jpeg(quality={quality})" for quality in JPEG_QUALITIES]
    plain = [f"vae(width={width})" for width in CODE_WIDTHS]
    rates = [f"dvae(first=false, limit2={limit}, subtract=false)" for limit in VAE_LIMITS]
    every = list(dict.fromkeys([*_attacks("dvae", "2"), *_attacks("dvae", "5")]))
    return {
        "1": "a drawing of the method",
        "2": PaperFigure(
            "VAEs by their rate, and against JPEG",
            "compression",
            _trials("dvae", COMPRESSED_ATTACKS, [*vaes, *jpegs]),
        ),
        "3": PaperFigure(
            "Accuracy by epoch under adversarial augmentation",
            "by_epoch",
            _trials("dvae", _attacks("dvae", "9"), ["ueraser_max(lite_after=50)"]),
        ),
        "4": PaperFigure(
            "Images before and after stage 1 and both stages, and their changes",
            "residuals",
            tuple(each for whole in _of("dvae", "4", "dvae") for each in (_stage1(whole), whole)),
            trained=False,
            normalizations=("minmax", "symmetric"),
        ),
        "5": PaperFigure(
            "VAEs against plain auto-encoders",
            "compression",
            _trials("dvae", COMPRESSED_ATTACKS, [*vaes, *plain]),
        ),
        "6": PaperFigure(
            "D-VAE's reconstructions by their rate", "rate", _trials("dvae", every, rates)
        ),
    }


_FIGURE_LISTS = {"apbench": _apbench, "learned_faster": _learned_faster, "dvae": _dvae}


UNMEASURED_TABLES: Mapping[str, Mapping[str, str]] = {
    "apbench": {
        "1": "a list of attacks: see `raygrid list attacks`",
        "2": "a list of defenses: see `raygrid list defenses`",
        "13": "the settings of attacks: see `raygrid list attacks`",
        "14": "the settings of training: see `raygrid list protocols`",
        "15": "the settings of defenses: see `raygrid list defenses`",
        "18": "a list of licenses",
    }
}
"""Tables without a measured number, by paper."""


@cache
def figures_of(paper: str) -> Mapping[str, PaperFigure | str]:
    """The figures of a paper by number, or why there is none; nothing for other papers."""
    return _FIGURE_LISTS[paper]() if paper in _FIGURE_LISTS else {}


def drawn_figures_of(paper: str) -> Mapping[str, PaperFigure]:
    """The figures of a paper that show data."""
    found = figures_of(paper).items()
    return {number: each for number, each in found if isinstance(each, PaperFigure)}


def drawings_of(paper: str) -> Mapping[str, str]:
    """The other figures of a paper, and what they are."""
    return {number: each for number, each in figures_of(paper).items() if isinstance(each, str)}
