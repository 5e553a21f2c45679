"""Names when the resolver is down, slow or broken, or answers when nobody waits any more."""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Callable, Iterator

import outcome
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool._dial.lookup import Found, Question
from conpool._dial.name_cache import MAX_STALE, PATIENCE, STALE_TTL, NameCache
from tests._net import Hosts, SystemResolver, v4
from tests.support.odd import odd_exceptions, repr_of
from tests.unit.dial.test_name_cache import DOWN, NO_SUCH_NAME, ips, names_for


@pytest.mark.parametrize(
    "error",
    [
        DOWN,
        socket.gaierror(socket.EAI_FAIL, "failed"),
        TimeoutError(errno.ETIMEDOUT, "timed out"),
        RuntimeError("a bug in the resolver"),
    ],
)
async def test_old_addresses_serve_while_the_resolver_is_down(
    error: Exception, autojump_clock: MockClock
) -> None:
    hosts = Hosts(db=["192.0.2.1"])
    names = names_for(hosts)
    await ips(names)
    await trio.sleep(300.0)
    hosts.names["db"] = error
    for _ in range(3):
        assert await ips(names) == ["192.0.2.1"]
    assert len(hosts.asked) == 2
    assert (names.stats.stale, names.stats.failures) == (1, 1)
    await trio.sleep(STALE_TTL)
    hosts.names["db"] = ["192.0.2.2"]
    assert await ips(names) == ["192.0.2.2"]


async def test_old_addresses_do_not_outlive_a_name_that_is_gone(autojump_clock: MockClock) -> None:
    hosts = Hosts(db=["192.0.2.1"])
    names = names_for(hosts)
    await ips(names)
    await trio.sleep(300.0)
    hosts.names["db"] = NO_SUCH_NAME
    with pytest.raises(socket.gaierror):
        await ips(names)


async def test_old_addresses_serve_for_a_day(autojump_clock: MockClock) -> None:
    hosts = Hosts(db=["192.0.2.1"])
    names = names_for(hosts)
    await ips(names)
    hosts.names["db"] = DOWN
    await trio.sleep(MAX_STALE - 1.0)
    assert await ips(names) == ["192.0.2.1"]
    await trio.sleep(STALE_TTL)
    with pytest.raises(socket.gaierror) as caught:
        await ips(names)
    assert caught.value.errno == socket.EAI_AGAIN


async def test_f023_old_addresses_serve_while_the_resolver_is_slow(
    autojump_clock: MockClock,
) -> None:
    hosts = Hosts(db=["192.0.2.1"])
    names = names_for(hosts)
    await ips(names)
    await trio.sleep(300.0)
    hosts.delay = math.inf
    before = trio.current_time()
    assert await ips(names) == ["192.0.2.1"]
    assert trio.current_time() - before == pytest.approx(PATIENCE)
    assert await ips(names) == ["192.0.2.1"]
    assert trio.current_time() - before == pytest.approx(PATIENCE)
    assert (names.stats.stale, names.stats.failures) == (1, 0)


async def test_old_addresses_serve_while_there_is_time_to_use_them(
    autojump_clock: MockClock,
) -> None:
    """A caller with less time than the resolver gets once had nothing, in spite of an answer."""
    hosts = Hosts(db=["192.0.2.1"])
    names = names_for(hosts)
    await ips(names)
    await trio.sleep(300.0)
    hosts.delay = math.inf
    with trio.fail_after(1.0):
        assert await ips(names) == ["192.0.2.1"]
        assert trio.current_effective_deadline() - trio.current_time() == pytest.approx(0.5)


async def test_an_answer_that_failed_to_connect_still_serves_if_the_resolver_is_down() -> None:
    hosts = Hosts(db=["192.0.2.1"])
    names = names_for(hosts)
    (await names.resolve("db", 1)).expire()
    hosts.names["db"] = DOWN
    assert await ips(names) == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (RuntimeError("a bug"), socket.gaierror, socket.EAI_FAIL),
        (ConnectionResetError(errno.ECONNRESET, "reset"), socket.gaierror, socket.EAI_FAIL),
        (TimeoutError(errno.ETIMEDOUT, "too slow"), TimeoutError, errno.ETIMEDOUT),
        (OSError(errno.EMFILE, "no files"), OSError, errno.EMFILE),
    ],
)
async def test_whatever_a_resolver_raises_is_told_to_those_who_waited(
    error: Exception, kind: type[OSError], code: int
) -> None:
    names = names_for(Hosts(db=error))
    with pytest.raises(OSError) as caught:
        await ips(names)
    assert type(caught.value) is kind
    assert caught.value.errno == code
    assert caught.value.__cause__ is error
    with pytest.raises(kind) as later:
        await ips(names)
    assert later.value.__cause__ is None
    assert str(later.value) == str(caught.value)


