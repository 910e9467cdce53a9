"""Is a cluster file ready? What can be told of it here; nothing is sent and nothing started."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from raygrid.cli.doctor import Check
from raygrid.core.errors import DataError, RaygridError
from raygrid.engine.ray.head import (
    LIBRARIES,
    PLACEHOLDER,
    has_credentials,
    lacks_library,
    placeholders_of,
)

PLACEHOLDER_MEANINGS = {
    "YOUR-BUCKET": "the bucket for results",
    "YOUR-PROJECT": "the cloud project",
    "REGISTRY/": "where the image is",
}
BUCKET_ADDRESS = re.compile(r"\b(s3|gs)://([^/\s'\"]+)")
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
CLUSTER_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
QUOTAS = {
    "g": "All G and VT Spot Instance Requests",
    "p": "All P Spot Instance Requests",
    "t": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
}
"""AWS's names for what it lets an account have of machines by the first letter of their type."""
NEEDED_RIGHTS = "with the rights that docs/clusters.md lists"


def examine_cluster(path: Path) -> list[Check]:
    """All findings about a file of `ray up`, KubeRay or SkyPilot; others raise DataError."""
    try:
        text = path.read_text(encoding="utf-8")
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not documents or not all(isinstance(each, dict) for each in documents):
        raise DataError(f"{path} is no cluster file: it holds no mapping")
    found = [_placeholders(text), _bucket(text)]
    if "apiVersion" in documents[0]:
        return [*found, _kuberay(documents), *_pods_token(documents)]
    config = documents[0]
    if "run" in config:
        return [*found, _skypilot(config)]
    found += [_schema(config), _name(config), *_library(config), _credentials(config)]
    return [*found, _token(config), *_mounts(config), *_quotas(config)]


def _placeholders(text: str) -> Check:
    """All of them in one line, each with where it stands and what it stands for."""
    left = placeholders_of(text)
    if not left:
        return Check("placeholders", "ok", "none is left")
    named = (
        f"{word} ({PLACEHOLDER_MEANINGS.get(word, 'yours')}; line {', '.join(map(str, numbers))})"
        for word, numbers in left.items()
    )
    return Check("placeholders", "fault", f"put in {' and '.join(named)}")


