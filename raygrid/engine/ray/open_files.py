"""How many files Ray has to have open: where fewer are allowed its processes wait for ever."""

from __future__ import annotations

import resource

from raygrid.core.errors import StartError

RAY_FILES, FILES_PER_WORKER = 96, 4
"""Open files of Ray's largest process with no worker, and more for each; one worker: 83 in all.

With 128 allowed a grid runs through, with 56 its driver waits without a word.
"""


def check_open_files(cpus: int) -> None:
    """Raise StartError, with what to raise, where Ray on so many CPUs may not open enough files.

    The hard limit counts: Ray raises the soft one to it.
    """
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = RAY_FILES + FILES_PER_WORKER * cpus
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise StartError(
            f"Ray does not start on this machine: a process may have {allowed} files open, and "
            f"Ray on {cpus} CPUs needs {needed}; raise the limit (`ulimit -Hn 4096`, LimitNOFILE "
            "of a service) or use --executor inline"
        )
