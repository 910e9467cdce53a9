"""Whether anything is where a Ray cluster is said to be; Ray itself waits minutes for it."""

from __future__ import annotations

import re

from raygrid.core.errors import ClusterError
from raygrid.core.ports import why_closed

LISTEN_SECONDS = 5.0  # seconds that a head may take to listen


def check_port(address: str) -> None:
    """Raise ClusterError, within seconds, unless the port of `host:port` takes connections.

    Other addresses, such as `auto`, are for Ray to judge.
    """
    found = re.fullmatch(r"\[?([^/\[\]]+)\]?:(\d{1,5})", address)
    if found is None:
        return
    why = why_closed(found[1], int(found[2]), LISTEN_SECONDS)
    if why is not None:
        raise ClusterError(f"Ray on {address} does not answer: {why}")
