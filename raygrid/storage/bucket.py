"""Files in an object store by URL: every call is retried, every fault is one StoreError."""

from __future__ import annotations

import logging
import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from raygrid.core.errors import StoreError, in_one_line
from raygrid.core.retry import retried
from raygrid.core.secrets import shown
from raygrid.core.text import DAY

T = TypeVar("T")
log = logging.getLogger(__name__)
STAGE_MARK = ".tmp-"
"""In the names of files that are being written, where renaming them is what publishes them."""
PROBE_FILE, SWEPT_FILE = ".probe", ".swept"
"""Files whose ages say what time it is where they lie, and when stages were looked for there."""
_STAGED = re.compile(re.escape(STAGE_MARK) + r"[0-9a-f]{32}\Z")
HOPELESS_ERRORS = (
    "ACCESS_DENIED",
    "NO_SUCH_BUCKET",
    "INVALID_ACCESS_KEY",
    "SIGNATURE",
    "Not a directory",
)
ADDRESS_OPTIONS = {
    "s3": {"region", "scheme", "endpoint_override"},
    "gs": {"scheme", "endpoint_override"},
}


@dataclass(frozen=True)
class ObjectStore:
    """Files under a URL. Every request is tried a few times; then it is a StoreError.

    filesystem: of pyarrow. base: the path of the URL in it. patience: s between tries, by try.
    """

    url: str
    filesystem: Any
    base: str
    patience: tuple[float, ...] = (0.5, 2.0)

    @classmethod
    def open(cls, url: str, reading: bool = False) -> ObjectStore:
        """Find the file system and check that it can be written; raises StoreError.

        reading: of somebody who may have no right to write, so that is not checked.
        """
        scheme, base, options = _parse(url)
        try:
            remote = cls(url.partition("?")[0], _filesystem(scheme, options), base)
        except (OSError, ValueError) as error:
            raise StoreError(f"store {url} cannot be opened: {in_one_line(error)}") from None
        if not reading:
            remote.write(PROBE_FILE, b"")
        return remote

    @property
    def _is_folder(self) -> bool:
        return bool(self.filesystem.type_name == "local")

    def _path(self, name: str) -> str:
        return f"{self.base}/{name}"

    def _try(self, action: Callable[[], T], verb: str, name: str) -> T:
        try:
            return retried(action, self.patience, _may_pass)
        except FileNotFoundError:
            raise
        except OSError as error:
            why = f"cannot {verb} {name} in {self.url}: {in_one_line(error)}"
            raise StoreError(why, passing=_may_pass(error)) from None

    def read(self, name: str) -> bytes | None:
        """A file's content, None if there is no such file."""

        def action() -> bytes:
            with self.filesystem.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())

        try:
            return self._try(action, "read", name)
        except FileNotFoundError:
            return None

    def download(self, name: str, target: Path) -> bool:
        """Copy a file here; False if there is no such file."""

        def action() -> None:
            with (
                self.filesystem.open_input_stream(self._path(name)) as stream,
                target.open("wb") as file,
            ):
                shutil.copyfileobj(stream, file, 2**22)

        try:
            self._try(action, "download", name)
        except FileNotFoundError:
            return False
        return True

    def write(self, name: str, content: bytes) -> None:
        """Put a file; a reader sees it whole or not at all."""

        def fill(stream: Any) -> None:
            stream.write(content)

        self._put(name, fill)

    def upload(self, source: Path, name: str) -> None:
        """Copy a file there; a reader sees it whole or not at all."""

        def fill(stream: Any) -> None:
            with source.open("rb") as file:
                shutil.copyfileobj(file, stream, 2**22)

        self._put(name, fill)

    def _put(self, name: str, fill: Callable[[Any], None]) -> None:
        # Objects appear when they are closed; files of a folder do not, hence the other name.
        is_folder = self._is_folder
        path = self._path(name)
        stage = f"{path}{STAGE_MARK}{uuid.uuid4().hex}" if is_folder else path

        def action() -> None:
            if is_folder:
                self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            with self.filesystem.open_output_stream(stage) as stream:
                fill(stream)
            if is_folder:
                self.filesystem.move(stage, path)

        try:
            self._try(action, "write", name)
        except (FileNotFoundError, StoreError) as error:
            if is_folder:  # half a file on a full disk takes room that nobody gives back
                with suppress(OSError):
                    self.filesystem.delete_file(stage)
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"cannot write {name} in {self.url}: {in_one_line(error)}") from None

    def size(self, name: str) -> int | None:
        """A file's size in bytes, None if there is no such file."""
        found = self._info(name)
        return int(found.size) if found.is_file else None

    def _info(self, name: str) -> Any:
        return self._try(lambda: self.filesystem.get_file_info(self._path(name)), "look for", name)

    def names(self, folder: str) -> list[str]:
        """The files directly in a folder, sorted; not those that somebody is still writing."""
        found = self._list(folder)
        whole = (info for info in found if info.is_file and STAGE_MARK not in info.base_name)
        return sorted(f"{folder}/{info.base_name}" for info in whole)

    def folders(self, folder: str) -> list[str]:
        """The names of the folders directly in a folder."""
        return [info.base_name for info in self._list(folder) if not info.is_file]

    def sweep(self, folders: Iterable[str]) -> None:
        """Remove the stages that killed writers left here, and in these folders with all below.

        They are looked for once a day, whoever asks, and one that was written to within a day
        stays. Ages are told by the clock of the files: that of this machine may be wrong. Buckets
        show no stages.
        """
        if not self._is_folder:
            return
        self.write(PROBE_FILE, b"")
        now, last = _written(self._info(PROBE_FILE)), _written(self._info(SWEPT_FILE))
        if now - last <= DAY:
            return
        self.write(SWEPT_FILE, b"")
        found = [*self._list(""), *chain(*(self._list(each, below=True) for each in folders))]
        for info in found:
            if info.is_file and _STAGED.search(info.base_name) and now - _written(info) > DAY:
                with suppress(OSError):  # its writer may be another person, or be faster
                    self.filesystem.delete_file(info.path)

    def _list(self, folder: str, below: bool = False) -> list[Any]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder), allow_not_found=True, recursive=below)
        return list(self._try(lambda: self.filesystem.get_file_info(selector), "list", folder))

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            self._try(lambda: self.filesystem.delete_file(self._path(name)), "delete", name)

    def remove(self, folder: str) -> None:
        """Remove a folder and all its files if it is there."""
        with suppress(FileNotFoundError):
            self._try(lambda: self.filesystem.delete_dir(self._path(folder)), "delete", folder)


