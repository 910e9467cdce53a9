"""Points on which papers after the seeds' disagree with their code or with each other."""

from __future__ import annotations

from settings import EM_SHORT, Contradiction, Setting, printed_in

from raygrid.attacks import ATTACKS

_DUNE = ATTACKS["dune"].quick
# Ten noise networks to choose from, as the code has.
_GUE = {**ATTACKS["gue"].quick, "judge_every": 4, "judge_epochs": 4}
# What OP's victim is trained with beside the projection.
_STRONG = "affine_jitter+cutmix(box=batch, p=0.5)"
# What a noise predictor sees; the training set is the same for all, without the held-out images.
_SEEN = {
    "test images": "test",
    "held-out images": "held_out",
    "images below the poison": "clean_train",
    "the poisoned set": "poisoned",
}

LATER = {
    "dune_ball": Contradiction(
        "DUNE adds a color shift to noise of 8/255, its rivals in the same table have 8/255 in all",
        (
            Setting("as released", small=_DUNE, printed=printed_in("wxl")),
            Setting("held to the ball", {"attack": {"budget": "8/255"}}, _DUNE),
            Setting("noise alone", {"attack": {"color": False}}, _DUNE),
        ),
        ("dune",),
        ("standard", "jpeg"),
    ),
    "gue_selection": Contradiction(
        "GUE's code keeps the noise network that is worst on the test set, which then measures it",
        (
            Setting("held-out images", small=_GUE),
            Setting("test set", {"attack": {"selection": "test"}}, _GUE),
            Setting("the last one", {"attack": {"selection": "last"}}, _GUE),
        ),
        ("gue",),
    ),
    "op_augmentation": Contradiction(
        "OP's victim has strong augmentation and CutMix too, its number is called the projection's",
        (
            Setting("projection and augmentation", {"defense": f"op+{_STRONG}"}),
            Setting("projection alone", {"defense": "op"}),
            Setting("augmentation alone", {"defense": _STRONG}),
        ),
        ("ops", "lsp"),
        ("standard", "op"),
    ),
    "eclipse_leak": Contradiction(
        "ECLIPSE's one released noise predictor has seen 2,000 images of the test set, on all of "
        "which its victims are then measured; DUNE prints it and does not say which it took",
        tuple(
            Setting(
                name,
                {"defense": {"diffusion_data": data}, "protocol": {"validation": 0.12}},
                EM_SHORT,
                printed=printed_in("wxl", defense="eclipse") if data == "test" else "",
            )
            for name, data in _SEEN.items()
        ),
        ("em",),
        ("standard", "eclipse"),
        shortened={"eclipse": {"updates": 500}},
    ),
    "cuda_rim": Contradiction(
        "CUDA's black border darkens the rim of every image; does COIN undo its filters without it",
        (
            Setting("black border", small={}, printed=printed_in("cuda")),
            Setting("mirrored border", {"attack": {"border": "reflect"}}, {}),
        ),
        ("cuda",),
        ("standard", "coin"),
    ),
}
