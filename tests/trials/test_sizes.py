"""What artifacts and runs take on disk is what a plan says, within a factor of two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raygrid.api.run_grid import Options, make_plan, run_grid
from raygrid.cli.plan import estimates
from raygrid.engine.grid import plan
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact
from raygrid.trials.artifacts.features import FeaturesArtifact
from raygrid.trials.artifacts.poison import PoisonArtifact
from raygrid.trials.artifacts.shards import split
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve
from tests import plugin

pytestmark = pytest.mark.usefixtures("undrawn")

assert plugin.CARD
TOXIC = "photo_digits_last/{}/standard/small_cnn/{}/toxic_quick(pretrain_epochs=1{})/{}"


def with_needs(artifacts: tuple[Artifact, ...]) -> Iterator[Artifact]:
    for artifact in artifacts:
        yield from with_needs(artifact.needs())
        yield artifact


@pytest.mark.parametrize(
    "spec",
    [
        "dots/slow_shift/grayscale/small_cnn/supervised/brief/0",
        "dots/withheld@0.5/standard/small_cnn/supervised/brief/0",
        "dots/clean/vae(epochs=1, batch_size=32, shrink=8)/small_cnn/supervised/brief/0",
        TOXIC.format("feature_collision(steps=2, surrogate=small_cnn)", "finetune", "", 0),
        TOXIC.format("patch_dirty", "linear_probe(cache=2)", ", per_class=20, poisons=5", 0),
    ],
)
def test_an_artifact_takes_the_bytes_that_it_tells(
    spec: str, catalog: Catalog, fetch: Callable[[Artifact], Bundle]
) -> None:
    for artifact in with_needs(resolve(spec, catalog).artifacts):
        made = fetch(artifact).nbytes
        assert made / 1.1 <= artifact.nbytes <= 1.1 * made, artifact.label


def test_the_pieces_of_a_poison_take_what_the_whole_takes() -> None:
    poison = resolve("cifar10/lsp/none/resnet18/supervised/dvae/0", None).poison
    pieces = split(poison, 3).needs()
    assert len(pieces) == 3
    assert poison.nbytes == 50_000 * (3 * 32 * 32 + 16)
    assert sum(piece.nbytes for piece in pieces) == pytest.approx(poison.nbytes, abs=3)


def test_poisons_of_a_target_and_kept_features_are_counted_for_what_they_are() -> None:
    """Once 154 MB and nothing: the whole training set, and what nobody had thought of."""
    specs = (f"cifar10/feature_collision/standard/resnet18/{{}}/just_how_toxic/{n}" for n in (0, 1))
    texts = [text.format(how) for text in specs for how in ("finetune", "linear_probe(cache=10)")]
    found = plan(texts, None).artifacts
    poisons = [a for a in found if isinstance(a, PoisonArtifact)]
    (features,) = (a for a in found if isinstance(a, FeaturesArtifact))
    assert len(poisons) == 2
    assert {a.nbytes for a in poisons} == {25 * (3 * 32 * 32 + 16)}
    # 10 passes over 275 images of each class, the test images as they are and under two triggers
    assert features.nbytes == 4 * 512 * (10 * 2750 + 3 * 10_000) + 8 * 2750


@pytest.mark.slow
def test_a_run_of_set_ups_fills_the_disk_that_its_plan_says(tmp_path: Path) -> None:
    attack = "feature_collision(steps=2, surrogate=small_cnn)"
    specs = [
        TOXIC.format(name, "linear_probe", ", epochs=1", number)
        for name in (attack, "clean")
        for number in range(4)
    ]
    options = Options(
        out=tmp_path, executor="inline", keep=("weights", "predictions"), store=tmp_path / "store"
    )
    planned, *_ = make_plan(specs, options)
    said = estimates(planned, options.keep)
    assert not run_grid(specs, options).failed
    files = [path for path in (tmp_path / "store").rglob("*") if path.suffix == ".safetensors"]
    written = sum(path.stat().st_size for path in files) / 1e9
    shown = [path for path in files if "examples" in path.parts]  # ten images of each poison
    assert len(shown) == 4
    assert max(path.stat().st_size for path in shown) < 50_000
    assert len(files) - len(shown) == len(planned.artifacts) + 2 * len(specs)
    assert written / 2 <= said["disk_gb"] + said["kept_gb"] <= 2 * written
