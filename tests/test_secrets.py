"""Whatever a person gets wrong in an address, its password is not in the answer."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from raygrid.cli import doctor
from raygrid.cli.main import main
from raygrid.core.errors import RaygridError
from raygrid.core.options import Options
from raygrid.core.secrets import shown, without_secrets
from raygrid.engine.ray import dashboard
from raygrid.storage.mirrored import open_store
from raygrid.tracking.mlflow import check_tracking
from raygrid.tracking.mlflow.address import store_uri, without_credentials

SECRET = "Planted7f3a"
USERS = [f"me:{SECRET}@", f"me:x/{SECRET}@", f"me:x#{SECRET}@", f"me:x@{SECRET}@"]
USERS += [f"me:x?{SECRET}@", f"{SECRET}@", f"me:{SECRET} y@"]
QUERIES = [f"?password={SECRET}", f"?user=me&password={SECRET}", f"?a=b;sslpassword={SECRET}"]
QUERIES += [f"?token={SECRET}", f"?access_key={SECRET}", f"?X-Amz-Signature={SECRET}"]
PLACES = ["127.0.0.1:1", "127.0.0.1:port", "", "[::1", "127.0.0.1:1/db"]


def addresses(*kinds: str) -> list[str]:
    """All forms: with a user or a query, of a host that is right, none or malformed."""
    with_user = [f"{k}://{u}{p}" for k in kinds for u in USERS for p in PLACES]
    with_query = [f"{k}://{p}{q}" for k in kinds for p in PLACES for q in QUERIES]
    return with_user + with_query


def said(action: Callable[[], Any]) -> str:
    """The one error that a person is told."""
    with pytest.raises(RaygridError) as error:
        action()
    return str(error.value)


@pytest.mark.parametrize("kind", ["ftp", "file", "nonsense+x", "http"])
def test_no_answer_about_an_address_of_mlflow_repeats_its_password(kind: str) -> None:
    tried = 0
    for address in addresses(kind):
        try:
            store_uri(Path("x"), address)
        except RaygridError as error:
            assert SECRET not in str(error), address
            tried += 1
    assert tried >= 20


def test_an_address_without_a_kind_is_hidden_too(tmp_path: Path) -> None:
    assert SECRET not in said(lambda: store_uri(tmp_path, f"me:{SECRET}@127.0.0.1:5000"))


@pytest.mark.parametrize("user", ["", f"me:{SECRET}@", f"me:1/{SECRET}@"])
@pytest.mark.parametrize(
    "kind",
    [
        "http",
        pytest.param("postgresql+nodriver", marks=pytest.mark.slow),  # imports MLflow
        pytest.param("mysql+nodriver", marks=pytest.mark.slow),
    ],
)
def test_a_server_that_is_not_there_and_a_driver_that_is_not(kind: str, user: str) -> None:
    address = f"{kind}://{user}127.0.0.1:1/?pwd={SECRET}"
    assert SECRET not in said(lambda: check_tracking(address))


@pytest.mark.parametrize("address", addresses("s3", "gs", "ftp", "file"))
def test_no_answer_about_a_store_repeats_its_password(address: str, tmp_path: Path) -> None:
    if address.startswith("file://") and "?" not in address:
        return
    try:
        text = said(lambda: open_store(address, tmp_path))
    except ValueError as error:
        text = str(error)
        raise AssertionError(f"{address}: {text}") from None
    assert SECRET not in text


@pytest.mark.parametrize("address", [a for a in addresses("http") if " " not in a][:20])
def test_no_answer_about_a_cluster_repeats_its_password(address: str) -> None:
    assert SECRET not in said(lambda: dashboard.wait_for_answer(address, 0.0))


@pytest.mark.parametrize(
    "words",
    [
        ["sync", "--tracking", f"ftp://me:{SECRET}@h"],
        ["run", "--tracks", f"http://me:{SECRET}@h"],
        ["run", f"--Tracking=http://me:{SECRET}@h"],
        ["plan", "--cpus", f"http://me:x/{SECRET}@h"],
        ["table", f"http://me:{SECRET}@h"],
        ["run", f"http://me:{SECRET}@h"],
        ["status", "--price", f"http://h?password={SECRET}"],
    ],
    ids=lambda words: words[0],
)
def test_no_command_repeats_a_password(words: list[str], tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([*words, "--out", str(tmp_path)])
        except SystemExit as end:
            status = int(str(end.code))
    assert status == 2
    assert err.getvalue().count("\n") == 1
    assert SECRET not in out.getvalue() + err.getvalue()


def test_what_is_no_secret_stays() -> None:
    for text in (
        "cifar10/lsp(budget=l2:1.3)@0.5/none/resnet18/supervised/quick/0",
        "sqlite:////home/me@work/mlflow.db",
        "no Ray dashboard answers at http://127.0.0.1:8265 (refused)",
    ):
        assert without_secrets(text) == text
    assert shown(f"http://me:{SECRET} y@host:5000/x") == "http://***@host:5000/x"
    assert without_credentials(ValueError(f"at http://a:{SECRET}@h and more")) == (
        "at http://***@h and more"
    )


def test_doctor_masks_the_password_of_an_address_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it prints is what people paste into issues."""
    monkeypatch.setattr("raygrid.tracking.mlflow.check_tracking", lambda uri: None)
    monkeypatch.setattr("raygrid.tracking.mlflow.address.check_address", lambda uri: None)
    said = doctor._tracking(Options(out=tmp_path, tracking="http://me:s3cret@127.0.0.1:5000"))
    assert said.state == "ok"
    assert "127.0.0.1:5000" in said.text
    assert "s3cret" not in said.text
