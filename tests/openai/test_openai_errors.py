"""Failures in OpenAI's envelope: the SDK raises its own exceptions, and finds message, type, param and code in them."""

import httpx
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai import OpenAI, envelope
from proxy.errors import (
    AttachmentTooLarge,
    BadRequest,
    BodyTooLarge,
    CredentialRefused,
    DeadlineExpired,
    Forbidden,
    KeyRefused,
    LineFull,
    MethodNotAllowed,
    NotFound,
    PassedRefused,
    ProxyError,
    Stopping,
    Unauthorized,
    UnsupportedMedia,
    UpstreamError,
    UpstreamTimeout,
    WaitTooLong,
)


def gigachats(status, message):
    return UpstreamError(status, orjson.dumps({"status": status, "message": message}))


CASES = [
    (BadRequest('"n" is wrong', param="n"), openai.BadRequestError, "invalid_request_error", "bad_request"),
    (Unauthorized(), openai.AuthenticationError, "invalid_request_error", "invalid_api_key"),
    (KeyRefused(), openai.AuthenticationError, "invalid_request_error", "invalid_api_key"),
    (PassedRefused(), openai.AuthenticationError, "invalid_request_error", "invalid_api_key"),
    (Forbidden(), openai.PermissionDeniedError, "permission_error", "forbidden"),
    (NotFound(), openai.NotFoundError, "invalid_request_error", "not_found"),
    (MethodNotAllowed("no", allowed="GET"), openai.APIStatusError, "invalid_request_error", "method_not_allowed"),
    (BodyTooLarge(), openai.APIStatusError, "invalid_request_error", "body_too_large"),
    (AttachmentTooLarge("no", param="a"), openai.APIStatusError, "invalid_request_error", "attachment_too_large"),
    (UnsupportedMedia("no", param="a"), openai.APIStatusError, "invalid_request_error", "unsupported_media"),
    (LineFull(), openai.RateLimitError, "rate_limit_error", "rate_limit_exceeded"),
    (WaitTooLong(), openai.RateLimitError, "rate_limit_error", "rate_limit_exceeded"),
    (gigachats(400, "bad"), openai.BadRequestError, "invalid_request_error", "upstream_error"),
    (gigachats(402, "Payment Required"), openai.APIStatusError, "insufficient_quota", "insufficient_quota"),
    (gigachats(403, "Permission denied"), openai.PermissionDeniedError, "permission_error", "upstream_error"),
    (gigachats(404, "No such model"), openai.NotFoundError, "invalid_request_error", "model_not_found"),
    (gigachats(404, "No such file"), openai.NotFoundError, "invalid_request_error", "upstream_error"),
    (gigachats(413, "Payload too large"), openai.APIStatusError, "invalid_request_error", "context_length_exceeded"),
    (gigachats(422, "Invalid params"), openai.UnprocessableEntityError, "invalid_request_error", "upstream_error"),
    (UpstreamError(500), openai.InternalServerError, "server_error", "upstream_error"),
    (UpstreamError(None), openai.InternalServerError, "server_error", "upstream_error"),
    (CredentialRefused("no"), openai.InternalServerError, "server_error", "credential_refused"),
    (UpstreamTimeout(60), openai.InternalServerError, "server_error", "upstream_timeout"),
    (DeadlineExpired(), openai.InternalServerError, "server_error", "deadline_expired"),
    (Stopping(), openai.InternalServerError, "server_error", "stopping"),
    (ProxyError("a bug"), openai.InternalServerError, "server_error", "internal_error"),
]


def raised(content, status=200, content_type="application/json"):
    """What the SDK raises for an answer."""

    def answer(request):
        return httpx.Response(status, content=content, headers={"Content-Type": content_type})

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as http,
        openai.OpenAI(api_key="x", base_url="http://here/v1", http_client=http, max_retries=0) as client,
        pytest.raises(openai.APIError) as error,
    ):
        messages = [{"role": "user", "content": "Hi"}]
        is_stream = content_type == "text/event-stream"
        for _ in client.chat.completions.create(model="m", messages=messages, stream=is_stream):
            pass
    return error.value


@pytest.mark.parametrize(("failure", "kind", "type", "code"), CASES, ids=lambda case: getattr(case, "code", ""))
def test_the_sdk_raises_its_own_exception_with_all_that_is_known(failure, kind, type, code):
    error = raised(OpenAI().error(failure), failure.status)
    assert isinstance(error, kind)
    assert (error.type, error.code, error.param) == (type, code, getattr(failure, "param", None))
    assert error.body["message"] == failure.message


@pytest.mark.parametrize("failure", [UpstreamError(None), UpstreamTimeout(60), Stopping()])
def test_a_stream_that_breaks_raises_too(failure):
    """Its 200 is long out."""
    error = raised(OpenAI().error_event(failure), content_type="text/event-stream")
    assert error.body["message"] == failure.message
    assert error.type == "server_error"


def test_an_envelope_has_four_fields_and_nothing_else():
    assert envelope(BadRequest("no", param="n")) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "bad_request"}
    }
    assert envelope(NotFound("no"))["error"]["param"] is None


def test_a_field_has_the_place_where_the_caller_wrote_it():
    """The connector looks for it one level deeper."""
    told = envelope(BadRequest("generate_parameters.top_p must be less", param="generate_parameters.top_p"))["error"]
    assert (told["message"], told["param"]) == ("top_p must be less", "top_p")


@given(st.text(), st.text())
def test_any_words_can_be_told(message, param):
    told = orjson.loads(OpenAI().error(BadRequest(message, param=param)))
    assert isinstance(told["error"]["message"], str)


def test_what_the_upstream_said_beside_its_sentence_stays_here():
    page = b"<html>nginx at 10.1.2.3, key=hush</html>"
    assert b"hush" not in OpenAI().error(UpstreamError(502, page))
