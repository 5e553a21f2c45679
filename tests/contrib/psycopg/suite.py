"""Run pytest in a checkout of psycopg, beside a PostgreSQL: `python -m … path [arguments]`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from psycopg.conninfo import make_conninfo

from tests.servers import Postgres


def main(checkout: str, *arguments: str) -> int:
    with ExitStack() as stack:
        env = dict(os.environ)
        if "PSYCOPG_TEST_DSN" not in env:
            server = stack.enter_context(Postgres(max_prepared_transactions=10))
            env["PSYCOPG_TEST_DSN"] = make_conninfo(
                host=server.host,
                port=server.port,
                user=server.user,
                dbname=server.database,
                password=server.password,
            )
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(command, cwd=Path(checkout), env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
