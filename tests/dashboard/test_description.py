"""The page at /docs in a real browser: it shows the description, and needs nobody else for that."""

from playwright.async_api import Browser, expect
from running import StartProxy

#: Milliseconds, on a busy machine.
SOON = 15_000


async def test_it_shows_the_description_without_a_complaint_and_asks_nobody_else(
    start_proxy: StartProxy, browser: Browser
) -> None:
    """An operation opens, and can be tried: the answer is the service's own."""
    proxy = await start_proxy()
    page = await browser.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{proxy.url}/docs#/Watching/get-health")
    health = page.locator(".opblock", has=page.locator('[data-path="/health"]'))
    await health.get_by_role("button", name="Try it out").click(timeout=SOON)
    await health.get_by_role("button", name="Execute").click()
    await expect(health.locator(".live-responses-table")).to_contain_text('"status": "ok"', timeout=SOON)
    assert wrong == []
    assert [url for url in asked if not url.startswith(proxy.url)] == []
    await page.close()
