"""A store that is mirrored to an object store: `s3://`, `gs://`, or a shared `file://` folder.

    <url>/artifacts/<kind>/<key>/<checksum>.safetensors   the arrays, named by their content
                                /meta.json                written last; names the file that counts
    <url>/results/<time>-<id>.jsonl                       rows in the order of their upload, never
                                                          changed afterwards

A reader without `meta.json` sees nothing, and replacing it is atomic, so writers on several
machines need no lock. Credentials come from where the cloud's own tools look for them
(environment, profile files, the machine's role), never from the address.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from raygrid.errors import StoreError
from raygrid.store import DATA, META, Bundle, Json, ResultLog, Store, checksum, key_of

T = TypeVar("T")
log = logging.getLogger(__name__)
HOPELESS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE", "Not a directory")
OPTIONS = {"s3": {"region", "scheme", "endpoint_override"}, "gs": {"scheme", "endpoint_override"}}


def open_store(where: str | Path, cache: Path | None = None) -> Store:
    """A local store by path, a mirrored one by URL.

    cache: the local side of a mirrored store; by default a folder named after the URL in
    RAYGRID_CACHE or `~/.cache/raygrid`. Raises StoreError.
    """
    text = str(where)
    if "://" not in text:
        return Store(where)
    home = Path(os.environ.get("RAYGRID_CACHE") or Path.home() / ".cache" / "raygrid")
    return RemoteStore(text, cache or home / key_of(text)[:12])


@dataclass(frozen=True)
class Remote:
    """Files under a URL. Every request is tried a few times; then it is a StoreError.

    filesystem: of pyarrow. base: the path of the URL in it. patience: s between tries, by try.
    """

    url: str
    filesystem: Any
    base: str
    patience: tuple[float, ...] = (0.5, 2.0)

    @classmethod
    def open(cls, url: str) -> Remote:
        """Find the file system and check that it can be written; raises StoreError."""
        scheme, base, options = _parse(url)
        try:
            remote = cls(url.partition("?")[0], _filesystem(scheme, options), base)
        except (OSError, ValueError) as error:
            raise StoreError(f"store {url} cannot be opened: {_first_line(error)}") from None
        remote.write(".probe", b"")
        return remote

    def _path(self, name: str) -> str:
        return f"{self.base}/{name}"

    def _try(self, action: Callable[[], T], verb: str, name: str) -> T:
        for pause in (*self.patience, None):
            try:
                return action()
            except FileNotFoundError:
                raise
            except OSError as error:
                hopeless = any(word in str(error) for word in HOPELESS)
                hopeless = hopeless or isinstance(error, PermissionError)
                if pause is None or hopeless:
                    why = f"cannot {verb} {name} in {self.url}: {_first_line(error)}"
                    raise StoreError(why, passing=not hopeless) from None
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

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
        is_folder = self.filesystem.type_name == "local"
        path = self._path(name)
        stage = f"{path}.tmp-{uuid.uuid4().hex}" if is_folder else path

        def action() -> None:
            if is_folder:
                self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            with self.filesystem.open_output_stream(stage) as stream:
                fill(stream)
            if is_folder:
                self.filesystem.move(stage, path)

        try:
            self._try(action, "write", name)
        except FileNotFoundError as error:
            raise StoreError(f"cannot write {name} in {self.url}: {_first_line(error)}") from None

    def size(self, name: str) -> int | None:
        """A file's size in bytes, None if there is no such file."""
        found = self._try(lambda: self.filesystem.get_file_info(self._path(name)), "look for", name)
        return int(found.size) if found.is_file else None

    def names(self, folder: str) -> list[str]:
        """The files directly in a folder, sorted."""
        found = self._list(folder)
        return sorted(f"{folder}/{info.base_name}" for info in found if info.is_file)

    def folders(self, folder: str) -> list[str]:
        """The names of the folders directly in a folder."""
        return [info.base_name for info in self._list(folder) if not info.is_file]

    def _list(self, folder: str) -> list[Any]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder), allow_not_found=True)
        return list(self._try(lambda: self.filesystem.get_file_info(selector), "list", folder))

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            self._try(lambda: self.filesystem.delete_file(self._path(name)), "delete", name)

    def remove(self, folder: str) -> None:
        """Remove a folder and all its files if it is there."""
        with suppress(FileNotFoundError):
            self._try(lambda: self.filesystem.delete_dir(self._path(folder)), "delete", folder)


