"""Where MLflow is, and whether a server answers there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import urlopen

from raygrid.core.errors import TrackingError
from raygrid.core.ports import why_closed
from raygrid.core.secrets import shown, without_secrets

SERVER_SCHEMES = ("http", "https", "databricks")
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
DATABASE_SCHEMES = ("sqlite", *DATABASE_PORTS)
_SQLITE = "sqlite:///"
SQLITE_HEADER = b"SQLite format 3\0"
ALLOWED_ADDRESSES = "give http(s)://host:port of a server, or a database such as sqlite:///path"


def store_uri(out: Path, uri: str | None = None) -> str:
    """The given address, else MLFLOW_TRACKING_URI, else a database in the folder of the run.

    Raises TrackingError if the address cannot be one of a server or database.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return sqlite_uri(out.absolute() / "mlflow.db")
    split_uri(uri)
    path = database_path(uri)
    return uri if path is None else sqlite_uri(path) + "".join(uri.partition("?")[1:])


def sqlite_uri(path: Path) -> str:
    """The address of a database file, whatever its name holds.

    SQLAlchemy reads percent signs and question marks in addresses. A quoted address has its slashes
    quoted too, because MLflow makes the folders that an address seems to name, unquoted.
    """
    text = str(path)
    return f"{_SQLITE}{quote(text, safe='') if re.search('[%?#]', text) else text}"


def database_path(uri: str) -> Path | None:
    """The absolute path of the file of an SQLite address; None for other stores."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0])).absolute()


def split_uri(uri: str) -> SplitResult:
    """The pieces of an address; raises TrackingError for a malformed one and for a file store."""
    seen = shown(uri)
    try:
        parts = urlsplit(uri)
        _ = parts.port  # parsed on first use
    except ValueError:  # whose words may hold a piece of a password
        raise TrackingError(f"MLflow address {seen!r} is malformed; {ALLOWED_ADDRESSES}") from None
    kind = parts.scheme.partition("+")[0]
    if kind in ("", "file"):
        raise TrackingError(
            f"MLflow address {seen!r} is a file store, which MLflow no longer supports; "
            f"{ALLOWED_ADDRESSES}"
        )
    if kind not in (*SERVER_SCHEMES, *DATABASE_SCHEMES):
        raise TrackingError(
            f"MLflow address {seen!r} has the unknown kind {kind!r}; {ALLOWED_ADDRESSES}"
        )
    named = uri.removeprefix("sqlite:///") if kind == "sqlite" else parts.hostname
    if kind != "databricks" and (not named or named == uri):
        raise TrackingError(f"MLflow address {seen!r} names no host or file; {ALLOWED_ADDRESSES}")
    return parts


def check_address(uri: str, timeout: float = 5.0) -> None:
    """Raise TrackingError for an address where nothing can be; writes nothing.

    A server has to answer, and so has the port of a database; the file of an SQLite database, if it
    is not there, has to have a folder in which it can be made.
    """
    parts = split_uri(uri)
    path = database_path(uri)
    if path is not None:
        _check_file(path)
    if parts.scheme in ("http", "https"):
        plain = uri.replace(parts.netloc, parts.netloc.rpartition("@")[2])  # no credentials
        check_health(plain.rstrip("/"), timeout)
    elif parts.hostname and path is None and parts.scheme != "databricks":
        _check_port(
            parts.hostname, parts.port or DATABASE_PORTS[parts.scheme.partition("+")[0]], timeout
        )


def _check_port(host: str, port: int, timeout: float) -> None:
    why = why_closed(host, port, timeout=timeout)
    if why is not None:
        raise TrackingError(
            f"MLflow's database at {host}:{port} does not answer ({why}); start it, or correct the "
            "address"
        )


def _check_file(path: Path) -> None:
    place = next(each for each in (path, *path.parents) if each.exists())
    if place == path:
        good, what = _is_database(path), "SQLite database"
    else:
        good, what = place.is_dir() and os.access(place, os.W_OK | os.X_OK), "folder to write to"
    if not good:
        raise TrackingError(
            f"MLflow at {path} cannot be used: {place} is no {what}; {ALLOWED_ADDRESSES}"
        )


def _is_database(path: Path) -> bool:
    """Whether a file begins as SQLite's do; an empty one becomes a database."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SQLITE_HEADER)) in (b"", SQLITE_HEADER)


def check_health(uri: str, timeout: float) -> None:
    """Raise TrackingError unless a server at `uri` says that it is well."""
    try:
        with urlopen(f"{uri}/health", timeout=timeout):
            return
    except HTTPError as error:
        if error.code == 401:  # it wants a login, which the client sends and this question does not
            return
        hint = "is it MLflow?"
        if error.code == 403:
            hint = f"start it with --allowed-hosts {urlsplit(uri).netloc}"
        raise TrackingError(f"the server at {uri} answers {error.code}; {hint}") from None
    except OSError as error:
        why = error.reason if isinstance(error, URLError) else error
        raise TrackingError(
            f"MLflow at {uri} does not answer ({why}); start the server, correct "
            f"MLFLOW_TRACKING_URI, or unset it to log into the folder of the run"
        ) from None


def without_credentials(error: Exception) -> str:
    """An error as one line without the credentials that an address may hold.

    Of a database's error, that is the line that names the driver's one.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    line = next((line for line in lines if re.match(r"\(\w+\.\w+\) ", line)), lines[0])
    return without_secrets(line)
