"""How a command ends: a line for a person, an exit status, what it holds given back."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

from raygrid.core.errors import Moving, RaygridError, in_one_line
from raygrid.core.secrets import without_secrets
from raygrid.engine import notice
from raygrid.storage.store import remove_unused


def guarded(action: Any) -> int:
    """Run a command: one line for errors meant for a person, a clean end on Ctrl-C.

    The same where it is ended from outside or its terminal is closed, unless `nohup` says no. A
    second Ctrl-C does not cut the clean end short, a third one ends at once. SIGUSR1 says that
    this process has to go soon: it saves what it runs and ends with `SAVED_EXIT_STATUS`.
    """
    _ready_streams()
    signal.signal(signal.SIGTERM, _interrupt)
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a shell has it for what runs behind
            signal.signal(number, _interrupt)
    notice.listen()
    try:
        return int(action())
    except RaygridError as error:
        return _refuse(str(error))
    except Moving:
        print(
            "everything that ran is saved; run the same command again to continue", file=sys.stderr
        )
        return notice.SAVED_EXIT_STATUS
    except BrokenPipeError:  # whoever read the output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # of a path that a person gave, or of a disk
        place = f": {error.filename}" if error.filename else ""
        return _refuse(f"{error.strerror or in_one_line(error)}{place}")
    except KeyboardInterrupt:
        print(
            "stopped; what is finished is kept; run the same command again to continue",
            file=sys.stderr,
        )
        return 130


def _ready_streams() -> None:
    """What is printed goes somewhere: letters that the output has not as `?`, all if it is shut."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _refuse(message: str) -> int:
    remove_unused()
    print(f"raygrid: {without_secrets(message)}", file=sys.stderr)
    return 2


def _interrupt(signum: int, frame: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):  # another one would cut the clean end short
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, _again)
    raise KeyboardInterrupt


def _again(signum: int, frame: Any) -> None:
    """Who presses Ctrl-C again is told, and may then end at once what does not come to its end."""
    os.write(2, b"ending in order; Ctrl-C once more ends at once\n")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
