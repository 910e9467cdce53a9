"""What a paper really ran under a name that others use for something else, and the way back."""

from __future__ import annotations

from collections.abc import Callable

from raygrid.core.literals import Scalar
from raygrid.core.spec import Part, TrialSpec
from raygrid.literature.names import PAPER_PROTOCOLS

REAL_METHODS = {
    ("apbench", "avatar"): "avatar(centered=false, diffusion_data=clean_train)",
    ("apbench", "cait_small"): "cait_small(drop_at_test=true)",
    ("apbench", "em"): "em_apb",
    ("apbench", "imagenet100"): "imagenet100(test_per_class=40, train_per_class=200)",
    ("apbench", "rem"): "rem_apb",
    ("apbench", "ueraser_lite"): "ueraser_lite(static=true)",
    ("cuda", "at"): "at(step=1.2/255)",
    ("cuda", "at(norm=l2, radius=0.25)"): "at(norm=l2, radius=0.25, step=0.0375)",
    ("cuda", "at(norm=l2, radius=0.5)"): "at(norm=l2, radius=0.5, step=0.075)",
    ("cuda", "at(norm=l2, radius=0.75)"): "at(norm=l2, radius=0.75, step=0.1125)",
    ("cuda", "at(radius=16/255)"): "at(radius=16/255, step=2.4/255)",
    ("cuda", "at(radius=4/255)"): "at(radius=4/255, step=0.6/255)",
    ("dune", "at"): "at(steps=7)",
    ("dvae", "at"): "at(step=1.6/255)",
    ("dvae", "avatar"): "avatar(centered=false, diffusion_data=clean_train)",
    ("dvae", "bdr"): "bdr(variant=float)",
    ("dvae", "em"): "em_remrepo",
    ("dvae", "iss"): "iss(bdr=float)",
    ("dvae", "mobilenetv2"): "mobilenetv2_unpatched",
    ("dvae", "tap"): "tap_remrepo",
    ("learned_faster", "pgd(steps=10)"): "pgd(steps=10, surrogate=resnet50)",
    ("learned_faster", "pgd(steps=100)"): "pgd(steps=100, surrogate=resnet50)",
    ("transferable", "advcl"): "rocl",  # by the reference that it is cited with
    ("transferable", "gaussian"): "random_blur",
    ("just_how_toxic", "feature_collision"): "feature_collision(variant=released)",
    ("just_how_toxic", "feature_collision(surrogate=vgg16_max)"): (
        "feature_collision(surrogate=vgg16_max, variant=released)"
    ),
    ("just_how_toxic", "htbd"): "htbd(pairing=released)",
    ("just_how_toxic", "htbd(surrogate=vgg16_max)"): (
        "htbd(decay=0.5, pairing=released, period=1000, surrogate=vgg16_max)"
    ),
}
"""What a paper really ran under a name that others use for something else."""

