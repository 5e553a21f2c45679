"""PgBouncer in front of a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

from ._postgres import Postgres, startup_message
from ._server import Server, program

_CONFIGURATION = """
[databases]
* = host={postgres.host} port={postgres.port}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
admin_users = {postgres.user}
pool_mode = {mode}
max_client_conn = {clients}
default_pool_size = {size}
"""


@final
class PgBouncer(Server):
    """Same user, password and databases as the server behind it."""

    label = "PgBouncer"
    refuses_root = True

    def __init__(
        self,
        postgres: Postgres,
        *,
        mode: str = "session",
        clients: int = 100,
        size: int = 20,
    ) -> None:
        self._binary = program(self.label, "pgbouncer")
        self._options = {"mode": mode, "clients": clients, "size": size}
        self.postgres = postgres
        super().__init__()

    def configure(self) -> None:
        postgres = self.postgres
        (self.folder / "users").write_text(f'"{postgres.user}" "{postgres.password}"\n')
        text = _CONFIGURATION.format(
            postgres=postgres, host=self.host, port=self.port, folder=self.folder, **self._options
        )
        (self.folder / "pgbouncer.ini").write_text(text)

    def command(self) -> Sequence[str | Path]:
        return [self._binary, self.folder / "pgbouncer.ini"]

    def is_ready(self) -> bool:
        question = startup_message(self.postgres.user, self.postgres.database)
        return self.ask(question)[:1] == b"R"
