"""The rules of clean hand-over: whether a connection whose lease has ended may be lent again.

The first of these conditions that does not hold gives the reason to close:

| kept only if                                                     | otherwise closed as          |
| the block ended without an exception                             | `ERROR`, `CANCELLED`         |
| no operation was cut short, and none is still running            | `INCOMPLETE`                 |
| the exchange is over: the last thing that moved was received     | `INCOMPLETE`                 |
| the write side is open, and the caller did not begin TLS on top  | `DISCARDED`                  |
| the peer has neither closed it nor left anything unread          | `PEER_CLOSED`, `UNREAD_DATA` |

A driver that overrides `is_clean` decides in place of the first three rows: it may keep what ended
with an exception, though never after an interrupted send.

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
    JUDGED,
    OWED,
    SHARED,
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
        link.exchange.taints &= JUDGED | SHARED
    return reason


def why_not_clean(link: Link, exc: BaseException | None) -> CloseReason | None:
    """Return why a connection whose lease ended with `exc` cannot be kept; None if it can."""
    exchange = link.exchange
    taints = exchange.taints
    if taints & JUDGED:
        is_cut = is_cut_short(link)
        if is_cut and exc is None:
            return CloseReason.INCOMPLETE
    else:
        is_cut = exc is not None and not taints & VOUCHED
        if not is_cut and is_cut_short(link):
            return CloseReason.INCOMPLETE
    if is_cut and exc is not None:
        return CloseReason.CANCELLED if _is_cancellation(exc) else CloseReason.ERROR
    if taints & (HALF_CLOSED | ENCRYPTED):
        return CloseReason.DISCARDED
    if taints & ENDED:
        return CloseReason.PEER_CLOSED
    return link.probe()


def is_cut_short(link: Link) -> bool:
    """Whether an exchange is half done, as its driver says, or the bytes that have moved."""
    exchange = link.exchange
    taints = exchange.taints
    # A companion (`run`) waits for the peer's next bytes all the time.
    if exchange.in_progress > link.has_companion or taints & CUT_SEND:
        return True
    if taints & JUDGED:
        return not link.rules.is_clean(link.session, link.log)
    return bool(taints & (CUT_RECEIVE | OWED))


def _is_cancellation(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        _, others = cast("BaseExceptionGroup[BaseException]", exc).split(trio.Cancelled)
        return others is None
    return isinstance(exc, trio.Cancelled)
