from __future__ import annotations

import pytest
import trio
import trio.testing

from conpool._extend.driver import Driver, NativeDriver
from conpool._values.endpoint import AnyEndpoint, Endpoint

ENDPOINT = Endpoint("db.example", 5432)


class Greeting(Driver[bytes]):
    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> bytes:
        return bytes(await stream.receive_some())


class Native(NativeDriver[str]):
    """Overrides nothing."""


async def test_open_is_needed() -> None:
    stream, _ = trio.testing.memory_stream_pair()
    with pytest.raises(NotImplementedError, match=r"Driver has no open\(\)"):
        await Driver[str]().open(stream, ENDPOINT)


async def test_open_is_all_that_is_needed() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"hello")
    driver = Greeting()
    session = await driver.open(ours, ENDPOINT)
    assert session == b"hello"
    await driver.run(session)
    await driver.reset(session)
    await driver.close(session)
    assert await driver.check(session)
    assert driver.is_clean(session)
    assert driver.capacity(session) == 1


async def test_what_does_nothing_does_not_wait_either() -> None:
    driver = Greeting()
    with trio.testing.assert_no_checkpoints():
        await driver.run(b"")
        await driver.reset(b"")
        await driver.close(b"")
        await driver.check(b"")


async def test_a_native_driver_says_what_it_lacks() -> None:
    with pytest.raises(NotImplementedError, match=r"Native has no connect\(\)"):
        await Native().connect(ENDPOINT)
    with pytest.raises(NotImplementedError, match=r"Native has no fileno\(\)"):
        Native().fileno("")
    with pytest.raises(NotImplementedError, match=r"Native has no abort\(\)"):
        Native().abort("")


async def test_a_native_driver_has_no_stream_to_open() -> None:
    stream, _ = trio.testing.memory_stream_pair()
    with pytest.raises(NotImplementedError, match=r"opens sessions in connect\(\)"):
        await Native().open(stream, ENDPOINT)
