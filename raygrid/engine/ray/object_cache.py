"""One copy of every artifact in the cluster's object store, handed out by one actor.

The store is the truth; the broker only loads from it. Its objects are outputs of tasks that it
submitted, so a node that is lost costs a reload, and a broker that is lost costs its memory of
references, which the next question rebuilds.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayTaskError

from raygrid.core.errors import StoreError
from raygrid.core.retry import retried

RAY_NAMESPACE = "raygrid"
Loaded = tuple[dict[str, Any], dict[str, Any]]
"""(numpy arrays by name, facts)"""


@ray.remote(num_cpus=0, max_retries=3)  # type: ignore[untyped-decorator]
def load_artifact(store: str, kind: str, key: str) -> Loaded | None:
    """Read an artifact from the store; None if it is not there or was damaged."""
    from raygrid.core.retry import patiently
    from raygrid.storage.mirrored import open_store

    return patiently(lambda: open_store(store).arrays(kind, key))


class BrokerActor:
    """Remembers the reference of every artifact that was asked for."""

    def __init__(self, store: str) -> None:
        self.store = store
        self.refs: dict[str, Any] = {}

    def get(self, kind: str, key: str) -> list[Any]:
        """The reference, inside a list so that Ray does not resolve it on the way."""
        if key not in self.refs:
            self.refs[key] = load_artifact.remote(self.store, kind, key)
        return [self.refs[key]]

    def release(self, keys: list[str]) -> None:
        """Forget artifacts that nobody needs any more; their memory is freed."""
        for key in keys:
            self.refs.pop(key, None)


def broker_name(store: str, version: str) -> str:
    return f"raygrid-broker-{version}-{store}"


def start_broker(store: str, version: str) -> Any:
    """The broker of a store: found if it lives, as that of another driver, else started.

    The driver that ends first ends it; who needs one then starts another.
    """
    return (
        ray.remote(BrokerActor)
        .options(
            name=broker_name(store, version),
            namespace=RAY_NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
        )
        .remote(store)
    )


LOST_OBJECT_ERRORS = (ObjectLostError, RayActorError, GetTimeoutError, ValueError)
"""What is raised for an object that went with its node, or without a broker."""
PAUSE_SECONDS = (0.5, 1.0, 2.0, 4.0)  # seconds before it is asked for again


class BrokerClient:
    """A worker's way to the broker; patient with restarts and lost nodes."""

    def __init__(self, store: str, version: str) -> None:
        self.store, self.version = store, version

    def fetch(self, kind: str, key: str) -> Loaded | None:
        """Arrays of the object store, read-only and shared with all processes of the node."""
        # An error of the load itself would come again; what was lost with a node or the broker
        # would not, so that is loaded anew, after ever longer pauses.
        try:
            return retried(
                lambda: self._fetch(kind, key),
                PAUSE_SECONDS,
                lambda error: isinstance(error, LOST_OBJECT_ERRORS),
                lambda error, pause: self._forget(key),
            )
        except LOST_OBJECT_ERRORS:
            self._forget(key)
            return None

    def _fetch(self, kind: str, key: str) -> Loaded | None:
        try:
            broker = ray.get_actor(broker_name(self.store, self.version), RAY_NAMESPACE)
            (ref,) = ray.get(broker.get.remote(kind, key), timeout=120)
            loaded: Loaded | None = ray.get(ref, timeout=600)
            # Nothing there yet: the broker must not remember that, the artifact comes later.
            if loaded is None:
                ray.get(broker.release.remote([key]))
            return loaded
        except RayTaskError as error:
            raise StoreError(f"cannot load {kind} {key}: {error.cause}") from error

    def _forget(self, key: str) -> None:
        """After a loss, have the broker load anew."""
        try:
            start_broker(self.store, self.version).release.remote([key])
        except RayActorError:
            return
