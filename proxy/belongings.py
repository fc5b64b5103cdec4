"""What of a request and of its answer names files and batches, and what becomes of it: GigaChat's paths and fields.

Rule 1: somebody else's file or batch is a 404 before the request is queued, wherever its id stands: in the path, in the
        query, in a field of the body.
Rule 2: what cannot be read is not taken for harmless: neither a body that is no JSON, nor a list that has to be sorted.
Rule 3: what is made belongs to its maker before anybody is told of it.
Rule 4: a request that names no file costs a few searches in its bytes.
"""

import json
import re
from collections.abc import Iterator
from json import JSONDecoder
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from proxy.errors import BadRequest, NotFound, UpstreamError
from proxy.forwarding import RawCall
from proxy.owners import NO_FILE, Ownership, id_of

NO_BATCH = "Batch task not found"
#: Fields that hold ids of files, or objects with an id.
FIELDS = frozenset({"attachments", "file_ids", "file_id", "files"})
#: A path of the API, decoded, and what stands before all of them.
PLAIN = re.compile(r"[\w/.:,+=@~-]+", re.ASCII)
VERSION = re.compile(r"^(/api|/v[0-9]+)+(?=/|$)")
#: An id in a path. What is spelt otherwise is none of the API's.
ID = re.compile(r"[A-Za-z0-9_-]+")
#: Where the name of such a field begins, and a letter written as a number, in which one may hide.
BEGINNING = re.compile(rb'"(?i:file|attach)')
HIDDEN = re.compile(rb"\\u00[4-7]")

#: Pictures and the like, as the first version of chat tells of them, and as the second does.
TAG = re.compile(rb"src=(?:\\\"|\\u0022|'|\\u0027)([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})")
LIST = re.compile(rb'"files"\s*:\s*\[([^\]]*)')
LISTED = re.compile(rb'"id"\s*:\s*"([\w-]{8,200})"')
#: An answer to a deletion that says otherwise.
KEPT = re.compile(rb'"deleted"\s*:\s*false')
#: Bytes of a stream's piece that are read once more with the next one: an id may go on there.
OVERLAP = 512

#: Where something stands in a body: in what, and there under which name or number.
Place = tuple[Any, str | int]


# ---- The passage of one request ----


class Passage:
    """A request on its way, and its answer, as far as belongings go: this one has none."""

    __slots__ = ()
    #: Whether the answer must be whole before a byte of it is passed on.
    is_whole = False

    def told(self, status: int, body: bytes) -> bytes:
        """What the caller gets of a raw answer that is whole."""
        return body

    def hear(self, data: bytes) -> None:
        """These bytes of the answer are about to leave for the caller."""


NOTHING = Passage()


class Making(Passage):
    """A request that may make files: pictures in the answer of a chat."""

    __slots__ = ("_body", "_caller", "_heard", "_owners")

    def __init__(self, owners: Ownership, caller: str, body: bytes) -> None:
        self._owners = owners
        self._caller = caller
        self._body = body
        self._heard = b""

    def hear(self, data: bytes) -> None:
        text = self._heard + data
        self._heard = text[-OVERLAP:]
        if b"src=" not in text and b'"files"' not in text:
            return
        for id in ids_in(text):
            if id not in self._body:  # else the caller has named it, and it is not new
                self._owners.claim(id.decode(), self._caller)


class Listing(Passage):
    """The files, or the batches, of the account: a new one is its maker's, and of the others each caller sees its own.

    `has_nobodys` says that what is nobody's is shown too.
    """

    __slots__ = ("_caller", "_has_nobodys", "_is_new", "_owners")
    is_whole = True

    def __init__(self, owners: Ownership, caller: str, *, is_new: bool, has_nobodys: bool) -> None:
        self._owners = owners
        self._caller = caller
        self._is_new = is_new
        self._has_nobodys = has_nobodys

    def told(self, status: int, body: bytes) -> bytes:
        if status // 100 != 2 or not body:
            return body
        told = answered(body)
        if isinstance(told, dict) and id_of(told):
            self._meet(told)
            return body
        visible = self._visible(told)
        return body if visible == told else orjson.dumps(visible)

    def _meet(self, thing: dict[str, Any]) -> None:
        """One alone. Raises NotFound if it is somebody else's after all."""
        if self._is_new:
            self._owners.claim(thing["id"], self._caller)
        self._owners.check(thing["id"], self._caller)
        self._owners.inherit(thing["id"], thing.get("output_file_id"))

    def _visible(self, told: list[Any] | dict[str, Any]) -> list[Any] | dict[str, Any]:
        """The list, or the lists, without what the caller may not see."""
        if isinstance(told, dict):
            return {name: self._visible(value) if isinstance(value, list) else value for name, value in told.items()}
        things = [thing for thing in told if id_of(thing)]
        for thing in things:
            self._owners.inherit(thing["id"], thing.get("output_file_id"))
        if self._has_nobodys:
            return [thing for thing in things if not self._owners.is_anothers(thing["id"], self._caller)]
        return self._owners.mine(things, self._caller)


class Removal(Passage):
    """A file is deleted."""

    __slots__ = ("_id", "_owners")
    is_whole = True

    def __init__(self, owners: Ownership, id: str) -> None:
        self._owners = owners
        self._id = id

    def told(self, status: int, body: bytes) -> bytes:
        if status // 100 == 2 and not KEPT.search(body):
            self._owners.drop(self._id)
        return body


# ---- Whose passages ----


