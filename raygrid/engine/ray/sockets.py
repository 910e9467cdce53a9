"""Where Ray may keep its sockets: a socket's path has few bytes, temporary folders have long names.

Slurm and CI give each job a temporary folder of its own, deep in the tree.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from raygrid.core.errors import StartError

SOCKET_NAME_BYTES = 67
"""Bytes of a socket's path below Ray's folder: its session's name, `sockets`, the socket's own."""
SOCKET_FOLDER_BYTES = (104 if sys.platform == "darwin" else 108) - 1 - SOCKET_NAME_BYTES
"""Bytes that the path of Ray's folder may have."""
SHORT_FOLDER = Path("/tmp")


def usual_folder(env: Mapping[str, str] = os.environ) -> str:
    """Where Ray keeps its sockets by itself."""
    places = (env.get("RAY_TMPDIR"), env.get("TMPDIR") if sys.platform == "linux" else None)
    return os.path.join(next((place for place in places if place is not None), "/tmp"), "ray")


def too_long(env: Mapping[str, str] = os.environ) -> bool:
    """Whether no socket fits into Ray's usual folder."""
    return len(os.fsencode(usual_folder(env))) > SOCKET_FOLDER_BYTES


def own_folder(folder: Path) -> Path:
    """The folder, made if it is missing; raises OSError unless it is this user's alone.

    Others may have made it first where everybody writes, or may look into it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not own or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user alone")
    return folder


def short_folder() -> Path:
    """A folder for Ray that is this user's alone, short enough, the same in every run.

    Raises StartError where none can be made.
    """
    folder = SHORT_FOLDER / f"raygrid-ray-{os.getuid()}"
    try:
        return own_folder(folder)
    except OSError as error:
        why = f"{folder} cannot be made ({error.strerror})" if error.strerror else str(error)
    raise StartError(
        f"Ray does not start on this machine: no socket fits into {usual_folder()}, which has "
        f"{len(usual_folder())} characters where {SOCKET_FOLDER_BYTES} are allowed, and {why}; "
        "set RAY_TMPDIR to a short folder"
    )
