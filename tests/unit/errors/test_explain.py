"""Every exception becomes one of a closed set of errors, which says what went wrong."""

from __future__ import annotations

import errno
import functools
import os
import socket
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from conpool._errors.connect import (
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    LocalResourceError,
    ProxyError,
    ProxyTimeout,
    ResolveError,
    ResolveTimeout,
    TLSError,
    TLSTimeout,
)
from conpool._errors.explain import as_connect_error, connect_timed_out
from conpool._values.config_error import PoolError
from conpool._values.endpoint import Endpoint, UnixEndpoint
from conpool._values.states import DialPhase

ENDPOINT = Endpoint("db.example", 5432)
OTHER = Endpoint("other.example", 5432)
PHASES: tuple[DialPhase, ...] = ("resolve", "tcp", "proxy", "tls", "open")


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def from_trio(*numbers: int) -> Exception:
    """What `trio.open_tcp_stream` raises when all addresses fail."""
    said = "all attempts to connect to db.example:5432 failed"
    return caused(OSError(said), ExceptionGroup(said, [os_error(number) for number in numbers]))


def broken(cause: Exception) -> Exception:
    return caused(trio.BrokenResourceError(), cause)


def unverified() -> Exception:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate …")
    error.verify_message = "certificate has expired"
    return broken(error)


def refused_by_tls(reason: str) -> Exception:
    error = ssl.SSLError(1, f"[SSL: {reason}] (_ssl.c:1006)")
    error.reason = reason
    return broken(error)


class DriverError(Exception):
    pass


Row = tuple[str, DialPhase, Exception, type[ConnectError], DialPhase, int | None, str]

