"""The batch script of a grid: what it asks of Slurm, and the one command that the job runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raygrid.core.errors import SpecError

NOTICE_SECONDS = 300
"""Seconds before its end at which a job is told of it, unless the request says otherwise."""
CPUS_PER_GPU = 8
"""CPUs asked for with each GPU: as many trials as may share one, each with a CPU of its own."""
SLURM_TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}")
SLURM_NAME = re.compile(r"[^\s#]+")
SLURM_MEMORY = re.compile(r"\d+[KMGT]?")
SCRIPT_TEMPLATE = """\
#!/bin/bash
# A raygrid grid as a Slurm job: Ray starts on every node of the job, the command runs on the first.
#
{line}
#
# submits it, and shows it with --print. Change what you like and submit it with `sbatch`.
{directives}

# The job has the environment of the shell that submits it. Activate a virtual environment before,
# or here, with the modules that your cluster needs:
# module load cuda; source .venv/bin/activate

exec python -m raygrid.engine.slurm.job --notice {notice} -- {command}
"""


@dataclass(frozen=True)
class SlurmRequest:
    """What a job asks of Slurm; None and empty leave it to the cluster's own defaults.

    Raises SpecError that names a value which Slurm would not understand.

    nodes: of one job. gpus_per_node: GPUs of each node. cpus_per_node: CPUs of each node; by
    default eight for each GPU, and the whole node where no GPU is asked for. memory: of each node,
    as Slurm writes it (64G; megabytes without a letter). time: until the job is ended, as Slurm
    writes it (8:00:00, 2-12:00, minutes). array: so many independent jobs of one node that share
    the grid, 0 for a single job. notice: seconds before the end at which the job saves its state
    and is queued again. more: further options of `sbatch`, as they are written there.
    """

    nodes: int = 1
    gpus_per_node: int = 0
    cpus_per_node: int | None = None
    memory: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    array: int = 0
    name: str = "raygrid"
    notice: int = NOTICE_SECONDS
    more: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.array and self.nodes != 1:
            raise SpecError(
                f"nodes is {self.nodes}, but jobs of an array have one node each; give --array "
                "alone, or --nodes alone for one job over several nodes"
            )
        if self.time is not None and not SLURM_TIME.fullmatch(self.time):
            raise SpecError(f"time is {self.time!r}, allowed are 8:00:00, 2-12:00 or minutes")
        if self.memory is not None and not SLURM_MEMORY.fullmatch(self.memory):
            raise SpecError(f"memory is {self.memory!r}, allowed are 64G, 64000M or megabytes")
        for name in ("name", "partition", "account", "qos"):
            value = getattr(self, name)
            if value is not None and not SLURM_NAME.fullmatch(value):
                raise SpecError(f"{name} is {value!r}, allowed is one word")
        for word in self.more:
            if not word.startswith("-") or "\n" in word:
                raise SpecError(f"sbatch option {word!r} does not begin with -, as --qos=high does")

    def _check_numbers(self) -> None:
        least = {"nodes": 1, "gpus_per_node": 0, "cpus_per_node": 1, "array": 0, "notice": 30}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise SpecError(f"{name} is {value}, allowed are whole numbers from {lowest}")

    @property
    def cpus(self) -> int | None:
        """CPUs of each node; None for the whole node."""
        if self.cpus_per_node is None and self.gpus_per_node:
            return CPUS_PER_GPU * self.gpus_per_node
        return self.cpus_per_node

    def directives(self) -> Iterator[str]:
        """The options of `sbatch`, one each."""
        yield f"--job-name={self.name}"
        if self.array:
            yield f"--array=0-{self.array - 1}"
        yield f"--nodes={self.nodes}"
        yield "--ntasks-per-node=1"
        if self.gpus_per_node:
            yield f"--gpus-per-node={self.gpus_per_node}"
        yield f"--cpus-per-task={self.cpus}" if self.cpus else "--exclusive"
        given = {"mem": self.memory, "time": self.time, "partition": self.partition}
        given |= {"account": self.account, "qos": self.qos}
        yield from (f"--{word}={value}" for word, value in given.items() if value)
        # Told in time, a job saves its state and is queued again; so is one whose node fails.
        yield from ("--requeue", f"--signal=B:USR1@{self.notice}", "--open-mode=append")
        yield f"--output={'raygrid-%A_%a.log' if self.array else 'raygrid-%j.log'}"
        yield from self.more


def batch_script(request: SlurmRequest, command: Sequence[str], line: Sequence[str]) -> str:
    """The script that runs a command in a job. line: the words that asked for it, for a person.

    Raises SpecError if there is no command.
    """
    if not command:
        raise SpecError("there is no command; write it behind --, as in `-- raygrid run ...`")
    directives = "\n".join(f"#SBATCH {word}" for word in request.directives())
    told = "\n".join(f"#   {part}" for part in shlex.join(line).splitlines())
    words = {"line": told, "command": shlex.join(command)}
    return SCRIPT_TEMPLATE.format(directives=directives, notice=request.notice, **words)
