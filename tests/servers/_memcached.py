"""memcached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

from ._server import Server, program


@final
class Memcached(Server):
    """One memcached without UDP."""

    label = "memcached"
    refuses_root = True

    def __init__(self, *, connections: int = 1024) -> None:
        self._binary = program(self.label, "memcached")
        self._connections = connections
        super().__init__()

    def command(self) -> Sequence[str | Path]:
        # fmt: off
        return [
            self._binary,
            "-l", self.host,
            "-p", str(self.port),
            "-U", "0",
            "-c", str(self._connections),
        ]
        # fmt: on

    def is_ready(self) -> bool:
        return self.ask(b"version\r\n").startswith(b"VERSION ")
