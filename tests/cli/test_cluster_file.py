"""`raygrid doctor --cluster`: what a cluster file lacks, in lines that a person can act on."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from raygrid.cli.cluster_file import examine_cluster
from raygrid.cli.main import main
from raygrid.core.errors import DataError
from raygrid.engine.ray.head import LIBRARIES

ROOT = Path(__file__).parents[2]
AWS = ROOT / "cluster.yaml"
GCP = ROOT / "experiments" / "clusters" / "gcp.yaml"
KUBERAY = ROOT / "experiments" / "clusters" / "kuberay.yaml"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person without credentials or a token, in the root of the checkout."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    return tmp_path


def found(path: Path) -> dict[str, tuple[str, str]]:
    return {check.name: (check.state, check.text) for check in examine_cluster(path)}


def changed(tmp_path: Path, *pairs: tuple[str, str], path: Path = AWS) -> Path:
    text = path.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    made = tmp_path / "changed.yaml"
    made.write_text(text)
    return made


def test_the_file_as_it_comes_asks_for_what_is_missing() -> None:
    checks = found(AWS)
    lines = AWS.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if "YOUR-BUCKET" in line)
    said = f"put in YOUR-BUCKET (the bucket for results; line {number})"
    assert checks["placeholders"] == ("fault", said)
    assert checks["credentials"] == ("fault", "none for aws; run `aws configure`")
    assert checks["schema"][0] == checks["cluster name"][0] == "ok"
    missing = [c.text for c in examine_cluster(AWS) if c.name == "file" and c.state == "fault"]
    assert missing == [
        "~/.ray/auth_token is not there; make it with `ray get-auth-token --generate`"
    ]


def test_a_person_who_has_all_of_it_is_told_so(tmp_path: Path, home: Path) -> None:
    (home / ".aws").mkdir()
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").touch()
    ready = changed(tmp_path, ("YOUR-BUCKET", "my-lab.grid"))
    assert {c.state for c in examine_cluster(ready)} == {"ok", "note"}
    assert found(ready)["store"] == ("ok", "s3://my-lab.grid")
    quotas = [c.text for c in examine_cluster(ready) if c.name == "quota"]
    assert quotas[0] == (
        "12 of g5.xlarge; AWS's quota is called 'All G and VT Spot Instance Requests'"
    )


@pytest.mark.parametrize("path", [AWS, GCP], ids=lambda p: p.name)
def test_a_cloud_that_ray_cannot_speak_to_is_a_fault_that_names_the_extra(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray up` ended with a traceback after all was said to be ready."""
    kind = yaml.safe_load(path.read_text())["provider"]["type"]
    package, _ = LIBRARIES[kind]
    monkeypatch.setitem(LIBRARIES, kind, (package, "no_such_module"))
    lacking = f"needs the package {package}: `uv run --extra {kind} ...`, or pip install {package}"
    assert found(path)["library"] == ("fault", lacking)
    monkeypatch.setitem(LIBRARIES, kind, (package, "yaml"))
    assert found(path)["library"] == ("ok", f"{package} is installed")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [word.partition(">=")[0] for word in extras["optional-dependencies"][kind]] == [package]


def test_it_is_said_whether_a_token_will_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = changed(tmp_path, ("RAY_AUTH_MODE=token ", ""))
    assert found(AWS)["token"] == ("ok", "commands send it (RAY_AUTH_MODE=token), as its head asks")
    assert found(open_)["token"][0] == "note"
    told = "its head asks for one; `export RAY_AUTH_MODE=token` before a command"
    assert found(KUBERAY)["token"] == ("note", told)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert found(AWS)["token"] == (
        "fault",
        "RAY_AUTH_MODE is 'disabled' here, but its head asks for a token: unset it",
    )
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert found(KUBERAY)["token"] == ("ok", "its head asks for one; commands send it")


def test_the_roles_of_the_file_have_their_rights_in_the_documentation() -> None:
    said = [check.text for check in examine_cluster(AWS) if check.name == "role"]
    assert said == [
        f"{role} has to be in the account, with the rights that docs/clusters.md lists; it is not "
        "asked"
        for role in ("raygrid-head", "raygrid-worker", "raygrid-worker")
    ]
    page = (ROOT / "docs" / "clusters.md").read_text()
    rights = page.partition("- `raygrid-head`")[2].partition("- `raygrid-worker`")[0]
    for right in ("ec2:RunInstances", "iam:PassRole", "ssm:GetParameters", "s3:ListBucket"):
        assert right in rights


@pytest.mark.parametrize("bucket", ["My-Bucket", "a", "x" * 64, "a..b", "-ab", "a_b"])
def test_a_bucket_that_cannot_be_is_named(bucket: str, tmp_path: Path) -> None:
    state, text = found(changed(tmp_path, ("YOUR-BUCKET", bucket)))["store"]
    assert state == "fault"
    assert text.startswith(f"{bucket!r} is no bucket's name, allowed are 3 to 63 of a-z")


def test_a_misspelt_word_and_a_wrong_name_are_found(tmp_path: Path) -> None:
    words = (("max_workers: 16", "max_wokers: 16"), ("cluster_name: raygrid", "cluster_name: 1 x"))
    checks = found(changed(tmp_path, *words))
    assert checks["schema"][0] == "fault"
    assert "max_wokers" in checks["schema"][1]
    assert checks["cluster name"][0] == "fault"


def test_the_pods_need_the_ray_that_is_here(tmp_path: Path) -> None:
    assert found(KUBERAY)["Ray"][0] == "ok"
    assert "REGISTRY/ (where the image is" in found(KUBERAY)["placeholders"][1]
    old = changed(tmp_path, ('rayVersion: "2.60.0"', 'rayVersion: "2.9.0"'), path=KUBERAY)
    assert found(old)["Ray"][0] == "fault"


@pytest.mark.parametrize("text", ["- 1\n", "a: [", "", "\x00"])
def test_any_other_file_is_one_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=str(path)) as caught:
        examine_cluster(path)
    assert "\n" not in str(caught.value)


def test_the_command_says_it_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--cluster", "cluster.yaml", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert {"name": "placeholders", "state": "fault"}.items() <= rows[0].items()
    assert main(["doctor", "--cluster", "nothing.yaml"]) == 2
    assert "cannot read nothing.yaml: No such file" in capsys.readouterr().err
