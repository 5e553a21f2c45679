"""`examples/many_processes.py` through PgBouncer and HAProxy, whose servers are replaced."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest
import trio

from tests.servers import Certificates, HAProxy, Nginx, PgBouncer, Postgres, Server, Valkey
from tests.support.examples import EXAMPLES, LOOPBACK, run_example

pytest.importorskip("hiredis", reason="hiredis is not installed")
pytest.importorskip("psycopg", reason="psycopg is not installed")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its processes hear through pipes")

PATHS = f"{EXAMPLES.parent}:{EXAMPLES}"


def counted(printed: str) -> Counter[str]:
    lines = (line.rpartition(": ") for line in printed.splitlines())
    return Counter({name: int(count) for name, _, count in lines})


def test_many_processes_share_a_few_sessions_of_pgbouncer(postgres: Postgres) -> None:
    with PgBouncer(postgres, mode="transaction", size=3) as server:
        login = f"{postgres.user}:{quote(postgres.password)}"
        url = f"postgresql://{login}@{LOOPBACK}:{server.port}/postgres"
        options = ("--requests", 100, "--processes", 3)
        printed = run_example("many_processes.py", url, *options, PYTHONPATH=PATHS)
    counts = counted(printed)
    assert sum(counts.values()) == 300
    assert 1 <= len(counts) <= 3
    assert all(name.startswith("session ") for name in counts)


class Processes:
    """The running program."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program

    def drain(self) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write("\n")
        self._program.stdin.flush()

    def end(self) -> Counter[str]:
        printed, _ = self._program.communicate(timeout=30)
        assert self._program.returncode == 0
        return counted(printed)


@contextmanager
def asking(url: str) -> Iterator[Processes]:
    program = subprocess.Popen(
        [sys.executable, EXAMPLES / "many_processes.py", url, "--processes", "2"],
        env={"PYTHONPATH": PATHS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        try:
            yield Processes(program)
        finally:
            program.kill()


async def until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not is_so():  # noqa: ASYNC110 - HAProxy tells nobody of it
            await trio.sleep(0.01)


async def replace_the_first_of_two(
    haproxy: HAProxy, first: Server, processes: Processes, *, drain: bool
) -> Counter[str]:
    """Drain `s0` at the proxy, stop it, start it again, and use it again."""

    def served(server: str) -> int:
        return haproxy.figure(server, "stot")

    for server in ("s0", "s1"):
        await until(lambda server=server: haproxy.figure(server, "scur") > 0)  # type: ignore[misc]
    haproxy.order("set server servers/s0 state drain")
    if drain:
        processes.drain()
    await until(lambda: haproxy.figure("s0", "scur") == 0)
    await trio.to_thread.run_sync(first.restart)
    haproxy.order("set server servers/s0 state ready")
    before = served("s0")
    if drain:
        processes.drain()
    await until(lambda: served("s0") > before)
    return await trio.to_thread.run_sync(processes.end)


async def test_tcp_server_is_replaced_behind_haproxy_under_load() -> None:
    with Valkey() as first, Valkey() as second:
        ports = first.port, second.port
        with (
            HAProxy(backends=ports) as haproxy,
            asking(f"redis://{LOOPBACK}:{haproxy.port}") as processes,
        ):
            counts = await replace_the_first_of_two(haproxy, first, processes, drain=True)
    assert set(counts) == {f"port {port}" for port in ports}


async def test_http_server_is_replaced_behind_haproxy_under_load(
    certificates: Certificates,
) -> None:
    with (
        Nginx(certificates) as first,
        Nginx(certificates) as second,
        HAProxy(backends=(first.port, second.port), mode="http") as haproxy,
        asking(f"http://{LOOPBACK}:{haproxy.port}/echo/1") as processes,
    ):
        counts = await replace_the_first_of_two(haproxy, first, processes, drain=False)
    assert set(counts) == {"s0", "s1"}
