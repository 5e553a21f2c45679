"""Which errors of a dial say something about the server (G27)."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest

from conpool import ConfigError, ConnectError, Endpoint
from conpool._errors.blame import is_servers
from conpool._errors.connect import ProxyTimeout, ResolveTimeout, TLSTimeout
from conpool._errors.explain import as_connect_error, connect_timed_out
from conpool._values.states import DialPhase

HERE = Endpoint("here.example", 5432)


def of_system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("exc", "phase", "expected"),
    [
        (of_system(errno.ECONNREFUSED), "tcp", True),
        (of_system(errno.ECONNRESET), "tls", True),
        (of_system(errno.ETIMEDOUT), "tcp", True),
        (ssl.SSLEOFError(8, "EOF occurred"), "tls", True),
        (of_system(errno.ECONNREFUSED), "proxy", True),
        (ValueError("no greeting"), "open", True),
        (of_system(errno.EMFILE), "tcp", False),
        (of_system(errno.ENFILE), "open", False),
        (of_system(errno.ENOBUFS), "tls", False),
        (of_system(errno.EADDRNOTAVAIL), "proxy", False),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), "resolve", False),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "tls", False),
        (ConfigError("port must be above 0"), "open", False),
    ],
)
def test_g27_it_is_the_servers_or_it_is_not(
    exc: Exception, phase: DialPhase, expected: bool
) -> None:
    assert is_servers(as_connect_error(exc, HERE, phase)) is expected


def test_time_outs_are_the_servers_but_for_that_of_the_name_service() -> None:
    phases: dict[DialPhase, type[ConnectError]] = {"tls": TLSTimeout, "proxy": ProxyTimeout}
    for phase, kind in phases.items():
        error = connect_timed_out(HERE, phase, 1.0)
        assert isinstance(error, kind)
        assert is_servers(error)
    resolve = connect_timed_out(HERE, "resolve", 1.0)
    assert isinstance(resolve, ResolveTimeout)
    assert not is_servers(resolve)


def test_a_certificate_is_found_beneath_other_errors() -> None:
    wrapper = OSError("the handshake failed")
    wrapper.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    assert not is_servers(as_connect_error(wrapper, HERE, "tls"))


def test_causes_that_go_round_in_a_circle_come_to_an_end() -> None:
    error = ConnectError("odd", endpoint=HERE, phase="open")
    error.__cause__ = error
    assert is_servers(error)
