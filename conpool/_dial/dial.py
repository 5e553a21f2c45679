"""One dial from beginning to end: transport, TLS, and whatever else must be done before the first lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from conpool._connection.closing import close_by_force, try_close_now
from conpool._connection.link import Link
from conpool._connection.tls_tap import encrypt
from conpool._dial import progress as progress_module
from conpool._dial.progress import Progress
from conpool._errors.connect import ConnectError
from conpool._errors.explain import as_connect_error, connect_timed_out
from conpool._values.endpoint import server_name

if TYPE_CHECKING:
    from conpool._extend.connector import Connector
    from conpool._values.endpoint import AnyEndpoint


async def open_link(connector: Connector, endpoint: AnyEndpoint, timeout: float) -> Link:
    """Dial `endpoint` within `timeout` seconds.

    Runs in a task of its own, whose context it changes. If it fails or is cancelled, nothing stays open.

    Raises:
        ConnectError: It could not be done; the phase tells how far it came.
    """
    progress = Progress()
    progress_module.current.set(progress)
    try:
        with trio.move_on_after(timeout):
            return await _connect(connector, endpoint, progress)
    except ConnectError:
        raise
    except Exception as exc:
        raise as_connect_error(exc, endpoint, progress.phase, progress.attempts) from exc
    raise connect_timed_out(endpoint, progress.phase, timeout, progress.attempts)


async def _connect(connector: Connector, endpoint: AnyEndpoint, progress: Progress) -> Link:
    stream: trio.abc.Stream = await connector.connect(endpoint)
    try:
        if endpoint.tls is not None:
            progress.phase = "tls"
            stream = await encrypt(stream, endpoint.tls, server_name(endpoint))
        return Link(stream)
    except BaseException:
        # By force: a courteous close of a TLS stream would begin by finishing the handshake.
        if not try_close_now(stream):
            await close_by_force(stream)  # noqa: ASYNC102 - shields and bounds itself
        raise
