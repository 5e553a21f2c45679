"""One run: servers up, traffic for so long, everything down, and then a look at what is left."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

import pytest
import trio

import conpool
from tests.servers import Certificates, Postgres, Valkey, free_port

from .echo import LOOPBACK, EchoServer
from .remains import ALLOWED_GROWTH, SHORTEST_JUDGED, Memory, Remains, all_tasks, count_files
from .services import Echo, PostgresService, Service, ValkeyService
from .traffic import use_pool
from .watch import Record, sample_steps

PATIENCE: Final = 10.0
"""Seconds within which everything must have come to rest at the end."""

Real: TypeAlias = ValkeyService | PostgresService


def soak(seconds: float, seed: int, *, real: bool = True) -> list[str]:
    """Run for so long; return what is wrong, one line for each thing."""
    record = Record()
    logger = logging.getLogger("conpool")
    logger.addHandler(record)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            servers = start_real_servers(stack) if real else []
            return trio.run(_run, seconds, seed, folder, servers, record)
    finally:
        logger.removeHandler(record)


def start_real_servers(stack: ExitStack) -> list[Real]:
    """Start what is installed, and say what is not."""
    started: list[Real] = []
    choices: list[tuple[Callable[..., Real], type[Valkey] | type[Postgres]]] = [
        (ValkeyService, Valkey),
        (PostgresService, Postgres),
    ]
    for service, server in choices:
        try:
            started.append(service(stack.enter_context(server())))
        except pytest.skip.Exception as absent:
            print(f"without {server.label}: {absent}", flush=True)
    return started


async def _run(
    seconds: float, seed: int, folder: Path, real: list[Real], record: Record
) -> list[str]:
    memory = Memory()
    certificates = Certificates(folder)
    echo = EchoServer(Random(f"{seed} echo"), certificates.server_context(), folder / "echo.sock")
    tls = conpool.TLS(certificates.client_context())
    before = Remains()
    started_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(echo.run)
        services = [*_echo_services(echo, tls), *real]
        with trio.move_on_after(seconds) as traffic:
            record.stop = traffic.cancel
            async with trio.open_nursery() as inner:
                inner.start_soon(_stop_at_interrupt, record)
                inner.start_soon(memory.sample, max(0.5, min(5.0, seconds / 60)))
                inner.start_soon(sample_steps, record)
                inner.start_soon(_report, record, memory)
                for service in real:
                    inner.start_soon(_disturb, service, Random(f"{seed} {service.name}"))
                for number in range(3):
                    random = Random(f"{seed} {number}")
                    inner.start_soon(partial(_use_pools, services, random, record, number))
        elapsed = trio.current_time() - started_at
        wrong = list(record.faults) + await _wait_sessions_gone(echo, real)
        nursery.cancel_scope.cancel()
    wrong += await _wait_back_to(before)
    wrong += _judge_memory(memory, elapsed)
    _print_sum(record, memory, elapsed, seed)
    return wrong


def _echo_services(echo: EchoServer, tls: conpool.TLS) -> list[Service]:
    closed = free_port()

    def find_plain(random: Random) -> conpool.AnyEndpoint:
        if random.random() < 0.3:  # one of very many, that pass through
            return conpool.Endpoint(LOOPBACK, echo.port, partition=random.randrange(10**9))
        host = random.choice([LOOPBACK, LOOPBACK, "localhost"])
        return conpool.Endpoint(host, echo.port)

    def find_tls(random: Random) -> conpool.AnyEndpoint:
        partition = random.choice([None, None, random.randrange(10**9)])
        return conpool.Endpoint(LOOPBACK, echo.tls_port, tls=tls, partition=partition)

    def find_refused(random: Random) -> conpool.AnyEndpoint:
        return conpool.Endpoint(LOOPBACK, closed, partition=random.randrange(3))

    services = [
        Echo("plain", find_plain),
        Echo("plain", find_plain),
        Echo("plain", find_plain),
        Echo("tls", find_tls),
        Echo("refused", find_refused),
    ]
    if hasattr(trio.socket, "AF_UNIX"):
        services.append(Echo("unix", lambda _: conpool.UnixEndpoint(echo.path)))
    return [*services]


async def _use_pools(services: list[Service], random: Random, record: Record, number: int) -> None:
    """The first pool lives as long as the run; beside it others come and go."""
    while True:
        seconds = float("inf") if number == 0 else random.uniform(1, 10)
        await use_pool(services, random, record, seconds)


async def _disturb(service: Real, random: Random) -> None:
    while True:
        await trio.sleep(random.uniform(10, 40))
        await trio.to_thread.run_sync(service.disturb, random)


async def _stop_at_interrupt(record: Record) -> None:
    """End in order at the first Ctrl-C; the second is Python's own."""
    if threading.current_thread() is not threading.main_thread():
        return
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async for _ in signals:
            print("interrupted: ending in order", flush=True)
            record.stop()
            return


# ── what is said ────────────────────────────────────────────────────────────────


async def _report(record: Record, memory: Memory) -> None:
    minute, leases = 0, 0
    while True:
        await trio.sleep(60)
        minute += 1
        speed = (record.leases - leases) / 60
        leases = record.leases
        print(
            f"minute {minute}: {leases} leases, {speed:.0f}/s, {memory.read():.1f} MiB,"
            f" {count_files()} files, {len(all_tasks())} tasks; {record.seen}",
            flush=True,
        )


def _print_sum(record: Record, memory: Memory, elapsed: float, seed: int) -> None:
    seconds, growth = memory.growth()
    print(
        f"{elapsed:.0f} s with seed {seed}: {record.operations} operations, {record.leases} leases,"
        f" {record.pools_opened} pools, books checked after {record.steps_checked} steps;"
        f" memory {memory.read():.1f} MiB, {growth:+.2f} MiB in the last {seconds:.0f} s;"
        f" {record.seen}",
        flush=True,
    )


# ── what is left ────────────────────────────────────────────────────────────────


def _find_sessions(echo: EchoServer, real: list[Real]) -> list[str]:
    counts = {"echo": echo.sessions} | {one.name: one.count_sessions() for one in real}
    return [f"sessions: {count} at {name}" for name, count in counts.items() if count]


async def _wait_sessions_gone(echo: EchoServer, real: list[Real]) -> list[str]:
    """Servers hear of a close a moment later."""
    return await _wait_nothing(partial(_find_sessions, echo, real))


async def _wait_back_to(before: Remains) -> list[str]:
    return await _wait_nothing(lambda: Remains().find_more_than(before))


async def _wait_nothing(find: Callable[[], list[str]]) -> list[str]:
    """Ask `find` until it finds nothing or the time is up; return what it found last."""
    left = find()
    with trio.move_on_after(PATIENCE):
        while left:
            await trio.sleep(0.1)  # no event tells: the kernel and other processes are asked
            left = find()
    return left


def _judge_memory(memory: Memory, elapsed: float) -> list[str]:
    seconds, growth = memory.growth()
    if elapsed < SHORTEST_JUDGED:
        return []
    if growth <= ALLOWED_GROWTH:
        return []
    return [f"memory: grew by {growth:.2f} MiB in the last {seconds:.0f} s"]
