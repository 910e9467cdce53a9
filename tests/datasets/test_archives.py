"""Archives that are read where they lie, and downloads."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from raygrid.core.errors import DataError
from raygrid.datasets import DATASETS
from raygrid.datasets.cifar10 import Cifar10
from tests.datasets.on_disk import Batches, agree, class_tree, md5_of


def pack(folder: Path, archive: Path) -> None:
    """A tar or zip archive of a folder, under its name."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in sorted(f for f in folder.rglob("*") if f.is_file()):
                packed.write(file, f"{folder.name}/{file.relative_to(folder)}")
    else:
        with tarfile.open(archive, "w:gz") as tape:
            tape.add(folder, folder.name)


@pytest.mark.parametrize("name", ["data.tar.gz", "data.zip"])
def test_an_archive_of_class_folders_is_read_where_it_lies(tmp_path: Path, name: str) -> None:
    class_tree(tmp_path / "made" / "cifar10", list("abcdefghij"))
    plain = DATASETS.make("cifar10").load(tmp_path / "made")
    home = tmp_path / "data" / "cifar10"
    home.mkdir(parents=True)
    pack(tmp_path / "made" / "cifar10", home / name)
    dataset = DATASETS.make("cifar10")
    agree(dataset, tmp_path / "data")
    assert torch.equal(dataset.load(tmp_path / "data").train.pixels, plain.train.pixels)
    assert [file.name for file in home.iterdir()] == [name]


def test_an_official_archive_is_read_where_it_lies(tmp_path: Path, cifar10: Batches) -> None:
    pack(cifar10.place, tmp_path / "cifar10" / "cifar-10-python.tar.gz")
    plain = DATASETS.make("cifar10").load(tmp_path)
    for file in cifar10.place.iterdir():
        file.unlink()
    cifar10.place.rmdir()
    agree(DATASETS.make("cifar10"), tmp_path)
    assert torch.equal(DATASETS.make("cifar10").load(tmp_path).train.pixels, plain.train.pixels)


@pytest.mark.parametrize("kind", ["up", "absolute", "link"])
def test_an_archive_cannot_write_elsewhere(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "data" / "cifar10"
    home.mkdir(parents=True)
    with tarfile.open(home / "evil.tar.gz", "w:gz") as tape:
        names = {"up": "../../evil", "absolute": str(tmp_path / "evil"), "link": "train"}
        member = tarfile.TarInfo(names[kind])
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path)
            tape.addfile(member)
            member = tarfile.TarInfo("train/evil")
        member.size = 4
        tape.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(DataError, match=r"evil.tar.gz (cannot be unpacked|holds no cifar10)"):
        DATASETS.make("cifar10").load(tmp_path / "data")
    assert not list(tmp_path.rglob("evil"))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    class_tree(tmp_path / "cifar10", list("abcdefghij"), each=1)
    home = tmp_path / "data" / "cifar10"
    home.mkdir(parents=True)
    pack(tmp_path / "cifar10", home / "x.tar.gz")
    content = (home / "x.tar.gz").read_bytes()
    (home / "x.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"x.tar.gz cannot be"):
        DATASETS.make("cifar10").load(tmp_path / "data")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """A web server over a folder on the loopback interface."""
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_download_gets_checks_and_unpacks(
    tmp_path: Path, cifar10: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, root = tmp_path / "web", tmp_path / "root"
    web.mkdir()
    pack(cifar10.place, web / "cifar-10-python.tar.gz")
    dataset = DATASETS.make("cifar10")
    with site(web) as address:
        monkeypatch.setattr(Cifar10, "url", f"{address}/cifar-10-python.tar.gz")
        with pytest.raises(DataError, match=r"cannot download .*cifar-10-python.tar.gz"):
            dataset.download(root)  # the md5 is not that of the official archive
        assert not list((root / "cifar10").iterdir())
        monkeypatch.setattr(Cifar10, "md5", md5_of(web / "cifar-10-python.tar.gz"))
        dataset.download(root)
    agree(dataset, root)
    assert [f.name for f in (root / "cifar10").iterdir()] == ["cifar-10-batches-py"]


def test_what_was_downloaded_is_not_fetched_again_unless_it_is_damaged(
    tmp_path: Path, cifar10: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's head that starts again fetched all of it, and failed with the site."""
    monkeypatch.setattr(Cifar10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    dataset = DATASETS.make("cifar10")
    dataset.download(tmp_path)
    (cifar10.place / "test_batch").write_bytes(b"cut off")
    with pytest.raises(DataError, match="cannot download"):
        dataset.download(tmp_path)


def test_a_missing_dataset_names_the_command_that_puts_it_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command without `--data` fills the folder `data`, where nobody looks then."""
    monkeypatch.chdir(tmp_path)
    for root, words in (
        (Path("data"), ""),
        (tmp_path / "my data", f" --data '{tmp_path}/my data'"),
    ):
        with pytest.raises(DataError) as caught:
            DATASETS.make("cifar10").source(root)
        assert str(caught.value).endswith(f"or fetch them: raygrid download cifar10{words}")


def test_a_failed_download_leaves_what_somebody_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of one's own under the archive's name was deleted."""
    own = tmp_path / "cifar10" / "cifar-10-python.tar.gz"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    monkeypatch.setattr(Cifar10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError, match="cannot download"):
        DATASETS.make("cifar10").download(tmp_path)
    assert own.read_bytes() == b"mine"
    assert [path.name for path in own.parent.iterdir()] == [own.name]


def test_download_without_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cifar10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError, match=r"cannot download http://127.0.0.1:9.*by hand"):
        DATASETS.make("cifar10").download(tmp_path)
    for name in ("miniimagenet", "imagenet100", "folder"):
        with pytest.raises(DataError, match="cannot be downloaded; put its files under"):
            DATASETS.make(name).download(tmp_path)
