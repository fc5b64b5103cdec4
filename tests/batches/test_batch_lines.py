"""Batches in OpenAI's words: what may be asked for, what is wrong with a file, what a line becomes, what is told."""

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from openai.types import Batch as OpenAIBatch
from openai.types import FileObject

from proxy.dialects.openai.batches import (
    ENDPOINTS,
    MOST_ERRORS,
    BatchRequest,
    Inspection,
    LineRefused,
    batch_list,
    batch_object,
    kept_file_object,
    line_of,
    output_line,
    unbegun_line,
)
from proxy.errors import BadRequest
from proxy.jobs import Answer, Job, Page, State
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.files import StoredFile
from proxy.line import Priority

CHAT = "/v1/chat/completions"
ASKED = {"input_file_id": "file_1", "endpoint": CHAT, "completion_window": "24h"}
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Привет"}]}


def a_line(**fields: Any) -> bytes:
    told = {"custom_id": "1", "method": "POST", "url": CHAT, "body": BODY, **fields}
    return json.dumps({name: value for name, value in told.items() if value is not None}).encode()


def inspected(*lines: bytes, most: int = 50_000, longest: int = 10_000) -> Inspection:
    inspection = Inspection(CHAT, most=most, longest=longest)
    for number, text in enumerate(lines, 1):
        inspection.hear(number, text)
    inspection.end()
    return inspection


def an_ended(state: State, answer: Answer | None = None, **fields: Any) -> Job:
    job = Job(id="batch_1_7", caller="ann", operation="chat", dialect="openai", priority=Priority.BATCH)
    return replace(job, custom_id="seven", state=state, answer=answer, **fields)


# ---- What is asked for ----


def test_a_batch_may_be_asked_for_as_the_sdk_does_it():
    asked = BatchRequest.of(ASKED)
    assert (asked.input_file, asked.endpoint, asked.window, asked.seconds) == ("file_1", CHAT, "24h", 86_400)
    assert (asked.metadata, asked.life) == ({}, 30 * 86_400)


def test_notes_and_the_life_of_the_files_may_be_asked_for():
    metadata = {"n" * 64: "t" * 512, "пусто": ""}
    told = {**ASKED, "metadata": metadata, "output_expires_after": {"anchor": "created_at", "seconds": 3600}}
    asked = BatchRequest.of(told)
    assert (asked.metadata, asked.life) == (metadata, 3600)
    assert BatchRequest.of({**ASKED, "metadata": None, "output_expires_after": None}) == BatchRequest.of(ASKED)


@pytest.mark.parametrize(("window", "seconds"), [("1h", 3600), ("24h", 86_400), ("168h", 604_800)])
def test_windows_are_whole_hours_of_a_week_at_most(window, seconds):
    assert BatchRequest.of({**ASKED, "completion_window": window}).seconds == seconds


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": ""}, "input_file_id"),
        ({"input_file_id": ["file_1"]}, "input_file_id"),
        ({"endpoint": None}, "endpoint"),
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"endpoint": "/v1/chat/completions/"}, "endpoint"),
        *[
            ({"completion_window": window}, "completion_window")
            for window in (None, 24, "", "0h", "024h", "24", "24 h", "1d", "169h", "-1h", "9" * 5000 + "h", "٢h")
        ],
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a": "t" * 513}}, "metadata.a"),
        ({"metadata": {"n" * 65: ""}}, "metadata." + "n" * 64),
        *[
            ({"output_expires_after": life}, "output_expires_after")
            for life in (
                3600,
                {"seconds": 3600},
                {"anchor": "now", "seconds": 3600},
                {"anchor": "created_at", "seconds": True},
                {"anchor": "created_at", "seconds": "3600"},
                {"anchor": "created_at", "seconds": 3599},
                {"anchor": "created_at", "seconds": 2_592_001},
            )
        ],
    ],
)
def test_what_is_wrong_with_a_batch_is_told_by_its_field(change, param):
    with pytest.raises(BadRequest) as refused:
        BatchRequest.of({**ASKED, **change})
    assert refused.value.param == param and param.split(".")[0] in refused.value.message


@pytest.mark.parametrize("asked", [None, [], "x", 7])
def test_what_is_no_object_asks_for_no_batch(asked):
    with pytest.raises(BadRequest, match="input_file_id"):
        BatchRequest.of(asked)


def test_an_endpoint_that_is_not_served_is_answered_with_those_that_are():
    with pytest.raises(BadRequest) as refused:
        BatchRequest.of({**ASKED, "endpoint": "/v1/images/generations"})
    assert all(endpoint in refused.value.message for endpoint in ENDPOINTS)


# ---- A line in ----


def test_a_line_is_an_id_and_a_body():
    line = line_of(a_line(), CHAT)
    assert line.custom_id == "1" and json.loads(line.body) == BODY


@pytest.mark.parametrize("ending", [b"\r", b" ", b"\t"])
def test_lines_of_other_systems_and_editors_are_read(ending):
    assert line_of(b"\xef\xbb\xbf" + a_line() + ending, CHAT).custom_id == "1"


