"""What OpenTelemetry's semantic conventions call the things that a pool knows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from conpool._values.endpoint import Endpoint, UnixEndpoint
from conpool._values.group import Target

Convention: TypeAlias = Literal["conpool", "db", "http"]
Attributes: TypeAlias = dict[str, str | int]

SCOPE: Final = "conpool"
"""The name of the instrumentation."""

SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Buckets for durations: the SDK's own ones are meant for milliseconds."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one convention. What a convention does not name has a name of our own."""

    prefix: str
    count: str
    state: str
    used: str = "used"
    lifetime: str | None = None


_OWN: Final = "conpool.connection"
_DB: Final = "db.client.connection"

CONVENTIONS: Final[dict[Convention, Names]] = {
    "conpool": Names(_OWN, f"{_OWN}.count", f"{_OWN}.state"),
    "db": Names(_DB, f"{_DB}.count", f"{_DB}.state"),
    "http": Names(
        _OWN,
        count="http.client.open_connections",
        state="http.connection.state",
        used="active",
        lifetime="http.client.connection.duration",
    ),
}


@lru_cache(maxsize=1000)
def describe_endpoint(endpoint: Target) -> Attributes:
    """Return the attributes that tell which endpoint or group it is. The caller copies them."""
    attributes: Attributes = {"conpool.endpoint": str(endpoint)}
    if isinstance(endpoint, Endpoint):
        attributes |= {"server.address": endpoint.host, "server.port": endpoint.port}
    elif isinstance(endpoint, UnixEndpoint):
        attributes |= {"server.address": endpoint.path.replace("\0", "@")}
        attributes |= {"network.transport": "unix"}
    return attributes