# name, phase of the dial, what was raised → class, phase, errno, text
ROWS: list[Row] = [
    # B. Resolve and connect
    (
        "f022_no_such_name",
        "resolve",
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        ResolveError,
        "resolve",
        socket.EAI_NONAME,
        "Name or service not known",
    ),
    (
        "f022_no_such_name_in_a_connector_that_looks_up_itself",
        "tcp",
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        ResolveError,
        "resolve",
        socket.EAI_NONAME,
        "Name or service not known",
    ),
    (
        "f023_look_up_too_slow",
        "resolve",
        trio.TooSlowError(),
        ResolveTimeout,
        "resolve",
        errno.ETIMEDOUT,
        "TooSlowError",
    ),
    (
        "f024_no_addresses",
        "resolve",
        OSError("no results found"),
        ResolveError,
        "resolve",
        None,
        "no results found",
    ),
    (
        "f005_name_that_idna_refuses",
        "resolve",
        UnicodeError("label too long"),
        ResolveError,
        "resolve",
        None,
        "UnicodeError: label too long",
    ),
    (
        "f026_all_refuse",
        "tcp",
        from_trio(errno.ECONNREFUSED, errno.ECONNREFUSED, errno.ECONNREFUSED),
        ConnectRefused,
        "tcp",
        errno.ECONNREFUSED,
        "Connection refused [ECONNREFUSED]; tried 3 addresses: Connection refused; Conn",
    ),
    (
        "f027_one_refuses",
        "tcp",
        os_error(errno.ECONNREFUSED),
        ConnectRefused,
        "tcp",
        errno.ECONNREFUSED,
        "Connection refused [ECONNREFUSED]",
    ),
    (
        "f029_system_gives_up",
        "tcp",
        from_trio(errno.ETIMEDOUT),
        ConnectTimeout,
        "tcp",
        errno.ETIMEDOUT,
        "Connection timed out [ETIMEDOUT]",
    ),
    (
        "f034_no_descriptors",
        "tcp",
        from_trio(errno.EMFILE),
        LocalResourceError,
        "tcp",
        errno.EMFILE,
        "Too many open files [EMFILE]",
    ),
    (
        "f034_no_descriptors_for_the_second_address",
        "tcp",
        from_trio(errno.ECONNREFUSED, errno.EMFILE),
        LocalResourceError,
        "tcp",
        errno.EMFILE,
        "Too many open files [EMFILE]",
    ),
    *(
        (
            f"f035_{errno.errorcode[number]}",
            phase,
            os_error(number),
            LocalResourceError,
            phase,
            number,
            f"[{errno.errorcode[number]}]",
        )
        for number in (errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
        for phase in PHASES
    ),
    (
        "f036_no_ports",
        "tcp",
        from_trio(errno.EADDRNOTAVAIL),
        LocalResourceError,
        "tcp",
        errno.EADDRNOTAVAIL,
        "Cannot assign requested address [EADDRNOTAVAIL]",
    ),
    (
        "f036_no_ports_and_no_ipv6",
        "tcp",
        from_trio(errno.ENETUNREACH, errno.EADDRNOTAVAIL),
        LocalResourceError,
        "tcp",
        errno.EADDRNOTAVAIL,
        "Cannot assign requested address [EADDRNOTAVAIL]",
    ),
    (
        "f027_refused_where_there_is_no_ipv6_address",
        "tcp",
        from_trio(errno.EADDRNOTAVAIL, errno.ECONNREFUSED),
        ConnectRefused,
        "tcp",
        errno.ECONNREFUSED,
        "Connection refused [ECONNREFUSED]",
    ),
    *(
        (
            f"f037_{errno.errorcode[number]}",
            "tcp",
            from_trio(number),
            ConnectError,
            "tcp",
            number,
            f"[{errno.errorcode[number]}]",
        )
        for number in (errno.EACCES, errno.EPERM, errno.ENETUNREACH, errno.EHOSTUNREACH)
    ),
    (
        "f037_unreachable_host_says_more_than_unreachable_network",
        "tcp",
        from_trio(errno.ENETUNREACH, errno.EHOSTUNREACH),
        ConnectError,
        "tcp",
        errno.EHOSTUNREACH,
        "No route to host [EHOSTUNREACH]",
    ),
    (
        "f037_an_answer_says_more_than_an_unreachable_host",
        "tcp",
        from_trio(errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EAFNOSUPPORT),
        ConnectRefused,
        "tcp",
        errno.ECONNREFUSED,
        "Connection refused [ECONNREFUSED]",
    ),
    (
        "f038_local_address_of_the_wrong_family",
        "tcp",
        caused(
            OSError("all attempts failed"),
            ExceptionGroup("", [OSError("local_address='10.9.9.9' is incompatible")]),
        ),
        ConnectError,
        "tcp",
        None,
        "local_address='10.9.9.9' is incompatible",
    ),
    (
        "f038_number_says_more_than_none",
        "tcp",
        caused(
            OSError("all attempts failed"),
            ExceptionGroup("", [OSError("incompatible"), os_error(errno.ENETUNREACH)]),
        ),
        ConnectError,
        "tcp",
        errno.ENETUNREACH,
        "[ENETUNREACH]",
    ),
    (
        "f039_peer_closes_while_the_driver_greets",
        "open",
        broken(os_error(errno.ECONNRESET)),
        ConnectError,
        "open",
        errno.ECONNRESET,
        "Connection reset by peer [ECONNRESET]",
    ),
    (
        "f040_driver_gives_up_on_a_silent_server",
        "open",
        trio.TooSlowError("no greeting"),
        ConnectTimeout,
        "open",
        errno.ETIMEDOUT,
        "TooSlowError: no greeting",
    ),
    (
        "f041_server_is_full",
        "open",
        DriverError("-ERR max number of clients reached"),
        ConnectError,
        "open",
        None,
        "DriverError: -ERR max number of clients reached",
    ),
    (
        "f043_driver_raises_in_a_nursery",
        "open",
        ExceptionGroup("nursery", [ExceptionGroup("inner", [DriverError("no")])]),
        ConnectError,
        "open",
        None,
        "DriverError: no",
    ),
    ("f043_driver_says_nothing", "open", DriverError(), ConnectError, "open", None, "DriverError"),
    (
        "f043_driver_dials_somebody_else",
        "open",
        ConnectError("refused", endpoint=OTHER, phase="tcp", errno=errno.ECONNREFUSED),
        ConnectError,
        "open",
        errno.ECONNREFUSED,
        "ConnectError: cannot connect to other.example:5432, phase tcp: refused",
    ),
    (
        "f056_server_refuses_the_client_certificate_late",
        "open",
        refused_by_tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        ConnectError,
        "open",
        None,
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    ),
    # C. UNIX sockets
    *(
        (
            f"f046_{errno.errorcode[number]}",
            "tcp",
            os_error(number),
            ConnectRefused if number == errno.ECONNREFUSED else ConnectError,
            "tcp",
            number,
            f"[{errno.errorcode[number]}]",
        )
        for number in (errno.ENOENT, errno.ECONNREFUSED, errno.EACCES, errno.EPROTOTYPE)
    ),
    (
        "f049_backlog_full",
        "tcp",
        os_error(errno.EAGAIN),
        ConnectError,
        "tcp",
        errno.EAGAIN,
        "[EAGAIN]",
    ),
    # D. TLS
    (
        "f052_certificate_not_accepted",
        "tls",
        unverified(),
        TLSError,
        "tls",
        None,
        "certificate verify failed: certificate has expired",
    ),
    (
        "f053_server_speaks_plainly",
        "tls",
        refused_by_tls("WRONG_VERSION_NUMBER"),
        TLSError,
        "tls",
        None,
        "WRONG_VERSION_NUMBER (does the server speak TLS on this port?)",
    ),
    (
        "f053_in_a_connector_that_does_tls_itself",
        "tcp",
        refused_by_tls("WRONG_VERSION_NUMBER"),
        TLSError,
        "tls",
        None,
        "WRONG_VERSION_NUMBER",
    ),
    (
        "f054_silent_in_the_handshake",
        "tls",
        TimeoutError(),
        TLSTimeout,
        "tls",
        errno.ETIMEDOUT,
        "TimeoutError",
    ),
    (
        "f055_end_of_file_in_the_handshake",
        "tls",
        broken(ssl.SSLEOFError(8, "[SSL: UNEXPECTED_EOF_WHILE_READING]")),
        TLSError,
        "tls",
        None,
        "unexpected end of file (the peer closed the connection)",
    ),
    (
        "f055_reset_in_the_handshake",
        "tls",
        broken(os_error(errno.ECONNRESET)),
        TLSError,
        "tls",
        errno.ECONNRESET,
        "Connection reset by peer [ECONNRESET]",
    ),
    (
        "f055_broken_without_a_cause",
        "tls",
        trio.BrokenResourceError(),
        TLSError,
        "tls",
        None,
        "BrokenResourceError",
    ),
    (
        "f052_verification_without_a_message",
        "tls",
        broken(ssl.SSLCertVerificationError(1, "made by hand")),
        TLSError,
        "tls",
        None,
        "made by hand",
    ),
    (
        "f053_tls_error_without_a_reason",
        "tls",
        broken(ssl.SSLError("odd")),
        TLSError,
        "tls",
        None,
        "SSLError: ('odd',)",
    ),
    (
        "f053_tls_error_says_more_than_an_unreachable_network",
        "tcp",
        ExceptionGroup("", [os_error(errno.ENETUNREACH), refused_by_tls("BAD_SIGNATURE")]),
        TLSError,
        "tls",
        None,
        "BAD_SIGNATURE",
    ),
    # I. Proxies
    (
        "f120_proxy_refuses",
        "proxy",
        from_trio(errno.ECONNREFUSED),
        ProxyError,
        "proxy",
        errno.ECONNREFUSED,
        "Connection refused [ECONNREFUSED]",
    ),
    (
        "f120_proxy_has_no_address",
        "proxy",
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        ProxyError,
        "proxy",
        None,
        "Name or service not known",
    ),
    (
        "f120_proxy_is_silent",
        "proxy",
        trio.TooSlowError(),
        ProxyTimeout,
        "proxy",
        errno.ETIMEDOUT,
        "TooSlowError",
    ),
    ("f120_proxy_fails_tls", "proxy", unverified(), ProxyError, "proxy", None, "has expired"),
]


@pytest.mark.parametrize(
    ("phase", "exc", "cls", "true_phase", "number", "text"),
    [pytest.param(*row, id=name) for name, *row in ROWS],
)
def test_every_failure_is_one_of_a_closed_set_g25(
    phase: DialPhase,
    exc: Exception,
    cls: type[ConnectError],
    true_phase: DialPhase,
    number: int | None,
    text: str,
) -> None:
    error = as_connect_error(exc, ENDPOINT, phase)
    assert type(error) is cls
    assert (error.endpoint, error.phase, error.errno) == (ENDPOINT, true_phase, number)
    assert error.__cause__ is exc
    assert error.__suppress_context__
    said = str(error)
    assert said.startswith(f"cannot connect to db.example:5432, phase {true_phase}: ")
    assert text in said
    assert isinstance(error, PoolError)
    assert isinstance(error, OSError)


def test_each_address_is_an_attempt_g25_f026() -> None:
    numbers = (errno.ENETUNREACH, errno.ECONNREFUSED, errno.EHOSTUNREACH)
    error = as_connect_error(from_trio(*numbers), ENDPOINT, "tcp")
    assert [attempt.errno for attempt in error.attempts] == list(numbers)
    assert error.errno == errno.ECONNREFUSED


def test_attempts_that_the_connector_noted_are_kept_g25() -> None:
    noted = [os_error(errno.ECONNREFUSED), os_error(errno.ENETUNREACH)]
    error = as_connect_error(from_trio(errno.ECONNREFUSED), ENDPOINT, "tcp", noted)
    assert error.attempts == tuple(noted)
    error = as_connect_error(unverified(), ENDPOINT, "tls", noted)
    assert (error.attempts, error.errno) == (tuple(noted), None)


def test_what_is_no_address_is_no_attempt_g25() -> None:
    group = ExceptionGroup("", [ValueError("no"), os_error(errno.ECONNREFUSED)])
    assert len(as_connect_error(group, ENDPOINT, "tcp").attempts) == 1
    assert as_connect_error(os_error(errno.ECONNRESET), ENDPOINT, "open").attempts == ()


def test_a_connect_error_for_the_same_endpoint_stays_as_it_is() -> None:
    error = ProxyError("407", endpoint=ENDPOINT, phase="proxy")
    assert as_connect_error(error, Endpoint("db.example", 5432), "tcp") is error
    assert error.__cause__ is None


def test_a_resolver_code_is_not_read_as_a_system_error() -> None:
    exc = socket.gaierror(errno.EMFILE, "odd")
    error = as_connect_error(exc, ENDPOINT, "proxy")
    assert type(error) is ProxyError
    error = as_connect_error(socket.gaierror(errno.ENOENT, "odd"), ENDPOINT, "resolve")
    assert str(error).endswith(": odd")


def test_an_exhausted_local_address_is_named_f038() -> None:
    endpoint = Endpoint("192.0.2.1", 80, local_address="192.0.2.7")
    error = as_connect_error(os_error(errno.EADDRNOTAVAIL), endpoint, "tcp")
    assert "(from local address 192.0.2.7)" in str(error)
    unix = as_connect_error(os_error(errno.EADDRNOTAVAIL), UnixEndpoint("/run/s"), "tcp")
    assert "local address" not in str(unix)


@pytest.mark.parametrize(
    ("phase", "cls"),
    [
        ("resolve", ResolveError),
        ("tcp", ConnectError),
        ("proxy", ProxyError),
        ("tls", TLSError),
        ("open", ConnectError),
    ],
)
def test_a_dial_that_is_too_slow_is_a_timeout_and_an_error_of_its_phase_f029_f040_f054(
    phase: DialPhase, cls: type[ConnectError]
) -> None:
    attempts = [os_error(errno.ECONNREFUSED)]
    error = connect_timed_out(ENDPOINT, phase, 10.0, attempts)
    assert isinstance(error, ConnectTimeout)
    assert isinstance(error, cls)
    assert (error.phase, error.errno) == (phase, errno.ETIMEDOUT)
    assert error.attempts == tuple(attempts)
    assert f"phase {phase}: timed out: connect_timeout of 10s" in str(error)


# ── real handshakes ─────────────────────────────────────────────────────────────

Server = Callable[[trio.abc.Stream], Awaitable[None]]


async def fail_handshake(server: Server, context: ssl.SSLContext, name: str) -> ConnectError:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server, theirs)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await trio.SSLStream(ours, context, server_hostname=name).do_handshake()
        nursery.cancel_scope.cancel()
    return as_connect_error(caught.value, ENDPOINT, "tls")


