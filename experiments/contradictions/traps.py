"""What a later method's code does and its paper does not tell: how much hangs on it?"""

from __future__ import annotations

from settings import REM_SHORT, Contradiction, Setting, printed_in

from raygrid.attacks import ATTACKS

_DUNE = ATTACKS["dune"].quick
_ENTF = ATTACKS["entf"].quick
_PUE = ATTACKS["pue"].quick

TRAPS = {
    "sem_adversary": Contradiction(
        "SEM is REM with one draw of noise in the place of the adversary, at a tenth of the cost, "
        "and is printed as the stronger one of the two",
        (
            Setting("rem", small=REM_SHORT, printed=printed_in("wxl")),
            Setting("sem", {"attack": "sem"}, REM_SHORT, printed_in("wxl", "sem")),
        ),
        ("rem",),
        ("standard", "jpeg"),
    ),
    "dune_swarm": Contradiction(
        "DUNE's code returns where the best particle of its swarm ended, not the best place that "
        "it found; what keeps its colors natural is left out by a switch",
        (
            Setting("as released", small=_DUNE, printed=printed_in("wxl")),
            Setting("the best place", {"attack": {"aliased": False}}, _DUNE),
            Setting("colors unbound", {"attack": {"natural": False}}, _DUNE),
        ),
        ("dune",),
        ("standard", "jpeg"),
    ),
    "dune_targets": Contradiction(
        "DUNE's code descends to the third class after the label in 30 steps, a note on its paper "
        "says the next one and 20",
        (
            Setting("third class", small=_DUNE, printed=printed_in("wxl")),
            Setting(
                "next class",
                {"attack": {"shift": 1, "steps": 20}},
                {**_DUNE, "steps": 8},
                screen={"steps": 10},
            ),
        ),
        ("dune",),
        ("standard", "jpeg"),
    ),
    "pil_surrogate": Contradiction(
        "PIL's paper has a linear classifier, its code a product of two matrices; no paper prints "
        "what OP leaves of either",
        (
            Setting("product of two", small={}, printed=printed_in("pil")),
            Setting("one matrix", {"attack": {"surrogate": "linear"}}, {}),
        ),
        ("pil",),
        ("standard", "op"),
    ),
    "entf_variant": Contradiction(
        "EntF pushes images off their class or pulls them to another, which its code takes for the "
        "own one where all others are farther than 1",
        (
            Setting("push", small=_ENTF),
            Setting("pull", {"attack": {"variant": "pull"}}, _ENTF),
        ),
        ("entf",),
        ("standard", "at"),
    ),
    "pue_noise": Contradiction(
        "PUE's scripts put noise of up to 0.25 on the weights, its parser's default is 1.0 (here "
        "in as many levels)",
        (
            Setting("up to 0.25", small=_PUE),
            Setting("up to 1.0", {"attack": {"weight_noise": 1.0, "weight_step": 0.2}}, _PUE),
        ),
        ("pue",),
    ),
    "cuda_levels": Contradiction(
        "CUDA's code cuts values off to whole levels where others round",
        (
            Setting("cut off", small={}, printed=printed_in("cuda")),
            Setting("rounded", {"attack": {"quant": "round"}}, {}),
        ),
        ("cuda",),
    ),
    "coin_edge": Contradiction(
        "COIN's pixels wrap around the border with a period that is one short",
        (
            Setting("as in scipy", {"defense": {"edge": "scipy"}}),
            Setting("a full circle", {"defense": {"edge": "circular"}}),
        ),
        ("cuda",),
        ("standard", "coin"),
    ),
}
