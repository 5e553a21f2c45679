"""The few parts of HTTP and ASGI that a status page needs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final
from urllib.parse import parse_qsl

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

_ALWAYS: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, complete in memory."""

    body: bytes
    content_type: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_text(cls, text: str, status: int, *headers: tuple[str, str]) -> Reply:
        """Answer with a line of plain text."""
        return cls(f"{text}\n".encode(), "text/plain; charset=utf-8", status, headers)

    @classmethod
    def of_json(cls, value: object, status: int = 200) -> Reply:
        """Answer with JSON."""
        return cls(json.dumps(value).encode(), "application/json", status)

    async def send(self, send: Send, *, with_body: bool) -> None:
        """Send it; without its body to a HEAD request."""
        length = str(len(self.body))
        headers = _ALWAYS | {"content-type": self.content_type, "content-length": length}
        headers |= dict(self.headers)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": self.body if with_body else b""})


def path_below_mount(scope: Scope) -> str:
    """Return the path as this app knows it: frameworks leave the mount point in `path`."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :]
    return path


def query_of(scope: Scope) -> dict[str, str]:
    """Return the options of the query; of several with one name, the last."""
    return dict(parse_qsl(scope.get("query_string", b"").decode("utf-8", "replace")))


async def live_and_end(receive: Receive, send: Send) -> None:
    """Take part in the server's start and end, as an app that is not mounted must."""
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
