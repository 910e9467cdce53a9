"""`raygrid submit slurm`: a command as a Slurm job, with Ray on the nodes that the job gets."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raygrid.core.errors import SpecError, unknown
from raygrid.engine.slurm.script import CPUS_PER_GPU, NOTICE_SECONDS, SlurmRequest, batch_script
from raygrid.engine.slurm.submission import submit_script

CLUSTERS = ("slurm",)


def add_submit(commands: Any) -> None:
    """The command `raygrid submit`, among the others of a parser."""
    text = "Run a command as a job of a Slurm cluster."
    usage = "raygrid submit slurm [options] -- COMMAND"
    parser = commands.add_parser("submit", help=text, description=text, usage=usage)
    parser.set_defaults(command=submit)
    parser.add_argument("cluster", help="slurm")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--print", action="store_true", dest="show", help="show the script only")
    group = parser.add_argument_group("resources (of a job)")
    group.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes (1)")
    group.add_argument("--gpus-per-node", type=int, default=0, metavar="N", help="GPUs of each (0)")
    group.add_argument(
        "--cpus-per-node",
        type=int,
        metavar="N",
        help=f"CPUs of each ({CPUS_PER_GPU} for each GPU; without GPUs the whole node)",
    )
    group.add_argument("--memory", metavar="SIZE", help="memory of each, e.g. 64G")
    group.add_argument("--time", metavar="TIME", help="time limit of the job, e.g. 8:00:00")
    group.add_argument("--partition", metavar="NAME", help="Slurm's partition")
    group.add_argument("--account", metavar="NAME", help="Slurm's account, which pays")
    group.add_argument("--qos", metavar="NAME", help="Slurm's quality of service")
    group.add_argument(
        "--array",
        type=int,
        default=0,
        metavar="N",
        help="N jobs of one node each that share the grid, where Ray may not span nodes",
    )
    group.add_argument("--name", default="raygrid", help="name of the job (%(default)s)")
    group.add_argument(
        "--notice",
        type=int,
        default=NOTICE_SECONDS,
        metavar="SECONDS",
        help="how long before its time limit a job saves and queues again (%(default)s)",
    )
    group.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="any other option of sbatch, e.g. --sbatch=--constraint=a100",
    )


def request_of(args: argparse.Namespace) -> SlurmRequest:
    """What was asked for; raises SpecError."""
    return SlurmRequest(
        nodes=args.nodes,
        gpus_per_node=args.gpus_per_node,
        cpus_per_node=args.cpus_per_node,
        memory=args.memory,
        time=args.time,
        partition=args.partition,
        account=args.account,
        qos=args.qos,
        array=args.array,
        name=args.name,
        notice=args.notice,
        more=tuple(args.sbatch),
    )


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of `raygrid submit` and, behind `--`, those of the command that it submits."""
    words = list(argv)
    if words[:1] != ["submit"] or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def submit(args: argparse.Namespace) -> int:
    """Write the script, and show or submit it."""
    if args.cluster not in CLUSTERS:
        raise SpecError(unknown("cluster", args.cluster, CLUSTERS))
    line = ["raygrid", *(word for word in args.line if word != "--print"), "--", *args.words]
    script = batch_script(request_of(args), args.words, line)
    if args.show:
        sys.stdout.write(script)
        return 0
    job = submit_script(script, Path.cwd())
    log = f"raygrid-{job}_*.log" if args.array else f"raygrid-{job}.log"
    if args.json:
        print(json.dumps({"job": job, "log": log}))
    else:
        print(f"job {job} is queued; its words come to {log}, `scancel {job}` takes it back")
    return 0
