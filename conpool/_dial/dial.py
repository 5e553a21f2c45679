"""One dial from beginning to end: the transport, and TLS on top of it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast

import trio

from conpool._connection.closing import close_now, try_close_now
from conpool._connection.link import Link
from conpool._connection.session import NO_SESSIONS, NativeStream, SessionRules
from conpool._connection.tls_tap import encrypt
from conpool._dial import progress as progress_module
from conpool._dial.progress import Progress
from conpool._errors.connect import ConnectError
from conpool._errors.explain import as_connect_error, connect_timed_out
from conpool._extend.connector import Connector
from conpool._extend.driver import Driver, NativeDriver
from conpool._values.config_error import named
from conpool._values.endpoint import AnyEndpoint, server_name


async def open_link(
    connector: Connector,
    endpoint: AnyEndpoint,
    timeout: float,
    rules: SessionRules = NO_SESSIONS,
) -> Link:
    """Dial `endpoint`, and have the driver open a session on it, within `timeout` seconds.

    It must run in a task of its own, because it changes that task's context. If it fails or is
    cancelled, nothing stays open.

    Raises:
        ConnectError: The dial failed; the phase says how far it came.
    """
    progress = Progress()
    progress_module.current.set(progress)
    try:
        with trio.move_on_after(timeout):
            if rules.is_native:
                progress.phase = "open"
                return await _connect_natively(rules, endpoint)
            return await _connect(connector, endpoint, progress, rules)
    except Exception as exc:
        error = as_connect_error(exc, endpoint, progress.phase, progress.attempts)
        if error is exc:
            raise
        raise error from exc
    raise connect_timed_out(endpoint, progress.phase, timeout, progress.attempts)


def given_up(endpoint: AnyEndpoint) -> ConnectError:
    """Return what to say of the dial of this task, which the pool has ended."""
    progress = progress_module.current.get() or Progress()
    said = "nobody needs this connection any more"
    return ConnectError(said, endpoint=endpoint, phase=progress.phase)


async def _connect_natively(rules: SessionRules, endpoint: AnyEndpoint) -> Link:
    driver = cast("NativeDriver[Any]", rules.driver)
    log = rules.log.about(endpoint)
    session = await driver.connect(endpoint)
    _check_session(session, "connect", driver)
    try:
        driver._opened(  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - for our own
            session, endpoint, rules.pool()
        )
        return Link.of_native(session, rules, log)
    except BaseException:
        try_close_now(NativeStream(driver, session), log)
        raise


async def _connect(
    connector: Connector, endpoint: AnyEndpoint, progress: Progress, rules: SessionRules
) -> Link:
    log = rules.log.about(endpoint)
    stream: trio.abc.Stream = await connector.connect(endpoint)
    progress.phase = "open"
    try:
        _check_stream(stream, connector)
        if endpoint.tls is not None:
            progress.phase = "tls"
            stream = await encrypt(stream, endpoint.tls, server_name(endpoint))
            progress.phase = "open"
        link = Link(stream, rules, encrypted=endpoint.tls is not None, log=log)
        if rules.opens:
            driver = cast("Driver[Any]", rules.driver)
            session = await driver.open(link.exchange, endpoint)
            _check_session(session, "open", driver)
            link.begin_session(session)
        return link
    except BaseException:
        # By force: a polite close of a TLS stream would first try to finish the handshake.
        await close_now(stream, log)  # noqa: ASYNC102 - shields and bounds itself
        raise


def _check_stream(stream: object, connector: Connector) -> None:
    """Refuse what is no stream, as a connector of the user's own may return anything."""
    if not isinstance(stream, trio.abc.Stream):
        name = type(connector).__qualname__
        raise TypeError(f"{name}.connect() must return a trio.abc.Stream, not {named(stream)}")


def _check_session(session: object, method: str, driver: Driver[Any]) -> None:
    """Refuse a coroutine: the driver has returned a call instead of its result."""
    if isinstance(session, Coroutine):
        session.close()
        name = type(driver).__qualname__
        raise TypeError(f"{name}.{method}() returned a coroutine: it forgot to await it")