def _written(info: Any) -> float:
    """When a file was last written, in seconds since 1970; 0 of one that is not there."""
    return float(info.mtime_ns or 0) / 1e9


def folder_of(where: str) -> str | None:
    """The folder of a store by path or `file://`, None of one in a bucket; raises StoreError."""
    if "://" not in where:
        return where
    scheme, base, _ = _parse(where)
    return base if scheme == "file" else None


def _parse(url: str) -> tuple[str, str, dict[str, str]]:
    """Scheme, path and options of a URL; raises StoreError that does not repeat credentials."""
    try:
        parts = urlsplit(url)
    except ValueError:  # whose words may hold a piece of a password
        raise StoreError(f"store {shown(url)} is malformed; allowed are s3, gs and file") from None
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in ("s3", "gs", "file"):
        raise StoreError(f"store {parts.scheme}:// is unknown; allowed are a path, s3, gs and file")
    if "@" in parts.netloc or ":" in parts.netloc:  # no bucket has a colon in its name
        raise StoreError(
            f"the store's address {shown(url)} holds credentials; take them "
            f"out and set them where the cloud's own tools look (environment or profile)"
        )
    if "#" in url:  # what stands behind it is no part of the path: other stores would be the same
        what = "write %23 for it" if parts.scheme == "file" else "take a name without it"
        raise StoreError(f"store {shown(url)} has a #, which ends an address; {what}")
    odd = sorted(set(options) - ADDRESS_OPTIONS.get(parts.scheme, set()))
    path = unquote(parts.path) if parts.scheme == "file" else parts.path
    base = f"{parts.netloc}{path}".rstrip("/")
    if odd or bool(parts.netloc) == (parts.scheme == "file") or not base:
        what = f"the unknown option {odd[0]}" if odd else "no bucket (file:// no absolute path)"
        raise StoreError(f"store {url.partition('?')[0]} has {what}")
    return parts.scheme, base, options


def _filesystem(scheme: str, options: dict[str, str]) -> Any:
    from datetime import timedelta

    from pyarrow import fs

    if scheme == "file":
        return fs.LocalFileSystem()
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=5), **options)
    retries = fs.AwsStandardS3RetryStrategy(max_attempts=2)
    return fs.S3FileSystem(
        connect_timeout=5,
        request_timeout=60,
        retry_strategy=retries,
        allow_delayed_open=True,  # small files in one request instead of three
        **options,
    )


def _may_pass(error: Exception) -> bool:
    """Whether an object store may answer otherwise in a moment."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError | PermissionError):
        return False
    return not any(word in str(error) for word in HOPELESS_ERRORS)
