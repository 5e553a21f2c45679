"""The corpus for other pools finds nothing in conpool, and finds the bugs planted in toys."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Literal

import pytest
import trio

from rivals.__main__ import main, run_case
from rivals.corpus import CASES, cancel_in_dial, cancel_in_queue
from rivals.http_rivals import ConpoolRival
from rivals.http_server import HTTPServer
from rivals.rival import Rival
from rivals.runtime import Cut, Fate, Runtime, When, run_on_asyncio, run_on_trio, wait_ended


@pytest.fixture
def http_server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server


@pytest.mark.parametrize("case", CASES)
def test_the_corpus_finds_nothing_in_conpool(case: str, http_server: HTTPServer) -> None:
    assert run_case(CASES[case], partial(ConpoolRival, http_server), "trio").startswith("ok")


def test_the_table_has_a_row_for_each_pool(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--pools", "conpool", "--cases", "time-out swallowed", "closed, asked again"])
    head, rule, row = capsys.readouterr().out.splitlines()[2:]
    assert head == "| pool | time-out swallowed | closed, asked again |"
    assert rule == "| --- | --- | --- |"
    assert row.startswith("| conpool ")
    assert row.endswith("(trio) | ok | ok |")


class ToyRival(Rival):
    """One connection, lent by a queue of futures: the way in which many pools lost connections."""

    label = package = "toy"
    library = "asyncio"
    port = 0

    def __init__(self, bug: Literal["", "lost hand-over", "lost dial", "swallowed"] = "") -> None:
        self.bug = bug
        self.is_dialled = False
        self.is_free = True
        self.queue: deque[asyncio.Future[None]] = deque()
        self.holders = 0
        self.gate = asyncio.Event()

    async def open(self, limit: int) -> None:
        assert limit == 1

    async def close(self) -> None:
        pass

    async def ask(self, number: int) -> int:
        await self._acquire()
        try:
            await asyncio.sleep(0)
        finally:
            self._release()
        return number

    async def hold(self) -> None:
        await self._acquire()
        self.holders += 1
        await self.gate.wait()
        self.holders -= 1
        self._release()

    @property
    def is_held(self) -> bool:
        return self.holders > 0

    def let_go(self) -> None:
        self.gate.set()

    async def ask_and_lose_patience(self) -> None:
        pass

    async def receive_unasked(self) -> None:
        pass

    def count_sockets(self) -> int:
        return 0

    async def _acquire(self) -> None:
        if self.is_free:
            self.is_free = False
        else:
            await self._wait_in_turn()
        if self.is_dialled:
            return
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self.bug != "lost dial":
                self._release()
            raise
        self.is_dialled = True

    async def _wait_in_turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self.queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self.queue.remove(turn)
            elif self.bug == "swallowed":
                return
            elif self.bug != "lost hand-over":
                self._release()
            raise

    def _release(self) -> None:
        if self.queue:
            self.queue.popleft().set_result(None)
        else:
            self.is_free = True


def test_a_sound_toy_passes() -> None:
    assert run_case(cancel_in_queue, ToyRival, "asyncio") == "ok at 4 points"
    assert run_case(cancel_in_dial, ToyRival, "asyncio") == "ok at 4 points"


def test_a_hand_over_lost_in_the_tick_of_a_cancellation_is_found() -> None:
    found = run_case(cancel_in_queue, partial(ToyRival, "lost hand-over"), "asyncio")
    assert found == "slot lost: 1 of 4"


def test_a_dial_lost_to_a_cancellation_is_found() -> None:
    found = run_case(cancel_in_dial, partial(ToyRival, "lost dial"), "asyncio")
    assert found == "slot lost: 2 of 4"


def test_a_swallowed_cancellation_is_found() -> None:
    found = run_case(cancel_in_queue, partial(ToyRival, "swallowed"), "asyncio")
    assert found == "cancellation swallowed: 1 of 4"


@pytest.mark.parametrize("library", ["trio", "asyncio"])
@pytest.mark.parametrize("when", When)
def test_a_cut_cancels_at_its_step_and_no_other(library: str, when: When) -> None:
    async def case(runtime: Runtime) -> list[int]:
        done: list[int] = []
        checkpoint = trio.lowlevel.checkpoint if library == "trio" else partial(asyncio.sleep, 0)

        async def work() -> None:
            for number in range(5):
                await checkpoint()
                done.append(number)

        cut = Cut(3, when)
        job = runtime.start(work, cut)
        assert await wait_ended(runtime, job)
        assert cut.reached
        assert job.fate is Fate.CANCELLED
        return done

    done = (run_on_trio if library == "trio" else run_on_asyncio)(case, 5.0)
    assert done == [0, 1]


def test_a_case_that_does_not_end_is_given_up() -> None:
    async def case(runtime: Runtime) -> None:
        await runtime.sleep(60)

    assert run_on_trio(case, 0.01) is None
    assert run_on_asyncio(case, 0.01) is None
