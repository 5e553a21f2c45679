from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool._dial import places
from conpool._dial.lookup import MOST_READ, Found, Lookups, Question, find_hook
from conpool._dial.places import ITS_TIME, MOST_LATE, MOST_THREADS, PLACES, SLOW_PLACES
from tests._net import Hook, Hosts, SystemResolver, hooked, v4, v6


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemResolver]:
    resolver = SystemResolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.let_go()


class Orphans:
    def __init__(self) -> None:
        self.found: list[tuple[str, Found]] = []
        self.event = trio.Event()

    def __call__(self, question: Question, found: Found) -> None:
        self.found.append((question.host, found))
        self.event.set()


def system_lookups() -> tuple[Lookups, Orphans]:
    orphans = Orphans()
    return Lookups(None, orphans), orphans


async def ask(lookups: Lookups, host: str, family: int = 0) -> tuple[str, ...]:
    found = await lookups.ask(lookups.question(host, 80, family))
    return tuple(address.ip for address in found)


# ── the system ──────────────────────────────────────────────────────────────────


async def test_the_system_finds_addresses(system: SystemResolver) -> None:
    system.gate.set()
    lookups, orphans = system_lookups()
    assert await lookups.ask(lookups.question("db.example", 80, 0)) == (v4("127.0.0.1"),)
    assert system.asked == ["db.example"]
    assert orphans.found == []


async def test_the_real_system_knows_localhost() -> None:
    lookups, _ = system_lookups()
    assert "127.0.0.1" in await ask(lookups, "localhost", socket.AF_INET)


async def test_f022_the_system_says_that_there_is_no_such_name(system: SystemResolver) -> None:
    system.gate.set()
    system.fails = socket.gaierror(socket.EAI_NONAME, "no such name")
    lookups, _ = system_lookups()
    with pytest.raises(socket.gaierror) as caught:
        await ask(lookups, "nosuch.example")
    assert caught.value.errno == socket.EAI_NONAME


async def test_f023_slow_names_never_touch_trios_own_threads(system: SystemResolver) -> None:
    system.slow = "slow"
    lookups, _ = system_lookups()
    default = trio.to_thread.current_default_thread_limiter()
    async with trio.open_nursery() as nursery:
        for number in range(PLACES - 1):
            nursery.start_soon(ask, lookups, f"slow{number}")
        await system.wait_asked(PLACES - 1)
        with trio.fail_after(5):
            assert await ask(lookups, "quick") == ("127.0.0.1",)
        assert default.borrowed_tokens == 0
        system.gate.set()


async def test_more_names_than_the_limit_wait_their_turn(system: SystemResolver) -> None:
    lookups, _ = system_lookups()
    async with trio.open_nursery() as nursery:
        for number in range(PLACES):
            nursery.start_soon(ask, lookups, f"slow{number}")
        await system.wait_asked(PLACES)
        nursery.start_soon(ask, lookups, "late")
        await wait_all_tasks_blocked()
        assert repr(lookups) == f"<Lookups: {PLACES} threads of {MOST_THREADS}>"
        assert "late" not in system.asked
        system.gate.set()
    assert system.asked[-1] == "late"


async def test_g10_one_cancelled_while_it_waits_its_turn_takes_none(
    system: SystemResolver,
) -> None:
    lookups, orphans = system_lookups()
    async with trio.open_nursery() as nursery:
        for number in range(PLACES):
            nursery.start_soon(ask, lookups, f"slow{number}")
        await system.wait_asked(PLACES)
        with trio.move_on_after(0.01) as scope:
            await ask(lookups, "late")
        assert scope.cancelled_caught
        system.gate.set()
    assert await ask(lookups, "after") == ("127.0.0.1",)
    assert "late" not in system.asked
    assert orphans.found == []


async def test_f023_attempts_at_a_name_that_hangs_share_one_thread(system: SystemResolver) -> None:
    lookups, orphans = system_lookups()
    for _ in range(5):
        with trio.move_on_after(0.01) as scope:
            await ask(lookups, "slow")
        assert scope.cancelled_caught
    await system.wait_asked(1)
    async with trio.open_nursery() as nursery:
        results: list[tuple[str, ...]] = []

        async def ask_on() -> None:
            results.append(await ask(lookups, "slow"))

        nursery.start_soon(ask_on)
        await wait_all_tasks_blocked()
        system.gate.set()
    assert results == [("127.0.0.1",)]
    assert system.asked == ["slow"]
    assert orphans.found == []


