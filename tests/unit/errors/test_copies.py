"""Each caller gets an error of its own, and what the pool remembers keeps no frame alive."""

from __future__ import annotations

import errno
import socket
import ssl
import traceback
from typing import Any

import pytest
import trio

from conpool import (
    ConnectError,
    ConnectRefused,
    Endpoint,
    LocalResourceError,
    ResolveTimeout,
    TLSError,
)
from conpool._errors.copies import MOST_COPIED, copy_for_caller, without_traceback
from conpool._errors.explain import as_connect_error
from tests.support.odd import odd_exceptions, repr_of

ENDPOINT = Endpoint("db.example", 5432)
REFUSED = errno.ECONNREFUSED


def raised(exc: Exception, cause: BaseException | None = None) -> Any:
    """`exc` after it was raised here."""
    try:
        raise exc from cause
    except Exception as error:  # noqa: BLE001
        return error


def refused() -> ConnectError:
    """An error of two addresses, raised in a dial."""
    leaves = [raised(ConnectionRefusedError(REFUSED, f"refused {n}")) for n in range(2)]
    group = raised(ExceptionGroup("all", leaves))
    error: ConnectError = raised(as_connect_error(group, ENDPOINT, "tcp"), group)
    return error


def frames(error: BaseException | None) -> list[str]:
    return [] if error is None else [f.name for f in traceback.extract_tb(error.__traceback__)]


def handler_of_alice(error: ConnectError) -> ConnectError:
    try:
        raise copy_for_caller(error)
    except ConnectError as caught:
        return caught


def test_f144_each_caller_gets_an_equal_error_of_its_own() -> None:
    error = refused()
    copy = copy_for_caller(error)
    assert copy is not error
    assert type(copy) is type(error) is ConnectRefused
    assert isinstance(copy, ConnectionRefusedError)
    assert str(copy) == str(error)
    assert (copy.errno, copy.strerror) == (REFUSED, error.strerror)
    assert (copy.endpoint, copy.phase, copy.args) == (error.endpoint, error.phase, error.args)
    assert [str(attempt) for attempt in copy.attempts] == [str(one) for one in error.attempts]
    assert copy.__traceback__ is None
    assert copy.__suppress_context__


def test_f144_no_caller_sees_the_frames_of_another() -> None:
    error = refused()
    first = handler_of_alice(error)
    cause = first.__cause__
    assert cause is not None
    assert frames(first) == ["handler_of_alice"]
    with pytest.raises(ExceptionGroup):  # she unwraps it
        raise cause
    cause.add_note("Alice was here")
    second = copy_for_caller(error)
    assert frames(second) == []
    assert frames(second.__cause__) == ["raised"], "the dial's own"
    assert not hasattr(second.__cause__, "__notes__")


def test_f144_notes_belong_to_one_caller() -> None:
    error = refused()
    error.add_note("from the dial")
    copy = copy_for_caller(error)
    copy.add_note("mine")
    assert error.__notes__ == ["from the dial"]
    assert copy.__notes__ == ["from the dial", "mine"]


def test_f144_what_is_remembered_has_no_frames_at_all() -> None:
    error = refused()
    kept = without_traceback(error)
    assert str(kept) == str(error)
    group = kept.__cause__
    assert isinstance(group, ExceptionGroup)
    for one in (kept, group, *group.exceptions, *kept.attempts):
        assert one.__traceback__ is None
        assert one.__context__ is None or one.__context__ is group
    assert frames(error), "the original is left as it was"
    assert kept.attempts == group.exceptions, "what hangs in two places is copied once"


