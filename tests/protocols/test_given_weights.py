"""Extractors that start from a file of weights, or from those that timm has on this machine."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from raygrid.api.run_grid import Options, run_grid
from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.networks.network import Network
from raygrid.core.errors import DataError, SpecError
from raygrid.protocols import PROTOCOLS
from raygrid.storage.results import ResultLog
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact, World
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve
from raygrid.trials.run import pretrained
from raygrid.trials.trial import Trial

pytestmark = pytest.mark.usefixtures("undrawn")

CPU = torch.device("cpu")
SIDE = 32
Fetch = Callable[[Artifact], Bundle]


def spec(weights: Path | str, more: str = "", learner: str = "finetune", kind: str = "") -> str:
    protocol = f"pretrained_quick(weights={weights}{more})"
    return f"photo_digits_last/clean/standard/{kind or 'small_cnn'}/{learner}/{protocol}/0"


def body_of_cnn(seed: int = 7) -> dict[str, Tensor]:
    """The weights of a small network by the names of its body alone, as other tools have them."""
    state = ARCHITECTURES.make("small_cnn").build(5, SIDE, seed).body.state_dict()
    rng = torch.Generator().manual_seed(seed)
    return {k: v if v.dtype == torch.int64 else v + torch.rand(v.shape, generator=rng) / 10
            for k, v in state.items()}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(body_of_cnn(), path)
    return path


def extractor_of(trial: Trial, fetch: Fetch) -> Network:
    """The network that the learner is given."""
    world = World.of(fetch(trial.data))
    network = pretrained(trial, fetch, world, world.train, CPU)["extractor"]
    assert isinstance(network, Network)
    return network


def test_the_data_have_the_side_of_these_tests() -> None:
    assert resolve(spec("x.pt"), None).dataset.image_size == SIDE


@pytest.mark.parametrize("learner", ["finetune", "linear_probe"])
def test_victims_start_from_the_file_bit_for_bit(
    learner: str, file: Path, catalog: Catalog, fetch: Fetch
) -> None:
    trial = resolve(spec(file, learner=learner), catalog)
    assert trial.skip() is None
    assert trial.extractor is not None
    assert trial.extractor.needs() == (), "nothing is trained"
    network = extractor_of(trial, fetch)
    state = network.body.state_dict()
    for name, value in body_of_cnn().items():
        assert torch.equal(state[name], value), name
    mean = network.normalize.mean.flatten()  # type: ignore[union-attr]
    torch.testing.assert_close(mean, torch.tensor([0.485, 0.456, 0.406]))


def nested(state: dict[str, Tensor]) -> dict[str, Any]:
    """What scripts save: epoch and all, from a network on several GPUs."""
    wrapped = {f"module.{name}": value for name, value in state.items()}
    return {"epoch": 3, "state_dict": {**wrapped, "module.fc.weight": torch.zeros(1000, 64)}}


def whole(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a trial of this grid leaves: its own normalization and head."""
    network = ARCHITECTURES.make("small_cnn").build(3, SIDE, 1)
    network.normalize_by((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    network.body.load_state_dict(state)
    return network.state_dict()


@pytest.mark.parametrize(("form", "mean"), [(dict, 0.485), (nested, 0.485), (whole, 0.1)])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_other_forms_of_files(
    form: Callable[[dict[str, Tensor]], Any],
    mean: float,
    suffix: str,
    tmp_path: Path,
    catalog: Catalog,
    fetch: Fetch,
) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(form(body_of_cnn()), path)
    network = extractor_of(resolve(spec(path), catalog), fetch)
    state = network.body.state_dict()
    assert all(torch.equal(state[name], value) for name, value in body_of_cnn().items())
    assert float(network.normalize.mean.flatten()[0]) == pytest.approx(mean)  # type: ignore[union-attr]
    said = extractor_of(resolve(spec(path, ", normalization=half"), catalog), fetch)
    assert said.normalize.std.flatten().tolist() == [0.5, 0.5, 0.5]  # type: ignore[union-attr]


def test_the_key_is_of_what_the_file_holds(file: Path, tmp_path: Path) -> None:
    elsewhere, other = tmp_path / "there" / "w.safetensors", tmp_path / "other.safetensors"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(file.read_bytes())
    save_file(body_of_cnn(8), other)
    keys = [resolve(spec(path), None).key for path in (file, elsewhere, other)]
    assert keys[0] == keys[1] != keys[2]
    assert resolve(spec(file, ", normalization=none"), None).key != keys[0]
    artifacts = [resolve(spec(path), None).extractor for path in (file, elsewhere, other)]
    made = [artifact.key for artifact in artifacts if artifact is not None]
    assert made[0] == made[1] != made[2]
    fresh = [resolve(spec(path, learner="supervised"), None).key for path in (file, other)]
    assert fresh[0] == fresh[1], "a victim that starts afresh never sees them"


def test_keys_of_extractors_that_are_trained_here_stay_what_they_were() -> None:
    fields = PROTOCOLS.make("pretrained").resolved()
    assert not {"weights", "normalization"} & set(fields)
    assert PROTOCOLS.make("pretrained(weights=a.pt)").resolved()["weights"] == "given"


def test_weights_that_changed_since_the_plan_are_refused(
    file: Path, catalog: Catalog, fetch: Fetch
) -> None:
    trial = resolve(spec(file), catalog)
    assert trial.extractor is not None
    planned = trial.extractor
    save_file(body_of_cnn(9), file)
    with pytest.raises(DataError, match="are not those that the grid was planned with"):
        fetch(planned)


FIRST = next(name for name, value in body_of_cnn().items() if value.dim() == 4)


def without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name != FIRST}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without, f"has no layer {FIRST}, which small_cnn for 32 pixels has"),
        (lambda s: {**s, FIRST: s[FIRST][:, :, :1]}, f"layer {FIRST} has shape (16, 3, 1, 3), in "),
        (
            lambda s: {**s, "extra.weight": s[FIRST] + 1},
            "has the layer extra.weight, which",
        ),
        (lambda s: {**s, FIRST: s[FIRST] * torch.nan}, f"layer {FIRST} has values that are not f"),
    ],
)
def test_what_does_not_fit_is_named_before_any_work(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    says: str,
    file: Path,
    catalog: Catalog,
    fetch: Fetch,
) -> None:
    save_file({k: v.contiguous() for k, v in change(load_file(file)).items()}, file)
    trial = resolve(spec(file), catalog)
    reason = trial.skip()
    assert reason is not None
    assert reason.count("\n") == 0
    assert says in reason
    assert trial.extractor is not None
    with pytest.raises(DataError) as raised:
        fetch(trial.extractor)
    assert str(raised.value) == reason


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, ("harm",))