async def test_what_a_thread_finds_when_all_have_gone_is_reported(system: SystemResolver) -> None:
    lookups, orphans = system_lookups()
    with trio.move_on_after(0.01):
        await ask(lookups, "slow")
    await system.wait_asked(1)
    system.gate.set()
    with trio.fail_after(5):
        await orphans.event.wait()
    ((host, found),) = orphans.found
    assert host == "slow"
    assert found.unwrap() == (v4("127.0.0.1"),)
    assert repr(lookups) == f"<Lookups: 0 threads of {MOST_THREADS}>"


def test_g19_a_thread_that_outlives_the_run_reports_to_nobody(
    system: SystemResolver, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        lookups, _ = system_lookups()
        with trio.move_on_after(0.01):
            await ask(lookups, "slow")
        await system.wait_asked(1)

    trio.run(main)
    system.let_go()
    assert capfd.readouterr() == ("", "")


async def test_f035_no_thread_left_is_this_machines_fault(
    system: SystemResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups, _ = system_lookups()

    def no_more(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "start_thread_soon", no_more)
        for _ in range(PLACES + 1):
            with pytest.raises(OSError, match="no thread left") as caught:
                await ask(lookups, "db.example")
            assert caught.value.errno == errno.ENOMEM
    system.gate.set()
    assert await ask(lookups, "db.example") == ("127.0.0.1",)


# ── names that hang ─────────────────────────────────────────────────────────────


async def ask_all(
    nursery: trio.Nursery, system: SystemResolver, lookups: Lookups, names: list[str]
) -> None:
    """Have all `names` looked up, and wait until the system is asked for them."""
    asked = len(system.asked)
    for name in names:
        nursery.start_soon(ask, lookups, name)
    await system.wait_asked(asked + len(names))


async def test_f158_names_that_hang_do_not_delay_others_for_long(
    system: SystemResolver, mock_clock: MockClock
) -> None:
    system.slow = "slow"
    lookups, _ = system_lookups()
    async with trio.open_nursery() as nursery:
        await ask_all(nursery, system, lookups, [f"slow{n}" for n in range(PLACES)])
        nursery.start_soon(ask, lookups, "quick")
        await wait_all_tasks_blocked()
        mock_clock.jump(ITS_TIME * 0.9)
        await wait_all_tasks_blocked()
        assert "quick" not in system.asked
        mock_clock.jump(ITS_TIME * 0.1)
        await system.wait_asked(PLACES + 1)
        assert await ask(lookups, "another") == ("127.0.0.1",), "their places stay free"
        system.gate.set()


async def test_f158_late_look_ups_have_a_ceiling(
    system: SystemResolver, mock_clock: MockClock
) -> None:
    lookups, _ = system_lookups()
    system.slow = "slow"
    async with trio.open_nursery() as nursery:
        for batch in range(MOST_LATE // PLACES + 1):
            names = [f"slow{batch}.{n}" for n in range(PLACES)]
            await ask_all(nursery, system, lookups, names)
            mock_clock.jump(ITS_TIME)
        nursery.start_soon(ask, lookups, "quick")
        await wait_all_tasks_blocked()
        assert "quick" not in system.asked
        threads = MOST_LATE + PLACES
        assert repr(lookups) == f"<Lookups: {threads} threads of {MOST_THREADS}>"
        assert repr(lookups._places) == f"<Places: {PLACES} taken, {MOST_LATE} late, 0 slow>"
        system.gate.set()
    assert "quick" in system.asked
    assert repr(lookups._places) == "<Places: 0 taken, 0 late, 0 slow>"


async def test_f158_slow_names_wait_for_each_other_only(
    system: SystemResolver, mock_clock: MockClock
) -> None:
    lookups, _ = system_lookups()
    system.slow = "slow"
    names = [f"slow{n}" for n in range(PLACES)]
    async with trio.open_nursery() as nursery:
        await ask_all(nursery, system, lookups, names)
        mock_clock.jump(ITS_TIME)
        system.gate.set()
    assert SLOW_PLACES == PLACES
    system.gate.clear()
    async with trio.open_nursery() as nursery:
        await ask_all(nursery, system, lookups, names)
        assert await ask(lookups, "quick") == ("127.0.0.1",), "at once, and time stands still"
        assert repr(lookups._places) == f"<Places: 0 taken, 0 late, {SLOW_PLACES} slow>"
        system.gate.set()
    assert lookups._places._slow_names == {}, "all were in time again"


async def test_f158_few_slow_names_are_remembered(
    system: SystemResolver, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MOST_SLOW", 2)
    lookups, _ = system_lookups()
    async with trio.open_nursery() as nursery:
        await ask_all(nursery, system, lookups, ["slow1", "slow2", "slow3"])
        mock_clock.jump(ITS_TIME)
        system.gate.set()
    assert len(lookups._places._slow_names) == 2


async def test_g10_one_cancelled_while_it_waits_for_a_late_one_takes_no_place(
    system: SystemResolver, mock_clock: MockClock
) -> None:
    lookups, _ = system_lookups()
    system.slow = "slow"
    async with trio.open_nursery() as nursery:
        await ask_all(nursery, system, lookups, [f"slow{n}" for n in range(PLACES)])
        with trio.CancelScope() as scope:
            scope.cancel()
            await ask(lookups, "quick")
        mock_clock.jump(ITS_TIME)
        assert await ask(lookups, "other") == ("127.0.0.1",)
        assert "quick" not in system.asked
        assert repr(lookups._places) == f"<Places: 0 taken, {PLACES} late, 0 slow>"
        system.gate.set()


# ── others ──────────────────────────────────────────────────────────────────────


async def test_a_resolver_of_ones_own_is_asked_instead() -> None:
    hosts = Hosts(db=["2001:DB8::1", "192.0.2.1"])
    lookups = Lookups(hosts, Orphans())
    assert await ask(lookups, "db") == ("2001:db8::1", "192.0.2.1")
    assert await ask(lookups, "db", socket.AF_INET) == ("192.0.2.1",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "it must give a list of IP addresses, not None"),
        (5, "it must give a list of IP addresses, not 5"),
        ("192.0.2.1", "it must give a list of IP addresses, not a str"),
        ([5], "gave 5, which is no IP address"),
        ([None], "gave None, which is no IP address"),
    ],
)
async def test_f137_a_resolver_that_gives_nonsense_is_told_so(given: Any, said: str) -> None:
    lookups = Lookups(Hosts(db=given), Orphans())
    with pytest.raises((TypeError, ValueError), match=said):
        await ask(lookups, "db")


async def test_f147_of_an_endless_answer_the_beginning_is_read() -> None:
    endless: Any = itertools.repeat("192.0.2.1")
    lookups = Lookups(Hosts(db=endless), Orphans())
    assert len(await ask(lookups, "db")) == MOST_READ


async def test_a_resolver_that_gives_names_is_told_so() -> None:
    lookups = Lookups(Hosts(db=["db.example"]), Orphans())
    with pytest.raises(ValueError, match="which is no IP address"):
        await ask(lookups, "db")


async def test_trios_hook_is_honoured_and_sees_the_port() -> None:
    lookups, _ = system_lookups()
    with hooked(Hook((socket.AF_INET6, ("2001:DB8::1", 80, 0, 0)))) as hook:
        question = lookups.question("db.example", 80, 0)
        assert question == Question("db.example", 0, 80)
        assert await lookups.ask(question) == (v6("2001:db8::1")._replace(port=80),)
        assert hook.asked == [(b"db.example", 80)]
    assert lookups.question("db.example", 80, 0) == Question("db.example", 0, 0)


async def test_a_resolver_of_ones_own_goes_before_trios_hook() -> None:
    lookups = Lookups(Hosts(db=["192.0.2.1"]), Orphans())
    with hooked(Hook()) as hook:
        assert await ask(lookups, "db") == ("192.0.2.1",)
    assert hook.asked == []


async def test_asking_for_the_hook_leaves_it_as_it_was() -> None:
    assert find_hook() is None
    with hooked(Hook()) as hook:
        assert find_hook() is hook
        assert find_hook() is hook
    assert find_hook() is None
