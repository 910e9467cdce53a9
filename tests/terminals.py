"""A pseudo terminal for commands, and what a person sees in it at every moment."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyte

from tests.signals import heed_signals

BEYOND = 80
"""Columns of the screen beyond those that the command is told: what is drawn there is too wide."""


@dataclass
class Seen:
    """screens: each screen that a person saw, its lines; rc: the exit status."""

    screens: list[list[str]] = field(default_factory=list)
    rc: int = -1

    @property
    def last(self) -> str:
        return "\n".join(self.screens[-1])


def watch(
    command: Sequence[str],
    environment: Mapping[str, str],
    columns: int = 80,
    answers: Mapping[str, str] | None = None,
    limit: float = 240,
) -> Seen:
    """Run a command on a terminal of so many columns; answers: what to type once a text is seen."""
    screen = pyte.HistoryScreen(columns + BEYOND, 40, history=2000)
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if not process:
        heed_signals()
        os.execvpe(command[0], list(command), dict(environment))
    size = struct.pack("HHHH", 40, columns, 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
    seen, waiting = Seen(), dict(answers or {})
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.5)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not piece:
            break
        stream.feed(piece)
        seen.screens.append([line.rstrip() for line in screen.display])
        for text in [text for text in waiting if text in "\n".join(screen.display)]:
            os.write(terminal, waiting.pop(text).encode())
    else:
        os.kill(process, 9)
    seen.rc = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    history = ["".join(row[n].data for n in range(columns + BEYOND)) for row in screen.history.top]
    seen.screens.append([line.rstrip() for line in (*history, *screen.display)])
    os.close(terminal)
    return seen
