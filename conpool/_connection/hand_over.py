"""Whether a connection whose lease has ended is fit for the next: the rules of clean hand-over.

One row after the other, the first that applies decides:

| kept only if                                                   | else closed as             |
| the block ended without an exception                           | `ERROR`, `CANCELLED`       |
| no operation was cut short, nor is some task still inside one  | `INCOMPLETE`               |
| the exchange is over: the last thing that moved was received   | `INCOMPLETE`               |
| the write side is open, and TLS was not begun on top           | `DISCARDED`                |
| the peer has neither closed nor left anything unread           | `PEER_CLOSED`, `UNREAD_DATA` |

What age, uses, limits and the pool's own state say about it is the core's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

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
from conpool._values.states import CloseReason

if TYPE_CHECKING:
    from conpool._connection.link import Link


def end_exchange(link: Link, exc: BaseException | None) -> CloseReason | None:
    """The exchange is over: return why the connection cannot be kept, or let the next one begin clean.

    What the caller has vouched for does not hold for the next exchange.
    """
    reason = why_not_clean(link, exc)
    if reason is None:
        link.exchange.taints = 0
    return reason


def why_not_clean(link: Link, exc: BaseException | None) -> CloseReason | None:
    """Return why the connection cannot be kept after a lease that ended with `exc`; None if it can."""
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
