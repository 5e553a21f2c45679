"""What the kernel does when ports run out, in a network of its own that has ten of them."""

from __future__ import annotations

import errno

from tests._namespace import run_in_namespace

_TEN_PORTS = """
import json
import trio
from conpool._values.endpoint import Endpoint
from conpool._errors.connect import ConnectError
from conpool._dial.tcp import TCPConnector

with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write("40000 40009")
connector = TCPConnector()

async def attempt(host, port, **options):
    try:
        return await connector.connect(Endpoint(host, port, **options))
    except ConnectError as error:
        return [type(error).__name__, error.errno, str(error)]
"""


def test_f036_no_port_left_is_this_machines_fault() -> None:
    script = """
async def main():
    (listener,) = await trio.open_tcp_listeners(50000, host="127.0.0.1")
    held = [await attempt("127.0.0.1", 50000) for _ in range(11)]
    print(json.dumps([outcome if isinstance(outcome, list) else None for outcome in held]))

trio.run(main)
"""
    outcomes = run_in_namespace(_TEN_PORTS + script)
    assert [outcome for outcome in outcomes if outcome is None] == [None] * 10
    ((name, code, _),) = [outcome for outcome in outcomes if outcome is not None]
    assert (name, code) == ("LocalResourceError", errno.EADDRNOTAVAIL)


def test_a_local_address_has_all_ports_for_each_peer() -> None:
    script = """
async def main():
    listeners = [
        await trio.open_tcp_listeners(port, host="127.0.0.1") for port in (50000, 50001)
    ]
    held = [
        await attempt("127.0.0.1", 50000 + number % 2, local_address="127.0.0.1")
        for number in range(20)
    ]
    print(json.dumps([outcome if isinstance(outcome, list) else None for outcome in held]))

trio.run(main)
"""
    assert run_in_namespace(_TEN_PORTS + script) == [None] * 20


def test_f033_g8_a_port_that_nobody_listens_on_is_refused_even_if_it_becomes_our_own() -> None:
    script = """
async def main():
    print(json.dumps([await attempt("127.0.0.1", 40004) for _ in range(200)]))

trio.run(main)
"""
    outcomes = run_in_namespace(_TEN_PORTS + script)
    assert {(name, code) for name, code, _ in outcomes} == {("ConnectRefused", errno.ECONNREFUSED)}
    # Now and then the dialled port did become our own: of ten ports, Linux takes even ones first.
    assert any("self-connect" in text for _, _, text in outcomes)


def test_f037_without_a_route_there_is_no_way() -> None:
    script = """
async def main():
    print(json.dumps([await attempt(host, 80) for host in ("192.0.2.1", "2001:db8::1")]))

trio.run(main)
"""
    for name, code, _ in run_in_namespace(_TEN_PORTS + script):
        assert (name, code) == ("ConnectError", errno.ENETUNREACH)
