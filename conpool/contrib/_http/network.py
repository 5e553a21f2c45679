"""`network_stream`: what httpx hands out of the connection behind a response."""

from __future__ import annotations

import math
import ssl
from typing import Any, cast, final

import trio

from conpool._connection.tls_tap import encrypt, find_tap
from conpool._lending.lease import Connection
from conpool._values.config_error import ConfigError
from conpool._values.tls import TLS
from conpool.contrib._http.outgoing import said


@final
class NetworkStream:
    """The connection behind a response; after an upgrade, the caller's own.

    It has the methods of httpcore's `AsyncNetworkStream`. Bytes can be moved only after an upgrade
    (101, or 2xx after CONNECT): until then they belong to the response.
    """

    def __init__(self, lib: Any, conn: Connection[Any]) -> None:
        self._lib = lib
        self._conn = conn
        self._stream: trio.abc.Stream | None = None
        self._leading = b""

    def take_over(self, stream: trio.abc.Stream, leading: bytes) -> None:
        """Be the stream that was upgraded; `leading` came along with the answer."""
        self._stream = stream
        self._leading = leading

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive at most `max_bytes`; empty at the end of the stream."""
        stream = self._upgraded()
        if self._leading:
            data, self._leading = self._leading[:max_bytes], self._leading[max_bytes:]
            await trio.lowlevel.checkpoint()
            return data
        with trio.move_on_after(math.inf if timeout is None else timeout):
            try:
                return bytes(await stream.receive_some(max_bytes))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._lib.ReadError(said(error)) from error
        raise self._lib.ReadTimeout("the peer sent nothing in time")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of `buffer`."""
        stream = self._upgraded()
        with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
            try:
                await stream.send_all(buffer)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._lib.WriteError(said(error)) from error
        if scope.cancelled_caught:
            raise self._lib.WriteTimeout("the peer did not take the data in time")

    async def aclose(self) -> None:
        """Close the stream, if it was upgraded."""
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> NetworkStream:
        """Encrypt an upgraded stream from here on.

        After any exception but `ConfigError` the stream is closed.

        Raises:
            ConfigError: The context checks host names, and there is none to check.
            Exception: The library's `ConnectError` or `ConnectTimeout`.
        """
        if server_hostname is None and ssl_context.check_hostname:
            raise ConfigError("this context checks host names: give a server_hostname")
        tls = TLS(ssl_context, https_compatible=True)
        stream = self._upgraded()
        if self._leading:  # they would pass for something that came encrypted
            await trio.aclose_forcefully(stream)
            raise self._lib.ConnectError("the peer sent plain bytes before the TLS handshake")
        encrypted = NetworkStream(self._lib, self._conn)
        with trio.move_on_after(math.inf if timeout is None else timeout):
            try:
                encrypted.take_over(await encrypt(stream, tls, server_hostname), b"")
            except BaseException as error:
                await trio.aclose_forcefully(stream)
                if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
                    raise self._lib.ConnectError(said(error)) from error
                raise
            return encrypted
        raise self._lib.ConnectTimeout("the TLS handshake took too long")

    def get_extra_info(self, info: str) -> Any:
        """Return `ssl_object`, `server_addr`, `client_addr` or `socket`; None if it is unknown."""
        stream: Any = self._stream
        if info == "ssl_object":
            tap = None if stream is None else find_tap(stream)
            return self._conn.ssl_object if tap is None else tap.ssl_object
        if info == "server_addr":
            return self._conn.peer_address
        while isinstance(stream, trio.SSLStream):
            stream = cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream
        if not isinstance(stream, trio.SocketStream):
            return None
        if info == "client_addr":
            return stream.socket.getsockname()
        return stream.socket if info == "socket" else None

    def _upgraded(self) -> trio.abc.Stream:
        if self._stream is None:
            raise RuntimeError("the bytes of this connection belong to the response")
        return self._stream

    def __repr__(self) -> str:
        return f"<NetworkStream of {self._conn!r}>"
