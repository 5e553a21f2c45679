"""What all server programs under test have in common: a folder, ports, a life.

1. `start` picks free ports, writes the configuration, launches the program and connects
   until it answers properly. If it dies on the way (somebody took the port) it is tried
   again; the first start then takes other ports.
2. A second `start` keeps the ports, so that clients find the server where it was.
3. `stop` asks politely, `kill` does not; both return when the program and everything that
   it started are gone. `pause` and `resume` freeze the whole family.
4. Leaving the `with` block ends all of that and removes the folder.

Every process is addressed by its id, and only if it was started here.
"""

from __future__ import annotations

import abc
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil
import pytest

from ._ports import LOOPBACK, free_ports

_START_SECONDS = 30.0  # a cold MariaDB on a busy machine takes five
_STOP_SECONDS = 10.0
_ATTEMPTS = 5


class ServerDiedError(Exception):
    """The program ended before it answered; the message has the end of its log."""


class Server(abc.ABC):
    """One server program on free loopback ports, in a temporary folder.

    Subclasses say how it is configured and asked. A program that is not installed skips
    the test that wanted it.
    """

    label: ClassVar[str]
    port_count: ClassVar[int] = 1
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    refuses_root: ClassVar[bool] = False
    orphans_leave: ClassVar[bool] = False  # its children end, with a last word, if it is killed

    host = LOOPBACK

    def __init__(self) -> None:
        self.ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._paused: list[psutil.Process] = []
        self._prepared = False
        # /tmp rather than pytest's folder: that one is closed to other users, and too
        # long for the path of a UNIX socket on some systems.
        self.folder = Path(tempfile.mkdtemp(prefix="conpool-", dir="/tmp"))
        if self.account:
            shutil.chown(self.folder, self.account["user"], self.account["group"])

    # ── what a subclass says ────────────────────────────────────────────────────

    @abc.abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The command line; the program must stay in the foreground."""

    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Ask once, over a connection of its own. May raise OSError."""

    def prepare(self) -> None:
        """Make what a first start needs and later ones keep, such as a database."""

    def configure(self) -> None:
        """Write what depends on the ports."""

    # ── its life ────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the program and return when it answers."""
        assert self._process is None, f"{self.label} runs already"
        if not self._prepared:
            self.prepare()
            self._prepared = True
        keep_ports = bool(self.ports)
        for attempt in range(1, _ATTEMPTS + 1):
            if not keep_ports:
                self.ports = free_ports(self.port_count)
            self.configure()
            self._launch()
            try:
                self._wait_until_ready()
            except ServerDiedError:
                self.kill()
                if attempt == _ATTEMPTS:
                    raise
            except BaseException:
                self.kill()
                raise
            else:
                return

    def stop(self) -> None:
        """Ask the program to end, as its init script would, and wait; then insist."""
        if self._process is None:
            return
        self.resume()
        family = self._family()
        self._process.send_signal(self.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._bury(family)

    def kill(self) -> None:
        """End the program with no chance to say anything, and wait."""
        if self._process is None:
            return
        family = self._family()
        self._process.kill()
        self._bury(family)

    def restart(self) -> None:
        """Stop, and start on the same ports."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the program: the kernel still accepts for it, nothing answers."""
        # Parents first, so that none is left to react to its stopped children.
        self._paused = self._family()
        for process in self._paused:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Let a frozen program go on where it was; does nothing to a running one."""
        paused, self._paused = self._paused, []
        for process in reversed(paused):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def signal(self, number: signal.Signals) -> None:
        """Send the program itself a signal, such as SIGHUP to reload."""
        self._running.send_signal(number)

    # ── asking it ───────────────────────────────────────────────────────────────

    @property
    def port(self) -> int:
        """The first of its ports."""
        return self.ports[0]

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._running.pid

    @property
    def log(self) -> str:
        """All that the program has printed."""
        return (self.folder / "log").read_text(errors="replace")

    def ask(
        self,
        question: bytes = b"",
        *,
        port: int | None = None,
        context: ssl.SSLContext | None = None,
    ) -> bytes:
        """The first bytes that come back for `question`, on a connection of its own."""
        with contextlib.ExitStack() as stack:
            sock = socket.create_connection((self.host, port or self.port), timeout=1.0)
            stack.enter_context(sock)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname="localhost")
                stack.enter_context(sock)
            if question:
                sock.sendall(question)
            return sock.recv(4096)

    def __repr__(self) -> str:
        state = "down" if self._process is None else f"pid {self._process.pid}"
        return f"<{type(self).__name__} {state}, ports {self.ports}>"

    # ── underneath ──────────────────────────────────────────────────────────────

    @property
    def account(self) -> dict[str, Any]:
        """Who runs the program, as arguments of `subprocess`: nobody, if it refuses root."""
        if not (self.refuses_root and os.geteuid() == 0):
            return {}
        import pwd  # not on Windows, where this file must still be importable

        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def run_tool(self, *command: str | Path) -> None:
        """Run one of the server's own tools to its end, as the server's user."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=_START_SECONDS,
            **self.account,
        )
        if done.returncode != 0:
            message = f"{command[0]} ended with {done.returncode}:\n{done.stdout.decode()}"
            raise ServerDiedError(message)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.label} is not running"
        return self._process

    def _launch(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for pytest, which then stops the servers itself.
                start_new_session=True,
                **self.account,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            ready = False
            with contextlib.suppress(OSError):
                ready = self.is_ready()
            # Asked in this order: an answer from whoever took our port is no answer.
            if self._running.poll() is not None:
                break
            if ready:
                return
            time.sleep(0.005)  # a pause between two questions, not the wait itself
        code = self._running.poll()
        state = "does not answer" if code is None else f"ended with {code}"
        raise ServerDiedError(f"{self.label} {state}; its log ends:\n{self.log[-2000:]}")

    def _family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self._running.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _bury(self, family: list[psutil.Process]) -> None:
        """Wait for what is left of `family`, killing what does not go by itself."""
        process = self._running
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        _, alive = psutil.wait_procs(family[1:], timeout=1.0 if self.orphans_leave else 0.0)
        for left in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        if process.poll() is None:
            process.kill()
        process.wait(_STOP_SECONDS)
        psutil.wait_procs(alive, timeout=_STOP_SECONDS)
        self._process = None
        self._paused = []


def program(label: str, *candidates: str | Path | None) -> Path:
    """The first of `candidates` that exists: names are looked up in PATH, paths taken as they are.

    Skips the test if none is.
    """
    if sys.platform == "win32":
        pytest.skip("the servers for tests are run on POSIX systems only")
    system = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    for candidate in candidates:
        if candidate is not None and (found := shutil.which(candidate, path=system)):
            return Path(found)
    pytest.skip(f"{label} is not installed")


def in_wheel(package: str, pattern: str) -> Path | None:
    """The file that matches `pattern` in an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(pattern))), None)
