"""What of a working tree is sent to a cluster: by Ray's own packing of the same tree."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from raygrid.core.errors import ClusterError
from raygrid.engine.ray import upload
from raygrid.engine.ray.upload import EXCLUDES, what_to_send

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def packed(root: Path, excludes: list[str], where: Path) -> set[Path]:
    """The files of the archive that Ray makes of a folder."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(root), where, include_gitignore=True, excludes=excludes)
    with ZipFile(where) as archive:
        return {Path(name) for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with what people leave in theirs."""
    root = tmp_path / "tree"
    for name in (
        "pyproject.toml",
        "raygrid/literature/data/ref.csv",
        "raygrid/__pycache__/a.pyc",
        "data/cifar10/batch",
        "runs/quick/results.jsonl",
        ".git/HEAD",
        "notes/draft.tmp",
        "notes/keep.md",
        "notes/deep/x.log",
        "weights.pt",
        "deep/old.pt",
        "raygrid/mlruns/kept.txt",
        "big [1] #x!.bin",
        "deep/big.npz",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text("*.tmp\n")
    (root / "notes" / ".rayignore").write_text("/deep\n")
    for name in ("big [1] #x!.bin", "deep/big.npz"):
        with (root / name).open("wb") as file:
            file.truncate(30_000_000)
    return root


def test_ray_packs_what_was_told_and_large_files_stay_at_home(tree: Path, tmp_path: Path) -> None:
    found = what_to_send(tree)
    kept = {".gitignore", "pyproject.toml", "raygrid/literature/data/ref.csv", "notes/keep.md"}
    kept.add("raygrid/mlruns/kept.txt")
    assert {path.as_posix() for path in found.sizes} == {*kept, "notes/.rayignore"}
    assert {path.as_posix() for path in found.too_large} == {"big [1] #x!.bin", "deep/big.npz"}
    assert packed(tree, found.excludes, tmp_path / "a.zip") == set(found.sizes)
    first, *others = found.lines()
    assert first == "sent to the cluster: 6 files, 0.0 MB"
    assert others.pop(0) == (
        "left at home: .git, runs, data, *.pt (2) (never sent; the cluster's head needs data of "
        "its own)"
    )
    assert [line.split(" (")[0] for line in others] == [
        "left at home: big [1] #x!.bin, 30.0 MB",
        "left at home: deep/big.npz, 30.0 MB",
    ]


def test_of_a_tree_of_code_alone_nothing_is_left_at_home(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("pass")
    assert what_to_send(tmp_path).lines() == ["sent to the cluster: 1 files, 0.0 MB"]


def test_too_much_is_one_error_that_names_the_largest(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "UPLOAD_BYTES", 50)
    with pytest.raises(ClusterError, match=r"too large to send.*largest: raygrid 0\.0 MB"):
        what_to_send(tree)


def test_every_file_of_the_package_is_sent(tmp_path: Path) -> None:
    sent = {ROOT / path for path in what_to_send(ROOT).sizes}
    package = [p for p in (ROOT / "raygrid").rglob("*") if p.is_file()]
    assert [p for p in package if "__pycache__" not in p.parts and p not in sent] == []
    assert any(p.parts[-3:-1] == ("literature", "data") for p in sent), "a folder named data"
    assert not [p for p in sent if p.relative_to(ROOT).parts[0] in (".git", "runs", "mlruns")]
    assert "/.git" in EXCLUDES
