"""A real browser, if the machine has one: in CI it has to."""

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from pages import Opened
from playwright.async_api import Browser, async_playwright

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


@pytest.fixture
async def opened(browser: Browser) -> AsyncIterator[Opened]:
    opened = Opened(browser)
    yield opened
    await opened.close()
