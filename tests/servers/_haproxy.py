"""HAProxy: answering HTTP itself, or passing TCP on to others."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import final

from ._server import Server, program

_CONFIGURATION = """
global
    maxconn 1000

defaults
    mode {mode}
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout check 1s
    timeout http-request {request_timeout}
    timeout http-keep-alive {keepalive_timeout}

frontend main
    bind {host}:{port}
    {rule}
"""


@final
class HAProxy(Server):
    """With `backends` (ports), a TCP proxy that takes turns among those that are up.

    Without, an HTTP server that greets, and that says 408 to whoever connects and keeps
    silent for `request_timeout`.
    """

    label = "HAProxy"

    def __init__(
        self,
        *,
        backends: Sequence[int] = (),
        request_timeout: str = "10s",
        keepalive_timeout: str = "10s",
    ) -> None:
        self._binary = program(self.label, "haproxy")
        self._backends = tuple(backends)
        self._request_timeout = request_timeout
        self._keepalive_timeout = keepalive_timeout
        super().__init__()

    def configure(self) -> None:
        rule = 'http-request return status 200 content-type text/plain string "hello\\n"'
        text = _CONFIGURATION.format(
            mode="tcp" if self._backends else "http",
            host=self.host,
            port=self.port,
            request_timeout=self._request_timeout,
            keepalive_timeout=self._keepalive_timeout,
            rule="default_backend servers" if self._backends else rule,
        )
        if self._backends:
            text += "\nbackend servers\n    balance roundrobin\n"
            for number, port in enumerate(self._backends):
                text += f"    server s{number} {self.host}:{port} check inter 100ms\n"
        (self.folder / "haproxy.cfg").write_text(text)

    def command(self) -> Sequence[str | Path]:
        return [self._binary, "-db", "-f", self.folder / "haproxy.cfg"]

    def is_ready(self) -> bool:
        if self._backends:
            # The client speaks first in some protocols, the server in others: an open
            # port is all that can be asked for.
            with socket.create_connection((self.host, self.port), timeout=1.0):
                return True
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return self.ask(request).startswith(b"HTTP/1.1 200")