def test_what_is_no_file_of_weights_is_said_in_a_line(tmp_path: Path) -> None:
    missing, text, empty = (tmp_path / n for n in ("none.pt", "notes.txt", "empty.pt"))
    text.write_text("weights")
    torch.save({"epoch": 3}, empty)
    harmful, torn = tmp_path / "harmful.pt", tmp_path / "torn.safetensors"
    harmful.write_bytes(pickle.dumps({"a": Harmful()}))
    torn.write_bytes(b"\x10\x00")
    whole, page = tmp_path / "whole.pt", tmp_path / "page.pt"
    torch.save(torch.nn.Linear(2, 2), whole)
    page.write_text("hello, this is no file of torch", encoding="utf-8")
    code = "is damaged or holds pickled code, which is never run: save model.state_dict() instead"
    said = {
        missing: "is not there, or no file",
        text: "is no file of .safetensors, .pt, .pth, .bin",
        empty: "is no state dict: it holds no tensors by name",
        torn: "cannot be read: Error while deserializing header",
        **dict.fromkeys((harmful, whole, page), f"{code} of the model, or a .safetensors file"),
    }
    for path, words in said.items():
        reason = resolve(spec(path), None).skip()
        assert reason is not None
        assert reason.startswith(f"weights {path} {words}")
        assert "\n" not in reason
        assert "\x1b" not in reason
        assert "torch.load" not in reason
    assert resolve(spec(missing, learner="supervised"), None).skip() is None
    reason = resolve(spec("timm"), None).skip()
    assert reason is not None
    assert reason.startswith("timm keeps no weights of small_cnn: use the architecture timm(model")


@pytest.mark.parametrize(
    ("protocol", "says"),
    [
        ("pretrained(weights=a.pt, pretrain=svhn)", "pretrain is of extractors that are trained"),
        ("pretrained(weights=a.pt, pretrain_epochs=3)", "pretrain_epochs is of extractors that"),
        ("pretrained(normalization=half)", "normalization=half is of given weights"),
        ("pretrained(weights=a.pt, normalization=hlf)", "did you mean 'half'"),
    ],
)
def test_settings_that_would_count_for_nothing_are_refused(protocol: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        PROTOCOLS.make(protocol)


TINY = "test_resnet.r160_in1k"


def put_where_timm_looks(state: dict[str, Tensor], cache: Path) -> None:
    """As the hub's client lays out what it once fetched."""
    folder = cache / f"models--timm--{TINY}"
    place = folder / "snapshots" / "0a1b"
    place.mkdir(parents=True)
    save_file(state, place / "model.safetensors")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0a1b")


def test_weights_that_timm_has_here_are_found_and_none_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalog: Catalog, fetch: Fetch
) -> None:
    import timm

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    asking = spec("timm", kind=f"timm(model={TINY})", learner="linear_probe")
    reason = resolve(asking, catalog).skip()
    assert reason is not None
    assert reason.startswith(f"weights of timm's {TINY} are not on this machine, and nothing is ")
    torch.manual_seed(3)
    theirs = timm.create_model(TINY, num_classes=11).eval()
    put_where_timm_looks(theirs.state_dict(), tmp_path / "hub")
    trial = resolve(asking, catalog)
    assert trial.skip() is None
    network = extractor_of(trial, fetch)
    x = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = theirs.forward_head(theirs.forward_features((x - 0.5) / 0.5), pre_logits=True)
        torch.testing.assert_close(network.features(x), wanted, rtol=1e-5, atol=1e-6)


def test_networks_of_timm_are_named_as_there() -> None:
    with pytest.raises(SpecError, match=r"unknown network of timm 'resnett18' \(did you mean"):
        ARCHITECTURES.make("timm(model=resnett18)")
    with pytest.raises(SpecError, match="unknown weights of timm's resnet18 'a1_in1'"):
        ARCHITECTURES.make("timm(model=resnet18.a1_in1)")
    reason = resolve(spec("a.pt", kind="timm(model=inception_v3)"), None).skip()
    assert reason is not None
    assert reason.startswith("timm's inception_v3 takes no images of 32 pixels: ")


@pytest.mark.slow
def test_a_grid_with_given_weights(file: Path, tmp_path: Path) -> None:
    specs = [spec(file, ", epochs=2", learner) for learner in ("finetune", "linear_probe")]
    run_grid(specs, Options(out=tmp_path, data=tmp_path, executor="inline", tracking="off"))
    rows = ResultLog(tmp_path / "results.jsonl").rows()
    assert [row["status"] for row in rows] == ["done"] * 2
    assert all(row["final_acc"] > 0.3 for row in rows), "five classes"