def _bucket(text: str) -> Check:
    """The address of the store, by the rules that S3 and Google Cloud have for names."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    found = [match for line in lines for match in BUCKET_ADDRESS.finditer(line)]
    if not found:
        return Check("store", "note", "no RAYGRID_STORE: what a lost head had is lost")
    for bucket in (match[2] for match in found):
        if PLACEHOLDER.fullmatch(bucket):
            return Check("store", "note", f"{bucket} is to be replaced")
        if ".." in bucket or not BUCKET_NAME.fullmatch(bucket):
            allowed = "3 to 63 of a-z, 0-9, - and ., a letter or digit at both ends"
            return Check("store", "fault", f"{bucket!r} is no bucket's name, allowed are {allowed}")
    return Check("store", "ok", found[0][0])


def _schema(config: dict[str, Any]) -> Check:
    from raygrid.engine.ray.private import check_cluster_config

    try:
        check_cluster_config(config)
    except RaygridError as error:
        return Check("schema", "fault", str(error))
    return Check("schema", "ok", "the installed Ray takes it")


def _name(config: dict[str, Any]) -> Check:
    name = str(config.get("cluster_name", ""))
    if not CLUSTER_NAME.fullmatch(name):
        allowed = "a-z, 0-9 and -, with a letter first"
        return Check("cluster name", "fault", f"{name!r}, allowed are {allowed}")
    return Check("cluster name", "ok", name)


def _library(config: dict[str, Any]) -> Iterator[Check]:
    """Whether `ray up` can speak to a cloud of which raygrid knows what that takes."""
    kind = str(config.get("provider", {}).get("type", ""))
    lacking = lacks_library(kind)
    if lacking is not None:
        yield Check("library", "fault", lacking)
    elif kind in LIBRARIES:
        yield Check("library", "ok", f"{LIBRARIES[kind][0]} is installed")


def _credentials(config: dict[str, Any]) -> Check:
    kind = str(config.get("provider", {}).get("type", ""))
    if has_credentials(kind):
        return Check("credentials", "ok", f"there are some for {kind}; they were not tried")
    ways = {"aws": "aws configure", "gcp": "gcloud auth application-default login"}
    return Check("credentials", "fault", f"none for {kind}; run `{ways.get(kind, kind)}`")


def _token(config: dict[str, Any]) -> Check:
    """Whether a command that finds this cluster up will send its token, as the head asks."""
    from raygrid.engine.ray.sign_in import AUTH_MODE, asks_for_token, token_is_sent

    if not asks_for_token(config):
        return Check("token", "note", "its head asks for none: who reaches its port may run code")
    if AUTH_MODE in os.environ and not token_is_sent():
        given = os.environ[AUTH_MODE]
        text = f"{AUTH_MODE} is {given!r} here, but its head asks for a token: unset it"
        return Check("token", "fault", text)
    return Check("token", "ok", f"commands send it ({AUTH_MODE}=token), as its head asks")


def _pods_token(documents: list[dict[str, Any]]) -> Iterator[Check]:
    """An address says nothing of a token, so the person has to."""
    from raygrid.engine.ray.sign_in import AUTH_MODE, token_is_sent

    options = [(each.get("spec") or {}).get("authOptions") or {} for each in documents]
    if any(each.get("mode") == "token" for each in options):
        sent = token_is_sent()
        text = "commands send it" if sent else f"`export {AUTH_MODE}=token` before a command"
        yield Check("token", "ok" if sent else "note", f"its head asks for one; {text}")


def _mounts(config: dict[str, Any]) -> Iterator[Check]:
    """What is copied to the machines has to be here, the token first of all."""
    for source in (config.get("file_mounts") or {}).values():
        there = Path(os.path.expanduser(str(source))).exists()
        hint = "; make it with `ray get-auth-token --generate`" if "auth_token" in source else ""
        text = str(source) if there else f"{source} is not there{hint}"
        yield Check("file", "ok" if there else "fault", text)


def _quotas(config: dict[str, Any]) -> Iterator[Check]:
    """What the account must be allowed to have, by the cloud's own words; it is not asked."""
    for name, node in (config.get("available_node_types") or {}).items():
        facts = node.get("node_config") or {}
        kind = str(facts.get("InstanceType") or facts.get("machineType") or "")
        count = node.get("max_workers", 1)
        spot = bool(facts.get("InstanceMarketOptions"))
        quota = QUOTAS.get(kind[:1], QUOTAS["t"]) if spot else ""
        words = f"{count} of {kind}" + (f"; AWS's quota is called {quota!r}" if quota else "")
        if name != config.get("head_node_type"):
            yield Check("quota", "note", words)
        role = (facts.get("IamInstanceProfile") or {}).get("Name")
        if role:
            yield Check(
                "role", "note", f"{role} has to be in the account, {NEEDED_RIGHTS}; it is not asked"
            )


def _kuberay(documents: list[dict[str, Any]]) -> Check:
    """The pods' Ray has to be the one that is installed here: they talk to each other."""
    from importlib.metadata import version

    cluster = next((each for each in documents if each.get("kind") == "RayCluster"), None)
    if cluster is None:
        return Check("schema", "fault", "there is no RayCluster in it")
    there, here = str((cluster.get("spec") or {}).get("rayVersion")), version("ray")
    same = there == here
    text = f"rayVersion is {there}, installed here is {here}"
    return Check("Ray", "ok" if same else "fault", text)


def _skypilot(config: dict[str, Any]) -> Check:
    """SkyPilot's own judgment of its task, where it is installed; nothing of it is sent."""
    try:
        import sky
    except ImportError:
        text = "SkyPilot is not installed here, so its words were not checked"
        return Check("schema", "note", text)
    secrets = dict.fromkeys(config.get("secrets") or {}, "given when it is launched")
    try:
        sky.Task.from_yaml_config({**config, "secrets": secrets})
    except Exception as error:  # its errors have no common kind
        return Check("schema", "fault", " ".join(str(error).split()))
    return Check("schema", "ok", "the installed SkyPilot takes it")
