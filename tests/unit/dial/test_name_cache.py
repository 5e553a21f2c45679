from __future__ import annotations

import socket

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool._dial import name_cache
from conpool._dial.name_cache import FAILURE_TTL, MAX_NAMES, NameCache
from conpool.testing import cancel_everywhere, explore_schedules
from tests._net import Hook, Hosts, hooked, v4

NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "no such name")
DOWN = socket.gaierror(socket.EAI_AGAIN, "try again")


def names_for(hosts: Hosts, ttl: float = 300.0) -> NameCache:
    return NameCache(ttl=ttl, resolver=hosts)


async def ips(names: NameCache, host: str = "db") -> list[str]:
    return [address.ip for address in (await names.resolve(host, 5432)).addresses]


# ── memory ──────────────────────────────────────────────────────────────────────


async def test_a_name_is_looked_up_once_within_its_time(autojump_clock: MockClock) -> None:
    hosts = Hosts(db=["192.0.2.1", "192.0.2.2"])
    names = names_for(hosts)
    assert await ips(names) == ["192.0.2.1", "192.0.2.2"]
    await trio.sleep(299.9)
    hosts.names["db"] = ["192.0.2.3"]
    assert await ips(names) == ["192.0.2.1", "192.0.2.2"]
    await trio.sleep(0.1)
    assert await ips(names) == ["192.0.2.3"]
    assert names.stats == name_cache.ResolverStats(
        hits=1, misses=2, lookups=2, failures=0, stale=0, names=1
    )


async def test_an_ip_address_asks_nobody() -> None:
    hosts = Hosts()
    names = names_for(hosts)
    assert await ips(names, "192.0.2.1") == ["192.0.2.1"]
    assert await ips(names, "::1") == ["::1"]
    assert hosts.asked == []
    assert names.stats.misses == names.stats.names == 0


async def test_families_are_remembered_apart() -> None:
    hosts = Hosts(db=["192.0.2.1", "2001:db8::1"])
    names = names_for(hosts)
    answer = await names.resolve("db", 1, socket.AF_INET)
    assert answer.addresses == (v4("192.0.2.1"),)
    assert len((await names.resolve("db", 1)).addresses) == 2
    assert await names.addresses("db", 1, socket.AF_INET) == frozenset({"192.0.2.1"})
    assert len(hosts.asked) == 2


async def test_ports_share_an_answer_except_of_trios_hook() -> None:
    hosts = Hosts(db=["192.0.2.1"])
    names = names_for(hosts)
    await names.resolve("db", 1)
    await names.resolve("db", 2)
    assert hosts.asked == ["db"]
    names = NameCache(ttl=300.0)
    with hooked(Hook((socket.AF_INET, ("192.0.2.1", 7)))) as hook:
        answer = await names.resolve("db", 1)
        await names.resolve("db", 2)
        await names.resolve("db", 2)
    assert answer.addresses[0].at(1) == ("192.0.2.1", 7)
    assert [port for _, port in hook.asked] == [1, 2]


async def test_f022_a_failure_is_remembered_for_a_second(autojump_clock: MockClock) -> None:
    hosts = Hosts(db=NO_SUCH_NAME)
    names = names_for(hosts)
    for _ in range(3):
        with pytest.raises(socket.gaierror) as caught:
            await ips(names)
        assert caught.value.errno == socket.EAI_NONAME
    assert hosts.asked == ["db"]
    assert names.stats.failures == 1
    await trio.sleep(FAILURE_TTL)
    hosts.names["db"] = ["192.0.2.1"]
    assert await ips(names) == ["192.0.2.1"]


async def test_f024_no_address_is_no_such_name() -> None:
    names = names_for(Hosts(db=[]))
    with pytest.raises(socket.gaierror, match="no address") as caught:
        await ips(names)
    assert caught.value.errno == socket.EAI_NONAME


async def test_nothing_is_remembered_with_a_time_of_zero(autojump_clock: MockClock) -> None:
    hosts = Hosts(db=["192.0.2.1"])
    names = names_for(hosts, ttl=0.0)
    await ips(names)
    hosts.names["db"] = DOWN
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await ips(names)
    assert len(hosts.asked) == 3
    assert names.stats.names == 0
    assert await names.addresses("db", 5432) is None
    assert len(hosts.asked) == 3, "or a pool that follows names would ask every few seconds"


async def test_memory_is_bounded_and_forgets_what_was_looked_up_longest_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(name_cache, "MAX_NAMES", 3)
    hosts = Hosts(**{name: ["192.0.2.1"] for name in "abcd"})
    names = names_for(hosts)
    for name in "abcab":
        await ips(names, name)
    (await names.resolve("a", 1)).expire()
    for name in "adcd":
        await ips(names, name)
    assert hosts.asked == ["a", "b", "c", "a", "d"]
    assert names.stats.names == 3
    assert MAX_NAMES >= 1000
    assert repr(names) == "<NameCache: 3 remembered, 0 being looked up>"


async def test_the_winner_is_remembered_as_long_as_it_is_an_address(
    autojump_clock: MockClock,
) -> None:
    hosts = Hosts(db=["192.0.2.1", "192.0.2.2"])
    names = names_for(hosts)
    (await names.resolve("db", 1)).winner = v4("192.0.2.2")
    await trio.sleep(300.0)
    assert (await names.resolve("db", 1)).winner == v4("192.0.2.2")
    await trio.sleep(300.0)
    hosts.names["db"] = ["192.0.2.1", "192.0.2.3"]
    assert (await names.resolve("db", 1)).winner is None


