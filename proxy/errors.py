"""Every way in which a request can fail, in one family.

Rule 1: a failure knows its HTTP status, its Retry-After and its remedy; whoever writes the answer asks nobody else.
Rule 2: foreign exceptions join this family once, at the border (`proxy/upstream.py`, `proxy/connector.py`).
Rule 3: no text of this family carries a secret, a stack trace or an address of the upstream.
"""

from collections.abc import Mapping

import orjson

#: Seconds: a day.
LONGEST_RETRY_AFTER = 86_400.0


class ProxyError(Exception):
    """A request failed. `status` is the HTTP status, `retry_after` is in seconds (None: no such header)."""

    status = 500
    #: Machine-readable name of the kind, the same in every dialect and in the journal.
    code = "internal_error"

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        # It may repeat a caller's word, which need not be Unicode.
        super().__init__((message or (self.__doc__ or "").strip()).encode(errors="replace").decode())
        # An upstream may say anything, "inf" too.
        self.retry_after = None if retry_after is None else min(retry_after, LONGEST_RETRY_AFTER)

    @property
    def message(self) -> str:
        return str(self)

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that this failure adds to the answer, Retry-After aside."""
        return {}


class BadRequest(ProxyError):
    """The request is not understood. `param` is the path of the offending field, if one is to blame."""

    status = 400
    code = "bad_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Unauthorized(ProxyError):
    """A valid key of this proxy is needed: send it as "Authorization: Bearer <key>" or "X-API-Key: <key>"."""

    status = 401
    code = "unauthorized"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="gigachat-proxy"'}


class KeyRefused(Unauthorized):
    """This is no key of this proxy: a valid one is needed, as "Authorization: Bearer <key>" or "X-API-Key: <key>"."""

    code = "key_refused"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="gigachat-proxy", error="invalid_token"'}


class PassExpired(KeyRefused):
    """This access token is over: ask for a new one, or send your key itself."""

    code = "pass_expired"


class PassedMalformed(Unauthorized):
    """A credential in Authorization begins with giga-cred-, giga-auth- or giga-user-, and cannot be right."""

    code = "passed_malformed"


class PassingOff(Unauthorized):
    """This proxy takes no credentials of its callers' own: its operator would set GPT2GIGA_PASS_TOKEN=true."""

    code = "passing_off"


class NoAccount(Unauthorized):
    """This proxy has no account of its own: bring a credential, as "Authorization: Bearer giga-cred-<key>"."""

    code = "no_account"


class Forbidden(ProxyError):
    """A browser asks for a page that may not call this service."""

    status = 403
    code = "forbidden"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Vary": "Origin"}


class NotFound(ProxyError):
    """There is nothing at this path."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """There is no model of this name."""

    code = "model_not_found"
    param = "model"


class MethodNotAllowed(ProxyError):
    """This path does not take this method."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Allow": self.allowed}


class BodyTooLarge(ProxyError):
    """The body is larger than MAX_BODY_BYTES."""

    status = 413
    code = "body_too_large"


class AttachmentTooLarge(BadRequest):
    """A picture or a file of the request is larger than the API takes."""

    status = 413
    code = "attachment_too_large"


class UnsupportedMedia(BadRequest):
    """A picture or a file of the request is of a type that the API does not take."""

    status = 415
    code = "unsupported_media"


class LineFull(ProxyError):
    """The waiting line is full; a place is kept for whoever comes back after Retry-After."""

    status = 429
    code = "line_full"


class WaitTooLong(ProxyError):
    """The wait in line would outlast the request's deadline; come back after Retry-After."""

    status = 429
    code = "wait_too_long"


class DeadlineExpired(ProxyError):
    """The request grew older than its deadline before an answer came."""

    status = 504
    code = "deadline_expired"

    @property
    def headers(self) -> Mapping[str, str]:
        # It may have been sent, and paid for: a client library must not do that again by itself.
        return {"x-should-retry": "false"}


class AnswerPending(DeadlineExpired):
    """No answer came before the request's deadline. It goes on: the same Idempotency-Key gets its answer."""

    code = "answer_pending"

    @property
    def headers(self) -> Mapping[str, str]:
        # Whoever asks again joins it, and pays nothing for that.
        return {}


class Stopping(ProxyError):
    """The service is stopping; try again shortly."""

    status = 503
    code = "stopping"


class Cancelled(ProxyError):
    """The request was taken out of the line, or its call was ended, by its caller or by the operator."""

    status = 503
    code = "cancelled"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"x-should-retry": "false"}  # somebody wants it gone


class LimitsUnavailable(ProxyError):
    """Redis, which keeps the limits for all replicas, is away: nothing is changed. Try again when it is there."""

    status = 503
    code = "limits_unavailable"


class LanesFull(ProxyError):
    """As many accounts as LANES_MAX allows are busy; try again shortly."""

    status = 503
    code = "lanes_full"


class KeyReused(ProxyError):
    """This Idempotency-Key came with another request before: send a new key with a new request."""

    status = 409
    code = "idempotency_key_reused"


class JobNotOver(ProxyError):
    """The job has not ended, or has ended well: that cannot be done to it now."""

    status = 409
    code = "job_not_over"