@pytest.mark.parametrize("stream", [None, False])
def test_a_body_may_say_that_it_is_no_stream(stream):
    assert line_of(a_line(body={**BODY, "stream": stream}), CHAT)


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"{'custom_id': 1}", "invalid_json_line", None),
        (b"\xff\xfe", "invalid_json_line", None),
        (b'{"custom_id": "\\ud800"}', "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b'"x"', "invalid_json_line", None),
        (b"null", "invalid_json_line", None),
        (b"{}", "missing_required_parameter", "custom_id"),
        (a_line(custom_id=None), "missing_required_parameter", "custom_id"),
        (a_line(method=None), "missing_required_parameter", "method"),
        (a_line(url=None), "missing_required_parameter", "url"),
        (a_line(body=None), "missing_required_parameter", "body"),
        (a_line(custom_id=""), "invalid_request", "custom_id"),
        (a_line(custom_id=7), "invalid_request", "custom_id"),
        (a_line(custom_id="x" * 513), "invalid_request", "custom_id"),
        (a_line(method="GET"), "invalid_request", "method"),
        (a_line(method=["POST"]), "invalid_request", "method"),
        (a_line(url="/v1/embeddings"), "url_mismatch", "url"),
        (a_line(url="/v1/files/../chat/completions"), "url_mismatch", "url"),
        (a_line(url={}), "url_mismatch", "url"),
        (a_line(body="{}"), "invalid_request", "body"),
        (a_line(body=[]), "invalid_request", "body"),
        (a_line(body={**BODY, "stream": True}), "invalid_request", "body.stream"),
        (a_line(body={**BODY, "stream": 1}), "invalid_request", "body.stream"),
        (
            a_line(body={"messages": [], "generate_parameters": {"stream": True}}),
            "invalid_request",
            "body.generate_parameters.stream",
        ),
        (a_line().replace(b'"model"', b'"a":' + b"[" * 600 + b"]" * 600 + b',"model"'), "invalid_request", "body"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_by_a_code(text, code, param):
    with pytest.raises(LineRefused) as refused:
        line_of(text, CHAT)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert str(refused.value)


# ---- A file ----


def test_a_good_file_has_lines_and_no_errors():
    inspection = inspected(a_line(custom_id="a"), a_line(custom_id="b"))
    assert (inspection.lines, inspection.errors) == (2, [])


def test_errors_tell_the_lines_they_are_in():
    errors = inspected(a_line(), b"no", a_line(), a_line(custom_id="b", method="PUT")).errors
    assert [(error["line"], error["code"], error["param"]) for error in errors] == [
        (2, "invalid_json_line", None),
        (3, "duplicate_custom_id", "custom_id"),
        (4, "invalid_request", "method"),
    ]
    assert "'1'" in errors[1]["message"]


def test_a_file_without_lines_is_told_so():
    (error,) = inspected().errors
    assert (error["code"], error["line"]) == ("empty_file", None)


def test_a_file_that_is_gone_is_told_so():
    inspection = Inspection(CHAT, most=1, longest=1)
    inspection.miss()
    assert inspection.errors[0]["code"] == "file_not_found"


def test_a_hundred_errors_are_told_and_nothing_after_them_is_read():
    inspection = Inspection(CHAT, most=1000, longest=10)
    heard = 0
    while not inspection.has_seen_enough:
        heard += 1
        inspection.hear(heard, b"no")
    assert heard == len(inspection.errors) == MOST_ERRORS


def test_too_many_lines_are_told_once_at_the_first_one_too_much():
    lines = [a_line(custom_id=str(number)) for number in range(4)]
    inspection = Inspection(CHAT, most=2, longest=1000)
    for number, text in enumerate(lines, 1):
        if not inspection.has_seen_enough:
            inspection.hear(number, text)
    (error,) = inspection.errors
    assert (error["code"], error["line"]) == ("too_many_tasks", 3) and "2 requests" in error["message"]


def test_a_line_that_is_too_long_is_told_though_it_was_cut():
    text = a_line()
    assert not inspected(text, longest=len(text)).errors
    (error,) = inspected(text, longest=len(text) - 1).errors
    assert (error["code"], error["line"]) == ("invalid_request", 1) and "MAX_BODY_BYTES" in error["message"]


def test_errors_are_told_to_the_sdk():
    told = batch_object(a_batch(state=BatchState.FAILED, errors=tuple(inspected(b"no").errors)))
    errors = OpenAIBatch.model_validate(told).errors
    assert errors is not None and errors.object == "list" and errors.data is not None
    assert (errors.data[0].code, errors.data[0].line) == ("invalid_json_line", 1)


# ---- A line out ----


def test_an_answer_stands_in_its_line():
    answer = Answer(200, "application/json", b'{"id": "x",\n "n": 1.50}')
    text = output_line(an_ended(State.DONE, answer))
    assert text.endswith(b"\n") and text.count(b"\n") == 1
    line = json.loads(text)
    assert line["id"].startswith("batch_req_") and line["custom_id"] == "seven"
    assert line["response"] == {"status_code": 200, "request_id": "batch_1_7", "body": {"id": "x", "n": 1.5}}
    assert line["error"] is None
    assert b"1.50" in text  # as it came


def test_an_error_of_the_api_is_an_answer_too():
    error = {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}}
    line = json.loads(output_line(an_ended(State.FAILED, Answer(400, "x", orjson.dumps(error)), error="no")))
    assert line["response"]["status_code"] == 400 and line["response"]["body"] == error
    assert line["error"] is None


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.EXPIRED, "batch_expired"), (State.CANCELLED, "batch_cancelled"), (State.FAILED, "request_failed")],
)
def test_what_has_no_answer_says_why(state, code):
    line = json.loads(output_line(an_ended(state, error="it was begun 5 times and never ended")))
    assert line["response"] is None and line["error"]["code"] == code and line["error"]["message"]


