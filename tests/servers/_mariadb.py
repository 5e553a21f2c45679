"""MariaDB, which greets first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

from ._server import Server, program


@final
class MariaDB(Server):
    """A server whose `root` has no password, with its own `settings`: `MariaDB(wait_timeout=1)`."""

    label = "MariaDB"
    refuses_root = True

    user = "root"
    password = ""

    def __init__(self, **settings: str | int) -> None:
        self._binary = program(self.label, "mariadbd", "mysqld")
        self._install = program(self.label, "mariadb-install-db", "mysql_install_db")
        self._settings = settings
        super().__init__()

    def prepare(self) -> None:
        self.run_tool(
            self._install,
            "--no-defaults",
            f"--datadir={self.folder / 'database'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=8M",
        )

    def command(self) -> Sequence[str | Path]:
        options = {
            "datadir": self.folder / "database",
            "bind-address": self.host,
            "port": self.port,
            "socket": self.folder / "mariadb.sock",
            "pid-file": self.folder / "mariadb.pid",
            "innodb-log-file-size": "8M",
            "innodb-flush-log-at-trx-commit": 0,
            "max-connect-errors": 1_000_000,  # else it locks out who connects and leaves
            **self._settings,
        }
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return [self._binary, "--no-defaults", "--skip-name-resolve", *given]

    def is_ready(self) -> bool:
        greeting = self.ask()
        # A header of four bytes, then the protocol's version; 0xff there would be an error.
        return greeting[4:5] == b"\x0a"
