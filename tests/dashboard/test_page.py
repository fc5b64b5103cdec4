"""The page in a real browser: what a person sees and does there."""

import asyncio
import re
from pathlib import Path

import pytest
from pages import Opened
from playwright.async_api import Page, expect
from pydantic import SecretStr
from running import Proxy, StartProxy, busy, settings_for, until, waiting

import app
import emulator
from proxy.settings import ASSETS

LIVE = re.compile("live|на связи")
#: Milliseconds: a page is told something once a second, on a busy machine later.
SOON = 15_000


@pytest.fixture
async def proxy(start_proxy: StartProxy, tmp_path: Path) -> Proxy:
    return await start_proxy(ext_max_requests=1, ext_api_rpm=6000, jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))


async def live(page: Page) -> None:
    await expect(page.locator("#link")).to_have_text(LIVE, timeout=SOON)


async def test_it_loads_without_a_complaint_and_asks_nobody_else(proxy: Proxy, opened: Opened) -> None:
    """No error and no warning in the console, no address but the service's own."""
    page = await opened(proxy.url)
    await live(page)
    await expect(page.locator(".chart canvas")).to_have_count(4)
    assert opened.wrong == []
    assert [url for url in opened.asked if not url.startswith(f"{proxy.url}/dashboard")] == []


async def test_its_numbers_move(proxy: Proxy, opened: Opened) -> None:
    page = await opened(proxy.url)
    await live(page)
    first = await busy(proxy, 3)
    others = [asyncio.create_task(proxy.ask(f"waits {number}")) for number in range(3)]
    await expect(page.locator("#waiting")).to_have_text("3", timeout=SOON)
    await expect(page.locator("#flying")).to_have_text("1")
    await expect(page.locator("table#line tbody button")).to_have_count(3)
    await asyncio.gather(first, *others)
    await expect(page.locator("#answered")).to_have_text("4", timeout=SOON)
    await expect(page.locator("#waiting")).to_have_text("0")
    await expect(page.locator("#last tbody tr").first).to_contain_text("one call")
    await expect(page.locator("#used")).to_have_text(re.compile(r"\d %"))


async def test_a_waiting_request_is_cancelled_by_its_button(proxy: Proxy, opened: Opened) -> None:
    page = await opened(proxy.url)
    first = await busy(proxy, 4)
    second = asyncio.create_task(proxy.ask("second"))
    await page.locator("table#line tbody button").click(timeout=SOON)
    assert (await second).status == 503
    assert (await first).status == 200
    assert await proxy.sent_texts() == ["first"]


async def test_a_lane_is_held_and_let_go(proxy: Proxy, opened: Opened) -> None:
    """Nobody fails by it, and the page says that it is held."""
    page = await opened(proxy.url)
    await page.get_by_role("button", name="Pause").click(timeout=SOON)
    await expect(page.locator("#alerts")).to_contain_text("held by the operator", timeout=SOON)
    asked = asyncio.create_task(proxy.ask("waits"))
    await until(lambda: waiting(proxy) == 1)
    await page.get_by_role("button", name="Resume").click(timeout=SOON)
    assert (await asked).status == 200


async def test_limits_are_changed_with_a_look_at_the_effect_first(proxy: Proxy, opened: Opened) -> None:
    page = await opened(proxy.url)
    await page.get_by_role("button", name="Limits…").click(timeout=SOON)
    await page.locator("[name=rpm]").fill("-5")
    await expect(page.locator("#effect")).to_contain_text("rpm", timeout=SOON)
    await page.locator("[name=rpm]").fill("1200")
    await expect(page.locator("#effect.bad")).to_have_count(0, timeout=SOON)
    assert proxy.service.line.state().limits.rpm == 6000, "a look changes nothing"
    await page.get_by_role("button", name="Apply").click()
    await until(lambda: proxy.service.line.state().limits.rpm == 1200)
    await expect(page.locator("#lanes")).to_contain_text("1,200 a minute", timeout=SOON)


async def test_the_playground_goes_through_the_line_and_shows_its_place(proxy: Proxy, opened: Opened) -> None:
    page = await opened(proxy.url)
    first = await busy(proxy, 4)
    await page.locator("#question").fill("Hello from the page")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#progress")).to_contain_text("place 1 in line", timeout=SOON)
    await expect(page.locator("#answer")).to_contain_text("Hello from the page", timeout=SOON)
    await expect(page.locator("#progress")).to_contain_text("answered in")
    assert (await first).status == 200


