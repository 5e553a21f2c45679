"""Run `examples/service` as a program of its own, and ask it over the network."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final
from urllib.parse import quote

import httpx
import trio

from tests.servers import LOOPBACK, MariaDB, Postgres, Server
from tests.support.examples import EXAMPLES

PATIENCE = 20.0
"""Seconds for what must come in the end. A request that takes this long hangs."""


def postgres_url(server: Postgres) -> str:
    password = quote(server.password)
    return f"postgresql://{server.user}:{password}@{LOOPBACK}:{server.port}/postgres"


@final
class Service(Server):
    """The service as its docstring says to start it, with an environment of its own."""

    label = "the service"

    def __init__(self, postgres: Postgres, mariadb: MariaDB | None = None, **environ: str) -> None:
        super().__init__()
        self._environ = {"DATABASE_URL": postgres_url(postgres), **environ}
        if mariadb is not None:
            self._environ["MARIADB_URL"] = f"mysql://root@{LOOPBACK}:{mariadb.port}/mysql"

    def command(self) -> Sequence[str | Path]:
        environ = {
            **self._environ,
            "BIND": f"{self.host}:{self.port}",
            "PYTHONPATH": f"{EXAMPLES.parent}:{EXAMPLES}",
        }
        given = [f"{name}={value}" for name, value in environ.items()]
        return ["env", *given, sys.executable, "-m", "service"]

    def is_ready(self) -> bool:
        return self.ask(b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.")

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    async def exit_code(self) -> int:
        """Wait for its end."""
        with trio.fail_after(PATIENCE):
            return await trio.to_thread.run_sync(self._running.wait, abandon_on_cancel=True)

    def client(self, **options: Any) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(
            base_url=f"http://{self.host}:{self.port}", timeout=PATIENCE, limits=limits, **options
        )


async def wait_for_health(client: httpx.AsyncClient, status: int) -> float:
    """Ask until `/health/detailed` answers so; return when the last request began that got a lie.

    It counts in seconds from now. A slow machine does not make this longer.
    """
    now, last = trio.current_time(), 0.0
    with trio.fail_after(PATIENCE):
        while True:
            began_at = trio.current_time()
            if (await client.get("/health/detailed")).status_code == status:
                return last
            last = began_at - now


@final
class Load:
    """Tasks that ask for one page again and again, and count the answers."""

    def __init__(self, service: Service, path: str) -> None:
        self._service = service
        self._path = path
        self._progress = trio.lowlevel.ParkingLot()
        self._is_over = False
        self.answers: Counter[str] = Counter()

    async def run(self) -> None:
        async with self._service.client() as client:
            while not self._is_over:
                try:
                    answer = str((await client.get(self._path)).status_code)
                except httpx.TimeoutException:
                    answer = "hung"
                except httpx.TransportError:  # the service itself is away
                    answer = "away"
                    await trio.sleep(0.005)
                self.answers[answer] += 1
                self._progress.unpark_all()

    async def wait(self, answer: str, count: int) -> None:
        """Wait for so many more of these answers."""
        enough = self.answers[answer] + count
        with trio.fail_after(PATIENCE):
            while self.answers[answer] < enough:
                await self._progress.park()

    def stop(self) -> None:
        self._is_over = True
