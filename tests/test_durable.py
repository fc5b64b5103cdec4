"""What stands around the operations that can be jobs: it costs other requests nothing and never gets in their way."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from proxy.durable import Durable, Kept, choice, chosen, is_kept


async def served(request: web.Request) -> web.Response:
    return web.Response(text="served")


async def accepted(request: web.Request) -> web.Response:
    return web.Response(text="accepted")


class Once:
    async def serve(self, handler: Any, request: web.Request) -> web.StreamResponse:
        return web.Response(text="once")


DURABLE = Durable(accepted, Once())


@pytest.mark.parametrize(
    ("headers", "way"),
    [
        ({}, "served"),
        ({"Prefer": "respond-async"}, "accepted"),
        ({"Prefer": "wait=5"}, "served"),
        ({"Idempotency-Key": "k"}, "once"),
        ({"Prefer": "wait=5", "Idempotency-Key": "k"}, "once"),
        ({"Prefer": "respond-async", "Idempotency-Key": "k"}, "accepted"),
        ({"Prefer": "respond-async", "Content-Type": "multipart/form-data; boundary=b"}, "served"),
    ],
)
async def test_a_request_goes_the_way_that_its_headers_ask_for(headers: dict[str, str], way: str):
    request = make_mocked_request("POST", "/", headers=headers)
    response = await DURABLE.operation(Kept(served), request)(request)
    assert isinstance(response, web.Response) and response.text == way


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_only_what_is_posted_is_kept(method: str):
    """A look changes nothing, so it may simply be repeated."""
    headers = {"Prefer": "respond-async", "Idempotency-Key": "k"}
    request = make_mocked_request(method, "/", headers=headers)
    response = await DURABLE.operation(Kept(served), request)(request)
    assert isinstance(response, web.Response) and response.text == "served"


async def test_what_is_not_kept_is_served_now_whatever_it_asks_for():
    request = make_mocked_request("POST", "/", headers={"Prefer": "respond-async", "Idempotency-Key": "k"})
    response = await DURABLE.operation(served, request)(request)
    assert isinstance(response, web.Response) and response.text == "served"


@pytest.mark.parametrize(("agent", "way"), [("one that is kept", "accepted"), ("another", "served")])
async def test_of_operations_to_choose_from_the_chosen_one_tells_whether_it_is_kept(agent: str, way: str):
    either = choice(lambda request: Kept(served) if "kept" in request.headers["User-Agent"] else served)
    request = make_mocked_request("POST", "/", headers={"User-Agent": agent, "Prefer": "respond-async"})
    response = await DURABLE.operation(either, request)(request)
    assert isinstance(response, web.Response) and response.text == way
    assert is_kept(chosen(either, request)) is (way == "accepted")


async def test_a_choice_within_a_choice_is_made_too():
    outer = choice(lambda request: choice(lambda request: Kept(served)))
    request = make_mocked_request("POST", "/")
    assert is_kept(chosen(outer, request))
    response = await outer(request)
    assert isinstance(response, web.Response) and response.text == "served"
