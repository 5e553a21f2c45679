"""The body of a response, as the client library reads it."""

from __future__ import annotations

from typing import Self

import trio

from conpool.contrib._http.outgoing import Exchange, Outgoing


class ResponseBody:
    """Reads an answer's body, and ends the exchange; mixed into the library's own stream class."""

    def __init__(self, exchange: Exchange, outgoing: Outgoing) -> None:
        self._exchange = exchange
        self._out = outgoing
        self._has_begun = False
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        out = self._out
        piece = await self._exchange.read() if out.trace is None else await self._read_traced()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def _read_traced(self) -> bytes | None:
        trace = self._out.trace
        assert trace is not None
        name = f"{self._exchange.trace_name}.receive_response_body"
        if not self._has_begun:
            self._has_begun = True
            await trace(f"{name}.started", {"request": self._out.request})
        try:
            piece = await self._exchange.read()
        except BaseException as error:
            with trio.CancelScope(shield=True):  # as long as the caller's own function takes
                await trace(f"{name}.failed", {"exception": error})
            raise
        if piece is None:
            await trace(f"{name}.complete", {"return_value": None})
        return piece

    async def aclose(self) -> None:
        """End the exchange, if the body was not read to its end. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._out.trace is None:
            await self._exchange.close()
            return
        try:
            name = f"{self._exchange.trace_name}.response_closed"
            await self._out.traced(name, self._exchange.close)
        finally:  # the caller's own `trace` may have broken off before the close
            with trio.CancelScope() as at_once:
                at_once.cancel()
                await self._exchange.close()  # noqa: ASYNC102 - it is cancelled, and idempotent
