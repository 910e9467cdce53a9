"""What can be known before a run, a plan says as the run does."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raygrid.cli.main import main
from raygrid.cli.run import decided_place, default_scale, experiment_main
from raygrid.engine.grid import Grid
from raygrid.engine.ray import submit
from raygrid.engine.ray.homecoming import INSIDE_JOB
from tests import plugin

assert plugin.CARD
SPEC = "{}/lsp(patch=4)/none/small_cnn/{}/0"


def fill(place: Path, classes: int, each: int, side: int, parts: str = "train test") -> None:
    """Class folders of gray pictures."""
    for part in parts.split():
        for label in range(classes):
            folder = place / part / f"c{label:04d}"
            folder.mkdir(parents=True)
            for number in range(each):
                pixels = np.full((side, side, 3), (label * 7 + number) % 256, np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def said(verb: str, spec: str, root: Path, *more: str) -> tuple[int, str]:
    """Exit status and the error; the run is quiet, inline and without MLflow."""
    words = [*more, "--quiet", "--executor", "inline"]
    words += ["--tracking", "off", "--data", str(root), "--out", str(root / "out")]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        status = main([verb, spec, *words])
    return status, err.getvalue().strip()


def zipped(place: Path) -> None:
    place.mkdir()
    with zipfile.ZipFile(place / "mine.zip", "w") as packed:
        packed.writestr("train/a/0.png", b"x")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "tiny pictures": (lambda p: fill(p, 10, 1, 4), r"4x4 pixels|smaller|expected"),
    "one class": (lambda p: fill(p, 1, 3, 16), "has 1 class folders with images, needed are two"),
    "valid": (lambda p: fill(p, 2, 1, 16, "train valid"), "the test part is missing"),
    "Training": (
        lambda p: fill(p, 2, 1, 16, "Training Testing"),
        r"which holds Testing, Training; rename Testing to test and Training to train",
    ),
    "train and valid": (
        lambda p: fill(p, 2, 1, 16, "train valid"),
        r"lacks test/<class>/\*.png: the test part is missing; rename valid to test",
    ),
    "a file": (lambda p: p.write_text("x"), r"mine is a file, expected a folder"),
    "no split": (lambda p: fill(p, 2, 1, 16, "cats dogs"), r"which holds cats, dogs; put the"),
    "zip": (zipped, r"which holds mine.zip; unpack mine.zip"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_data_that_cannot_be_taken_are_refused_by_plan_as_by_run(tmp_path: Path, kind: str) -> None:
    """A plan of pictures of 4 pixels said that the data were not found, and that all was well."""
    make, says = REFUSED[kind]
    make(tmp_path / "mine")
    name = "folder(name=mine)"
    if kind == "tiny pictures":
        (tmp_path / "mine").rename(tmp_path / "cifar10")
        name = "cifar10"
    spec = SPEC.format(name, "supervised/quick")
    planned, ran = said("plan", spec, tmp_path), said("run", spec, tmp_path)
    assert planned[0] == ran[0] == 2
    assert planned[1] == ran[1]
    assert "is empty" not in planned[1]
    assert re.search(says, planned[1]), planned[1]


def test_data_that_are_not_there_can_be_planned_with_a_note(tmp_path: Path) -> None:
    spec = SPEC.format("cifar10", "supervised/quick")
    status, note = said("plan", spec, tmp_path)
    assert status == 0
    assert note.startswith("note: no cifar10 in")
    assert said("run", spec, tmp_path)[0] == 2


@pytest.mark.parametrize("attack", ["lsp(patch=4)", "withheld@0.9"])
def test_a_queue_that_few_images_do_not_fill_is_said_by_the_plan(
    tmp_path: Path, attack: str
) -> None:
    """MoCo on fewer images than a batch failed in every run anew; the plan had no objection."""
    few = 41 if attack.startswith("lsp") else 410
    fill(tmp_path / "mine", 1, few, 16)
    fill(tmp_path / "mine" / "more", 1, 1, 16)
    for part in ("train", "test"):
        (tmp_path / "mine" / "more" / part / "c0000").rename(tmp_path / "mine" / part / "d")
    shutil.rmtree(tmp_path / "mine" / "more")
    spec = f"folder(name=mine)/{attack}/standard/small_cnn/moco/quick/0"
    planned, ran = said("plan", spec, tmp_path), said("run", spec, tmp_path)
    assert planned == ran
    assert planned[0] == 2
    assert re.search(r"queue is \d+, allowed are multiples of the batch size 4[12]$", planned[1])


def test_what_is_wrong_with_data_at_hand_is_said_of_these_data(tmp_path: Path) -> None:
    """The plan counted the 50,000 images that a folder has before anybody looks."""
    fill(tmp_path / "mine", 2, 20, 16)
    spec = "folder(name=mine)/lsp(patch=4)/standard/small_cnn/moco(queue=48)/quick/0"
    planned, ran = said("plan", spec, tmp_path), said("run", spec, tmp_path)
    assert planned == ran
    assert planned[1].endswith("queue is 48, allowed are multiples of the batch size 40")
    absent = spec.replace("folder(name=mine)", "cifar10")
    status, why = said("plan", absent, tmp_path)
    assert status == 2
    assert why.endswith("queue is 48, allowed are multiples of the batch size 64")


def test_a_share_of_few_images_is_said_by_the_plan(tmp_path: Path) -> None:
    fill(tmp_path / "mine", 2, 1, 16)
    spec = "folder(name=mine)/dvae_grow(base=lsp, share=0.25)/none/small_cnn/supervised/quick/0"
    planned, ran = said("plan", spec, tmp_path), said("run", spec, tmp_path)
    assert planned == ran
    assert planned[1].endswith("share 0.25 of 2 images is 0, 2 are needed")


def test_a_share_of_less_than_one_image_is_no_poison_and_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ran, and clean training stood in tables under the name of the attack."""
    words = ["plan", "--attacks", "lsp", "clean", "--poison-ratios", "0.0001", "0.000232", "0"]
    assert main([*words, "--json", "--out", str(tmp_path)]) == 0
    planned = json.loads(capsys.readouterr().out)
    tail = "standard/small_cnn/supervised/quick/0"
    ran = [trial["spec"] for trial in planned["trials"]]
    assert ran == [f"photo_digits/lsp@0.000232/{tail}", f"photo_digits/clean/{tail}"]
    assert planned["skips"] == [
        {
            "spec": f"photo_digits/lsp@0.0001/{tail}",
            "reason": "poison_ratio 0.0001 of 4,311 images is less than one; allowed from 0.000232",
        }
    ]


