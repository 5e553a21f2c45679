"""The live page, seen by a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import pytest
import trio

import conpool
from conpool.contrib.asgi import StatusApp

from .test_status import CACHE, DB, Switch, hold_for_ever, make_pool, use

pytest.importorskip("hypercorn", reason="hypercorn is not installed")

from .serving import served

T = TypeVar("T")
NONE = "\N{EN DASH}"
PHONE, DESK = (390, 844), (1200, 900)


class Page:
    """The page in the browser. Selenium waits for it in threads, and the test's loop serves it."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    async def run(self, action: Callable[..., T], *args: Any) -> T:
        return await trio.to_thread.run_sync(partial(action, *args))

    async def script(self, code: str) -> Any:
        return await self.run(self.browser.execute_script, code)

    async def refresh(self) -> None:
        """Have the page ask again, now, and wait until it shows the answer."""
        code = "const done = arguments[0]; refresh().then(() => done(null));"
        await self.run(self.browser.execute_async_script, code)

    async def press(self, *keys: str) -> None:
        """Press keys, whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        await self.run(ActionChains(self.browser).send_keys(*keys).perform)

    async def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.run(self.browser.execute_cdp_cmd, "Emulation.setDeviceMetricsOverride", metrics)

    async def colors(self, scheme: str) -> str:
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        await self.run(self.browser.execute_cdp_cmd, "Emulation.setEmulatedMedia", features)
        return str(await self.script("return getComputedStyle(document.body).backgroundColor"))

    async def text(self, selector: str) -> list[str]:
        code = f"return [...document.querySelectorAll({selector!r})].map(one => one.textContent)"
        return list(await self.script(code))

    async def wait_for(self, condition: str) -> None:
        """Wait until the expression is true in the page, which looks each time that it draws."""
        code = (
            "const done = arguments[0]; (function look() {"
            f"if ({condition}) done(null); else requestAnimationFrame(look);"
            "})()"
        )
        await self.run(self.browser.execute_async_script, code)

    async def is_wide_enough(self) -> bool:
        """Whether nothing sticks out, neither of the page nor of a name's cell."""
        code = (
            "return document.documentElement.scrollWidth <= innerWidth"
            " && [...document.querySelectorAll('.name')].every(x => x.scrollWidth <= x.clientWidth)"
        )
        return bool(await self.script(code))

    async def complaints(self) -> list[str]:
        log = await self.run(self.browser.get_log, "browser")
        return [entry["message"] for entry in log]


@asynccontextmanager
async def shown(browser: Any, app: StatusApp) -> AsyncIterator[Page]:
    page = Page(browser)
    async with served(app) as url:
        await page.complaints()  # what other tests left
        await page.size(*DESK)
        await page.run(browser.get, f"{url}/")
        await page.wait_for("document.body.dataset.rounds")
        # A row is written when the browser says that it is in sight.
        await page.wait_for("document.querySelector('.name')?.textContent !== ''")
        yield page
        await page.run(browser.get, "about:blank")


