"""Requests of httpx and httpx2 to one nginx, over the stock transport and over ours."""

from __future__ import annotations

import importlib
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import trio

from tests.servers import Certificates, Nginx

from .measure import Aim, Run, Scale, Table, race

TARGETS: Final = {
    ("httpx", "1 task"): 1.0,
    ("httpx", "50 tasks"): 4.0,
    ("httpx", "1,000 idle hosts"): 100.0,
    ("httpx2", "1 task"): 1.0,
    ("httpx2", "50 tasks"): 2.0,
    ("httpx2", "1,000 idle hosts"): 8.0,
    ("httpx2", "HTTP/2, 100 tasks"): 1.0,
}


def measure_http(scale: Scale) -> Table:
    """Compare the transports, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder))
        with Nginx(
            certificates, keepalive_requests=10_000_000, has_many_hosts=True, http2=True
        ) as nginx:
            return trio.run(_measure, scale, nginx, certificates)


async def _measure(scale: Scale, nginx: Nginx, certificates: Certificates) -> Table:
    rows: list[tuple[str, ...]] = []
    aims: list[Aim] = []
    hosts = scale.pick(1_000, 300, 20)
    for name in ("httpx", "httpx2"):
        runs = _Runs(name, certificates, aims)
        plain = f"http://{nginx.host}:{nginx.port}/"
        usual = {"count": scale.pick(400, 200, 100), "rounds": scale.pick(9, 5, 2)}
        async with AsyncExitStack() as stack:
            clients = await runs.open(stack)
            rows.append(await runs.race("1 task", clients, plain, tasks=1, **usual))
            rows.append(await runs.race("50 tasks", clients, plain, tasks=50, **usual))
        async with AsyncExitStack() as stack:
            clients = await runs.open(stack)
            for number in range(hosts):
                host = f"127.0.{number // 250 + 1}.{number % 250 + 1}"
                for client in clients.values():
                    await client.get(f"http://{host}:{nginx.port}/")
            few = {"count": scale.pick(20, 10, 4), "rounds": scale.pick(5, 3, 2)}
            what = f"{hosts:,} idle hosts"
            rows.append(await runs.race(what, clients, plain, tasks=1, **few))
        if nginx.has_tls:
            async with AsyncExitStack() as stack:
                clients = await runs.open(stack, http2=True)
                url = f"https://{nginx.host}:{nginx.tls_port}/"
                rows.append(await runs.race("HTTP/2, 100 tasks", clients, url, tasks=100, **usual))
    return Table(
        "A small GET of one nginx",
        ("", "stock, µs", "conpool, µs", "times as fast", "target"),
        rows,
        "The client's processor time for each request; the limit is 2,000 connections.",
        aims,
    )


class _Runs:
    def __init__(self, name: str, certificates: Certificates, aims: list[Aim]) -> None:
        self._name = name
        self._aims = aims
        self._lib: Any = importlib.import_module(name)
        self._contrib: Any = importlib.import_module(f"conpool.contrib.{name}")
        self._certificates = certificates

    async def open(self, stack: AsyncExitStack, **options: Any) -> dict[str, Any]:
        limits = self._lib.Limits(
            max_connections=2_000, max_keepalive_connections=2_000, keepalive_expiry=600
        )
        clients: dict[str, Any] = {}
        for kind, make in (
            ("stock", self._lib.AsyncHTTPTransport),
            ("conpool", self._contrib.AsyncPoolTransport),
        ):
            context = self._certificates.client_context()
            transport = make(limits=limits, verify=context, **options)
            client = self._lib.AsyncClient(transport=transport, timeout=60)
            clients[kind] = await stack.enter_async_context(client)
        return clients

    async def race(
        self, what: str, clients: dict[str, Any], url: str, *, tasks: int, count: int, rounds: int
    ) -> tuple[str, ...]:
        runs = {kind: _asking(client, url, tasks) for kind, client in clients.items()}
        times = await race(runs, count=count, rounds=rounds)
        stock, ours = (f"{times.micros(kind):.0f}" for kind in ("stock", "conpool"))
        ratio = times.ratio("stock", "conpool")
        target = TARGETS.get((self._name, what))
        if target is not None:
            text = f"{self._name}, {what}: times as fast as its own pool"
            self._aims.append(Aim(text, ratio, target, is_floor=True))
        return (
            f"{self._name}, {what}",
            stock,
            ours,
            f"{ratio:.1f}",
            "" if target is None else f"≥ {target:g}",
        )


def _asking(client: Any, url: str, tasks: int) -> Run:
    async def ask(count: int) -> None:
        for _ in range(count):
            response = await client.get(url)
            assert response.status_code == 200

    async def run(count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(ask, count // tasks)

    return run