class Everybodys:
    """Makes the passages of requests where nobody owns anything."""

    def of_chat(self, caller: str, body: bytes) -> Passage:
        """Of a chat whose body is JSON. Raises NotFound if it names what is somebody else's."""
        return NOTHING

    def of_call(self, caller: str, call: RawCall, *, is_read: bool) -> Passage:
        """Of a call of the API's own; `is_read` says that its body is JSON. Raises NotFound, BadRequest."""
        return NOTHING


EVERYBODYS = Everybodys()


class Belongings(Everybodys):
    """The same where files and batches have owners. `is_sole`: there is one caller only, who sees nobody's as well."""

    def __init__(self, owners: Ownership, *, is_sole: bool = False) -> None:
        self._owners = owners
        self._is_sole = is_sole

    def of_chat(self, caller: str, body: bytes) -> Passage:
        self._check_body(caller, body, is_read=True)
        return Making(self._owners, caller, body)

    def of_call(self, caller: str, call: RawCall, *, is_read: bool) -> Passage:
        kind, *rest = segments(call)
        body, is_new = call.body or b"", call.method == "POST"
        if kind == "files":
            if rest:
                return self._of_file(caller, call.method, *rest)
            return Listing(self._owners, caller, is_new=is_new, has_nobodys=self._is_sole)
        if kind == "batches":
            return self._of_batches(caller, call, rest[:1], is_new)
        if kind == "functions":  # descriptions of them, which need not be JSON
            return NOTHING
        self._check_body(caller, body, is_read=is_read)
        is_making = is_new or (kind, *rest) == ("threads", "run")
        return Making(self._owners, caller, body) if is_making else NOTHING

    def _of_file(self, caller: str, method: str, id: str, action: str = "", *_: str) -> Passage:
        if not ID.fullmatch(id):
            raise NotFound(NO_FILE)
        self._owners.check(id, caller)
        return Removal(self._owners, id) if method == "DELETE" or action == "delete" else NOTHING

    def _of_batches(self, caller: str, call: RawCall, named: list[str], is_new: bool) -> Passage:
        chosen = [*named, *batches_in(call.query)]
        for id in chosen:
            self._owners.check(id, caller, NO_BATCH)
        for number, line in enumerate((call.body or b"").split(b"\n"), 1):
            self._check_body(caller, line, is_read=False, name=f"line {number}, ")
        # One that is asked for by its id may be nobody's.
        return Listing(self._owners, caller, is_new=is_new, has_nobodys=self._is_sole or bool(chosen))

    def _check_body(self, caller: str, body: bytes, *, is_read: bool, name: str = "") -> None:
        if not may_name_files(body) and (is_read or not body.strip() or is_json(body)):
            return
        for id, place in files_in(parsed(body)):
            if self._owners.is_anothers(id, caller):
                raise NotFound(f"{NO_FILE}: {name}{written(place)}")


# ---- What stands in a request ----


def segments(call: RawCall) -> list[str]:
    """What its path says below the API's version. Raises NotFound where the API may read another path than we do."""
    path = unquote(f"/{call.version}{call.path}").lower()
    if not PLAIN.fullmatch(path):
        raise NotFound
    return VERSION.sub("", path).strip("/").split("/")


def batches_in(query: str) -> list[str]:
    return [value for name, value in parse_qsl(query) if name.lower() == "batch_id"]


def may_name_files(body: bytes) -> bool:
    """Whether a field of its JSON may be one of FIELDS."""
    return bool(BEGINNING.search(body)) or (b"\\" in body and bool(HIDDEN.search(body)))


def is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written, where a name may stand twice: one reader takes the first, another the last."""


DECODER = JSONDecoder(object_pairs_hook=Pairs, parse_int=str, parse_float=str, parse_constant=str, strict=False)


def parsed(body: bytes) -> object:
    """JSON as the most patient of readers takes it, its objects as `Pairs`. Raises BadRequest."""
    try:
        return DECODER.decode(body.decode(json.detect_encoding(body)))
    except (ValueError, RecursionError):
        raise BadRequest("the body is not valid JSON, so that the files that it may name are not known") from None


def files_in(body: object) -> Iterator[tuple[str, Place]]:
    """The ids that a body names as files, and where."""
    stack: list[tuple[object, Place | None, bool]] = [(body, None, False)]
    while stack:
        value, place, is_file = stack.pop()
        if isinstance(value, Pairs):
            stack += [(inner, (place, name), is_for_files(name, is_file)) for name, inner in reversed(value)]
        elif isinstance(value, list):
            stack += [(inner, (place, number), is_file) for number, inner in reversed([*enumerate(value)])]
        elif is_file and isinstance(value, str) and place is not None:
            yield value, place


def is_for_files(name: str, is_file: bool) -> bool:
    """Whether files stand under this name, within what is a file or is not."""
    name = name.casefold()  # as some readers of JSON find their fields
    return name in FIELDS or (is_file and name == "id")


def written(place: Place | None) -> str:
    """`messages[0].attachments[1]`"""
    steps: list[str] = []
    while place is not None:
        place, step = place
        steps.append(f".{step[:40]}" if isinstance(step, str) else f"[{step}]")
    return "".join(reversed(steps)).removeprefix(".")[:200]


# ---- What stands in an answer ----


def ids_in(text: bytes) -> Iterator[bytes]:
    """Files that an answer of the API shows."""
    yield from TAG.findall(text)
    for files in LIST.findall(text):
        yield from LISTED.findall(files)


def answered(body: bytes) -> list[Any] | dict[str, Any]:
    """Raises UpstreamError."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, list | dict):
        raise UpstreamError(None, message="the upstream's list cannot be read, so whose is what is not known")
    return told
