"""Which clusters are sent a token, by Ray's own client, and what is said where one is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raygrid.engine.ray.dashboard import Way
from raygrid.engine.ray.submit import ClusterJob
from tests.engine.test_submit import Left

pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]
STATUS = {"type": "SUBMISSION", "entrypoint": "x", "status": "SUCCEEDED", "submission_id": "x"}
CODE = """
import sys
from pathlib import Path
from raygrid.cli.guard import guarded
from raygrid.engine.ray.dashboard import Way
from raygrid.engine.ray.submit import ClusterJob, connect_jobs

def follow():
    way = Way(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    return ClusterJob(connect_jobs(way), "x", way).follow(Path("out"))

sys.exit(guarded(follow))
"""


class Head(ThreadingHTTPServer):
    """A dashboard that answers who has its token; it keeps what was asked and with which token.

    closed: the end of the paths that it refuses whatever is sent.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[tuple[str, str | None]] = []
        self.closed = "nothing"


class Answers(BaseHTTPRequestHandler):
    server: Head

    def do_GET(self) -> None:
        token = self.headers.get("authorization")
        self.server.asked.append((self.path, token))
        if token is None:
            self._say(401, "Unauthorized: Missing authentication token")
        elif token != "Bearer mine" or self.path.endswith(self.server.closed):
            self._say(403, "Forbidden: Invalid authentication token")
        elif self.path == "/api/version":
            self._say(200, json.dumps({"version": "4", "ray_version": "2.60.0"}))
        elif self.path == "/api/jobs/x/logs":
            self._say(200, json.dumps({"logs": "the log\n"}))
        else:
            self._say(200, json.dumps(STATUS))

    def do_POST(self) -> None:
        self.server.asked.append((self.path, self.headers.get("authorization")))
        self._say(200, json.dumps({"stopped": True}))

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def head() -> Iterator[Head]:
    with Head() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def followed(
    head: Head, home: Path, config: Path | None, token: str | None = "mine", **env: str
) -> subprocess.CompletedProcess[str]:
    """Follow a job of the head as a person with this token does."""
    if token is not None:
        (home / ".ray").mkdir()
        (home / ".ray" / "auth_token").write_text(token)
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    words = [f"http://127.0.0.1:{head.server_port}", *([] if config is None else [str(config)])]
    return subprocess.run(
        [sys.executable, "-c", CODE, *words],
        env={**plain, "HOME": str(home), "PYTHONPATH": str(ROOT), **env},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def tokens(head: Head) -> set[str | None]:
    return {token for _, token in head.asked}


@pytest.mark.parametrize("name", ["cluster.yaml", "experiments/clusters/gcp.yaml"])
def test_a_cluster_whose_file_asks_for_a_token_is_sent_it(
    name: str, head: Head, tmp_path: Path
) -> None:
    """Ray's client sent none: the person has a token, but nobody told Ray to send it."""
    done = followed(head, tmp_path, ROOT / name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the log\n"
    assert tokens(head) == {"Bearer mine"}


@pytest.mark.parametrize("given", ["an address", "a file that asks for none", "disabled"])
def test_no_token_is_sent_unasked(given: str, head: Head, tmp_path: Path) -> None:
    config, env = None, {}
    if given == "a file that asks for none":
        config = tmp_path / "cluster.yaml"
        config.write_text("head_start_ray_commands: [ray start --head]\n")
    elif given == "disabled":
        config, env = ROOT / "cluster.yaml", {"RAY_AUTH_MODE": "disabled"}
    done = followed(head, tmp_path, config, **env)
    assert tokens(head) == {None}
    assert done.returncode == 2
    assert done.stderr == (
        f"raygrid: the cluster at http://127.0.0.1:{head.server_port} refuses this client: "
        "Authentication required: Unauthorized: Missing authentication token; `export "
        "RAY_AUTH_MODE=token` sends yours, of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or "
        "~/.ray/auth_token\n"
    )


def test_who_has_no_token_is_told_where_it_belongs(head: Head, tmp_path: Path) -> None:
    done = followed(head, tmp_path, None, token=None)
    put = "; put the cluster's token into ~/.ray/auth_token and `export RAY_AUTH_MODE=token`\n"
    assert done.stderr.endswith(put)
    done = followed(head, tmp_path, ROOT / "cluster.yaml", token=None)
    assert "Ray couldn't find an authentication token" in done.stderr
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["/api/version", "/api/jobs/x", "/api/jobs/x/logs"])
def test_a_refused_token_is_one_line(closed: str, head: Head, tmp_path: Path) -> None:
    """It was a traceback of thirty lines: Ray's error is of a kind of its own."""
    head.closed = closed
    done = followed(head, tmp_path, ROOT / "cluster.yaml")
    assert head.asked[-1] == (closed, "Bearer mine")
    assert done.returncode == 2
    assert done.stderr == (
        f"raygrid: the cluster at http://127.0.0.1:{head.server_port} refuses this client: "
        "Authentication failed: Forbidden: Invalid authentication token; the token is looked for "
        "in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token\n"
    )


def test_what_is_said_to_who_leaves_a_job_ends_it(
    head: Head,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command is run as it is printed, by a person whose shell knows of no token."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("mine")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    way = Way(f"http://127.0.0.1:{head.server_port}")
    assert ClusterJob(Left(), "x", way).follow(tmp_path) == 130
    (command,) = re.findall("`(.*)`", capsys.readouterr().err)
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**plain, "HOME": str(tmp_path), "PATH": path}
    subprocess.run(command, shell=True, env=env, cwd=tmp_path, check=True)
    assert ("/api/jobs/x/stop", "Bearer mine") in head.asked
    assert tokens(head) == {"Bearer mine"}