# ── threads that nobody waits for any more ──────────────────────────────────────


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemResolver]:
    resolver = SystemResolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.let_go()


async def leave_behind(names: NameCache, system: SystemResolver) -> None:
    """Ask, give up, and wait until the thread has delivered its answer."""
    before = len(system.asked)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ips, names)
        await system.wait_asked(before + 1)
        nursery.cancel_scope.cancel()
    adopted = trio.Event()

    def adopt(question: Question, found: Found) -> None:
        names._adopt(question, found)
        adopted.set()

    names._lookups._on_orphan = adopt
    system.gate.set()
    with trio.fail_after(5):
        await adopted.wait()


async def test_f023_sixty_callers_of_a_name_that_hangs_take_one_thread(
    system: SystemResolver,
) -> None:
    names = NameCache(ttl=300.0)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ips, names)
            await wait_all_tasks_blocked()
            await system.wait_asked(1)
            nursery.cancel_scope.cancel()
    assert system.asked == ["db"]
    system.gate.set()
    assert await ips(names) == ["127.0.0.1"]
    assert system.asked == ["db"]


async def test_a_late_answer_is_remembered(system: SystemResolver) -> None:
    names = NameCache(ttl=300.0)
    await leave_behind(names, system)
    assert await ips(names) == ["127.0.0.1"]
    assert system.asked == ["db"]
    assert names.stats.hits == 1


async def test_a_late_failure_is_remembered(system: SystemResolver) -> None:
    names = NameCache(ttl=300.0)
    system.fails = NO_SUCH_NAME
    await leave_behind(names, system)
    with pytest.raises(socket.gaierror):
        await ips(names)
    assert system.asked == ["db"]
    assert names.stats.failures == 1


@pytest.mark.parametrize(
    ("error", "check"),
    [(DOWN, lambda found: found == ("127.0.0.1",)), (NO_SUCH_NAME, lambda found: not found)],
)
async def test_a_late_failure_spares_old_addresses_unless_the_name_is_gone(
    error: OSError, check: Callable[[object], bool], system: SystemResolver
) -> None:
    names = NameCache(ttl=300.0)
    system.gate.set()
    (await names.resolve("db", 5432)).expire()
    system.gate.clear()
    system.fails = error
    await leave_behind(names, system)
    kept = names._answers[names._lookups.question("db", 5432, 0)]
    assert check(tuple(address.ip for address in kept.addresses))


async def test_a_late_answer_is_taken_by_those_woken_with_it(system: SystemResolver) -> None:
    """The task that asked is cancelled in the tick in which its thread delivers."""
    names = NameCache(ttl=300.0)
    async with trio.open_nursery() as nursery:
        asker = trio.CancelScope()

        async def ask() -> None:
            with asker:
                await ips(names)

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        nursery.start_soon(ips, names)
        await wait_all_tasks_blocked()
        await system.wait_asked(1)
        asker.cancel()
        found = outcome.Value((v4("127.0.0.1"),))
        names._adopt(names._lookups.question("db", 5432, 0), found)
        await wait_all_tasks_blocked()
        assert names.stats.lookups == 1
        system.gate.set()


@pytest.mark.parametrize("error", odd_exceptions(), ids=repr_of)
async def test_f152_whatever_a_look_up_without_waiters_raised_is_remembered(
    error: Exception,
) -> None:
    """It is reported to trio itself: what is raised there ends the program."""
    names = NameCache(ttl=300.0)
    question = names._lookups.question("db", 5432, 0)
    names._adopt(question, outcome.Error(error))
    with pytest.raises(OSError, match=r".") as caught:
        await names.resolve("db", 5432)
    assert len(str(caught.value)) < 500
