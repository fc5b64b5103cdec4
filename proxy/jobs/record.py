"""Jobs, files and batches as both engines keep them: flat fields of text and numbers.

Names that callers choose may hold anything, so they are kept percent-encoded: ASCII, and readable if they were.
What is never searched for stands together in `about`, as JSON.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

from proxy.jobs import OWN_RANK, RANKS, Answer, Job, State
from proxy.jobs.batches import CHANGEABLE, Batch, BatchState
from proxy.jobs.files import StoredFile
from proxy.line import Priority

PRIORITIES = {OWN_RANK: Priority.HIGH} | {rank: priority for priority, rank in RANKS.items()}
#: What is in `about`.
JOB_ABOUT = ("operation", "dialect", "method", "path", "headers", "custom_id", "webhook", "upstream")
FILE_ABOUT = ("filename",)
BATCH_ABOUT = ("endpoint", "window", "input_file", "metadata")

#: Fields of a job in the order in which engines ask for them; its body and its answer's are kept apart.
JOB_TEXTS = ("id", "caller", "state", "batch", "key", "fingerprint", "content_type", "error", "progress", "about")
JOB_TIMES = ("created", "started", "finished", "deadline", "keep", "expires_at")
JOB_NUMBERS = (*JOB_TIMES, "due")
JOB_COUNTS = ("rank", "fence", "attempts", "status")
JOB_FIELDS = (*JOB_TEXTS, *JOB_NUMBERS, *JOB_COUNTS)

Fields = dict[str, Any]


def tag(name: str) -> str:
    """A name as it is kept."""
    return quote(name, safe="", errors="surrogatepass")


def tags(**names: str | None) -> dict[str, str | None]:
    return {field: None if name is None else tag(name) for field, name in names.items()}


def name_of(tag: str) -> str:
    return unquote(tag, errors="surrogatepass")


def names_of(fields: Mapping[str, Any], *which: str) -> dict[str, Any]:
    return {field: None if fields[field] is None else name_of(fields[field]) for field in which}


def plain(text: str) -> str:
    """Text that may be told to anybody: what is no Unicode is replaced."""
    return text.encode(errors="replace").decode()


def packed(record: object, which: Collection[str]) -> str:
    told = {name: getattr(record, name) for name in which}
    return json.dumps(told, default=dict, separators=(",", ":"))


# ---- Jobs ----


def fields_of(job: Job) -> Fields:
    """A job as it comes in: what became of it is not yet in it."""
    return {
        **tags(id=job.id, caller=job.caller, batch=job.batch, key=job.key),
        "fingerprint": plain(job.fingerprint),
        "rank": job.rank,
        "created": job.created,
        "deadline": job.deadline,
        "keep": job.keep,
        "about": packed(job, JOB_ABOUT),
    }


def without_keys(jobs: Iterable[Job]) -> list[Job]:
    """Each once. Raises ValueError for one with a key: it may be there already, see `JobStore.find_or_add`."""
    told = {job.id: job for job in jobs}
    if any(job.key is not None for job in told.values()):
        raise ValueError("a job with a key is brought by find_or_add")
    return [*told.values()]


def check_key(job: Job) -> None:
    """Raises ValueError for a job without a key."""
    if job.key is None:
        raise ValueError("a job without a key is brought by add")


def job_of(fields: Mapping[str, Any], *, body: bytes = b"", answer: bytes | None = None) -> Job:
    """The job whose fields these are; without `answer` it is told without one."""
    status, state = fields["status"], State(fields["state"])
    return Job(
        **names_of(fields, "id", "caller", "batch", "key"),
        **json.loads(fields["about"]),
        **{name: fields[name] for name in ("fingerprint", "fence", "attempts", "error", "progress", *JOB_TIMES)},
        priority=PRIORITIES[fields["rank"]],
        state=state,
        again_at=fields["due"] or None if state is State.QUEUED else None,
        body=body,
        answer=None if answer is None or status is None else Answer(status, fields["content_type"], answer),
    )


# ---- Files ----


def fields_of_file(file: StoredFile) -> Fields:
    return {
        **tags(id=file.id, caller=file.caller, purpose=file.purpose),
        "bytes": file.bytes,
        "created": file.created,
        "expires_at": file.expires_at,
        "about": packed(file, FILE_ABOUT),
    }


def file_of(fields: Mapping[str, Any]) -> StoredFile:
    return StoredFile(
        **names_of(fields, "id", "caller", "purpose"),
        **{name: fields[name] for name in ("bytes", "created", "expires_at")},
        **json.loads(fields["about"]),
    )


# ---- Batches ----


def fields_of_batch(batch: Batch) -> Fields:
    return {
        **tags(id=batch.id, caller=batch.caller),
        "state": batch.state.value,
        "created": batch.created,
        "about": packed(batch, BATCH_ABOUT),
        **changed({name: getattr(batch, name) for name in CHANGEABLE}),
    }


def changed(changes: Mapping[str, Any]) -> Fields:
    """Changes of a batch as they are kept. Raises TypeError for what is not to be changed."""
    if wrong := changes.keys() - CHANGEABLE:
        raise TypeError(f"of a batch these are not to be changed: {', '.join(sorted(wrong))}")
    return {name: json.dumps(value, default=dict) if name == "errors" else value for name, value in changes.items()}


def batch_of(fields: Mapping[str, Any], *, ended: Mapping[State, int], times: Mapping[BatchState, float]) -> Batch:
    return Batch(
        **names_of(fields, "id", "caller"),
        **json.loads(fields["about"]),
        **{name: fields[name] for name in ("created", "deadline", "expires_at", "output_file", "error_file", "total")},
        errors=tuple(json.loads(fields["errors"])),
        state=BatchState(fields["state"]),
        ended=ended,
        times=times,
    )
