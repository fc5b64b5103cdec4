"""The comparison: what aiohttp alone costs. `python -m benchmarks.bare URL`.

`POST /` is passed through to URL and back; `POST /wait` merely waits; `GET /` tells how many wait.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

SESSION = web.AppKey("session", aiohttp.ClientSession)
WAITING = web.AppKey("waiting", list[asyncio.Future[None]])


def application(url: str) -> web.Application:
    async def pass_through(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer a-token"}
        async with request.app[SESSION].post(url, data=body, headers=headers) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), headers={"Content-Type": "application/json"}
            )

    async def wait(request: web.Request) -> web.Response:
        await request.read()
        turn = asyncio.get_running_loop().create_future()
        request.app[WAITING].append(turn)
        await turn
        return web.Response()

    async def waiting(request: web.Request) -> web.Response:
        return web.json_response(len(request.app[WAITING]))

    app = web.Application()
    app.add_routes([web.post("/", pass_through), web.post("/wait", wait), web.get("/", waiting)])
    app[WAITING] = []
    app.cleanup_ctx.append(session)
    return app


async def session(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        app[SESSION] = opened
        yield


async def serve(url: str) -> None:
    runner = web.AppRunner(application(url), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
