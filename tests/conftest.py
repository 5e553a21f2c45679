"""Fixtures for all tests: certificates, real servers, and a watch over what tests leave behind."""

from __future__ import annotations

import signal
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .proof.totals import tried
from .servers import Certificates
from .servers.fixtures import (
    haproxy,
    mariadb,
    memcached,
    nginx,
    pgbouncer,
    postgres,
    redis_tls,
    valkey,
)

__all__ = [
    "certificates",
    "client_ssl",
    "ctrl_c_is_heard",
    "haproxy",
    "mariadb",
    "memcached",
    "nginx",
    "nothing_left_behind",
    "pgbouncer",
    "postgres",
    "redis_tls",
    "server_ssl",
    "valkey",
]


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """Have SIGINT interrupt: a shell that starts the tests in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One authority, with a server's and a client's certificate, for the whole run."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def server_ssl(certificates: Certificates) -> ssl.SSLContext:
    """A server's context, good for localhost, 127.0.0.1 and ::1."""
    return certificates.server_context()


@pytest.fixture(scope="session")
def client_ssl(certificates: Certificates) -> ssl.SSLContext:
    """A client's context that trusts `server_ssl`, and checks host names."""
    return certificates.client_context()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that ends with more open files or threads than it began with (G19).

    Open files are counted where /proc shows them. Fixtures for the whole run start before
    this one, so that what they keep open is not held against the first test to use them.
    """
    files, threads = _open_files(), _threads()
    yield
    _forget_broken_run()
    new_files = sorted(_open_files().items() - files.items())
    new_threads = sorted(_threads() - threads)
    assert not new_files, f"the test left files open: {new_files}"
    assert not new_threads, f"the test left threads running: {new_threads}"


def _forget_broken_run() -> None:
    """Let the next test run trio, though a time-out tore this one's run apart from outside."""
    from trio._core._run import GLOBAL_RUN_CONTEXT

    GLOBAL_RUN_CONTEXT.__dict__.clear()  # empty, unless a run is left in it


def _open_files() -> dict[int, str]:
    if sys.platform != "linux":
        return {}
    found: dict[int, str] = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            found[int(link.name)] = str(link.readlink())
        except FileNotFoundError:  # the one that lists the folder itself
            continue
    return found


def _threads() -> set[str]:
    # trio keeps idle worker threads for ten seconds, by design; they hold nothing.
    return {t.name for t in threading.enumerate() if not t.name.startswith("Trio thread")}


# ── how much was tried ──────────────────────────────────────────────────────────

# A proof that tried nothing would look like one that found nothing.


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand a worker's counts to the process that prints them."""
    handed_over: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if handed_over is not None:
        handed_over["tried"] = dict(tried)


@pytest.hookimpl(optionalhook=True)  # there are workers with `-n` only
def pytest_testnodedown(node: Any) -> None:
    """Add the counts of a worker that has ended; one that crashed has none."""
    tried.update(getattr(node, "workeroutput", {}).get("tried", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts."""
    if tried:
        counts = ", ".join(f"{count:,} {what}" for what, count in tried.items())
        terminalreporter.write_line(f"proof: {counts} tried")
