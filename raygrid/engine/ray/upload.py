"""What of the working tree goes to a cluster with a command, told before it is sent.

Ray zips a folder without the files that its patterns, `.gitignore` and `.rayignore` name, and
refuses more than half a GiB after it has packed it. So the tree is read here first, by the same
rules: a file that is too large to be code stays at home with a line that names it, and too much of
the rest is an error that names the largest folders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from raygrid.core.errors import ClusterError

WEIGHT_FILES = "*.pt"
TOP_FOLDERS = ("/.git", "/.venv", "/runs", "/data", "/mlruns")
"""Folders of the user; deeper ones of these names belong to packages, as printed numbers do."""
SILENT_EXCLUDES = ("**/__pycache__", ".*_cache")
EXCLUDES = (*TOP_FOLDERS, WEIGHT_FILES, *SILENT_EXCLUDES)
"""What is never sent; of all but `SILENT_EXCLUDES` a line says so where it is there."""
LARGE_FILE_BYTES = 20_000_000
"""Bytes of a file that stays at home: data or weights, which the command makes or finds there."""
UPLOAD_BYTES = 450_000_000
"""Bytes in all; Ray takes 512 MiB of the packed folder."""
IGNORE_FILES = (".gitignore", ".rayignore")

Rule = Callable[[Path], bool]


@dataclass(frozen=True)
class Upload:
    """The files of a working tree that are sent, and those that are too large to be.

    sizes, too_large: bytes by path, relative to the tree's root. never: what is there of that which
    stays at home whatever its size.
    """

    sizes: dict[Path, int]
    too_large: dict[Path, int]
    never: tuple[str, ...] = ()

    @property
    def excludes(self) -> list[str]:
        """Ray's patterns for all that stays at home."""
        return [*EXCLUDES, *(_literally(path) for path in self.too_large)]

    def lines(self) -> list[str]:
        """What is sent, what never is, and each file that is too large, largest first."""
        total = sum(self.sizes.values())
        said = [f"sent to the cluster: {len(self.sizes):,} files, {_mb(total)}"]
        if self.never:
            own = "; the cluster's head needs data of its own" if "data" in self.never else ""
            said.append(f"left at home: {', '.join(self.never)} (never sent{own})")
        by_size = sorted(self.too_large.items(), key=lambda item: -item[1])
        why = f"over {_mb(LARGE_FILE_BYTES)}; put it where the cluster's machines can read it"
        return said + [f"left at home: {path}, {_mb(size)} ({why})" for path, size in by_size]


def what_to_send(root: Path) -> Upload:
    """Read a working tree; raises ClusterError if what is left of it is too much for Ray."""
    weighs = _rule(root, [WEIGHT_FILES])
    files = list(_walk(root, [_rule(root, [*TOP_FOLDERS, *SILENT_EXCLUDES])]))
    sizes = {path.relative_to(root): path.stat().st_size for path in files if not weighs(path)}
    weights = len(files) - len(sizes)
    there = (name.strip("/") for name in TOP_FOLDERS if (root / name.strip("/")).exists())
    found = Upload(
        {path: size for path, size in sizes.items() if size < LARGE_FILE_BYTES},
        {path: size for path, size in sizes.items() if size >= LARGE_FILE_BYTES},
        (*there, *([f"{WEIGHT_FILES} ({weights})"] if weights else [])),
    )
    total = sum(found.sizes.values())
    if total > UPLOAD_BYTES:
        tops: Counter[str] = Counter()
        for path, size in found.sizes.items():
            tops[path.parts[0]] += size
        largest = ", ".join(f"{name} {_mb(size)}" for name, size in tops.most_common(3))
        raise ClusterError(
            f"the working tree {root} is too large to send: {_mb(total)}, allowed are "
            f"{_mb(UPLOAD_BYTES)}; largest: {largest}. "
            "Name what the cluster does not need in .rayignore"
        )
    return found


def _walk(folder: Path, rules: list[Rule]) -> Iterator[Path]:
    """All files that neither these rules nor those of the folders leave out."""
    found = [folder / name for name in IGNORE_FILES]
    inside = [
        _rule(folder, file.read_text(encoding="utf-8").splitlines())
        for file in found
        if file.is_file()
    ]
    rules = rules + inside
    for path in sorted(folder.iterdir()):
        if any(rule(path) for rule in rules):
            continue
        if path.is_dir():
            yield from _walk(path, rules)
        elif path.is_file():
            yield path


def _rule(folder: Path, patterns: Sequence[str]) -> Rule:
    """Whether a path below a folder matches patterns that are written as in .gitignore."""
    spec = GitIgnoreSpec.from_lines(patterns)
    return lambda path: spec.match_file(str(path.relative_to(folder)))


def _literally(path: Path) -> str:
    """The pattern that matches this path and no other one."""
    escaped = "".join(f"\\{c}" if c in "*?[]\\!# " else c for c in path.as_posix())
    return f"/{escaped}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
