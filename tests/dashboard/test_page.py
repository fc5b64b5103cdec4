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
from proxy.connector import Connector
from proxy.errors import ProxyError
from proxy.jobs.batches import BatchState
from proxy.line import Priority
from proxy.overview import CALL_REFUSED, ELSEWHERE, TOKEN_REFUSED, Overview
from proxy.settings import ASSETS

LIVE = re.compile("live|на связи")
#: Milliseconds: a page is told something once a second, on a busy machine later.
SOON = 15_000


@pytest.fixture(autouse=True)
def _no_balance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks lets the service ask what is left at the API, and that request stands in the line with others."""
    monkeypatch.setattr(Connector, "tells_balance", False)


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


@pytest.mark.parametrize("id", ["a/b", "a?b#c", "100%", "%2F", "%2e%2e", "..;", "..", ".", "../limits", '"><b>'])
async def test_whatever_id_a_caller_gave_its_request_it_can_be_cancelled(proxy: Proxy, opened: Opened, id: str) -> None:
    """Addresses mean something else by some of them."""
    page = await opened(proxy.url)
    await live(page)
    first = await busy(proxy, 20)
    second = asyncio.create_task(proxy.ask("second", headers={"X-Request-ID": id}))
    await page.locator("table#line tbody button").click(timeout=SOON)
    assert (await second).status == 503
    first.cancel()  # twenty seconds are longer than it takes
    await asyncio.gather(first, return_exceptions=True)


async def test_a_lane_is_held_and_let_go(proxy: Proxy, opened: Opened) -> None:
    """Nobody fails by it, and the page says that it is held, by whom and since when."""
    page = await opened(proxy.url)
    await pause(page)
    await expect(page.locator("#alerts")).to_contain_text("held by the operator", timeout=SOON)
    await expect(page.locator("#alerts")).to_have_text(re.compile(r"since \d+:\d\d:\d\d.* \(operator, 127\.0\.0\.1\)"))
    asked = asyncio.create_task(proxy.ask("waits"))
    await until(lambda: waiting(proxy) == 1)
    await page.get_by_role("button", name="Resume").click(timeout=SOON)
    assert (await asked).status == 200


async def pause(page: Page) -> None:
    await page.get_by_role("button", name="Pause").click(timeout=SOON)
    await page.get_by_role("button", name="Yes, hold it").click()


async def test_before_a_lane_is_held_the_page_asks_and_tells_what_comes_of_it(proxy: Proxy, opened: Opened) -> None:
    """Whoever says no has changed nothing, and is asked again the next time."""
    page = await opened(proxy.url)
    await live(page)
    first = await busy(proxy, 20)
    second = asyncio.create_task(proxy.ask("waits"))
    await expect(page.locator("#waiting")).to_have_text("1", timeout=SOON)
    for leave in ("Close", "Escape"):
        await page.get_by_role("button", name="Pause").click()
        dialog = page.locator("#hold-dialog")
        await expect(dialog).to_contain_text("Nothing is sent until somebody resumes it")
        await expect(dialog).to_contain_text("Now 1 wait. 1 are in flight")
        await (page.keyboard.press(leave) if leave == "Escape" else dialog.get_by_role("button", name=leave).click())
        await expect(dialog).to_be_hidden()
    assert not proxy.service.line.state().limits.is_held
    assert [url for url in opened.asked if url.endswith("/limits")] == []
    for each in (first, second):
        each.cancel()  # twenty seconds are longer than it takes
    await asyncio.gather(first, second, return_exceptions=True)


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


async def test_the_playground_shows_its_place_in_a_line_longer_than_is_listed(proxy: Proxy, opened: Opened) -> None:
    page = await opened(proxy.url)
    await live(page)
    first = await busy(proxy, 20)
    others = [asyncio.create_task(proxy.ask("before")) for _ in range(35)]
    await until(lambda: waiting(proxy) == 35)
    await page.locator("#question").fill("Hello")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#progress")).to_contain_text("place 36 in line", timeout=SOON)
    for each in (first, *others):
        each.cancel()
    await asyncio.gather(first, *others, return_exceptions=True)


async def test_the_playground_tells_how_long_it_waited_though_its_answer_began_before(
    start_proxy: StartProxy, opened: Opened
) -> None:
    """An early 200 knows nothing of the wait."""
    proxy = await start_proxy(ext_max_requests=1, stream_early_200=0)
    page = await opened(proxy.url)
    await live(page)
    first = await busy(proxy, 4)
    await page.locator("#question").fill("Hello")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#progress")).to_contain_text("place 1 in line", timeout=SOON)
    await expect(page.locator("#progress")).to_have_text(re.compile(r"waited [1-4](\.\d)?\ss"), timeout=SOON)
    assert (await first).status == 200


async def test_the_playground_says_that_its_line_is_held(proxy: Proxy, opened: Opened) -> None:
    """Whoever waits there would wonder for how long."""
    page = await opened(proxy.url)
    await pause(page)
    await page.locator("#question").fill("Hello")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#progress")).to_contain_text("place 1 in line, which the operator holds", timeout=SOON)
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator("#progress")).to_contain_text("answered in", timeout=SOON)


@pytest.mark.parametrize(
    "asked, told",
    [("", "GigaChat-2: waited"), ("GigaChat-2-Max", "GigaChat-2-Max: waited"), ("gpt-x", "GigaChat-2: waited")],
)
async def test_the_playground_tells_which_model_answered(proxy: Proxy, opened: Opened, asked: str, told: str) -> None:
    """Also where none was asked for, or another one than answers."""
    page = await opened(proxy.url)
    await page.locator("#question").fill("Hello")
    await page.locator("#model").fill(asked)
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#progress")).to_contain_text(told, timeout=SOON)


async def test_who_leaves_the_playground_leaves_the_line(proxy: Proxy, opened: Opened) -> None:
    """While it waits; nothing is sent for it."""
    page = await opened(proxy.url)
    await live(page)
    first = await busy(proxy, 3)
    await page.locator("#question").fill("Never mind")
    await page.get_by_role("button", name="Send").click()
    await until(lambda: waiting(proxy) == 1)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator("#progress")).to_have_text("stopped", timeout=SOON)
    await until(lambda: waiting(proxy) == 0)
    assert (await first).status == 200
    assert await proxy.sent_texts() == ["first"]


async def test_the_playground_tells_what_went_wrong(proxy: Proxy, opened: Opened) -> None:
    page = await opened(proxy.url)
    proxy.giga.state.faults.add({"kind": "status", "status": 422, "body": {"status": 422, "message": "not that"}})
    await page.locator("#question").fill("Hello")
    await page.locator("#question").press("Control+Enter")
    await expect(page.locator("#progress")).to_contain_text("not that", timeout=SOON)
    await expect(page.locator("#send")).to_be_enabled()


async def test_a_button_keeps_the_focus_while_numbers_change(proxy: Proxy, opened: Opened) -> None:
    """Whoever has no mouse could press nothing else; nor is a pressed button swapped for another request's."""
    page = await opened(proxy.url)
    await live(page)
    first = await busy(proxy, 20)
    second, third = (asyncio.create_task(proxy.ask(text, headers={"X-Request-ID": text})) for text in ("2nd", "3rd"))
    await expect(page.locator("table#line tbody button")).to_have_count(2, timeout=SOON)
    cancel, pause = page.get_by_label("Cancel 3rd"), page.get_by_role("button", name="Pause")
    for button in (cancel, pause):
        await button.focus()
        await told_again(page)
        await expect(button).to_be_focused()
    await cancel.focus()
    await page.get_by_label("Cancel 2nd").click()
    assert (await second).status == 503
    await expect(page.locator("table#line tbody button")).to_have_count(1, timeout=SOON)
    await cancel.press("Enter")
    assert (await third).status == 503
    first.cancel()  # twenty seconds are longer than it takes
    await asyncio.gather(first, return_exceptions=True)


