"""Every way to fail: its status, its remedy, and that its words give nothing away."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import errors
from proxy.connector import foreign_errors_named
from proxy.errors import (
    BadRequest,
    BodyTooLarge,
    CredentialRefused,
    DeadlineExpired,
    Forbidden,
    KeyRefused,
    LineFull,
    MethodNotAllowed,
    NotFound,
    PassExpired,
    ProxyError,
    Stopping,
    Unauthorized,
    UpstreamError,
    UpstreamTimeout,
    WaitTooLong,
    upstream_message,
)

PAGE = b"<html><h1>502 Bad Gateway</h1> nginx/1.22 at 10.1.2.3, key=hush</html>"


def family(root: type[ProxyError] = ProxyError) -> Iterator[type[ProxyError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from family(kind)


# ---- Statuses ----


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (BadRequest("messages is missing", param="messages"), 400),
        (Unauthorized(), 401),
        (KeyRefused(), 401),
        (PassExpired(), 401),
        (Forbidden(), 403),
        (NotFound(), 404),
        (MethodNotAllowed("no", allowed="GET"), 405),
        (BodyTooLarge(), 413),
        (LineFull(), 429),
        (WaitTooLong(), 429),
        (CredentialRefused("GIGACHAT_API_KEY is refused"), 502),
        (UpstreamError(None), 502),
        (UpstreamError(200, b"no JSON"), 502),
        (UpstreamError(302), 502),
        (UpstreamError(401), 502),
        (UpstreamError(429), 502),
        (UpstreamError(500), 502),
        (UpstreamError(502, PAGE), 502),
        (UpstreamError(503), 503),
        (UpstreamError(504), 504),
        (UpstreamTimeout(60), 504),
        (DeadlineExpired(), 504),
        (Stopping(), 503),
        (ProxyError("a bug"), 500),
    ],
)
def test_each_failure_has_its_status(failure, status):
    assert failure.status == status


@pytest.mark.parametrize("status", [400, 402, 403, 404, 413, 422])
def test_what_the_api_refuses_passes_as_it_is(status):
    """With its own words, and without another attempt: only the caller can mend it."""
    failure = UpstreamError(status, b'{"status": 400, "message": "Invalid params"}')
    assert (failure.status, failure.message) == (status, "Invalid params")
    assert not failure.is_retryable
    assert not failure.is_throttled


@pytest.mark.parametrize(
    ("failure", "is_retryable"),
    [
        (UpstreamError(None), True),
        (UpstreamError(500), True),
        (UpstreamError(502), True),
        (UpstreamError(503), True),
        (UpstreamError(504), True),
        (UpstreamError(401), False),
        (UpstreamError(409), False),
        (UpstreamTimeout(60), False),
        (CredentialRefused("refused"), False),
    ],
)
def test_another_attempt_is_made_only_where_it_may_help(failure, is_retryable):
    """Our own time-out may have been billed; a refused credential stays refused."""
    assert failure.is_retryable is is_retryable


def test_only_429_means_that_the_api_is_asked_too_much():
    assert [status for status in range(400, 600) if UpstreamError(status).is_throttled] == [429]


@given(st.none() | st.integers(100, 999))
def test_client_libraries_do_not_retry_what_was_retried_already(status):
    """Any failure that looks like the server's own tells them so; a refusal tells them nothing."""
    failure = UpstreamError(status)
    assert failure.headers == ({"x-should-retry": "false"} if failure.status >= 500 else {})


def test_a_refused_method_tells_which_are_allowed():
    assert MethodNotAllowed("GET only", allowed="GET, HEAD").headers == {"Allow": "GET, HEAD"}


# ---- The family ----


def test_every_kind_of_failure_has_a_name_of_its_own():
    """The name is what programs and the journal know it by."""
    names = [kind.code for kind in family()]
    assert len(names) == len(set(names)) > 10


@pytest.mark.parametrize("failure", [Unauthorized(), NotFound(), BodyTooLarge(), LineFull(), WaitTooLong(), Stopping()])
def test_a_failure_without_words_says_one_plain_sentence(failure):
    """What was wrong and what to do, on one line."""
    assert failure.message
    assert "\n" not in failure.message


def test_retry_after_is_kept_in_seconds():
    assert LineFull("full", retry_after=7).retry_after == 7
    assert UpstreamError(503, retry_after=1.5).retry_after == 1.5
    assert UpstreamError(503).retry_after is None


# ---- Words ----


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"status": 402, "message": "Payment Required"}', "Payment Required"),
        (b'{"error": {"message": "no such model", "type": "x"}}', "no such model"),
        (b'{"error": "plain words"}', "plain words"),
        ('{"message": "Нет доступа"}'.encode(), "Нет доступа"),
        (b'{"error": {"code": 5}}', ""),
        (b'{"message": {"nested": 1}}', ""),
        (b'{"message": null}', ""),
        (b'["message"]', ""),
        (b'"message"', ""),
        (b"\xff\xfe", ""),
        (PAGE, ""),
        (b"", ""),
    ],
)
def test_the_apis_own_words_are_found_in_either_shape(body, words):
    """GigaChat's and OpenAI's; anything else says nothing."""
    assert upstream_message(body) == words


@given(st.binary(max_size=200), st.none() | st.integers(100, 999))
def test_no_answer_of_the_api_can_upset_an_error(body, status):
    """Whatever it sends, there are a status and words to tell."""
    failure = UpstreamError(status, body)
    assert failure.message
    assert 400 <= failure.status <= 599


@pytest.mark.parametrize("status", [None, 403, 500, 502])
def test_a_page_of_html_never_reaches_a_caller(status):
    """Nor the log: it may name machines, versions and keys."""
    failure = UpstreamError(status, PAGE)
    for shown in (failure.message, str(failure), repr(failure)):
        assert not any(secret in shown for secret in ("html", "nginx", "10.1.2.3", "hush"))


@pytest.mark.parametrize(
    "foreign",
    [
        ConnectionRefusedError(111, "Connect call failed ('10.1.2.3', 443), key=hush"),
        ConnectionResetError("10.1.2.3 key=hush"),
        OSError("/etc/keys/hush.pem 10.1.2.3"),
    ],
)
def test_a_foreign_error_is_named_without_its_words(foreign):
    """A connector's own client may say anything in its errors."""
    with pytest.raises(UpstreamError) as caught, foreign_errors_named("mine"):
        raise foreign
    assert caught.value.is_retryable
    assert type(foreign).__name__ in caught.value.message
    assert not any(secret in str(caught.value) for secret in ("10.1.2.3", "hush"))


@pytest.mark.parametrize("own", [UpstreamError(500), ValueError("a bug"), asyncio.CancelledError()])
def test_what_is_no_broken_connection_stays_what_it_is(own):
    """Ours is named already, a bug is a bug, and who leaves leaves."""
    with pytest.raises(type(own)) as caught, foreign_errors_named("mine"):
        raise own
    assert caught.value is own
