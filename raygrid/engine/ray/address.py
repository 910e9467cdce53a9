"""Whether anything is where a Ray cluster is said to be; Ray itself waits minutes for it."""

from __future__ import annotations

import re
import socket

from raygrid.core.errors import ClusterError
from raygrid.core.retry import retried, until

PATIENCE = 5.0  # seconds that a head may take to listen


def check_port(address: str) -> None:
    """Raise ClusterError, within seconds, unless the port of `host:port` takes connections.

    Other addresses, such as `auto`, are for Ray to judge.
    """
    found = re.fullmatch(r"\[?([^/\[\]]+)\]?:(\d{1,5})", address)
    if found is None:
        return
    place = found[1], int(found[2])

    def knock() -> None:
        socket.create_connection(place, PATIENCE).close()

    try:
        retried(knock, until(PATIENCE, 0.5), lambda error: isinstance(error, OSError))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ClusterError(f"Ray on {address} does not answer: {why}") from None