async def told_again(page: Page) -> None:
    """Until the stream has told something twice more: how long who waits has waited changes each time."""
    waited = page.locator("table#line tbody tr").first.locator("td").nth(5)
    for _ in range(2):
        await expect(waited).not_to_have_text(await waited.inner_text(), timeout=SOON)


async def test_what_went_wrong_stays_until_something_else_is_done(proxy: Proxy, opened: Opened) -> None:
    page = await opened(proxy.url)
    refusal = {"app": "x", "status": "Redis is away", "data": {}}
    await page.route("**/limits", lambda route: route.fulfill(status=503, json=refusal))
    await live(page)
    first = await busy(proxy, 4)
    asked = asyncio.create_task(proxy.ask("waits"))
    await pause(page)
    await expect(page.locator("#wrong")).to_have_text("Redis is away", timeout=SOON)
    await expect(page.locator("table#line tbody button")).to_have_count(1, timeout=SOON)
    await told_again(page)
    await expect(page.locator("#wrong")).to_be_visible()
    await page.unroute("**/limits")
    await pause(page)
    await expect(page.locator("#wrong")).to_be_hidden(timeout=SOON)
    await page.get_by_role("button", name="Resume").click(timeout=SOON)
    await asyncio.gather(first, asked)
    opened.wrong.clear()  # the browser complains of the 503


