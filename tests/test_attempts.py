"""What is told of every call: its status, how long it took, what became of it, whatever that is."""

import asyncio
import logging

import pytest
from a_line import a_line

from proxy.attempt import Attempted
from proxy.errors import CredentialRefused, Stopping, UpstreamError, UpstreamTimeout
from proxy.forwarding import RawHead


class Watcher:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.sends: list[float] = []
        self.attempts: list[Attempted] = []

    def sent(self, at: float) -> None:
        self.sends.append(at)

    def attempted(self, attempt: Attempted) -> None:
        self.attempts.append(attempt)


class Broken:
    """An observer with a bug."""

    def sent(self, at: float) -> None:
        raise ValueError("a bug")

    def attempted(self, attempt: Attempted) -> None:
        raise ValueError("a bug")


async def test_every_attempt_of_a_request_is_told_as_it_ends():
    """Before the request itself is over."""
    watcher = Watcher()
    async with a_line(latency=2, observers=[watcher]) as line:
        line.api.outcomes.extend([UpstreamError(500), UpstreamError(429)])
        asking = await line.ask("a")
        assert [attempt.status for attempt in watcher.attempts] == [500]
        await line.clock.wait_for(asking)
        assert [(told.id, told.status, told.error) for told in watcher.attempts] == [
            ("a", 500, "upstream_error"),
            ("a", 429, "upstream_error"),
            ("a", 200, ""),
        ]
        assert [told.took for told in watcher.attempts] == [0, 0, 2]
        assert watcher.sends == line.api.times


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UpstreamError(404), 404, "upstream_error"),
        (UpstreamError(None), None, "upstream_error"),
        (UpstreamTimeout(3), None, "upstream_timeout"),
        (CredentialRefused("no"), 401, "credential_refused"),
        (ValueError("a bug"), None, "internal_error"),
    ],
    ids=repr,
)
async def test_a_failure_is_told_by_the_apis_status_or_else_by_its_own_name(error, status, code):
    watcher = Watcher()
    async with a_line(latency=0, retries=0, observers=[watcher]) as line:
        line.api.outcomes.append(error)
        await asyncio.gather(await line.ask("a"), return_exceptions=True)
        (told,) = watcher.attempts
        assert (told.status, told.error) == (status, code)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda line, asking: asking.cancel(), ""),
        (lambda line, asking: line.requests["a"].interrupt(Stopping()), "stopping"),
        (lambda line, asking: None, "upstream_timeout"),
    ],
    ids=["its caller leaves", "the service stops", "it is too slow"],
)
async def test_a_call_that_is_ended_from_here_has_no_status(end, code):
    """It took as long as it lasted."""
    watcher = Watcher()
    async with a_line(call_timeout=5, observers=[watcher]) as line:
        asking = await line.ask("a")
        await line.clock.forward(3)
        end(line, asking)
        await line.clock.forward(2)
        (told,) = watcher.attempts
        assert (told.status, told.error) == (None, code)
        assert told.took == (5 if code == "upstream_timeout" else 3)
        await asyncio.gather(asking, return_exceptions=True)


async def test_what_never_left_the_line_was_no_attempt():
    """Nobody is told of it as of a call."""
    watcher = Watcher()
    async with a_line(concurrency=1, observers=[watcher]) as line:
        await line.ask("first")
        waiting = await line.ask("second")
        waiting.cancel()
        await line.clock.settle()
        assert (watcher.attempts, len(watcher.sends)) == ([], 1)


async def test_what_was_not_sent_took_no_time():
    """Its caller left before its pace slot came."""
    watcher = Watcher()

    class Reluctant:
        def validate_data(self, data):
            return True

        def get_info(self):
            return {}

        async def request_api(self, data):
            raise AssertionError("it is never its turn")

    async with a_line(rpm=60, api=Reluctant(), observers=[watcher]) as line:
        line.limits._next_send = line.clock.now() + 0.002  # within the lead, so that it has its permit
        asking = await line.ask("a")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        (told,) = watcher.attempts
        assert (told.took, told.status, watcher.sends) == (None, None, [])


async def test_a_stream_is_timed_to_its_first_chunk_and_to_its_end():
    watcher = Watcher()
    async with a_line(observers=[watcher]) as line:
        line.api.script = [1.5, {"a": 1}, 2.0, {"a": 2}, 0.5]
        await line.clock.wait_for(await line.ask("a", is_stream=True))
        (told,) = watcher.attempts
        assert (told.status, told.first_chunk, told.took) == (200, 1.5, 4.0)


async def test_a_stream_that_breaks_is_told_with_its_first_chunk():
    watcher = Watcher()
    async with a_line(observers=[watcher]) as line:
        line.api.script = [1.0, {"a": 1}, 1.0, UpstreamError(None)]
        with pytest.raises(UpstreamError):
            await line.clock.wait_for(await line.ask("a", is_stream=True))
        (told,) = watcher.attempts
        assert (told.status, told.error, told.first_chunk, told.took) == (None, "upstream_error", 1.0, 2.0)


@pytest.mark.parametrize(("is_whole", "first"), [(True, None), (False, 3.0)])
async def test_a_raw_answer_has_the_status_of_its_head(is_whole, first):
    """And a first chunk only if it comes in several."""
    watcher = Watcher()
    async with a_line(observers=[watcher]) as line:
        line.api.script = [1.0, RawHead(404, (), is_whole), 2.0, b"no such file"]
        await line.clock.wait_for(await line.ask("a", is_stream=True))
        (told,) = watcher.attempts
        assert (told.status, told.error, told.first_chunk) == (404, "", first)


async def test_an_observer_with_a_bug_harms_neither_the_call_nor_the_others(caplog):
    watcher = Watcher()
    async with a_line(latency=1, observers=[Broken(), watcher]) as line:
        with caplog.at_level(logging.ERROR):
            assert await line.clock.wait_for(await line.ask("a")) == [{"answer": "a"}]
        assert len(watcher.attempts) == len(watcher.sends) == 1
        assert caplog.text.count("an observer failed") == 2
