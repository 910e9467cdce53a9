"""Whether the cluster of a file is up: its cloud is asked by Ray, which needs the cloud's library.

A file as it comes, with placeholders, has most likely never started a cluster: where its cloud
cannot be asked, there is none. A file that a person filled in may have a cluster that is paid for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from raygrid.core.errors import ClusterError
from raygrid.core.registry import lacks

PLACEHOLDER = re.compile(r"YOUR-[A-Z]+|\bREGISTRY/")
LIBRARIES = {
    "aws": ("boto3", "boto3"),
    "gcp": ("google-api-python-client", "googleapiclient"),
}
"""The package by which Ray speaks to a cloud, and its module; an extra has the cloud's name."""
NO_HEAD = re.compile(r"Head node of cluster \(.*\) not found!")
"""How Ray says that its cloud was asked and has no such machine."""
PATIENCE_SECONDS = 60.0


def head_of(config: Path) -> str | None:
    """The address of the live head of a cluster file, None if it is not up.

    Raises ClusterError where that cannot be told of a file without placeholders.
    """
    text = config.read_text(encoding="utf-8")
    kind = _kind_of(config, text)
    if not has_credentials(kind):  # a cloud asked in vain takes minutes
        return None
    try:
        return _ask_ray(config, kind)
    except ClusterError:
        if placeholders_of(text):
            return None
        raise


def placeholders_of(text: str) -> dict[str, list[int]]:
    """The placeholders that are left in a cluster file, each with the lines where it stands."""
    left: dict[str, list[int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for word in PLACEHOLDER.findall(line.partition("#")[0]):
            left.setdefault(word, []).append(number)
    return left


def has_credentials(kind: str) -> bool:
    """Whether there are credentials for a cloud here; True for what raygrid knows nothing of."""
    home = Path.home()
    signs = {
        "aws": ("AWS_ACCESS_KEY_ID" in os.environ or "AWS_PROFILE" in os.environ, home / ".aws"),
        "gcp": ("GOOGLE_APPLICATION_CREDENTIALS" in os.environ, home / ".config" / "gcloud"),
    }
    told, folder = signs.get(kind, (True, home))
    return told or folder.exists()


def lacks_library(kind: str) -> str | None:
    """What to do where Ray cannot speak to a cloud; None where it can, or might."""
    if kind not in LIBRARIES:
        return None
    package, module = LIBRARIES[kind]
    return lacks(package, kind, module)


def _kind_of(config: Path, text: str) -> str:
    import yaml

    try:
        return str(yaml.safe_load(text)["provider"]["type"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ClusterError(f"{config} is not a cluster file: {error!r}") from None


def _ask_ray(config: Path, kind: str) -> str | None:
    """Ray's answer; raises ClusterError, with the ways to run nevertheless, if it has none."""
    lacking = lacks_library(kind)
    if lacking is not None:
        raise ClusterError(_untold(config, lacking))
    try:
        done = _ray("get-head-ip", str(config))
    except subprocess.TimeoutExpired:
        said = f"`ray get-head-ip` did not answer in {PATIENCE_SECONDS:.0f} s"
        raise ClusterError(_untold(config, said)) from None
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return lines[-1]
    if NO_HEAD.search(done.stderr):
        return None
    said = done.stderr.strip() or f"`ray get-head-ip` ended with {done.returncode}"
    raise ClusterError(_untold(config, said.splitlines()[-1]))


def _untold(config: Path, reason: str) -> str:
    return (
        f"cannot tell whether the cluster of {config} is up: {reason}; "
        "`--address local` or RAYGRID_CLUSTER=off runs on this machine"
    )


def _ray(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
