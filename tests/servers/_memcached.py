"""memcached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from ._server import Server, program


@final
class Memcached(Server):
    """One memcached without UDP. With `users` (passwords by name) its clients must log in."""

    label = "memcached"
    refuses_root = True

    def __init__(self, *, connections: int = 1024, users: Mapping[str, str] | None = None) -> None:
        self._binary = program(self.label, "memcached")
        self._connections = connections
        self._users = users
        super().__init__()

    def command(self) -> Sequence[str | Path]:
        # fmt: off
        return [
            self._binary,
            "-l", self.host,
            "-p", str(self.port),
            "-U", "0",
            "-c", str(self._connections),
            *(("-Y", self.folder / "users") if self._users else ()),
        ]
        # fmt: on

    def prepare(self) -> None:
        lines = (f"{name}:{password}\n" for name, password in (self._users or {}).items())
        (self.folder / "users").write_text("".join(lines))

    def is_ready(self) -> bool:
        # Without a login it says "CLIENT_ERROR unauthenticated".
        return self.ask(b"version\r\n").startswith((b"VERSION ", b"CLIENT_ERROR "))