REAL_METHODS_ON = {
    ("apbench", "ar", "ueraser_max"): "ueraser_max(jpeg=before, p=0.8)",
    ("apbench", "imagenet100", "lsp"): "lsp(patch=32)",
    ("apbench", "imagenet100", "ueraser_max"): (
        "ueraser_max(jpeg=before, lite_after=50, p=1.0, roughness=0.1, strength=0.3)"
    ),
    ("apbench", "tap", "ueraser_max"): "ueraser_max(jpeg=before, p=0.8)",
    # Its predictor is of CIFAR-10 wherever it purifies (section 4.1).
    ("dvae", "cifar100", "avatar"): "avatar(centered=false, diffusion_data=cifar10)",
    ("dvae", "cifar100", "ueraser_max(lite_after=50)"): "ueraser_max(lite_after=30)",
    # Its code's own for these images; appendix C.2 prints 10 steps of 1.6/255 for all of them.
    ("dvae", "imagenet100", "at"): "at(steps=5)",
    ("dvae", "imagenet100", "dvae"): "dvae(epochs=20, limit1=1.5)",
    # The REM code's own commands for a hundred classes of ImageNet (scripts/in-mini).
    ("dvae", "imagenet100", "em"): (
        "em_remrepo(decay_every=1200, step=0.25, steps=7, train_steps=3000)"
    ),
    ("dvae", "imagenet100", "rem"): (
        "rem(adv_step=0.25, adv_steps=7, copies=4, decay_every=1200, step=0.25, steps=7,"
        " train_steps=3000)"
    ),
    ("dvae", "imagenet100", "tap"): "tap_remrepo(step=0.02, steps=100, surrogate_epochs=39)",
    ("dvae", "imagenet100", "ueraser_max(lite_after=50)"): "ueraser_max(lite_after=30)",
    # The strengths of the views in AUE's and AAP's own commands, and 1 where images are larger.
    **{
        ("transferable", dataset, "aue"): "aue(strength=1.0)"
        for dataset in ("cifar100", "tinyimagenet", "miniimagenet")
    },
    **{
        ("transferable", dataset, "aap(targeted=true)"): (
            f"aap(strength={strength}, surrogate_strength={strength}, targeted=true)"
        )
        for dataset, strength in (("cifar100", 0.8), ("tinyimagenet", 1.0), ("miniimagenet", 1.0))
    },
    **{  # contrastive poisoning's code normalizes CIFAR-100 by other deviations than CIFAR-10
        ("transferable", "cifar100", f"cp(framework={learner})"): (
            f"cp(framework={learner}, input_sd=pixels)"
        )
        for learner in ("simclr", "byol", "moco")
    },
}
"""The same for one dataset alone, or against one attack alone."""


def made_by(paper: str, axes: TrialSpec) -> TrialSpec:
    """The cell with the dataset and the methods that this paper ran under its names."""

    def swap(part: Part) -> Part:
        params = dict(part.params)
        if "base" in params:  # an attack made of another
            return part.with_params(base=str(swap(Part.parse(str(params["base"])))))
        method, budget = split_budget(part)
        name = str(method)
        alone = (REAL_METHODS_ON.get((paper, place, name)) for place in places_of(axes))
        text = next(filter(None, alone), None) or REAL_METHODS.get((paper, name))
        return part if text is None else Part.parse(text).with_params(**budget)

    return _each_part(axes, swap)


def places_of(spec: TrialSpec) -> tuple[str, str]:
    """Where a paper may run something of its own: the dataset, and the attack without parameters.

    The first that does counts.
    """
    return spec.dataset.name, spec.attack.name


def as_elsewhere(spec: TrialSpec) -> TrialSpec:
    """The trial with what its paper ran where nothing of its own was asked for."""
    here = [
        (Part.parse(REAL_METHODS.get((paper, name), name)), Part.parse(made))
        for place in places_of(spec)
        for (paper, asking, name), made in REAL_METHODS_ON.items()
        if (PAPER_PROTOCOLS[paper], asking) == (spec.protocol.name, place)
    ]

    def swap(part: Part) -> Part:
        for usual, made in here:
            if part.name == made.name and set(made.params) <= set(part.params):
                return usual.with_params(**dict(set(part.params) - set(made.params)))
        return part

    return _each_part(spec, swap)


def _each_part(axes: TrialSpec, swap: Callable[[Part], Part]) -> TrialSpec:
    """A trial with others for its dataset and its methods."""
    return axes.replace(
        dataset=swap(axes.dataset),
        attack=swap(axes.attack),
        defense=tuple(map(swap, axes.defense)),
        architecture=swap(axes.architecture),
    )


def split_budget(part: Part) -> tuple[Part, dict[str, Scalar]]:
    """A method without its budget, and the budget as a parameter if it has one."""
    params = dict(part.params)
    budget = {"budget": params.pop("budget")} if "budget" in params else {}
    return Part.of(part.name, **params), budget
