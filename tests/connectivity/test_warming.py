"""Connections opened ahead of need: no churn, no haste after failures, no herd afterwards."""

from __future__ import annotations

import pytest

from conpool import CloseReason
from conpool._core.gate import CEILING, FIRST
from conpool._core.records import AnyEntry
from tests.support.shell import Shell

# ── a server that accepts and hangs up ──────────────────────────────────────────


def count_dials_of_a_minute(shell: Shell) -> int:
    """Have the peer end each connection as soon as it is open, for a minute; count the dials."""
    dials = 0
    until = shell.now + 60.0
    while shell.now < until:
        while shell.dials:
            entry = shell.dial_succeeds()
            dials += 1
            assert dials < 1000, f"{dials} dials within {shell.now} seconds"
            hang_up(shell, entry)
        shell.advance(0.01)
    return dials


def hang_up(shell: Shell, *entries: AnyEntry) -> None:
    """The peer ends connections, and the idle watch sees it."""
    for entry in entries:
        shell.core.inspected(entry, CloseReason.PEER_CLOSED, shell.now)
    shell.settle()


def test_g31_a_peer_that_hangs_up_at_once_is_not_warmed_in_haste() -> None:
    shell = Shell(min_idle_per_endpoint=2)
    shell.release(shell.lend())
    # One at a time; after some doublings of the pause, one every two seconds.
    assert count_dials_of_a_minute(shell) <= 60 / CEILING + 10


def test_g31_so_it_is_if_somebody_waits_for_the_warmth() -> None:
    shell = Shell()
    shell.warm(4)
    assert count_dials_of_a_minute(shell) <= 60 / CEILING + 10


def test_a_peer_that_hangs_up_on_idle_connections_delays_nobody_who_asks() -> None:
    shell = Shell(min_idle_per_endpoint=2)
    shell.release(shell.lend())
    count_dials_of_a_minute(shell)
    assert not shell.dials, "warming pauses"
    shell.ask(fresh=True)
    assert shell.dials


def test_connections_that_lived_for_a_while_are_replaced_at_once() -> None:
    """A server that restarts ends all connections; this says nothing about the next ones."""
    shell = Shell(min_idle_per_endpoint=3)
    shell.release(shell.lend())
    while shell.dials:
        shell.dial_succeeds()
    shell.advance(CEILING)
    hang_up(shell, *shell.sub().idle)
    assert len(shell.dials) == 3


def test_warming_is_as_quick_as_ever_once_the_peer_has_recovered() -> None:
    shell = Shell(min_idle_per_endpoint=3)
    shell.release(shell.lend())
    count_dials_of_a_minute(shell)
    for _ in range(3):
        shell.advance(CEILING)
        while shell.dials:
            shell.dial_succeeds()
    assert len(shell.sub().idle) == 3
    shell.advance(2 * CEILING)
    shell.close_idle()
    assert len(shell.dials) == 3


# ── a server that is down for a moment ──────────────────────────────────────────


def test_g31_dials_that_fail_together_are_one_failure() -> None:
    """Otherwise a listener that is back after 50 ms would be tried again after two seconds."""
    shell = Shell(max_connections_per_endpoint=10)
    for _ in range(11):
        shell.ask()
    failed_at = shell.now
    for _ in range(10):
        shell.dial_fails()
    assert not shell.dials
    shell.advance(FIRST)
    assert len(shell.dials) == 1, f"tried again within {shell.now - failed_at} seconds"


@pytest.mark.parametrize("outcome", ["fails at once", "hangs"])
def test_g31_a_dead_server_is_tried_ever_more_rarely(outcome: str) -> None:
    """Whatever the limits allow, and although a dial that hangs has not failed yet."""
    shell = Shell(max_connections_per_endpoint=1000)
    for _ in range(30):
        shell.ask()
    for _ in range(29):
        shell.dial_fails()
    dials, tried_at = 1, shell.now
    pauses: list[float] = []
    while len(pauses) < 8:
        shell.ask()
        if outcome == "fails at once":
            shell.dial_fails()
            dials -= 1
        while len(shell.dials) == dials:
            shell.advance(0.005)
        dials += 1
        assert len(shell.dials) == dials
        pauses.append(shell.now - tried_at)
        tried_at = shell.now
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 1.5, 1.5], abs=0.01)
