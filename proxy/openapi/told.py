"""What callers read: the bodies of answers, as they are told. The tests hold them to what the service says.

Rule 1: what is ours is told whole, and nothing else: no other fields. What is the API's may have any.
Rule 2: a field without a default is always there; it may be null where that is said.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.dialects.openai.batches import DATED
from proxy.jobs import State
from proxy.jobs.batches import BatchState

Anything = dict[str, Any]
Seconds = Annotated[float, Field(description="Seconds.")]
Moment = Annotated[float, Field(description="Unix seconds.")]
#: Of a field that may be missing, and is not null.
MISSING: Any = None
Second = Annotated[int, Field(description="Unix seconds.")]


class Ours(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid")


class Theirs(BaseModel):
    """The API may tell more."""

    model_config = ConfigDict(defer_build=True, extra="allow")


# ---- Failures, by dialect ----


class NativeFailure(Ours):
    """`status` says what went wrong."""

    app: str
    status: str
    data: Annotated[Anything, Field(max_length=0)]


class GigaChatFailure(Ours):
    status: int
    message: str


class LanguageModelChatFailure(Ours):
    error: str


class TokenFailure(Ours):
    """`code` is 4 without a key, 6 with a wrong one, else the status."""

    code: int
    message: str


class OpenAIError(Ours):
    message: str
    type: Literal["invalid_request_error", "permission_error", "insufficient_quota", "rate_limit_error", "server_error"]
    param: str | None
    code: str


class OpenAIFailure(Ours):
    error: OpenAIError


# ---- Chats, embeddings, models ----


class Choice(Theirs):
    index: int
    message: Anything
    finish_reason: str | None


class Usage(Theirs):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Theirs):
    """The API's answer, as it is."""

    choices: list[Choice]
    created: Second
    model: str
    object: str
    usage: Usage


class NativeAnswer(Ours):
    app: str
    status: Literal["ok"]
    data: Anything = Field(description="The API's answer.", examples=[{"choices": [{"message": {"content": "Hello"}}]}])