async def test_legends_tell_the_last_numbers_where_no_pointer_is(proxy: Proxy, opened: Opened) -> None:
    page = await opened(proxy.url)
    assert (await proxy.ask("one")).status == 200
    await live(page)
    await expect(page.locator("#chart-line .u-value").nth(1)).to_have_text("0", timeout=SOON)
    await expect(page.locator("#chart-used .u-value").nth(1)).to_contain_text("%")


async def test_what_is_set_and_what_is_left_is_told(
    proxy: Proxy, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # what is left is asked
    page = await opened(proxy.url, locale="ru-RU")
    lane = page.locator("#lanes .lane")
    await expect(lane).to_contain_text("0, разрешено 1", timeout=SOON)
    await expect(lane).to_contain_text(re.compile(r"GigaChat-Max: 50\s000"), timeout=SOON)
    await expect(page.locator("#replicas-panel")).to_be_hidden()


async def test_what_429s_have_taught_is_told_as_that(start_proxy: StartProxy, opened: Opened) -> None:
    """No limit is set, and yet one holds."""
    proxy = await start_proxy(ext_max_requests=0)
    proxy.giga.state.faults.add({"kind": "status", "status": 429, "retry_after": 0})
    assert (await proxy.ask("one")).status == 200
    page = await opened(proxy.url)
    await expect(page.locator("#lanes .lane")).to_contain_text(
        "0 of 1 allowed: so the API's 429s taught; no limit is set", timeout=SOON
    )


async def test_what_failed_is_told_in_the_pages_language_with_its_id_and_method(proxy: Proxy, opened: Opened) -> None:
    """Its code is there, too: the documents go by it."""
    page = await opened(proxy.url, locale="ru-RU")
    proxy.giga.state.faults.add({"kind": "status", "status": 422, "body": {"status": 422, "message": "not that"}})
    assert (await proxy.ask("one", headers={"X-Request-ID": "mine"})).status == 422
    row = page.locator("#last tbody tr").first
    await expect(row).to_contain_text("один вызов, API ответил ошибкой через", timeout=SOON)
    await expect(row).to_contain_text("POST /")
    await expect(row.locator("td").nth(2)).to_have_text("mine")
    await expect(row.get_by_text("422")).to_have_attribute("title", "upstream_error")


async def test_who_is_nobodys_key_is_explained(proxy: Proxy, opened: Opened) -> None:
    """The service asks for itself; jobs are everybody's where no keys are set."""
    page = await opened(proxy.url)
    named = "async (name) => (await import('/dashboard/text.js')).callerNamed(name)"
    assert await page.evaluate(named, "proxy") == "proxy (the service itself)"
    assert await page.evaluate(named, "*") == "* (all, without keys)"
    assert await page.evaluate(named, "bot") == "bot"


HINTS = """() => [...document.querySelectorAll("input[placeholder]")].filter((each) => each.clientWidth).map((each) => {
  const style = getComputedStyle(each), pen = document.createElement("canvas").getContext("2d");
  pen.font = style.font;
  const room = each.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  return pen.measureText(each.placeholder).width <= room ? "" : each.placeholder;
})"""


@pytest.mark.parametrize("locale", ["en-US", "ru-RU"])
@pytest.mark.parametrize("width", [390, 1440])
async def test_hints_have_room(start_proxy: StartProxy, opened: Opened, locale: str, width: int) -> None:
    """The longest numbers that may be set, too."""
    proxy = await start_proxy(ext_max_requests=1_000_000, ext_api_rpm=1_000_000)
    page = await opened(proxy.url, locale=locale, viewport={"width": width, "height": 844})
    await page.locator("#lanes button").last.click(timeout=SOON)
    hints = await page.evaluate(HINTS)
    assert hints == [""] * 5


async def test_a_stream_that_falls_silent_is_opened_again(
    proxy: Proxy, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a phone and the service connections die without a word: old numbers must not look like new ones."""
    page = await opened(proxy.url)
    await live(page)
    await page.clock.install()
    with monkeypatch.context() as patched:
        patched.setattr(Overview, "_tell", lambda overview, told: None)
        await page.reload()
        await until(lambda: proxy.service.overview.watchers == 1)
        await page.clock.fast_forward(9_000)
        await expect(page.locator("#link")).to_have_text("connecting…")
        await page.clock.fast_forward(2_000)
        await expect(page.locator("#link")).to_have_text(re.compile("no connection"), timeout=SOON)
    await page.clock.fast_forward(3_000)
    await live(page)


EVENTS = """async (pieces) => {
  const { events } = await import("/dashboard/service.js");
  const bytes = new ReadableStream({ start(out) { pieces.forEach((piece) => out.enqueue(piece)); out.close(); } });
  const told = [];
  for await (const { data } of events(new Response(bytes.pipeThrough(new TextEncoderStream())))) told.push(data);
  return told;
}"""


async def test_events_are_heard_wherever_the_wire_cuts_them(proxy: Proxy, opened: Opened) -> None:
    """Also between the two letters of a line's end."""
    page = await opened(proxy.url)
    stream = "data: 1\r\n\r\ndata: 2\n\n"
    for cut in range(1, len(stream)):
        assert await page.evaluate(EVENTS, [stream[:cut], stream[cut:]]) == ["1", "2"], cut


async def test_a_fault_of_the_page_is_no_lost_connection(proxy: Proxy, opened: Opened) -> None:
    """It is told as one, where whoever mends it looks."""
    page = await opened(proxy.url)
    await live(page)
    await page.evaluate("document.getElementById('waiting').remove()")
    await until(lambda: len(opened.wrong) >= 3)
    assert await page.locator("#link").inner_text() == "live"


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
    first = await busy(proxy, 20)
    asked = asyncio.create_task(proxy.ask("waits", headers={"X-Request-ID": "x" * 128}))
    await expect(page.locator("table#line tbody button")).to_have_count(1, timeout=SOON)
    assert await page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    for each in (first, asked):
        each.cancel()  # twenty seconds are longer than it takes
    await asyncio.gather(first, asked, return_exceptions=True)


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


async def test_without_a_key_it_says_in_its_language_what_to_do_and_claims_nothing(
    start_proxy: StartProxy, opened: Opened
) -> None:
    """Nor with a wrong one; whether anybody waits it cannot know."""
    proxy = await start_proxy(admin_api_key=SecretStr("the-operators-own"))
    page = await opened(proxy.url, locale="ru-RU")
    alerts = page.locator("#alerts")
    await expect(alerts).to_contain_text("нажмите «Ключ»", timeout=SOON)
    await expect(page.locator("#line-empty")).to_be_hidden()
    await expect(page.locator("#last-empty")).to_be_hidden()
    await page.locator("#key").click()
    await page.locator("#key-input").fill("wrong")
    await page.get_by_role("button", name="Сохранить").click()
    await expect(alerts).to_contain_text("Это не ключ оператора", timeout=SOON)
    await page.locator("#language").click()
    await expect(alerts).to_contain_text("press Key above", timeout=SOON)
    await expect(page.locator("#link")).to_have_text("a key is needed")


async def test_a_key_of_any_letters_is_refused_in_words(start_proxy: StartProxy, opened: Opened) -> None:
    """One typed with the wrong keyboard, say; headers take no such letters by themselves."""
    proxy = await start_proxy(admin_api_key=SecretStr("the-operators-own"), proxy_api_keys={"bot": SecretStr("b" * 16)})
    page = await opened(proxy.url)
    await enter(page, "ключ")
    await expect(page.locator("#alerts")).to_contain_text("not the operator's key", timeout=SOON)


async def test_a_key_that_is_forgotten_takes_along_what_it_showed(start_proxy: StartProxy, opened: Opened) -> None:
    proxy = await start_proxy(admin_api_key=SecretStr("the-operators-own"), ext_api_rpm=600)
    page = await opened(proxy.url)
    await enter(page, "the-operators-own")
    await live(page)
    await expect(page.locator("#lanes")).to_contain_text("600 a minute")
    await page.locator("#key").click()
    await page.get_by_role("button", name="Forget").click()
    await expect(page.locator("#link")).to_have_text("a key is needed", timeout=SOON)
    await expect(page.locator("#lanes")).to_be_empty()
    assert await page.evaluate("Object.keys(sessionStorage).concat(Object.keys(localStorage))") == []


async def test_it_works_where_the_browser_keeps_nothing(proxy: Proxy, opened: Opened) -> None:
    """Some forbid it to pages."""
    page = await opened(proxy.url)
    forbid = "{get() { throw new DOMException('no', 'SecurityError') }}"
    for store in ("localStorage", "sessionStorage"):
        await page.add_init_script(f"Object.defineProperty(window, '{store}', {forbid})")
    await page.reload()
    await live(page)
    await page.locator("#language").click()
    await expect(page.locator("h2", has_text="Ждут сейчас")).to_be_visible()
    assert opened.wrong == []


async def test_it_works_where_the_browser_has_no_room_for_pages(proxy: Proxy, opened: Opened) -> None:
    """Some give a store, and refuse to put anything there."""
    page = await opened(proxy.url)
    full = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }"
    await page.add_init_script(full)
    await page.reload()
    await page.locator("#theme").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert opened.wrong == []


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
        set(re.findall(r'(?:^|[{,])\s*"?([\w -]+)"?: "', part)) for part in re.split(r"\n  ru: \{", text.split("};")[0])
    )
    assert english == russian
    asked = set(re.findall(r'data-(?:text|hint|label)="([\w-]+)"', (folder / "index.html").read_text()))
    said = {key for path in folder.glob("*.js") for key in re.findall(r'say\(\s*"([\w-]+)"', path.read_text())}
    reasons = {CALL_REFUSED, TOKEN_REFUSED, ELSEWHERE}
    told = {*BatchState, *(priority.name.lower() for priority in Priority), *reasons} - {BatchState.FAILED}
    told |= {each.code for each in families(ProxyError)}
    assert asked | said | told | {"failed"} <= english


def families(kind: type[ProxyError]) -> list[type[ProxyError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in families(below))]
