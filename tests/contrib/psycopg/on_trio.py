"""A pytest plugin for a checkout of psycopg: its own asynchronous tests, on trio, with our class.

    nox -s psycopg_suite -- path/to/checkout

Its tests stay where they are. They use a few functions of asyncio to run things side by side; those
get twins here. Nothing of the class under test does. What tests asyncio itself is left out.

The variable `STOCK` runs everything as it is, on asyncio. Tests that psycopg marks as slow are left
out unless arguments after the path say otherwise: `-m ""`. Among these are some that count all
objects of the interpreter; anyio's runner on trio keeps four more or four fewer at times.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import trio

STOCK = bool(os.environ.get("STOCK"))

LEFT_OUT = {
    # These run programs of their own, which start asyncio.
    "test_ctrl_c_handling",
    "test_ctrl_c",
    "test_eintr",
    "test_type_error_shadow",
    # COPY's other writer is a task of asyncio and a queue of asyncio.
    "test_worker_life",
    "test_worker_error_propagated",
}


class Task:
    """Like asyncio's: runs at once, can be awaited and cancelled."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._over = trio.Event()
        self._scope = trio.CancelScope()
        self._result: Any = None
        self._error: BaseException | None = None
        trio.lowlevel.spawn_system_task(self._run, coroutine)

    async def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._error = asyncio.CancelledError()
        with self._scope:
            try:
                self._result = await coroutine
                self._error = None
            except Exception as error:  # noqa: BLE001 - who awaits the task raises it
                self._error = error
        self._over.set()

    def cancel(self, msg: object = None) -> None:
        self._scope.cancel()

    def done(self) -> bool:
        return self._over.is_set()

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        await self._over.wait()
        if self._error is not None:
            raise self._error
        return self._result


def create_task(coroutine: Coroutine[Any, Any, Any], name: object = None) -> Task:
    return Task(coroutine)


def spawn(function: Callable[..., Any], args: Any = None) -> Any:
    if inspect.iscoroutinefunction(function):
        return Task(function(*(args or ())))
    thread = threading.Thread(target=function, args=args or (), daemon=True)
    thread.start()
    return thread


def gather(*things: Any, return_exceptions: bool = False, timeout: float | None = None) -> Any:
    if things and isinstance(things[0], threading.Thread):
        for thread in things:
            thread.join(timeout)
        return None
    tasks = [Task(t) if inspect.iscoroutine(t) else t for t in things]
    return _gather(tasks, return_exceptions, timeout or 30.0)


async def _gather(tasks: list[Any], return_exceptions: bool, timeout: float) -> list[Any]:
    results = []
    with trio.fail_after(timeout):
        for task in tasks:
            try:
                results.append(await task)
            except (Exception, asyncio.CancelledError) as error:  # noqa: ASYNC103 - a twin's
                if not return_exceptions:
                    raise
                results.append(error)
    return results


async def wait_for(thing: Awaitable[Any], timeout: float | None) -> Any:
    with trio.fail_after(float("inf") if timeout is None else timeout):
        return await thing


async def sleep(seconds: float) -> None:
    await trio.sleep(seconds)


def is_alive(thing: Any) -> bool:
    return thing.is_alive() if isinstance(thing, threading.Thread) else not thing.done()


class Event:
    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def clear(self) -> None:
        self._event = trio.Event()

    async def wait(self) -> bool:
        await self._event.wait()
        return True

    async def wait_timeout(self, timeout: float) -> bool:
        with trio.move_on_after(timeout):
            await self._event.wait()
        return self._event.is_set()


class Queue:
    def __init__(self, maxsize: int = 0) -> None:
        self._send, self._receive = trio.open_memory_channel[Any](maxsize or float("inf"))
        self.put_nowait = self._send.send_nowait
        self.put = self._send.send
        self.get = self._receive.receive

    def qsize(self) -> int:
        return self._receive.statistics().current_buffer_used

    def empty(self) -> bool:
        return not self.qsize()


class Asyncio:
    """The part of the module that the tests use."""

    CancelledError = asyncio.CancelledError
    Event = Event
    create_task = staticmethod(create_task)
    gather = staticmethod(gather)
    sleep = staticmethod(sleep)
    wait_for = staticmethod(wait_for)


TWINS: dict[str, Any] = {
    "AEvent": Event,
    "AQueue": Queue,
    "Queue": Queue,
    "asleep": sleep,
    "asyncio": Asyncio,
    "create_task": create_task,
    "gather": gather,
    "is_alive": is_alive,
    "spawn": spawn,
}


class Resolver(trio.abc.HostnameResolver):
    """The suite's fixtures replace `getaddrinfo`; this asks what they put in its place."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        return self._function(host.decode(), port)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


def patch_getaddrinfo(monkeypatch: Any, function: Callable[..., Any]) -> None:
    NAMES.append(function)


NAMES: list[Callable[..., Any]] = []


if not STOCK:

    def pytest_configure(config: Any) -> None:
        import psycopg
        import psycopg.conninfo

        from conpool.contrib._psycopg.ending import AsyncServerCursor
        from conpool.contrib._psycopg.names import find_attempts
        from conpool.contrib.psycopg import AsyncConnection

        psycopg.AsyncConnection = AsyncConnection  # type: ignore[misc] # the point of it
        psycopg.AsyncServerCursor = AsyncServerCursor  # type: ignore[misc]
        psycopg.conninfo.conninfo_attempts_async = find_attempts
        # trio warns of a generator that is left in the middle; asyncio does not.
        config.addinivalue_line("filterwarnings", "ignore:Async generator:ResourceWarning")
        # One test imports it where it runs.
        asyncio.gather, asyncio.wait_for = gather, wait_for  # type: ignore[assignment]

    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        from tests import fix_dns  # type: ignore[attr-defined] # psycopg's

        fix_dns._patch_gai = patch_getaddrinfo
        for item in list(items):
            if item.name.partition("[")[0] in LEFT_OUT:
                items.remove(item)
            module: Any = item.module  # type: ignore[attr-defined]
            if module.__name__.endswith("_async"):
                for name, twin in TWINS.items():
                    if hasattr(module, name):
                        setattr(module, name, twin)

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(fixturedef: Any, request: Any) -> Any:
        if fixturedef.argname != "anyio_backend":
            return None
        value: tuple[str, dict[str, Any]] = ("trio", {})
        fixturedef.cached_result = (value, fixturedef.cache_key(request), None)
        return value

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(pyfuncitem: Any) -> Any:
        names = NAMES[-1:]
        NAMES.clear()
        if not names:
            return (yield)
        test = pyfuncitem.obj

        async def with_names(**arguments: Any) -> None:
            trio.socket.set_custom_hostname_resolver(Resolver(names[0]))
            await test(**arguments)

        pyfuncitem.obj = with_names
        return (yield)