def test_a_line_that_never_began_looks_like_one_that_was_cancelled():
    """As if it had become a job: with the same ids."""
    error = {"code": "batch_cancelled", "message": "no"}
    line = json.loads(unbegun_line("batch_1_7", a_line(custom_id="seven"), CHAT, error))
    assert line == {**json.loads(output_line(an_ended(State.CANCELLED))), "error": error}


@pytest.mark.parametrize("body", [b"", b"<html>\n</html>", b"\xff", b"{", b"[" * 5000])
def test_an_answer_that_is_no_json_is_told_as_text(body):
    text = output_line(an_ended(State.DONE, Answer(200, "text/html", body)))
    assert text.count(b"\n") == 1
    assert isinstance(json.loads(text)["response"]["body"], str)


def test_an_answer_that_is_nested_deeply_is_told_as_it_is():
    body = b"[" * 600 + b"]" * 600
    assert body in output_line(an_ended(State.DONE, Answer(200, "application/json", body)))


def test_each_line_has_an_id_of_its_own_which_is_always_the_same():
    one, other = an_ended(State.DONE), replace(an_ended(State.DONE), id="batch_1_8")
    assert output_line(one) == output_line(one)
    assert json.loads(output_line(one))["id"] != json.loads(output_line(other))["id"]


# ---- What is told ----


def a_batch(**fields: Any) -> Batch:
    return Batch(
        **{"id": "batch_1", "caller": "ann", "endpoint": CHAT, "window": "24h", "input_file": "file_1", **fields}
    )


def test_a_new_batch_is_told_with_all_of_openais_fields():
    batch = a_batch(created=100.7, deadline=86_500.7, metadata={"a": "b"}, times={BatchState.VALIDATING: 100.7})
    told = batch_object(batch)
    assert told.keys() == OpenAIBatch.model_fields.keys()
    assert (told["created_at"], told["expires_at"], told["metadata"]) == (100, 86_500, {"a": "b"})
    assert (told["status"], told["errors"], told["output_file_id"]) == ("validating", None, None)
    assert told["request_counts"] == {"total": 0, "completed": 0, "failed": 0}


@pytest.mark.parametrize("state", [state for state in BatchState if state is not BatchState.VALIDATING])
def test_each_state_tells_when_it_began(state):
    told = batch_object(a_batch(state=state, times={BatchState.VALIDATING: 1, state: 200.5}))
    OpenAIBatch.model_validate(told)
    assert told["status"] == state.value and told[f"{state}_at"] == 200


def test_all_that_has_ended_without_an_answer_counts_as_failed():
    ended = {State.DONE: 3, State.FAILED: 2, State.CANCELLED: 1, State.EXPIRED: 0}
    told = batch_object(a_batch(state=BatchState.IN_PROGRESS, total=10, ended=ended))
    assert told["request_counts"] == {"total": 10, "completed": 3, "failed": 3}


@pytest.mark.parametrize("state", [BatchState.CANCELLED, BatchState.EXPIRED])
def test_at_an_early_end_the_counts_agree_with_the_files(state):
    """Lines that never became jobs are in the error file, too."""
    told = batch_object(a_batch(state=state, total=10, ended={State.DONE: 3}))
    assert told["request_counts"] == {"total": 10, "completed": 3, "failed": 7}


def test_lists_have_the_ids_that_pages_go_on_from():
    batches = [a_batch(id="batch_1"), a_batch(id="batch_2")]
    told = batch_list(Page(tuple(batches), "batch_2"))
    assert (told["object"], told["first_id"], told["last_id"], told["has_more"]) == ("list", "batch_1", "batch_2", True)
    none = batch_list(Page((), None))
    assert (none["data"], none["first_id"], none["last_id"], none["has_more"]) == ([], None, None, False)


def test_a_kept_file_is_told_with_all_of_openais_fields():
    file = StoredFile(id="file_1", caller="ann", purpose="batch", filename="ы.jsonl", bytes=7, created=1.5)
    told = kept_file_object(replace(file, expires_at=99.9))
    assert told.keys() == FileObject.model_fields.keys()
    FileObject.model_validate(told)
    assert (told["bytes"], told["created_at"], told["expires_at"]) == (7, 1, 99)
    assert kept_file_object(file)["expires_at"] is None
