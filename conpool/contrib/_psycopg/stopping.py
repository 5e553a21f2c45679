"""Reads what a server still sends for an operation that was given up."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen

_ACTIVE: Final = pq.TransactionStatus.ACTIVE
_COPY_IN: Final = pq.ExecStatus.COPY_IN
_COPY_OUT: Final = pq.ExecStatus.COPY_OUT
_COPY_BOTH: Final = pq.ExecStatus.COPY_BOTH


def finish_exchange(pgconn: pq.abc.PGconn) -> PQGen[None]:
    """Bring a connection that is in the middle of an exchange to its end, and drop all results.

    Raises:
        psycopg.Error: The connection is broken, or is one of replication, which has no end.
    """
    yield from generators.send(pgconn)
    while pgconn.transaction_status == _ACTIVE:
        result = yield from generators.fetch(pgconn)
        status = None if result is None else result.status
        try:
            if status == _COPY_OUT:
                while isinstance((yield from generators.copy_from(pgconn)), memoryview):
                    pass
            elif status == _COPY_IN:
                yield from generators.copy_end(pgconn, b"cancelled")
        except psycopg.DatabaseError:
            # What the server says to the cancellation. Where the connection is lost, it has no
            # transaction any more.
            if pgconn.transaction_status != _ACTIVE:
                return
        if status == _COPY_BOTH:
            raise psycopg.NotSupportedError("a replication stream cannot be stopped")
