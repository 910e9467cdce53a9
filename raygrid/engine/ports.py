"""Ports for servers and tunnels that an engine opens."""

from __future__ import annotations

import socket


def free_port(host: str = "") -> int:
    """A port that nobody has at the moment, at all addresses of this machine or at one."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
