"""What stands around the operations that can be jobs: it costs other requests nothing and never gets in their way."""

from functools import partial
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from proxy.durable import Durable, is_kept


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
    response = await DURABLE.kept(served)(request)
    assert isinstance(response, web.Response) and response.text == way


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_only_what_is_posted_is_kept(method: str):
    """A look changes nothing, so it may simply be repeated."""
    headers = {"Prefer": "respond-async", "Idempotency-Key": "k"}
    response = await DURABLE.kept(served)(make_mocked_request(method, "/", headers=headers))
    assert isinstance(response, web.Response) and response.text == "served"


def test_what_is_kept_is_known_whatever_stands_around_it():
    """An operation that chooses by the headers is kept if all that it chooses among are."""

    async def either(first: Any, second: Any, request: web.Request) -> web.Response:
        raise AssertionError

    kept = DURABLE.kept(served)
    assert is_kept(kept)
    assert is_kept(partial(either, kept, kept))
    assert not is_kept(partial(either, kept, served))
    assert not is_kept(served)
    assert not is_kept(partial(served))