async def test_a_winner_whose_answer_expired_is_forgotten() -> None:
    names = names_for(Hosts(db=["192.0.2.1", "192.0.2.2"]))
    answer = await names.resolve("db", 1)
    answer.winner = v4("192.0.2.2")
    answer.expire()
    assert (await names.resolve("db", 1)).winner is None


async def test_an_expired_answer_is_looked_up_again() -> None:
    hosts = Hosts(db=["192.0.2.1"])
    names = names_for(hosts)
    answer = await names.resolve("db", 1)
    assert repr(answer) == "<Answer 192.0.2.1>"
    answer.expire()
    hosts.names["db"] = ["192.0.2.2"]
    assert await ips(names) == ["192.0.2.2"]
    answer.expire()  # an old answer that expires says nothing about the new one
    assert await ips(names) == ["192.0.2.2"]
    assert hosts.asked == ["db", "db"]


async def test_the_addresses_are_those_of_the_last_look_up_until_it_expires(
    autojump_clock: MockClock,
) -> None:
    hosts = Hosts(db=["192.0.2.1", "192.0.2.2"])
    names = names_for(hosts)
    both = frozenset({"192.0.2.1", "192.0.2.2"})
    assert await names.addresses("db", 1) == both
    hosts.names["db"] = ["192.0.2.3"]
    assert await names.addresses("db", 1) == both
    await trio.sleep(300.0)
    assert await names.addresses("db", 1) == frozenset({"192.0.2.3"})
    assert await ips(names) == ["192.0.2.3"]
    assert len(hosts.asked) == 2
    hosts.names["db"] = NO_SUCH_NAME
    await trio.sleep(300.0)
    with pytest.raises(socket.gaierror):
        await names.addresses("db", 1)
    assert (names.stats.hits, names.stats.misses) == (1, 0), "these tell of dials"


async def test_an_ip_address_has_no_addresses_to_follow() -> None:
    hosts = Hosts()
    assert await names_for(hosts).addresses("192.0.2.1", 1) is None
    assert hosts.asked == []


async def test_a_name_that_the_memory_has_no_room_for_is_not_asked_about(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each name would push out another, and a pool would look up all in every round."""
    monkeypatch.setattr(name_cache, "MAX_NAMES", 2)
    hosts = Hosts(**{name: ["192.0.2.1"] for name in "abc"})
    names = names_for(hosts)
    for name in "abc":
        await ips(names, name)
    await trio.sleep(300.0)
    assert await names.addresses("a", 1) is None
    assert hosts.asked == ["a", "b", "c"]
    assert await names.addresses("b", 1) == frozenset({"192.0.2.1"})
    assert hosts.asked == ["a", "b", "c", "b"]


# ── many who want to know ───────────────────────────────────────────────────────


async def test_a_thousand_callers_make_one_look_up() -> None:
    hosts = Hosts(db=["192.0.2.1"])
    hosts.gate = trio.Event()
    names = names_for(hosts)
    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(ips, names)
        await wait_all_tasks_blocked()
        assert repr(names) == "<NameCache: 0 remembered, 1 being looked up>"
        hosts.gate.set()
    assert hosts.asked == ["db"]
    assert (names.stats.misses, names.stats.lookups) == (1000, 1)


async def test_a_thousand_callers_share_one_failure(autojump_clock: MockClock) -> None:
    hosts = Hosts(db=DOWN)
    hosts.delay = 1.0
    names = names_for(hosts, ttl=0.0)
    seen: list[BaseException] = []

    async def fail() -> None:
        with pytest.raises(socket.gaierror) as caught:
            await ips(names)
        seen.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(fail)
    assert hosts.asked == ["db"]
    assert len({id(error) for error in seen}) == 1000


async def test_if_the_one_who_asks_is_cancelled_another_asks_on(autojump_clock: MockClock) -> None:
    hosts = Hosts(db=["192.0.2.1"])
    hosts.delay = 3.0
    names = names_for(hosts)
    found: list[list[str]] = []

    async def wait(seconds: float) -> None:
        with trio.move_on_after(seconds):
            found.append(await ips(names))

    async with trio.open_nursery() as nursery:
        for seconds in (1.0, 2.0, 9.0, 9.0):
            nursery.start_soon(wait, seconds)
            await trio.sleep(0.1)
    assert found == [["192.0.2.1"]] * 2
    assert 2 <= len(hosts.asked) <= 3


async def test_one_who_waits_may_be_cancelled_alone(autojump_clock: MockClock) -> None:
    hosts = Hosts(db=["192.0.2.1"])
    hosts.delay = 3.0
    names = names_for(hosts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ips, names)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1.0) as scope:
            await ips(names)
        assert scope.cancelled_caught
    assert hosts.asked == ["db"]


def test_g12_nobody_waits_on_whoever_is_cancelled_in_whatever_order() -> None:
    async def scenario() -> None:
        hosts = Hosts(db=["192.0.2.1"])
        hosts.gate = trio.Event()
        names = names_for(hosts)
        served = 0

        async def wait(scope: trio.CancelScope) -> None:
            nonlocal served
            with scope:
                await ips(names)
                served += 1

        leaver = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, leaver)
            nursery.start_soon(wait, trio.CancelScope())
            nursery.start_soon(wait, trio.CancelScope())
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            leaver.cancel()
            hosts.gate.set()
        assert served >= 2

    assert explore_schedules(scenario) > 10


def test_g10_cancelled_anywhere_it_leaves_no_look_up_behind() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        hosts = Hosts(db=["192.0.2.1"])
        names = names_for(hosts)
        with scope:
            await ips(names)
        assert repr(names).endswith("0 being looked up>")
        assert await ips(names) == ["192.0.2.1"]

    assert cancel_everywhere(scenario) >= 1
