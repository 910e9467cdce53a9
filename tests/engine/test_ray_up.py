"""`ray up cluster.yaml` and `ray down` against a stand-in for AWS: all up to a machine's boot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
REGION = "us-west-2"
pytestmark = pytest.mark.cluster


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """EC2 of an account that has the two roles, and a home with a token; the client to look at it.

    moto answers as AWS does, and boots nothing.
    """
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.get_host_and_port()[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where Ray keeps what it made of the file
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("none")
    iam = boto3.client("iam")
    for role in ("raygrid-head", "raygrid-worker"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName=role)
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    yield boto3.client("ec2")
    server.stop()


def machines(ec2: Any) -> list[Mapping[str, Any]]:
    found = ec2.describe_instances()["Reservations"]
    return [machine for each in found for machine in each["Instances"]]


def until_ssh(config: Path, said: Path) -> None:
    """Run `ray up` until it waits for the new machine to answer, which it never will."""
    with said.open("w") as file:
        words = [RAY, "up", str(config), "--yes", "--no-config-cache"]
        up = subprocess.Popen(
            words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        end = time.monotonic() + 240
        while "Waiting for SSH" not in said.read_text():
            assert up.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.5)
    finally:
        os.killpg(up.pid, signal.SIGKILL)
        up.wait()


def test_one_head_starts_with_its_role_and_closed_ports_and_goes_again(
    aws: Any, tmp_path: Path
) -> None:
    config = tmp_path / "cluster.yaml"
    config.write_text((ROOT / "cluster.yaml").read_text().replace("YOUR-BUCKET", "my-bucket"))
    said = tmp_path / "said.txt"
    until_ssh(config, said)
    assert "Autoscaler v2 is now enabled" in said.read_text()

    (head,) = machines(aws)
    tags = {tag["Key"]: tag["Value"] for tag in head["Tags"]}
    assert (tags["ray-cluster-name"], tags["ray-user-node-type"]) == ("raygrid", "head")
    assert head["InstanceType"] == "m6i.2xlarge"
    assert head["IamInstanceProfile"]["Arn"].endswith("/raygrid-head")
    groups = aws.describe_security_groups(GroupIds=[g["GroupId"] for g in head["SecurityGroups"]])
    rules = [rule for group in groups["SecurityGroups"] for rule in group["IpPermissions"]]
    to_the_world = [rule for rule in rules if rule.get("IpRanges")]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in to_the_world] == [(22, 22)]

    down = subprocess.run(
        [RAY, "down", str(config), "--yes"], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert "No nodes remaining" in down.stdout + down.stderr
    assert [machine["State"]["Name"] for machine in machines(aws)] == ["terminated"]
