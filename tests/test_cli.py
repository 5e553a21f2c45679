"""The command line: the demo for real, and each of its proofs made to fail."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from rich.console import Console

import conpool
from conpool import cli
from conpool.cli import _demo, _demo_proofs as proofs, _demo_sockets, _screen
from conpool.cli._certificates import make_contexts
from conpool.cli._demo_server import (
    LOOPBACK,
    BadReply,
    DemoServer,
    How,
    ask,
    read_answers,
    send_request,
)
from conpool.cli._demo_sockets import Witness, find_witness


def run_conpool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m conpool` as a user would."""
    command = [sys.executable, "-m", "conpool", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)


@asynccontextmanager
async def site(
    tls: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None
) -> AsyncIterator[proofs.Site]:
    """One of the demo's servers, for one test."""
    server = DemoServer(tls)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        how = False if client is None else conpool.TLS(client)
        yield proofs.Site(server, conpool.Endpoint(LOOPBACK, server.port, tls=how))
        nursery.cancel_scope.cancel()


def has_line(text: str, pattern: str) -> bool:
    """Whether the pattern matches one whole line, of which the terminal may have made several."""
    lines = text.replace("\n" + " " * 8, " ").splitlines()
    return any(re.fullmatch(pattern, line) for line in lines)


def pool(limit: int = proofs.LIMIT, uses: int | None = None) -> proofs.Pool:
    config = conpool.PoolConfig(max_connections_per_endpoint=limit, max_connection_uses=uses)
    return conpool.ConnectionPool(config)


def idly() -> None:
    """Move no bar."""


# ── the commands ────────────────────────────────────────────────────────────────


def test_demo_shows_that_every_promise_holds() -> None:
    started_at = time.monotonic()
    done = run_conpool("demo")
    took = time.monotonic() - started_at
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    for site_name in ("plain", "TLS"):
        assert has_line(done.stdout, f"ok +100 requests, {site_name}: .* times as fast")
        limit = (
            f"ok +200 tasks over a limit of 10, {site_name}: never more than 10 client sockets.*"
        )
        assert has_line(done.stdout, limit)
        handover = (
            f"ok +cancelled in mid-reply, {site_name}: each next task read its own answer "
            r"\(over a plain list of streams: asked for 2, read 1\)"
        )
        assert has_line(done.stdout, handover)
    assert has_line(done.stdout, "ok +server restart in mid-run: .* and no error")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert has_line(done.stdout, "  wait p99  99 of 100 .*")
    assert "Every promise held" in done.stdout
    assert "FAILED" not in done.stdout
    assert took < 20


def test_version_is_the_package_s() -> None:
    done = run_conpool("--version")
    assert done.stdout == f"conpool {importlib.metadata.version('conpool')}\n"
    assert done.returncode == 0


def test_help_names_the_commands() -> None:
    done = run_conpool("--help")
    assert done.returncode == 0
    for command in ("demo", "bench", "probe", "top"):
        assert has_line(done.stdout, f" +{command} +.*")


def test_command_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main([])
    assert exited.value.code == 2
    assert "command" in capsys.readouterr().err


def test_help_needs_no_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(monkeypatch, "rich")
    forget(monkeypatch, "trustme")
    with pytest.raises(SystemExit) as exited:
        cli.main(["probe", "--help"])
    assert exited.value.code == 0
    assert "usage: conpool probe" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["rich", "trustme"])