async def test_page_shows_a_pool_as_it_lives(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    async def ping() -> str:
        return "fine"

    async def sulk() -> bool:
        return False

    async with make_pool(max_connections=7) as pool, trio.open_nursery() as nursery:
        await use(pool, CACHE)
        await nursery.start(hold_for_ever, pool)
        async with shown(browser, StatusApp(pool, checks={"ping": ping, "sulk": sulk})) as page:
            assert await page.text("h2") == ["main2 endpoints"]
            assert await page.text(".tile b") == ["1 of 7", "0", NONE, f"{NONE} / {NONE}"]
            assert await page.text(".name") == ["app@db.example:5432/orders", "cache.example:6379"]
            for _ in range(3):
                await use(pool, CACHE)
                await page.refresh()
            assert float((await page.text(".tile b"))[2]) > 0
            assert await page.script(
                "return document.querySelectorAll('summary path[d]').length > 2"
            )

            # Everything can be had with the keyboard alone.
            await page.press(Keys.ARROW_DOWN, Keys.ENTER)
            await page.wait_for("document.querySelector('details[open] .more .charts')")
            await page.press(Keys.TAB, Keys.ENTER)
            await page.wait_for("document.querySelector('.more ol')")
            (holder,) = await page.text(".more li")
            assert "hold_for_ever" in holder
            await page.press("/", "cache")
            await page.wait_for("document.querySelectorAll('summary').length === 1")
            await page.press(Keys.ESCAPE)
            await page.wait_for("document.querySelectorAll('summary').length === 2")
            assert await page.complaints() == []

            await page.script("document.getElementById('check').click()")
            await page.wait_for("document.querySelectorAll('.found li').length === 4")
            assert [" ".join(line.split()[:1]) for line in await page.text(".found li")] == [
                "failingHealth",
                "okping",
                "failingsulk",
                "okpool",
            ]
        nursery.cancel_scope.cancel()


async def test_page_fits_a_phone_and_both_color_schemes(browser: Any) -> None:
    async with make_pool() as pool:
        await use(pool, DB, CACHE, conpool.Endpoint(f"{'very-long.' * 12}example", 80))
        async with shown(browser, StatusApp(pool)) as page:
            await page.script("document.querySelector('summary').click()")
            assert await page.is_wide_enough()
            await page.size(*PHONE)
            assert await page.is_wide_enough()
            dark, light = await page.colors("dark"), await page.colors("light")
            assert (dark, light) == ("rgb(14, 17, 21)", "rgb(244, 246, 248)")


async def test_page_shows_a_thousand_endpoints(browser: Any) -> None:
    async with make_pool() as pool:
        for number in range(1000):
            pool.pause(conpool.Endpoint(f"host{number}.example", 80))
        async with shown(browser, StatusApp(pool)) as page:
            rows = "document.querySelectorAll('summary').length"
            assert await page.script(f"return {rows}") == 30
            assert await page.text(".foot span") == ["30 of 1,000 shown."]
            await page.script("document.querySelector('.foot button').click()")
            await page.wait_for(f"{rows} === 1000")
            # Only those in sight are drawn.
            drawn = await page.script("return document.querySelectorAll('summary path').length")
            assert 0 < drawn < 300
            await page.script(
                "const find = document.getElementById('find'); find.value = 'host77';"
                "find.dispatchEvent(new Event('input', {bubbles: true}))"
            )
            await page.wait_for(f"{rows} === 11")


async def test_page_takes_names_for_text(browser: Any) -> None:
    hostile = conpool.UnixEndpoint("/tmp/<img src=x onerror=document.title='gotcha'>")
    async with make_pool() as pool:
        await use(pool, hostile)
        async with shown(browser, StatusApp(pool)) as page:
            (name,) = await page.text(".name")
            assert "<img" in name
            assert await page.script("return document.images.length") == 0
            assert await page.script("return document.title") == "Connection pools"


async def test_page_says_when_the_server_is_gone_and_when_it_is_paused(browser: Any) -> None:
    async with make_pool() as pool, shown(browser, StatusApp(pool)) as page:
        assert await page.text("#live") == ["live"]
        await page.press("p")
        assert await page.text("#live") == ["paused"]
        await page.press("p")
        assert await page.text("#live") == ["live"]
        # What happens when the server is gone, without the wait for it.
        await page.script("window.fetch = () => Promise.reject(new Error('gone'))")
        await page.refresh()
        assert (await page.text("#live"))[0].startswith("no answer for")
        assert await page.script("return document.body.classList.contains('stale')")


async def test_page_shows_why_an_endpoint_fails(browser: Any) -> None:
    connector = Switch()
    connector.refuses = True
    async with make_pool(connector) as pool:
        with pytest.raises(conpool.PoolError):
            async with pool.connection(CACHE, timeout=0.05):
                raise AssertionError
        async with shown(browser, StatusApp(pool)) as page:
            await page.script("document.querySelector('summary').click()")
            await page.wait_for("document.querySelector('.more .error')")
            (error,) = await page.text(".more .error")
            assert "Connection refused" in error
            assert await page.script("return document.querySelector('summary.failing') !== null")
