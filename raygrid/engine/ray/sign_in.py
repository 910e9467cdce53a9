"""The token that a cluster asks for: whether it is sent, and what is said where it is refused.

Ray sends a token only while `RAY_AUTH_MODE` is `token`. A cluster file says by its start commands
that its head asks for one. An address says nothing of that, and who has it gets no token unasked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raygrid.core.errors import ClusterError
from raygrid.core.secrets import shown
from raygrid.engine.ray.private import has_token, read_auth_mode

AUTH_MODE = "RAY_AUTH_MODE"
TOKEN_PLACES = "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
"""Where Ray looks for a token, first to last."""


def asks_for_token(config: Mapping[str, Any]) -> bool:
    """Whether the head of a cluster file asks its clients for a token."""
    return any(f"{AUTH_MODE}=token" in line for line in config.get("head_start_ray_commands") or ())


def token_is_sent() -> bool:
    """Whether the environment says that Ray sends its token."""
    return os.environ.get(AUTH_MODE, "").lower() == "token"


def sign_in(config: Path) -> None:
    """Send the token to the cluster of a file that asks for one, unless the environment says no."""
    import yaml

    if AUTH_MODE in os.environ or not asks_for_token(
        yaml.safe_load(config.read_text(encoding="utf-8"))
    ):
        return
    os.environ[AUTH_MODE] = "token"
    read_auth_mode()


@contextlib.contextmanager
def refusals_told(address: str) -> Iterator[None]:
    """Turn the refusal of a token, or of the lack of one, into a ClusterError of one line."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        reason = error.message.splitlines()[0].rstrip(".")
        if token_is_sent():
            hint = f"the token is looked for in {TOKEN_PLACES}"
        elif has_token():
            hint = f"`export {AUTH_MODE}=token` sends yours, of {TOKEN_PLACES}"
        else:
            hint = f"put the cluster's token into ~/.ray/auth_token and `export {AUTH_MODE}=token`"
        raise ClusterError(
            f"the cluster at {shown(address)} refuses this client: {reason}; {hint}"
        ) from None