async def speak_tls(context: ssl.SSLContext, stream: trio.abc.Stream) -> None:
    try:
        await trio.SSLStream(stream, context, server_side=True).do_handshake()
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(stream)


async def speak_plainly(stream: trio.abc.Stream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def hang_up(stream: trio.abc.Stream) -> None:
    await stream.receive_some()
    await stream.aclose()


async def test_trio_hides_why_a_certificate_is_not_trusted_f052(
    server_ssl: ssl.SSLContext,
) -> None:
    stranger = ssl.create_default_context()
    server = functools.partial(speak_tls, server_ssl)
    error = await fail_handshake(server, stranger, "localhost")
    assert type(error) is TLSError
    assert "certificate verify failed: " in str(error)


async def test_trio_hides_that_a_certificate_is_for_another_host_f052(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    server = functools.partial(speak_tls, server_ssl)
    error = await fail_handshake(server, client_ssl, "elsewhere.example")
    assert "is not valid for 'elsewhere.example'" in str(error)


async def test_trio_hides_that_the_server_speaks_plainly_f053(client_ssl: ssl.SSLContext) -> None:
    error = await fail_handshake(speak_plainly, client_ssl, "localhost")
    assert type(error) is TLSError
    assert error.errno is None
    assert str(error).count("BrokenResourceError") == 0


async def test_trio_hides_that_the_server_hung_up_f055(client_ssl: ssl.SSLContext) -> None:
    error = await fail_handshake(hang_up, client_ssl, "localhost")
    # The second is what Python says before 3.11.4.
    assert any(words in str(error) for words in ("unexpected end of file", "been closed (EOF)"))


async def test_trio_hides_the_errno_of_a_refusal_f027() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="all attempts") as caught:
            await trio.open_tcp_stream(*unheard.getsockname())
    error = as_connect_error(caught.value, ENDPOINT, "tcp")
    assert caught.value.errno is None
    assert error.errno == errno.ECONNREFUSED
    assert len(error.attempts) == 1