def test_a_batch_larger_than_the_set_is_said_by_the_plan_and_by_the_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row kept the 1,000,000 of its spec; the training was in batches of all images."""
    fill(tmp_path / "mine", 2, 8, 16)
    spec = SPEC.format("folder(name=mine)", "supervised/quick(batch_size=1000000, epochs=1)")
    note = "batch_size is 1,000,000, but of the 16 images of folder(name=mine) a batch has 16"
    where = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["plan", spec, "--json", *where]) == 0
    assert note in json.loads(capsys.readouterr().out)["marks"]
    assert said("run", spec, tmp_path)[0] == 0
    (row,) = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert note in row["marks"]
    assert main(["plan", spec.replace("1000000", "16"), "--json", *where]) == 0
    assert not [mark for mark in json.loads(capsys.readouterr().out)["marks"] if "batch" in mark]


def test_a_job_on_a_cluster_says_that_no_data_are_sent_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It named a command that fetches data where it was typed, in vain."""
    data = tmp_path / "data"
    words = [
        SPEC.format("cifar10", "supervised/quick"),
        "--data",
        str(data),
        "--executor",
        "inline",
    ]
    words += ["--tracking", "off", "--out", str(tmp_path / "out")]
    assert main(["run", *words]) == 2
    here = capsys.readouterr().err
    assert here.endswith(f"or fetch them: raygrid download cifar10 --data {data}\n")
    monkeypatch.setenv(INSIDE_JOB, "1")
    assert main(["run", *words]) == 2
    assert capsys.readouterr().err == (
        "note: this is the head of the cluster, to which no data are sent; where it has some is "
        f"said by --data, or by RAYGRID_DATA where its Ray is started\n{here}"
    )
    data.mkdir()
    assert main(["run", *words]) == 2
    assert "note:" not in capsys.readouterr().err


@pytest.mark.parametrize("where", [["--executor", "inline"], ["--address", "local"], []])
def test_a_job_to_leave_is_refused_where_no_cluster_takes_it(
    where: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The grid ran here, in the foreground, without a word."""
    if where:  # it says already that no cluster is to be asked about
        (tmp_path / "cluster.yaml").write_text("- no cluster file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    spec = "photo_digits/clean/none/small_cnn/supervised/quick/0"
    assert main(["run", spec, "--detach", *where]) == 2
    assert capsys.readouterr().err == (
        "raygrid: --detach leaves a job at a cluster to itself, and here is none that takes jobs: "
        "name one by --address http://HOST:8265, or `ray up cluster.yaml` first\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (("ray", None, ""), "no cluster here: taking --scale quick; others are small, paper\n"),
        (("ray", "local", ""), "no cluster here: taking --scale quick; others are small, paper\n"),
        (("ray", "head:6379", ""), "a cluster: taking --scale small; others are quick, paper\n"),
        (("ray", None, "http://head"), "a cluster: taking --scale small; others are quick"),
        (("inline", None, "http://head"), "no cluster here: taking --scale quick; others are "),
    ],
)
def test_an_experiment_without_a_scale_is_small_on_a_cluster_alone_and_says_so(
    where: tuple[str, str | None, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a GPU the first command of the documentation wanted CIFAR-10 and took hours."""
    executor, address, variable = where
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", variable)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    scales = dict.fromkeys(("quick", "small", "paper"), (Grid(),))
    taken = default_scale(scales, decided_place(executor, address))
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert f"--scale {taken};" in err


def test_an_experiment_asks_once_whether_a_cluster_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each question takes seconds: for its scale and for its place it asked anew."""
    asked: list[Path] = []
    (tmp_path / "cluster.yaml").write_text("cluster_name: mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAYGRID_CLUSTER", raising=False)
    monkeypatch.setattr(submit, "head_of", lambda config: asked.append(config))
    scales = {"quick": (Grid(),), "small": (Grid(),)}
    assert experiment_main("mine", scales, "", ["--detach"]) == 2
    assert "no cluster here: taking --scale quick" in capsys.readouterr().err
    assert asked == [tmp_path / "cluster.yaml"]