def test_missing_extra_is_told_in_one_line(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(monkeypatch, missing)
    assert cli.main(["demo"]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err == f"conpool demo needs {missing}: python -m pip install 'conpool[cli]'\n"


def forget(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Let a package of the extra not be installed."""
    for name in list(sys.modules):
        if name.startswith(("conpool.cli._", f"{missing}.")) or name == missing:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(missing), *sys.meta_path])


class Missing:
    """An import system in which one package is not installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.partition(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def test_missing_module_of_our_own_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise ModuleNotFoundError(name="conpool.nonesuch")

    monkeypatch.setattr(_demo, "run", fail)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["demo"])


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])]
)
def test_interrupt_ends_quietly(raised: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise raised

    monkeypatch.setattr(_demo, "run", interrupt)
    assert cli.main(["demo"]) == 130


def test_interrupt_hides_no_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise BaseExceptionGroup("", [KeyboardInterrupt(), ValueError()])

    monkeypatch.setattr(_demo, "run", interrupt)
    with pytest.raises(BaseExceptionGroup):
        cli.main(["demo"])


# ── the run as a whole ──────────────────────────────────────────────────────────


async def hold(advance: proofs.Advance) -> str:
    advance()
    return "it held"


async def break_promise(*_: object) -> str:
    raise proofs.BrokenPromise("it did not hold")


async def break_down(*_: object) -> str:
    raise ExceptionGroup("", [ExceptionGroup("", [OSError("broken")])])


@contextmanager
def planned(monkeypatch: pytest.MonkeyPatch, *steps: _demo.Step) -> Iterator[io.StringIO]:
    """Let the demo consist of these steps; what it prints goes to the file."""
    with monkeypatch.context() as patch, io.StringIO() as file:
        patch.setattr(_demo, "plan", lambda *_: iter(steps))
        yield file


def test_failing_step_is_named_and_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (
        _demo.Step("one", 1, break_promise),
        _demo.Step("two", 1, hold),
        _demo.Step("three", 1, break_promise),
    )
    with planned(monkeypatch, *steps) as file:
        assert _demo.run(_screen.PlainScreen(file)) == 1
        printed = file.getvalue()
    assert has_line(printed, r"FAILED +one: it did not hold")
    assert has_line(printed, r"ok +two: it held")
    assert has_line(printed, r"FAILED: one, three \(.*")


def test_step_that_breaks_down_fails_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with planned(monkeypatch, _demo.Step("one", 1, break_down)) as file:
        assert _demo.run(_screen.PlainScreen(file)) == 1
        assert has_line(file.getvalue(), r"FAILED +one: OSError\('broken'\)")
    assert "Traceback" in capsys.readouterr().err


def test_demo_prints_json_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = (_demo.Step("one", 1, break_promise), _demo.Step("two", 1, hold))
    with planned(monkeypatch, *steps):
        assert cli.main(["demo", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["held"] is False
    assert shown["failed"] == ["one"]
    assert shown["steps"] == [
        {"title": "one", "held": False, "finding": "it did not hold"},
        {"title": "two", "held": True, "finding": "it held"},
    ]
    assert shown["stats"]["name"] == "demo"


def test_demo_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> str:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(_demo, "_DEADLINE", 0.05)
    with planned(monkeypatch, _demo.Step("one", 1, hang)) as file:
        assert _demo.run(_screen.PlainScreen(file)) == 1
        assert "FAILED: the demo did not end within" in file.getvalue()


# ── each proof, made to fail ────────────────────────────────────────────────────


async def test_plan_puts_every_promise_to_the_test() -> None:
    server, client = make_contexts()
    async with site() as plain, site(server, client) as secure, pool() as lender:
        steps = {step.title: step for step in _demo.plan(lender, (plain, secure))}
        assert list(steps) == [
            "100 requests, plain",
            "100 requests, TLS",
            "200 tasks over a limit of 10, plain",
            "200 tasks over a limit of 10, TLS",
            "server restart in mid-run",
            "cancelled in mid-reply, plain",
            "cancelled in mid-reply, TLS",
        ]
        assert "times as fast" in await steps["100 requests, TLS"].prove(idly)
        moved: list[None] = []
        assert "no error" in await steps["server restart in mid-run"].prove(
            lambda: moved.append(None)
        )
        assert len(moved) >= steps["server restart in mid-run"].moves


async def test_speed_is_not_proved_by_a_pool_that_keeps_nothing() -> None:
    async with site() as one, pool(uses=1) as forgetful:
        with pytest.raises(proofs.BrokenPromise, match="opened 100 connections"):
            await proofs.prove_speed(forgetful, one, idly)


async def test_speed_is_not_proved_by_a_slow_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter([1.0, 2.0])

    async def time_requests(request: Callable[[int], Awaitable[None]], *_: object) -> float:
        await request(1)
        return next(spent)

    monkeypatch.setattr(proofs, "_time_requests", time_requests)
    async with site() as one, pool() as slow:
        with pytest.raises(proofs.BrokenPromise, match="2.000 s over the pool, 1.000 s on fresh"):
            await proofs.prove_speed(slow, one, idly)


@pytest.mark.parametrize("limit", [9, 11])
async def test_limit_is_not_proved_by_a_pool_with_another(limit: int) -> None:
    async with site() as one, pool(limit) as other:
        with pytest.raises(proofs.BrokenPromise, match=f"{limit} client sockets were open at once"):
            await proofs.prove_limit(other, one, idly)


async def test_limit_is_proved_by_the_server_where_the_kernel_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(server: DemoServer) -> Witness:
        return find_witness(server, Path("/nonexistent"))

    monkeypatch.setattr(proofs, "find_witness", find)
    async with site() as one, pool() as right:
        finding = await proofs.prove_limit(right, one, idly)
    assert finding.endswith("looks at the server's count")


def restart_into(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Let `change` happen when the demo's server is started for the second time."""
    start = DemoServer.run

    async def run(self: DemoServer, task_status: trio.TaskStatus[None]) -> None:
        if self.port:
            change()
        await start(self, task_status)

    monkeypatch.setattr(DemoServer, "run", run)


async def test_restart_is_not_proved_if_somebody_sees_an_error_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> list[int]:
        raise BadReply("as over a connection to the old server")

    restart_into(monkeypatch, lambda: monkeypatch.setattr(proofs, "ask", fail))
    monkeypatch.setattr(proofs, "_RECOVERY", 4.0)  # longer than any back-off
    async with pool() as unlucky:
        with pytest.raises(
            proofs.BrokenPromise, match="the server was back, and yet request: BadReply"
        ):
            await proofs.prove_restart(unlucky, idly)


async def test_restart_is_not_proved_if_nobody_is_served_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ignore(*_: object) -> None:
        await trio.sleep_forever()

    restart_into(monkeypatch, lambda: monkeypatch.setattr(DemoServer, "_serve", ignore))
    monkeypatch.setattr(proofs, "_RECOVERY", 0.2)
    async with pool() as waiting:
        with pytest.raises(proofs.BrokenPromise, match=r"0 leases in the 0\.2 s after"):
            await proofs.prove_restart(waiting, idly)


@pytest.mark.parametrize(
    ("how", "swallow", "reads"),
    [
        ("late", False, r"asked for 2001, and read \[1001"),
        ("late", True, r"asked for 2001, and read \[1001"),
        ("half", False, r"asked for 2001, and got BadReply"),
        ("half", True, r"asked for 2001, and got BadReply"),
    ],
)
async def test_clean_handover_is_not_proved_if_a_caller_vouches_wrongly(
    how: How, swallow: bool, reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandon = proofs._abandon

    async def vouch_wrongly(
        conn: conpool.Connection[None], number: int, how: How, scope: trio.CancelScope
    ) -> None:
        try:
            await abandon(conn, number, how, scope)
        finally:
            conn.mark_clean()

    monkeypatch.setattr(proofs, "_abandon", vouch_wrongly)
    monkeypatch.setattr(proofs, "ABANDONED", ((how, swallow),))
    async with site() as one, pool() as trusting:
        with pytest.raises(proofs.BrokenPromise, match=reads):
            await proofs.prove_clean_handover(trusting, one, idly)


async def test_clean_handover_is_not_proved_by_a_harmless_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def finish(stream: trio.abc.Stream, number: int, *_: object) -> None:
        await ask(stream, number)

    monkeypatch.setattr(proofs, "_abandon", finish)
    async with site() as one, pool() as lender:
        with pytest.raises(proofs.BrokenPromise, match="proves nothing"):
            await proofs.prove_clean_handover(lender, one, idly)


async def test_answer_of_somebody_else_is_never_taken_for_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def misread(_: object, number: int) -> list[int]:
        return [number, number + 1]

    monkeypatch.setattr(proofs, "ask", misread)
    async with site() as one, pool() as lender:
        with pytest.raises(proofs.BrokenPromise, match=r"asked for 0, and read \[0, 1\]"):
            await proofs.prove_speed(lender, one, idly)


# ── the server, its witnesses and its certificates ──────────────────────────────


async def test_server_serves_again_on_the_same_port() -> None:
    server = DemoServer()
    async with trio.open_nursery() as nursery:
        for number in range(3):
            await nursery.start(server.run)
            port = server.port
            async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
                assert await ask(stream, number) == [number]
                await server.stop()
                assert server.port == port
                with pytest.raises((BadReply, trio.BrokenResourceError)):
                    await ask(stream, number)


async def test_answers_that_arrived_together_are_all_told() -> None:
    async with site() as one, await trio.open_tcp_stream(LOOPBACK, one.server.port) as stream:
        await send_request(stream, 1, "late")
        await send_request(stream, 2)
        await trio.testing.wait_all_tasks_blocked()
        one.server.gate.set()
        answers = await read_answers(stream)
        while len(answers) < 2:
            answers += await read_answers(stream)
    assert answers == [1, 2]


async def test_reply_that_makes_no_sense_is_no_reply() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"77HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
    with pytest.raises(BadReply, match="is no reply"):
        await read_answers(ours)


@pytest.mark.parametrize("table", [_demo_sockets.KERNEL_TABLE, Path("/nonexistent")])
async def test_witness_counts_open_sockets_and_no_closed_ones(table: Path) -> None:
    async with site() as one:
        witness = find_witness(one.server, table)
        assert witness.count() == 0
        streams = [await trio.open_tcp_stream(LOOPBACK, one.server.port) for _ in range(3)]
        for number, stream in enumerate(streams):
            assert await ask(stream, number) == [number]
        assert witness.count() == 3
        await streams.pop().aclose()
        assert witness.count() == 2
        # A connection that is reset while the server is busy counts as closed, too.
        await send_request(streams[0], 3, "late")
        await trio.testing.wait_all_tasks_blocked()
        linger = struct.pack("ii", 1, 0)
        streams[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await streams.pop(0).aclose()
        assert witness.count() == 1
        await streams.pop().aclose()
        assert witness.count() == 0


async def test_witness_counts_a_row_once_however_often_it_comes_up(tmp_path: Path) -> None:
    async with site() as one, await trio.open_tcp_stream(LOOPBACK, one.server.port) as stream:
        assert await ask(stream, 1) == [1]
        table = tmp_path / "tcp"
        head, *rows = _demo_sockets.KERNEL_TABLE.read_text().splitlines()
        table.write_text("\n".join([head, *rows, *rows]))
        assert find_witness(one.server, table).count() == 1


async def test_witness_is_the_server_where_the_table_is_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_demo_sockets, "_LONG", 0)
    async with site() as one:
        assert find_witness(one.server).name == "the server's count"


async def test_reply_in_pieces_is_put_together() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble, theirs, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n107")
        assert await read_answers(ours) == [107]


async def dribble(stream: trio.abc.SendStream, data: bytes) -> None:
    for byte in data:
        await stream.send_all(bytes([byte]))
        await trio.testing.wait_all_tasks_blocked()


async def test_witness_is_the_server_where_the_table_does_not_know_it(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text("  sl  local_address rem_address   st\n")
    async with site() as one:
        assert find_witness(one.server, table).name == "the server's count"


async def test_certificates_are_good_for_the_loopback_address_alone() -> None:
    server, client = make_contexts()
    async with site(server, client) as one:
        for name, trusted in ((LOOPBACK, True), ("localhost", False), ("example.org", False)):
            stream = trio.SSLStream(
                await trio.open_tcp_stream(LOOPBACK, one.server.port), client, server_hostname=name
            )
            if trusted:
                await stream.do_handshake()
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.do_handshake()
            await trio.aclose_forcefully(stream)


# ── screens ─────────────────────────────────────────────────────────────────────


def test_terminal_sees_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_screen, "_REDRAW_AFTER", 0.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    screen = _screen.RichScreen(console)
    with screen.show_progress("counting [sheep]", 2) as advance:
        advance()
        advance()
    screen.show_verdict(held=True, title="sheep", finding="[2] of them")
    screen.say("x" * 200)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    for shown in ("counting [sheep]", "1/2", "2/2", "ok", "sheep: [2] of them", "x" * 200):
        assert shown in printed


def test_bar_is_drawn_ten_times_a_second_at_most() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with _screen.RichScreen(console).show_progress("counting", 1000) as advance:
        for _ in range(1000):
            advance()
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("counting") < 20


def test_json_has_standard_output_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    for screen in (_screen.SilentScreen(), _screen.SilentScreen(_screen.RichScreen(console))):
        screen.say("something")
        screen.show_verdict(held=True, title="sheep", finding="two")
        with screen.show_progress("counting", 1) as advance:
            advance()
    assert isinstance(console.file, io.StringIO)
    assert "counting" in console.file.getvalue()
    assert "sheep" not in console.file.getvalue()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(_screen.choose_screen(is_silent=True), _screen.SilentScreen)


@pytest.mark.parametrize(
    ("environment", "screen"),
    [
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, _screen.RichScreen),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, _screen.PlainScreen),
        ({"FORCE_COLOR": "", "TERM": "xterm"}, _screen.PlainScreen),
    ],
)
def test_bar_is_for_terminals_only(
    environment: dict[str, str], screen: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert isinstance(_screen.choose_screen(), screen)
