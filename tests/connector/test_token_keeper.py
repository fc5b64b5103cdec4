import asyncio
import time

import pytest

from proxy.errors import CredentialRefused, UpstreamError
from proxy.tokens import AHEAD, PAUSE, USUAL_LIFE, NoToken, Token, Tokens, read_token


class Office:
    """Issues tokens named 1, 2, 3...; slowly, or not at all, when the test says so."""

    def __init__(self, life: float | None = 1800.0) -> None:
        self.life = life
        self.asked = 0
        self.error: Exception | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def __call__(self) -> Token:
        self.asked += 1
        name = str(self.asked)
        await self.is_open.wait()
        if self.error:
            raise self.error
        return Token(name, self.life)


async def soon() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def test_token_is_kept(clock):
    """A token serves until it is renewed: one request for any number of calls, at once or later."""
    office = Office()
    tokens = Tokens(office, clock=clock)
    taken = await asyncio.gather(*(tokens.get() for _ in range(500)))
    clock.time += 1800 - AHEAD - 1
    taken.append(await tokens.get())
    assert {token.text for token in taken} == {"1"}
    assert office.asked == 1


async def test_renewal_ahead_of_the_end_makes_nobody_wait(clock):
    """From 60 s before its end a token is renewed, once; while that takes its time, the old one serves."""
    office = Office()
    tokens = Tokens(office, clock=clock)
    await tokens.get()
    clock.time += 1800 - AHEAD
    office.is_open.clear()
    assert [(await tokens.get()).text for _ in range(50)] == ["1"] * 50
    await soon()
    office.is_open.set()
    await soon()
    assert (await tokens.get()).text == "2"
    assert office.asked == 2


async def test_failed_renewal_is_not_repeated_at_once(clock):
    """If renewing ahead fails, the old token serves on, and the next try comes some seconds later."""
    office = Office()
    tokens = Tokens(office, clock=clock)
    await tokens.get()
    clock.time += 1800 - AHEAD
    office.error = UpstreamError(502)
    for _ in range(50):
        assert (await tokens.get()).text == "1"
        await soon()
    assert office.asked == 2
    clock.time += PAUSE
    office.error = None
    await tokens.get()
    await soon()
    assert (await tokens.get()).text == "3"


async def test_end_of_the_token_under_load(clock):
    """The token is over: everybody waits for one new token and gets it."""
    office = Office()
    tokens = Tokens(office, clock=clock)
    await tokens.get()
    clock.time += 1800
    taken = await asyncio.gather(*(tokens.get() for _ in range(100)))
    assert {token.text for token in taken} == {"2"}
    assert office.asked == 2


async def test_short_lives(clock):
    """A token that lives less than two minutes is renewed at half of its life, not at every call."""
    office = Office(life=20)
    tokens = Tokens(office, clock=clock)
    await tokens.get()
    clock.time += 9
    await tokens.get()
    await soon()
    assert office.asked == 1
    clock.time += 1
    await tokens.get()
    await soon()
    assert office.asked == 2


async def test_unknown_life(clock):
    """A token that does not say when it ends is taken to live as long as they usually do."""
    office = Office(life=None)
    tokens = Tokens(office, clock=clock)
    await tokens.get()
    clock.time += USUAL_LIFE
    assert (await tokens.get()).text == "2"


async def test_refused_token_is_given_up(clock):
    """After a refusal the next call gets a new token, though the old one had long to live."""
    tokens = Tokens(Office(), clock=clock)
    refused = await tokens.get()
    assert tokens.give_up(refused)
    assert (await tokens.get()).text == "2"


async def test_refusal_of_a_former_token(clock):
    """Many calls are refused for one token, one after another: only the first refusal costs a token request."""
    office = Office()
    tokens = Tokens(office, clock=clock)
    refused = await tokens.get()
    for _ in range(50):
        assert tokens.give_up(refused)
        assert (await tokens.get()).text == "2"
    assert office.asked == 2


async def test_failed_request_fails_its_waiters_and_no_other(clock):
    """All who wait for a token get its failure; the next one tries again."""
    office = Office()
    office.error = UpstreamError(503)
    tokens = Tokens(office, clock=clock)
    told = await asyncio.gather(*(tokens.get() for _ in range(20)), return_exceptions=True)
    assert [type(error) for error in told] == [UpstreamError] * 20
    assert office.asked == 1
    office.error = None
    assert (await tokens.get()).text == "2"


async def test_wrong_credential_is_not_shown_again_and_again(clock):
    """A refused credential is not tried again for some seconds: a backlog does not spend the token requests."""
    office = Office()
    office.error = CredentialRefused("wrong key")
    tokens = Tokens(office, clock=clock)
    for _ in range(50):
        with pytest.raises(CredentialRefused):
            await tokens.get()
    assert office.asked == 1
    clock.time += PAUSE
    office.error = None
    assert (await tokens.get()).text == "2"


async def test_cancelled_first_caller(clock):
    """The first caller leaves while the token is on its way: the others get it."""
    office = Office()
    office.is_open.clear()
    tokens = Tokens(office, clock=clock)
    first, second = asyncio.create_task(tokens.get()), asyncio.create_task(tokens.get())
    await soon()
    first.cancel()
    office.is_open.set()
    assert (await second).text == "1"
    assert office.asked == 1


async def test_only_token(clock):
    """A token that was given without a way to others serves for ever and cannot be given up."""
    tokens = Tokens(None, Token("given"), clock)
    clock.time += 1e9
    given = await tokens.get()
    assert given.text == "given"
    assert not tokens.give_up(given)


async def test_given_token_then_others(clock):
    """A token that was given beside a key serves until it is refused; from then on the key is used."""
    office = Office()
    tokens = Tokens(office, Token("given"), clock)
    clock.time += 1e6
    given = await tokens.get()
    assert given.text == "given"
    assert tokens.give_up(given)
    assert (await tokens.get()).text == "1"


def test_headers():
    """A token is shown as Bearer; a certificate needs no header."""
    assert Token("t").headers == {"Authorization": "Bearer t"}
    assert NoToken().headers == {}


def test_secret_stays_secret():
    """Neither a token nor its keeper shows it."""
    assert "tell-tale" not in repr(Token("tell-tale")) + repr(Tokens(None, Token("tell-tale")))


@pytest.mark.parametrize("unit", [1000, 1])
@pytest.mark.parametrize(("text", "end"), [("access_token", "expires_at"), ("tok", "exp")])
def test_answers(text, end, unit):
    """Both shapes of an answer are understood, and the end in milliseconds or in seconds."""
    token = read_token({text: "t", end: int((time.time() + 1800) * unit)})
    assert token.text == "t"
    assert token.life == pytest.approx(1800, abs=2)


@pytest.mark.parametrize("answer", [{}, {"access_token": ""}, {"access_token": 5}, {"token": "t"}, {"tok": None}])
def test_answer_without_a_token(answer):
    """An answer that has no token in it is the upstream's failure, which another attempt may mend."""
    with pytest.raises(UpstreamError) as told:
        read_token(answer)
    assert told.value.is_retryable


@pytest.mark.parametrize("end", [None, "soon", True])
def test_answer_without_an_end(end):
    """If the end is not said, or makes no sense, the usual life is taken."""
    assert read_token({"access_token": "t", "expires_at": end}).life == USUAL_LIFE


def test_clocks_that_differ(caplog):
    """If a new token seems to be over, a clock is wrong: it is used as if new, and the log says so."""
    assert read_token({"access_token": "t", "expires_at": (time.time() - 100) * 1000}).life == USUAL_LIFE
    assert "clocks is wrong" in caplog.text
