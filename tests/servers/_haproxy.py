"""HAProxy: answering HTTP itself, or passing TCP on to others."""

from __future__ import annotations

import csv
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, final

from ._server import Server, program

_CONFIGURATION = """
global
    maxconn 1000
    stats socket {folder}/admin level admin

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
    """With `backends` (ports), a proxy for TCP or HTTP that takes turns among those that are up.

    They are `s0`, `s1` and so on; an answer to HTTP says which it comes from, in `x-server`.
    Without, an HTTP server that greets, and that says 408 to whoever connects and keeps
    silent for `request_timeout`.
    """

    label = "HAProxy"

    def __init__(
        self,
        *,
        backends: Sequence[int] = (),
        mode: Literal["tcp", "http"] = "tcp",
        request_timeout: str = "10s",
        keepalive_timeout: str = "10s",
    ) -> None:
        self._binary = program(self.label, "haproxy")
        self._backends = tuple(backends)
        self._mode = mode
        self._request_timeout = request_timeout
        self._keepalive_timeout = keepalive_timeout
        super().__init__()

    def configure(self) -> None:
        rule = 'http-request return status 200 content-type text/plain string "hello\\n"'
        text = _CONFIGURATION.format(
            mode=self._mode if self._backends else "http",
            folder=self.folder,
            host=self.host,
            port=self.port,
            request_timeout=self._request_timeout,
            keepalive_timeout=self._keepalive_timeout,
            rule="default_backend servers" if self._backends else rule,
        )
        if self._backends:
            text += "\nbackend servers\n    balance roundrobin\n"
            if self._mode == "http":
                text += "    http-response set-header x-server %s\n"
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
                return (self.folder / "admin").exists()
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return self.ask(request).startswith(b"HTTP/1.1 200")

    def order(self, command: str) -> str:
        """Have it do or show something, as an administrator."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5.0)
            sock.connect(str(self.folder / "admin"))
            sock.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(4096), b"")).decode()

    def figure(self, server: str, name: str) -> int:
        """A number of one of the backends: `scur` (sessions now), `stot` (sessions so far), …"""
        lines = self.order("show stat").lstrip("# ").splitlines()
        rows = csv.DictReader(lines)
        (found,) = (row[name] for row in rows if row["svname"] == server)
        return int(found)