async def test_it_speaks_russian_and_english_and_keeps_to_it(proxy: Proxy, opened: Opened) -> None:
    page = await opened(proxy.url, locale="ru-RU")
    await expect(page.locator("h2", has_text="Ждут сейчас")).to_be_visible()
    await page.locator("#language").click()
    await expect(page.locator("h2", has_text="Waiting now")).to_be_visible()
    await page.reload()
    await expect(page.locator("h2", has_text="Waiting now")).to_be_visible()
    await expect(page.locator("html")).to_have_attribute("lang", "en")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_light_or_dark_as_the_system_is_until_told_otherwise(
    proxy: Proxy, opened: Opened, scheme: str
) -> None:
    page = await opened(proxy.url, color_scheme=scheme)
    await expect(page.locator("html")).to_have_attribute("data-theme", scheme)
    await page.locator("#theme").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark" if scheme == "light" else "light")


@pytest.mark.parametrize("width", [360, 390, 768, 1440])
async def test_nothing_sticks_out_of_a_phone(proxy: Proxy, opened: Opened, width: int) -> None:
    page = await opened(proxy.url, viewport={"width": width, "height": 844})
    first = await busy(proxy, 2)
    asked = asyncio.create_task(proxy.ask("waits", headers={"X-Request-ID": "x" * 128}))
    await expect(page.locator("table#line tbody button")).to_have_count(1, timeout=SOON)
    assert await page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    await asyncio.gather(first, asked)


async def test_whatever_callers_call_themselves_is_text(start_proxy: StartProxy, opened: Opened) -> None:
    """Names, ids, models and paths are strangers' words."""
    evil = "<img/src=x/onerror=alert(1)>"
    proxy = await start_proxy(ext_max_requests=1)
    page = await opened(proxy.url)
    first = await busy(proxy, 3)
    headers = {"X-Request-ID": evil}
    asked = asyncio.create_task(proxy.ask("waits", headers=headers, model=evil))
    await expect(page.locator("table#line tbody")).to_contain_text(evil, timeout=SOON)
    await first
    await asked
    await expect(page.locator("#last tbody tr").first).to_have_attribute("title", evil, timeout=SOON)
    assert await page.locator("img[src=x]").count() == 0
    assert opened.wrong == []


async def test_with_an_operators_key_it_asks_for_it(start_proxy: StartProxy, opened: Opened) -> None:
    """The key is kept for the tab, and never stands in an address."""
    proxy = await start_proxy(admin_api_key=SecretStr("the-operators-own"), proxy_api_keys={"bot": SecretStr("b" * 16)})
    page = await opened(proxy.url)
    await expect(page.locator("#link")).to_have_text("a key is needed", timeout=SOON)
    await enter(page, "wrong")
    await expect(page.locator("#alerts")).to_contain_text("not the operator's key", timeout=SOON)
    await enter(page, "the-operators-own")
    await live(page)
    await page.locator("#question").fill("As the operator")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#answer")).to_contain_text("As the operator", timeout=SOON)
    await page.reload()
    await live(page)
    assert not [url for url in opened.asked if "operators-own" in url]


async def enter(page: Page, key: str) -> None:
    await page.locator("#key").click()
    await page.locator("#key-input").fill(key)
    await page.get_by_role("button", name="Save").click()


async def test_it_comes_back_by_itself_when_the_service_does(start_proxy: StartProxy, opened: Opened) -> None:
    """It says so meanwhile."""
    from running import settings_for

    import app

    async with emulator.start(emulator.Options()) as giga:
        async with app.serving(settings_for(giga, drain_timeout=0)) as service:
            page = await opened(service.url)
            await live(page)
            port = int(service.url.rpartition(":")[2])
        await expect(page.locator("#link")).to_have_text(re.compile("no connection"), timeout=SOON)
        async with app.serving(settings_for(giga, drain_timeout=0, port=port)):
            await live(page)


async def test_with_the_page_open_the_service_stops_at_once(opened: Opened) -> None:
    """An open stream is no request that is to be served before the end."""
    async with emulator.start(emulator.Options()) as giga, asyncio.timeout(None) as patience:
        service = app.serving(settings_for(giga, drain_timeout=60))
        page = await opened((await service.__aenter__()).url)
        await live(page)
        patience.reschedule(asyncio.get_running_loop().time() + 20)
        await service.__aexit__(None, None, None)


def test_both_languages_say_all_that_the_page_asks_for() -> None:
    folder = ASSETS / "dashboard"
    text = (folder / "text.js").read_text()
    english, russian = (
        set(re.findall(r'(?:^|[{,])\s*"?([\w-]+)"?: "', part)) for part in re.split(r"\n  ru: \{", text.split("};")[0])
    )
    assert english == russian
    asked = set(re.findall(r'data-(?:text|hint|label)="([\w-]+)"', (folder / "index.html").read_text()))
    said = {key for path in folder.glob("*.js") for key in re.findall(r'say\(\s*"([\w-]+)"', path.read_text())}
    assert asked | said <= english