def _parse(url: str) -> tuple[str, str, dict[str, str]]:
    """Scheme, path and options of a URL; raises StoreError that does not repeat credentials."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in ("s3", "gs", "file"):
        raise StoreError(f"store {parts.scheme}:// is unknown; allowed are a path, s3, gs and file")
    if parts.username or parts.password:
        raise StoreError(
            f"the store's address {parts.scheme}://{parts.hostname} holds credentials; take them "
            f"out and set them where the cloud's own tools look (environment or profile)"
        )
    odd = sorted(set(options) - OPTIONS.get(parts.scheme, set()))
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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class RemoteStore(Store):
    """Reads what is here, else what is there; writes here, then there.

    A remote entry that is damaged counts as missing and is replaced by the next `put`.
    """

    def __init__(self, url: str, root: Path | str) -> None:
        super().__init__(root)
        self.remote = Remote.open(url)

    def has(self, kind: str, key: str) -> bool:
        return super().has(kind, key) or self.remote.size(_meta(kind, key)) is not None

    def meta(self, kind: str, key: str) -> Json | None:
        return super().meta(kind, key) or self._remote_meta(kind, key)

    def _load(
        self, kind: str, key: str, load: Callable[[Path], dict[str, Any]]
    ) -> tuple[dict[str, Any], Json] | None:
        found = super()._load(kind, key, load)
        if found is None and self._bring(kind, key):
            found = super()._load(kind, key, load)
        return found

    def put(self, kind: str, key: str, bundle: Bundle) -> None:
        super().put(kind, key, bundle)
        folder = self.path(kind, key)
        mine = json.loads((folder / META).read_text())
        if not self._is_whole(kind, key):
            self.remote.upload(folder / DATA, _data(kind, key, mine))
            self.remote.write(_meta(kind, key), (folder / META).read_bytes())

    def names(self, kind: str) -> set[str]:
        return super().names(kind) | set(self.remote.folders(f"artifacts/{kind}"))

    def drop(self, kind: str, key: str) -> None:
        super().drop(kind, key)
        self.remote.remove(f"artifacts/{kind}/{key}")

    def results(self, path: Path | None = None) -> MirroredLog:
        return MirroredLog(path or self.root / "results.jsonl", self.remote)

    def _remote_meta(self, kind: str, key: str) -> Json | None:
        content = self.remote.read(_meta(kind, key))
        try:
            loaded = json.loads(content) if content is not None else None
        except ValueError:
            return None
        return loaded if isinstance(loaded, dict) and "sha256" in loaded else None

    def _is_whole(self, kind: str, key: str) -> bool:
        """Whether the remote entry is there with all its bytes."""
        meta = self._remote_meta(kind, key)
        return meta is not None and self.remote.size(_data(kind, key, meta)) == meta["bytes"]

    def _bring(self, kind: str, key: str) -> bool:
        """Copy a remote entry here; False if there is none or it is damaged (then withdrawn)."""
        meta = self._remote_meta(kind, key)
        if meta is None:
            return False
        target = self.path(kind, key)
        stage = target.with_name(f".tmp-{uuid.uuid4().hex}")
        stage.mkdir(parents=True)
        try:
            for _ in range(2):  # a transfer may fail where the file is sound
                there = self.remote.download(_data(kind, key, meta), stage / DATA)
                if there and checksum(stage / DATA) == meta["sha256"]:
                    (stage / META).write_text(json.dumps(meta, indent=1, sort_keys=True))
                    self._publish(stage, target)
                    return True
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        log.warning("%s %s in %s is damaged; it is made again", kind, key, self.remote.url)
        self.remote.delete(_meta(kind, key))
        return False


def _meta(kind: str, key: str) -> str:
    return f"artifacts/{kind}/{key}/{META}"


def _data(kind: str, key: str, meta: Json) -> str:
    return f"artifacts/{kind}/{key}/{meta['sha256'][:32]}.safetensors"


class MirroredLog(ResultLog):
    """A result log whose rows are also uploaded, in parts of `every` seconds and at `close`.

    Opening merges what other machines uploaded: of two rows of a key the later one counts. A
    remote store that is away holds up nobody; the rows stay here and are uploaded later.
    """

    def __init__(self, path: Path, remote: Remote, every: float = 30.0) -> None:
        super().__init__(path)
        self.remote = remote
        self.every = every
        self._next = time.monotonic() + every
        self._failures = 0
        self._waiting = self._merge()

    def _merge(self) -> list[Json]:
        """Take over remote rows that are newer; returns the local ones that are missing there."""
        with ThreadPoolExecutor(16) as pool:
            parts = list(pool.map(self.remote.read, self.remote.names("results")))
        there = _latest(row for part in parts for row in _rows(part or b""))
        here = _latest(self.rows())
        for key, row in there.items():
            if key not in here or _when(here[key]) < _when(row):
                super().append(row)
        return [
            row for key, row in here.items() if key not in there or _when(there[key]) < _when(row)
        ]

    def append(self, row: Json) -> None:
        super().append(row)
        self._waiting.append(row)
        if time.monotonic() >= self._next:
            try:
                self.upload()
            except StoreError as error:
                self._failures += 1
                log.warning("%s; trying again later", error)
            self._next = time.monotonic() + min(600.0, self.every * 2**self._failures)

    def upload(self) -> None:
        """Upload the rows that wait, as one part; raises StoreError and keeps them."""
        if not self._waiting:
            return
        lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in self._waiting)
        name = f"results/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
        self.remote.write(name, lines.encode())
        self._waiting.clear()
        self._failures = 0

    def close(self) -> None:
        """Upload the rest; raises StoreError that says where the rows are."""
        try:
            self.upload()
        except StoreError as error:
            raise StoreError(f"{error}; all rows are in {self.path}") from None


def _rows(content: bytes) -> list[Json]:
    """The rows of a part; torn lines are left out."""
    rows = []
    for line in content.decode(errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict) and "key" in row]


def _when(row: Json) -> float:
    return float(row.get("finished", 0.0))


def _latest(rows: Iterable[Json]) -> dict[str, Json]:
    latest: dict[str, Json] = {}
    for row in rows:
        if row["key"] not in latest or _when(latest[row["key"]]) <= _when(row):
            latest[row["key"]] = row
    return latest
