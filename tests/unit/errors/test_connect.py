from __future__ import annotations

import errno
import itertools
import os
import pickle
import socket
from typing import Any

import pytest

from conpool._errors.connect import (
    MAX_ATTEMPTS,
    ConnectError,
    ConnectTimeout,
    LocalResourceError,
    ResolveError,
    ResolveTimeout,
    said,
)
from conpool._values.endpoint import Endpoint
from conpool._values.states import DialPhase

ENDPOINT = Endpoint("db.example", 5432)


def refused(addresses: int) -> ConnectError:
    """The error after each of so many addresses refused."""
    text = os.strerror(errno.ECONNREFUSED)
    attempts = [OSError(errno.ECONNREFUSED, text) for _ in range(addresses)]
    return ConnectError(
        text, endpoint=ENDPOINT, phase="tcp", errno=errno.ECONNREFUSED, attempts=attempts
    )


def test_many_attempts_are_not_all_in_the_text() -> None:
    error = refused(8)
    assert len(error.attempts) == 8
    assert str(error).count("Connection refused") == 6
    assert str(error).endswith("; and 3 more")


def test_a_single_attempt_is_not_repeated_in_the_text() -> None:
    assert str(refused(1)).count("Connection refused") == 1


def test_an_unknown_number_is_shown_as_a_number() -> None:
    error = ConnectError("odd", endpoint=ENDPOINT, phase="tcp", errno=99999)
    assert str(error).endswith("odd [errno 99999]")


@pytest.mark.parametrize(
    ("phase", "kind", "number", "meaning"),
    [
        ("tcp", ConnectError, errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)),
        ("tcp", ConnectTimeout, errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)),
        ("resolve", ResolveTimeout, errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)),
        ("resolve", LocalResourceError, errno.EMFILE, os.strerror(errno.EMFILE)),
        ("resolve", ResolveError, socket.EAI_NONAME, "said"),
        ("tcp", ConnectError, 99999, os.strerror(99999)),
        ("open", ConnectError, None, None),
    ],
)
def test_f141_strerror_is_set_wherever_errno_is(
    phase: DialPhase, kind: type[ConnectError], number: int | None, meaning: str | None
) -> None:
    error = kind("said", endpoint=ENDPOINT, phase=phase, errno=number)
    again = pickle.loads(pickle.dumps(error))
    for one in (error, again):
        assert (one.errno, one.strerror) == (number, meaning)
        assert str(one) == str(error)


def test_f147_an_error_keeps_the_attempts_of_one_dial_and_no_more() -> None:
    attempts = (OSError(errno.EIO, str(n)) for n in itertools.count())
    error = ConnectError("many", endpoint=ENDPOINT, phase="tcp", attempts=attempts)
    assert len(error.attempts) == MAX_ATTEMPTS


@pytest.mark.parametrize("number", [[1], "1", 2**70])
def test_f152_a_number_that_no_system_has_is_left_out(number: Any) -> None:
    error = ConnectError("odd", endpoint=ENDPOINT, phase="tcp", errno=number)
    assert (error.errno, error.strerror) == (None, None)
    assert str(error).endswith("phase tcp: odd")


def test_a_long_text_is_shortened() -> None:
    assert 100 < len(said(RuntimeError("x" * 10_000))) < 400


def test_an_exception_that_cannot_be_shown_is_named_only() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert said(Unprintable()) == Unprintable.__qualname__