class NoAnswer(ProxyError):
    """The job has ended, and there is no answer."""

    status = 410
    code = "no_answer"


class ClaimOver(ProxyError):
    """The job was not begun in the time for which it was claimed, and may be another's by now."""

    status = 503
    code = "claim_over"


class JobsOff(ProxyError):
    """This service takes no jobs: JOBS_URL=off, or their place could not be used; it says which when it starts."""

    status = 501
    code = "jobs_off"


class JobsFull(ProxyError):
    """The store of jobs has no room: delete jobs and files that are over, or let its operator make room."""

    status = 507
    code = "jobs_full"


class JobsUnavailable(ProxyError):
    """The store of jobs cannot be used now; what it has accepted is kept. Try again shortly."""

    status = 503
    code = "jobs_unavailable"


class CredentialMissing(Exception):
    """Raised by a connector's `startup()`: it lacks the credential that it needs. The text names every way out."""


class UpstreamError(ProxyError):
    """The upstream answered with an error, or did not answer at all.

    `upstream_status` is the HTTP status it gave, None if no whole answer came (connection refused or broken,
    unreadable answer). `body` is what it said, as bytes. `retry_after` is what it asked for, in seconds.
    """

    code = "upstream_error"

    #: Refusals that are no answer to the caller's request: of our credential, of our pace, of a proxy between.
    NOT_PASSED = frozenset({401, 407, 408, 429})

    def __init__(
        self,
        status: int | None,
        body: bytes | str = b"",
        retry_after: float | None = None,
        message: str = "",
    ) -> None:
        self.upstream_status = status
        #: The upstream's own headers, as far as a caller may see them, for those who get its answer as it is.
        self.answer_headers: tuple[tuple[str, str], ...] = ()
        #: Its caller is one of those, and gets the upstream's own status too.
        self.is_raw = False
        self.body = body.encode() if isinstance(body, str) else body
        super().__init__(message or self._told(), retry_after=retry_after)

    def _told(self) -> str:
        """The upstream's own words, if it spoke JSON; never a page of HTML."""
        if self.upstream_status is None:
            return "the upstream could not be reached or broke the connection"
        return upstream_message(self.body) or f"the upstream answered {self.upstream_status}"

    @property
    def status(self) -> int:  # type: ignore[override]  # the family's constant is a question here
        told = self.upstream_status
        if told is not None and self.is_raw:
            return told
        if told is not None and 400 <= told < 500 and told not in self.NOT_PASSED:
            return told  # the caller's business, as it is
        return self.upstream_status if self.upstream_status in (503, 504) else 502

    @property
    def is_as_told(self) -> bool:
        """The upstream did answer, and its answer is about the request: whoever wants it raw gets it as it is."""
        return self.upstream_status is not None

    @property
    def is_throttled(self) -> bool:
        """The upstream said that it is asked too much: the whole lane waits, no retry is used up."""
        return self.upstream_status == 429

    @property
    def is_retryable(self) -> bool:
        """Another attempt may succeed: 5xx, a broken connection, an unreadable answer."""
        return self.upstream_status is None or self.upstream_status >= 500

    @property
    def headers(self) -> Mapping[str, str]:
        # The proxy has spent its own retries: a client library that tries again only wastes the quota.
        return {"x-should-retry": "false"} if self.status >= 500 else {}


class CredentialRefused(UpstreamError):
    """The upstream refuses the credential of the proxy itself: the operator has to act, a retry cannot help."""

    code = "credential_refused"

    def __init__(self, message: str, *, status: int = 401, body: bytes | str = b"") -> None:
        super().__init__(status, body, message=message)

    @property
    def status(self) -> int:  # type: ignore[override]
        return 502

    @property
    def is_as_told(self) -> bool:
        return False

    @property
    def is_retryable(self) -> bool:
        return False


class PassedRefused(CredentialRefused):
    """The API refuses the credential that the request brought along: its caller has to act."""

    code = "passed_refused"

    def __init__(self, message: str = "", *, status: int = 401, body: bytes | str = b"") -> None:
        super().__init__(message or str(self.__doc__), status=status, body=body)
        #: Whether these are the API's own words about the call, not about a token request before it.
        self.is_of_call = False

    @property
    def status(self) -> int:  # type: ignore[override]
        return 401

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="the API", error="invalid_token"'}

    @property
    def is_as_told(self) -> bool:
        return self.is_of_call


class UpstreamTimeout(UpstreamError):
    """The upstream was slower than EXP_RESP_TIMEOUT, or than its connector waits. Not retried: it may be billed."""

    code = "upstream_timeout"

    def __init__(self, seconds: float = 0.0, message: str = "") -> None:
        super().__init__(
            None, message=message or f"the upstream did not answer within {seconds:g} s (EXP_RESP_TIMEOUT)"
        )

    @property
    def status(self) -> int:  # type: ignore[override]
        return 504

    @property
    def is_retryable(self) -> bool:
        return False


def upstream_message(body: bytes) -> str:
    """The sentence inside an API's error body: GigaChat's `message`, OpenAI's `error.message`; "" if there is none."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(told, dict):
        return ""
    error = told.get("error")
    message = error.get("message") if isinstance(error, dict) else told.get("message") or error
    return message if isinstance(message, str) else ""
