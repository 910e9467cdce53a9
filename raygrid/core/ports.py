"""Whether anything listens where a server is said to be; its own client may wait minutes for it."""

from __future__ import annotations

import socket

from raygrid.core.retry import retried, until

TIMEOUT = 5.0  # seconds of a try


def why_closed(host: str, port: int, patience: float = 0.0, timeout: float = TIMEOUT) -> str | None:
    """Why a port takes no connections, None if it does. patience: seconds to try again in."""

    def knock() -> None:
        socket.create_connection((host, port), timeout).close()

    try:
        retried(knock, until(patience, 0.5), lambda error: isinstance(error, OSError))
    except (OSError, OverflowError) as error:  # the latter of a number that is no port
        return str(getattr(error, "strerror", None) or error)
    return None