class LaneInfo(Ours):
    """A lane just now. Times are seconds; null: there is no such limit, or nothing is known yet."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    name: str
    requests_a_minute: float | None
    requests_in_flight_limit: int | None
    requests_in_flight_limit_now: int | None
    in_flight: int
    waiting: int
    waiting_limit: int
    eta: float
    paused: float
    held: bool
    mean_latency: float | None
    stopping: bool


class Info(Theirs):
    """What the connector says of itself, and the lane."""

    connector: str
    lane: LaneInfo


class NativeInfo(Ours):
    app: str
    status: Literal["ok"]
    info: Info


class Conversation(Ours):
    """The messages that were sent, and the answer."""

    model: str | None
    messages: list[Anything]


class OpenAICompletion(Theirs):
    id: str
    object: Literal["chat.completion"]
    created: Second
    model: str
    choices: list[Choice]
    usage: Usage


class Embedding(Theirs):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of little-endian 32-bit ones.")


class EmbeddingsUsage(Theirs):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsTold(Theirs):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage


class Model(Ours):
    id: str
    object: Literal["model"]
    created: Second
    owned_by: str


class Models(Ours):
    object: Literal["list"]
    data: list[Model]


class ModelInfo(Ours):
    """As LiteLLM tells it."""

    model_name: str
    litellm_params: Anything
    model_info: Anything


class ModelInfos(Ours):
    data: list[ModelInfo]


class Token(Ours):
    access_token: str
    expires_at: int = Field(description="Unix milliseconds.")


class ShortToken(Ours):
    tok: str
    exp: int = Field(description="Unix milliseconds.")


# ---- Files and batches ----


class File(Theirs):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: Second
    filename: str
    purpose: str


class Files(Theirs):
    object: Literal["list"]
    data: list[File]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None


class FileDeleted(Theirs):
    id: str
    object: Literal["file"]
    deleted: bool


class BatchError(Ours):
    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(Ours):
    object: Literal["list"]
    data: list[BatchError]


class Counts(Ours):
    total: int
    completed: int
    failed: int


class BatchTold(Ours):
    id: str
    object: Literal["batch"]
    endpoint: str
    model: None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchState
    output_file_id: str | None
    error_file_id: str | None
    created_at: Second
    expires_at: Second | None
    request_counts: Counts
    usage: None
    metadata: dict[str, str] | None


def dated(batch: type[BaseModel]) -> type[BaseModel]:
    """With a time for each state that is told one."""
    times = {f"{state.value}_at": Second | None for state in DATED if f"{state.value}_at" not in batch.model_fields}
    told = type("Batch", (batch,), {"__annotations__": times, "__module__": __name__, "__doc__": "A batch."})
    assert issubclass(told, BaseModel)
    return told


Batch = dated(BatchTold)


class Batches(Ours):
    object: Literal["list"]
    data: list[Batch]  # type: ignore[valid-type]  # made above
    first_id: str | None
    last_id: str | None
    has_more: bool


# ---- Jobs ----


class JobInBrief(Ours):
    id: str
    object: Literal["job"]
    state: State
    method: str
    path: str
    priority: Literal["high", "normal", "low", "batch"]
    created: Moment
    started: Moment | None
    finished: Moment | None
    deadline: Moment | None
    expires_at: Moment | None
    attempts: int
    batch: str | None
    custom_id: str | None
    error: str | None
    caller: str = Field(MISSING, description="Whose it is; told to the operator alone.")


class JobAnswer(Ours):
    status: int
    content_type: str
    body: Any = Field(description="JSON as it is, text as a string, anything else in base64.")
    encoding: Literal["base64"] = Field(MISSING)


class Job(JobInBrief):
    """`position` and `eta` (seconds) are known while it waits."""

    position: int | None
    eta: float | None
    answer: JobAnswer | None


class Jobs(Ours):
    """A page; `after` is where the next one begins."""

    object: Literal["list"]
    data: list[JobInBrief]
    has_more: bool
    after: str | None


# ---- Limits and lines ----


class Limit(Ours):
    """What holds now: the setting, or what an operator has set in its place, when, and who it was."""

    setting: float | bool
    override: float | bool | None
    now: float | bool
    since: Moment | None
    by: str | None


class Limits(Ours):
    rpm: Limit
    concurrency: Limit
    timeout: Limit
    queue_size: Limit
    paused: Limit


class LaneNumbers(Ours):
    name: str
    paused: bool
    waiting: int
    in_flight: int
    eta: float | None = Field(description="Seconds until a newcomer is sent; null: nobody knows.")


class Lane(LaneNumbers):
    connector: str
    limits: Limits
    allowed_in_flight: int = Field(description="Just now; 0: no limit.")
    api_pause: float = Field(description="Seconds for which the API has asked to be left alone.")
    trouble: str | None


class Lanes(Ours):
    lanes: list[Lane]


class Forecast(Ours):
    rpm: float
    concurrency: float
    timeout: float
    queue_size: float
    paused: bool
    clears_in: float | None = Field(description="Seconds; null: nobody knows.")
    late: int | None


class Effect(Ours):
    text: str
    waiting: int
    in_flight: int
    before: Forecast
    after: Forecast


class FieldChange(Ours):
    """`is_setting`: the setting holds again."""

    field: str
    from_: float | bool | None = Field(alias="from")
    to: float | bool | None
    is_setting: bool


class Change(Ours):
    preview: bool
    changes: list[FieldChange]
    effect: Effect
    kept: bool | None = Field(description="Whether it outlives the process.")
    trouble: str | None
    lane: Lane


class AuditEntry(FieldChange):
    at: Moment
    who: str
    address: str
    lane: str


class AuditEntries(Ours):
    """The newest first."""

    entries: list[AuditEntry]


class Standing(Ours):
    """A request in a line. Times are seconds."""

    id: str
    caller: str
    priority: Literal["high", "normal", "low", "batch"]
    model: str | None
    state: Literal["waiting", "in_flight", "between_attempts"]
    place: int | None
    eta: float | None
    waited: float
    took: float | None
    attempts: int
    deadline: float | None


class Seen(Ours):
    """How many there are to be seen, and those that are listed."""

    seen: int
    requests: list[Standing]


class LaneLine(LaneNumbers):
    line: Seen
    calls: Seen


class JobNumbers(Ours):
    queued: int
    batch_lines: int
    delayed: int
    running: int
    kept: int


class Queue(Ours):
    lanes: list[LaneLine]
    jobs: JobNumbers | None


class StandingInLane(Standing):
    lane: str


class QueueEntry(Ours):
    id: str
    requests: list[StandingInLane]


class CancelledEntry(Ours):
    id: str
    cancelled: int


# ---- Health ----


class Health(Ours):
    status: Literal["ok"]


class Ready(Ours):
    status: Literal["ready", "not ready", "stopping"]
    trouble: str | None
