"""Pages of a browser, and what goes wrong in them."""

from playwright.async_api import Browser, BrowserContext, Page


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
