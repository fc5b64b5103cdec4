"""Batches, and the files that they are made of and that come of them: a line in, a line out, and what is told of both.

What is wrong with an input file is told by OpenAI's codes where they are known, so that programs know them.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from proxy.errors import BadRequest
from proxy.jobs import Job, Page, State
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.files import StoredFile

#: What the lines of a batch may ask for, and in which dialect: what OpenAI's may, and chats in the proxy's own.
ENDPOINTS: Final = {"/v1/chat/completions": "openai", "/v1/embeddings": "openai", "/": "native"}
#: Purposes of the files that batches are made of, and of those that come of them.
INPUT, OUTPUT = "batch", "batch_output"
#: Hours of the longest window, and how a window is written.
LONGEST_WINDOW = 168
WINDOW = re.compile(r"([1-9][0-9]{0,2})h")
#: How many notes a batch may carry, and characters of their names and texts.
NOTES, NOTE_NAME, NOTE_TEXT = 16, 64, 512
#: Seconds for which a file may be asked to be kept, and for which it is kept unless asked otherwise.
SHORTEST_LIFE, LONGEST_LIFE = 3600, 30 * 86_400
#: Characters of the longest custom_id.
LONGEST_ID = 512
#: What some programs begin a file with.
BOM = b"\xef\xbb\xbf"
#: Errors of an input file that are told.
MOST_ERRORS = 100
#: The states whose beginning is told.
DATED: Final = [state for state in BatchState if state is not BatchState.VALIDATING]

CANCELLED: Final = {"code": "batch_cancelled", "message": "The batch was cancelled before this request was executed."}
EXPIRED: Final = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}


# ---- What is asked for ----


class BatchRequest(NamedTuple):
    """A batch to be made; `seconds` is its window, `life` how long its files are kept."""

    input_file: str
    endpoint: str
    window: str
    seconds: float
    metadata: Mapping[str, str]
    life: float

    @classmethod
    def of(cls, asked: object) -> "BatchRequest":
        """The body of `POST batches`. Raises BadRequest."""
        if not isinstance(asked, dict):
            raise BadRequest('the body must be a JSON object {"input_file_id", "endpoint", "completion_window"}')
        endpoint, window = text_in(asked, "endpoint"), text_in(asked, "completion_window")
        if endpoint not in ENDPOINTS:
            raise BadRequest(f'"endpoint" must be one of {", ".join(ENDPOINTS)}', param="endpoint")
        return cls(
            text_in(asked, "input_file_id"),
            endpoint,
            window,
            window_of(window),
            metadata_of(asked.get("metadata")),
            life_of(asked.get("output_expires_after"), "output_expires_after"),
        )


def text_in(asked: Mapping[str, Any], name: str) -> str:
    text = asked.get(name)
    if not isinstance(text, str) or not text:
        raise BadRequest(f'"{name}" must be given, as text', param=name)
    return text


def window_of(text: str) -> float:
    """Seconds. Raises BadRequest."""
    found = WINDOW.fullmatch(text)
    if found is None or int(found[1]) > LONGEST_WINDOW:
        raise BadRequest(
            f'"completion_window" must be from "1h" to "{LONGEST_WINDOW}h", such as "24h"', param="completion_window"
        )
    return int(found[1]) * 3600.0


def metadata_of(asked: object) -> dict[str, str]:
    if asked is None:
        return {}
    if not isinstance(asked, dict) or len(asked) > NOTES:
        raise BadRequest(f'"metadata" must be an object of at most {NOTES} pairs', param="metadata")
    for name, text in asked.items():
        if len(name) > NOTE_NAME or not isinstance(text, str) or len(text) > NOTE_TEXT:
            raise BadRequest(
                f'"metadata" must have names of at most {NOTE_NAME} characters, and texts of at most {NOTE_TEXT}',
                param=f"metadata.{name[:NOTE_NAME]}",
            )
    return asked


def life_of(asked: object, param: str) -> float:
    """Seconds for which a file is kept, by `{"anchor": "created_at", "seconds": ...}`. Raises BadRequest."""
    if asked is None:
        return LONGEST_LIFE
    match asked:
        case {"anchor": "created_at", "seconds": int(seconds)} if SHORTEST_LIFE <= seconds <= LONGEST_LIFE:
            return seconds
    raise BadRequest(
        f'"{param}" must be {{"anchor": "created_at", "seconds": <{SHORTEST_LIFE} to {LONGEST_LIFE}>}}', param=param
    )


# ---- A line in ----


class Line(NamedTuple):
    """A request of a batch."""

    custom_id: str
    body: bytes


class LineRefused(Exception):
    """A line is no request of its batch."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def line_of(text: bytes, endpoint: str) -> Line:
    """What a line of an input file asks for. Raises LineRefused."""
    try:
        asked = orjson.loads(text.removeprefix(BOM))
    except orjson.JSONDecodeError:
        raise LineRefused("invalid_json_line", "This line is not parseable as valid JSON.") from None
    if not isinstance(asked, dict):
        raise LineRefused("invalid_json_line", "This line is not a JSON object.")
    for name in ("custom_id", "method", "url", "body"):
        if asked.get(name) is None:
            raise LineRefused("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    check(asked, endpoint)
    try:
        return Line(asked["custom_id"], orjson.dumps(asked["body"]))
    except orjson.JSONEncodeError:
        raise LineRefused("invalid_request", "'body' is nested too deeply.", "body") from None


def check(asked: Mapping[str, Any], endpoint: str) -> None:
    id, body = asked["custom_id"], asked["body"]
    if not isinstance(id, str) or not 1 <= len(id) <= LONGEST_ID:
        message = f"'custom_id' must be text of 1 to {LONGEST_ID} characters."
        raise LineRefused("invalid_request", message, "custom_id")
    if asked["method"] != "POST":
        raise LineRefused("invalid_request", "'method' must be 'POST'.", "method")
    if asked["url"] != endpoint:
        message = f"'url' must be '{endpoint}', the endpoint of the batch."
        raise LineRefused("url_mismatch", message, "url")
    if not isinstance(body, dict):
        raise LineRefused("invalid_request", "'body' must be an object.", "body")
    if param := stream_in(body):
        message = "'stream' must be left out: a batch has no streams."
        raise LineRefused("invalid_request", message, param)


def stream_in(body: Mapping[str, Any]) -> str | None:
    """The field by which a body asks for a stream, if it does."""
    inner = body.get("generate_parameters")
    for param, where in (("body.stream", body), ("body.generate_parameters.stream", inner)):
        if isinstance(where, dict) and where.get("stream") not in (None, False):
            return param
    return None


class Inspection:
    """An input file, heard line by line: how many requests it has, and what is wrong with it.

    Of each line it remembers no more than a digest.

    Args:
        most: lines that a batch may have.
        longest: bytes that a line may have.
    """

    def __init__(self, endpoint: str, *, most: int, longest: int) -> None:
        self._endpoint = endpoint
        self._most = most
        self._longest = longest
        self._known: set[bytes] = set()
        self.lines = 0
        self.errors: list[dict[str, Any]] = []

    @property
    def has_seen_enough(self) -> bool:
        """Nothing that comes yet would be told."""
        return len(self.errors) >= MOST_ERRORS or self.lines > self._most

    def hear(self, number: int, text: bytes) -> None:
        """The line of this number, from 1; one that is longer than allowed may be cut."""
        self.lines += 1
        try:
            self._hear(text)
        except LineRefused as refused:
            self._note(refused, number)

    def end(self) -> None:
        """There is no further line."""
        if not self.lines:
            self._note(LineRefused("empty_file", "The input file has no line."))

    def miss(self) -> None:
        """There is no such file any more."""
        self._note(LineRefused("file_not_found", "The input file is gone.", "input_file_id"))

    def _hear(self, text: bytes) -> None:
        if self.lines > self._most:
            raise LineRefused("too_many_tasks", f"A batch has at most {self._most} requests here: divide the file.")
        if len(text) > self._longest:
            raise LineRefused("invalid_request", f"This line is longer than {self._longest} bytes (MAX_BODY_BYTES).")
        line = line_of(text, self._endpoint)
        digest = blake2b(line.custom_id.encode(), digest_size=16).digest()
        if digest in self._known:
            message = f"The custom_id '{line.custom_id}' stands in an earlier line: each must be unique."
            raise LineRefused("duplicate_custom_id", message, "custom_id")
        self._known.add(digest)

    def _note(self, refused: LineRefused, line: int | None = None) -> None:
        self.errors.append({"code": refused.code, "line": line, "message": str(refused), "param": refused.param})


# ---- A line out ----


def output_line(job: Job) -> bytes:
    """What became of a request that has ended."""
    answer = job.answer
    response = answer and {"status_code": answer.status, "request_id": job.id, "body": within(answer.body)}
    return told_line(job.id, job.custom_id, response=response, error=None if response else error_of(job))


def error_of(job: Job) -> dict[str, str]:
    """Why it has no answer."""
    if job.state is State.EXPIRED:
        return EXPIRED
    return CANCELLED if job.state is State.CANCELLED else {"code": "request_failed", "message": job.error}


def unbegun_line(id: str, text: bytes, endpoint: str, error: Mapping[str, str]) -> bytes:
    """The same for a line of an input file that never became a job; `id` is what that would have had."""
    return told_line(id, line_of(text, endpoint).custom_id, response=None, error=error)


def told_line(id: str, custom_id: str | None, **told: Any) -> bytes:
    digest = blake2b(id.encode(), digest_size=16).hexdigest()
    return orjson.dumps({"id": f"batch_req_{digest}", "custom_id": custom_id, **told}) + b"\n"


def within(body: bytes) -> Any:
    """An answer's body as it stands in a line: JSON as it came, but on one line; anything else as text."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")
    return orjson.Fragment(body.translate(None, b"\r\n"))


# ---- What is told ----


def batch_object(batch: Batch) -> dict[str, Any]:
    completed = batch.ended.get(State.DONE, 0)
    # Some lines may never have become jobs.
    ended = batch.total if batch.state in (BatchState.CANCELLED, BatchState.EXPIRED) else sum(batch.ended.values())
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": None,
        "errors": {"object": "list", "data": list(batch.errors)} if batch.errors else None,
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.state.value,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created),
        "expires_at": seconds(batch.deadline),
        **{f"{state}_at": seconds(batch.times.get(state)) for state in DATED},
        "request_counts": {
            "total": batch.total,
            "completed": completed,
            "failed": ended - completed,
        },
        "usage": None,
        "metadata": dict(batch.metadata) or None,
    }


def kept_file_object(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created),
        "expires_at": seconds(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def batch_list(page: Page[Batch]) -> dict[str, Any]:
    return listed([batch_object(batch) for batch in page.entries], has_more=page.after is not None)


def listed(told: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": told,
        "first_id": told[0]["id"] if told else None,
        "last_id": told[-1]["id"] if told else None,
        "has_more": has_more,
    }


def seconds(at: float | None) -> int | None:
    """A time as OpenAI tells it."""
    return None if at is None else int(at)
