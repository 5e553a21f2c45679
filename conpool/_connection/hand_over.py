"""The rules of clean hand-over: whether a connection whose lease has ended may be lent again.

The first of these conditions that does not hold gives the reason to close:

| kept only if                                                     | otherwise closed as          |
| the block ended without an exception                             | `ERROR`, `CANCELLED`         |
| no operation was cut short, and none is still running            | `INCOMPLETE`                 |
| the exchange is over: the last thing that moved was received     | `INCOMPLETE`                 |
| the write side is open, and the caller did not begin TLS on top  | `DISCARDED`                  |
| the peer has neither closed it nor left anything unread          | `PEER_CLOSED`, `UNREAD_DATA` |

The core decides about age, uses, limits and the state of the pool.
"""

from __future__ import annotations

from typing import cast

import trio

from conpool._connection.exchange import (
    CUT_RECEIVE,
    CUT_SEND,
    ENCRYPTED,
    ENDED,
    HALF_CLOSED,
    OWED,
    VOUCHED,
)
from conpool._connection.link import Link
from conpool._values.states import CloseReason


def end_exchange(link: Link, exc: BaseException | None) -> CloseReason | None:
    """End an exchange: return why the connection cannot be kept; if it can, clear the taints.

    This clears `VOUCHED`, too, because the caller vouched for this exchange only.
    """
    reason = why_not_clean(link, exc)
    if reason is None:
        link.exchange.taints = 0
    return reason


def why_not_clean(link: Link, exc: BaseException | None) -> CloseReason | None:
    """Return why a connection whose lease ended with `exc` cannot be kept; None if it can."""
    exchange = link.exchange
    if exc is not None and not exchange.taints & VOUCHED:
        return CloseReason.CANCELLED if _is_cancellation(exc) else CloseReason.ERROR
    if exchange.in_progress or exchange.taints & (CUT_SEND | CUT_RECEIVE | OWED):
        return CloseReason.INCOMPLETE
    if exchange.taints & (HALF_CLOSED | ENCRYPTED):
        return CloseReason.DISCARDED
    if exchange.taints & ENDED:
        return CloseReason.PEER_CLOSED
    return link.probe()


def _is_cancellation(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        _, others = cast("BaseExceptionGroup[BaseException]", exc).split(trio.Cancelled)
        return others is None
    return isinstance(exc, trio.Cancelled)