@pytest.mark.parametrize(
    "cause",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "/run/x", None, "/run/y"),
        socket.gaierror(socket.EAI_NONAME, "no such name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        KeyError("user"),
        ImportError("no h11", name="h11"),
        trio.BrokenResourceError(),
        OSError("without a number"),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_f144_a_cause_is_copied_with_all_it_says(cause: Exception) -> None:
    copy = copy_for_caller(as_connect_error(cause, ENDPOINT, "open")).__cause__
    assert type(copy) is type(cause)
    assert copy is not cause
    assert (str(copy), repr(copy)) == (str(cause), repr(cause))


def test_f144_a_cause_of_the_systems_tls_is_copied() -> None:
    with pytest.raises(ssl.SSLError) as caught:
        ssl.create_default_context().load_verify_locations(cadata=b"\x30")
    copy = copy_for_caller(as_connect_error(caught.value, ENDPOINT, "tls"))
    assert type(copy) is TLSError
    assert isinstance(copy.__cause__, ssl.SSLError)
    assert copy.__cause__.reason == caught.value.reason


class WithArguments(Exception):
    """Cannot be pickled, as its constructor wants other arguments than `args` has."""

    def __init__(self, host: str, *, port: int) -> None:
        super().__init__(f"{host}:{port} said no")
        self.port = port


class Demanding(Exception):
    """Cannot be made without its constructor."""

    def __new__(cls, *, secret: int) -> Demanding:  # noqa: ARG004
        return super().__new__(cls, "demanding")

    def __init__(self, *, secret: int) -> None:
        super().__init__("demanding")


def test_f152_a_cause_with_a_constructor_of_its_own_is_copied() -> None:
    error = as_connect_error(WithArguments("db", port=5), ENDPOINT, "open")
    cause = copy_for_caller(error).__cause__
    assert isinstance(cause, WithArguments)
    assert (str(cause), cause.port) == ("db:5 said no", 5)


def test_f152_of_a_cause_that_cannot_be_copied_the_text_stays() -> None:
    error = as_connect_error(raised(Demanding(secret=1)), ENDPOINT, "open")
    copy = copy_for_caller(error)
    assert str(copy) == str(error)
    assert str(copy.__cause__) == "Demanding: Demanding: demanding"
    assert frames(copy.__cause__) == ["raised"]


class Own(ConnectError):
    """A user's class that copies."""

    def __init__(self, hint: str) -> None:
        super().__init__(f"my {hint}", endpoint=ENDPOINT, phase="proxy", errno=REFUSED)
        self.hint = hint


class Rigid(LocalResourceError):
    """A user's class that does not."""

    def __new__(cls, *, hint: str) -> Rigid:
        return super().__new__(cls, hint)

    def __init__(self, *, hint: str) -> None:
        super().__init__(hint, endpoint=ENDPOINT, phase="tcp", errno=errno.EMFILE)


class RigidAndLoud(Rigid):
    def __str__(self) -> str:
        return "LOUD"


def test_f144_an_error_of_a_users_class_is_copied() -> None:
    copy = copy_for_caller(Own("tunnel"))
    assert isinstance(copy, Own)
    assert (copy.hint, copy.errno, str(copy)) == ("tunnel", REFUSED, str(Own("tunnel")))


@pytest.mark.parametrize("copy_of", [copy_for_caller, without_traceback])
def test_f152_an_error_that_cannot_be_copied_becomes_a_plain_one(copy_of: Any) -> None:
    error = Rigid(hint="no files")
    error.attempts = (raised(OSError(errno.EMFILE, "none")),)
    copy = copy_of(error)
    assert type(copy) is LocalResourceError
    assert str(copy) == str(error)
    assert (copy.errno, copy.phase) == (errno.EMFILE, "tcp")
    assert copy.attempts[0] is not error.attempts[0]
    assert "LOUD" in str(copy_of(RigidAndLoud(hint="no files")))


def test_f144_a_time_out_stays_what_it_is() -> None:
    error = ResolveTimeout("late", endpoint=ENDPOINT, phase="resolve", errno=errno.ETIMEDOUT)
    copy = copy_for_caller(error)
    assert type(copy) is ResolveTimeout
    assert isinstance(copy, trio.TooSlowError)


@pytest.mark.parametrize("cause", odd_exceptions(), ids=repr_of)
@pytest.mark.parametrize("copy_of", [copy_for_caller, without_traceback])
def test_f152_odd_causes_are_copied_within_bounds(cause: Exception, copy_of: Any) -> None:
    error = as_connect_error(raised(cause, cause.__cause__), ENDPOINT, "open")
    copy = copy_of(error)
    assert str(copy) == str(error)
    one: BaseException | None = copy
    seen: list[int] = []
    while one is not None and id(one) not in seen:
        seen.append(id(one))
        assert copy_of is copy_for_caller or one.__traceback__ is None
        one = one.__cause__
    assert len(seen) <= MOST_COPIED
