"""Exceptions that are hard to handle: what a connector or driver of the user's own may raise."""

from __future__ import annotations

import errno
import ssl
from typing import Any

import trio

from conpool import ConnectError


class HalfBuilt(ConnectError):
    """Has none of the fields of a `ConnectError`."""

    def __init__(self) -> None:
        Exception.__init__(self, "x")


class Mean(Exception):
    """Raises whatever is done with it."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


class NoText(Exception):
    def __str__(self) -> Any:
        return 5  # noqa: PLE0307


class BadStrerror(OSError):
    @property
    def strerror(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError


class BadErrno(OSError):
    @property
    def errno(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError


class BadGroup(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> Any:
        raise ZeroDivisionError


class Unpicklable(OSError):
    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(number, reason)
        self.unpicklable = lambda: None


def own_cause() -> Exception:
    error = trio.BrokenResourceError("x")
    error.__cause__ = error
    return error


def cause_each_other() -> Exception:
    one, other = trio.BrokenResourceError("one"), trio.BrokenResourceError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def deep_causes(depth: int = 3000) -> Exception:
    last: Exception = OSError(errno.EIO, "at the bottom")
    for number in range(depth):
        above = trio.BrokenResourceError(str(number))
        above.__cause__ = last
        last = above
    return last


def deep_group(depth: int = 3000) -> Exception:
    last: Exception = OSError(errno.EIO, "at the bottom")
    for number in range(depth):
        last = ExceptionGroup(str(number), [last])
    return last


def empty_certificate_error() -> Exception:
    return ssl.SSLCertVerificationError()  # has no `verify_message`


def odd_exceptions() -> list[Exception]:
    """One of each kind, new ones at each call."""
    return [
        OSError([1], "an unhashable errno"),
        OSError("1", "a str for errno"),
        OSError(2**70, "a huge errno"),
        OSError(5, 7),
        OSError(5, None),
        OSError(),
        BadStrerror(5, "x"),
        BadErrno(5, "x"),
        BadGroup("x", [ValueError()]),
        Unpicklable(5, reason="x"),
        ExceptionGroup("", [Unpicklable(5, reason="x"), Unpicklable(6, reason="y")]),
        ExceptionGroup("", [OSError(5, str(n)) for n in range(4000)]),
        ExceptionGroup("", [ExceptionGroup("", [Mean()])]),
        Mean(),
        NoText(),
        Exception("x" * 1_000_000),
        OSError(5, "x" * 1_000_000),
        HalfBuilt(),
        StopIteration("x"),
        StopAsyncIteration("x"),
        RecursionError("x"),
        empty_certificate_error(),
        own_cause(),
        cause_each_other(),
        deep_causes(),
        deep_group(),
    ]


def repr_of(error: object) -> str:
    """A name for a test; such an exception may have no text."""
    return type(error).__name__
