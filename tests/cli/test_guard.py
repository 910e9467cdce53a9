"""Signals that come while a command gives back what it holds do not cut that short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.signals import heed_signals

SCRIPT = """
import sys, time
from raygrid.cli.guard import guarded

def action():
    try:
        print("working", flush=True)
        time.sleep(600)
    finally:
        print("ending", flush=True)
        for _ in range(int(sys.argv[1])):
            time.sleep(0.1)
        print("ended", flush=True)

sys.exit(guarded(action))
"""
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
OTHERS = ((INT,), (TERM, TERM, HUP), (HUP, INT), (INT, TERM))


@pytest.fixture
def command(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A command that works; its end takes so many tenths of a second."""
    words = [sys.executable, "-c", SCRIPT, str(request.param)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_signals
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        yield process
        process.kill()


def send(command: subprocess.Popen[str], first: signal.Signals, *more: signal.Signals) -> None:
    """The first signal; the others while the command ends."""
    assert command.stdout is not None
    command.send_signal(first)
    assert command.stdout.readline() == "ending\n"
    for number in more:
        command.send_signal(number)


@pytest.mark.parametrize("command", [10], indirect=True)
@pytest.mark.parametrize(
    "signals",
    [(INT, INT), *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)],
    ids=str,
)
def test_a_command_ends_in_order(
    command: subprocess.Popen[str], signals: tuple[signal.Signals, ...]
) -> None:
    send(command, *signals)
    out, said = command.communicate(timeout=60)
    assert out == "ended\n"
    assert command.returncode == 130
    last = said.splitlines()[-1]
    assert last == "stopped; what is finished is kept; run the same command again to continue"
    assert ("Ctrl-C once more ends at once" in said) is (INT in signals[1:])


@pytest.mark.slow
@pytest.mark.parametrize("command", [6000], indirect=True)
def test_who_presses_three_times_ends_at_once_what_does_not_come_to_its_end(
    command: subprocess.Popen[str],
) -> None:
    send(command, INT, INT)
    assert command.stderr is not None
    assert command.stderr.readline() == "ending in order; Ctrl-C once more ends at once\n"
    command.send_signal(INT)
    assert command.wait(60) == -INT


def test_letters_that_an_output_has_not_end_no_command() -> None:
    code = "from raygrid.cli.guard import guarded; guarded(lambda: print('5 \u2013 6 \u2192') or 0)"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"5 ? 6 ?\n", b"")


def test_an_output_that_is_shut_ends_no_command() -> None:
    line = f"{sys.executable} -m raygrid list datasets >&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
