"""The page at /docs in a real browser: it shows the description, and needs nobody else for that."""

from pathlib import Path

from playwright.async_api import Browser, expect
from pydantic import SecretStr
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


async def test_two_clicks_are_an_answer_and_do_no_harm(
    start_proxy: StartProxy, browser: Browser, tmp_path: Path
) -> None:
    """What the page begins with works: a chat is no job, a job tells nobody of its end, limits stay as they are."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))
    page = await browser.new_page()
    cases = [
        ("Native/post", "/", "200"),
        ("OpenAI/post-v1-chat-completions", "/v1/chat/completions", "200"),
        ("OpenAI/post-v1-embeddings", "/v1/embeddings", "200"),
        ("Jobs/post-jobs", "/jobs", "202"),
        ("Steering/patch-limits", "/limits?preview=true", "200"),
    ]
    for operation, address, status in cases:
        await page.goto("about:blank")  # else only the fragment would change
        await page.goto(f"{proxy.url}/docs#/{operation}")
        opened = page.locator(".opblock.is-open")
        await opened.get_by_role("button", name="Try it out").click(timeout=SOON)
        async with page.expect_request(proxy.url + address, timeout=SOON) as asked:
            await opened.get_by_role("button", name="Execute").click()
        wishes = {"prefer", "x-priority", "x-request-timeout", "idempotency-key", "x-request-id"}
        assert not wishes & (await asked.value).headers.keys()
        shown = opened.locator(".live-responses-table .response .response-col_status")
        await expect(shown).to_contain_text(status, timeout=SOON)
    await page.close()
