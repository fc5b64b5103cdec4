"""A real browser, if the machine has one: in CI it has to."""

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

#: Nothing but the page is to be asked for; the sandbox of the browser needs rights that containers do not have.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed, and CI has to look at the page")
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


class Opened:
    """Pages of one browser, and what went wrong in them."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.wrong: list[str] = []
        self.asked: list[str] = []

    async def __call__(self, url: str, **looks: object) -> Page:
        """The dashboard at `url`; `looks` as a browser's context has them."""
        context = await self._browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **looks})  # type: ignore[arg-type]
        self._contexts.append(context)
        page = await context.new_page()
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        await page.goto(f"{url}/dashboard")
        return page

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()


@pytest.fixture
async def opened(browser: Browser) -> AsyncIterator[Opened]:
    opened = Opened(browser)
    yield opened
    await opened.close()
