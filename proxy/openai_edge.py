"""The operations for OpenAI's clients: chat, embeddings, models and files, whatever the API behind a lane speaks."""

import logging
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from aiohttp import web

from proxy import api_files
from proxy.belongings import Everybodys
from proxy.completions import Completions
from proxy.connector import Connector
from proxy.delivery import Delivery, headers
from proxy.dialects.openai import (
    Embeddings,
    Options,
    file_deleted,
    file_list,
    file_object,
    model,
    model_info,
    model_info_list,
    model_list,
    type_by_filename,
)
from proxy.dialects.openai.batches import kept_file_object, listed
from proxy.dialects.openai.untranslated import PREFIX, UPSTREAM, Untranslated
from proxy.entry import NOTE
from proxy.errors import BadRequest, ModelNotFound, ProxyError
from proxy.forms import Form, is_form
from proxy.forwarding import RawCall
from proxy.info import Models
from proxy.jobs.files import StoredFile
from proxy.kept_files import BINARY_TYPE, KeptFiles, PageAsked
from proxy.lanes import Lane
from proxy.merging import all_of
from proxy.reception import Reception, parsed
from proxy.serving import Edge
from proxy.upstream import decoded

log = logging.getLogger("proxy.openai")

UNTRANSLATED = Untranslated()
ACCEPT_ANY = ("Accept", "*/*")
#: Files a page, of those that OpenAI's clients ask for at once.
MOST_FILES = 10_000


class OpenAIEdge:
    """Serves OpenAI's clients."""

    def __init__(
        self,
        options: Options,
        edge: Edge,
        completions: Completions,
        reception: Reception,
        delivery: Delivery,
        kept: KeptFiles,
    ) -> None:
        self._options = options
        self._edge = edge
        self._completions = completions
        self._reception = reception
        self._delivery = delivery
        self._kept = kept
        self._models = Models()

    # -- chat and embeddings

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST chat/completions."""
        self._reception.identify(request, "chat")
        body = await self._reception.body(request)
        lane = self._lane_for(request, parsed(body))
        if speaks_openai(lane):
            return await self._edge.chat(UNTRANSLATED, request)
        request[NOTE].passage = self._edge.belongings_for(request).of_chat(request[NOTE].caller, body)
        return await self._completions.chat(request, body)

    async def embeddings(self, request: web.Request) -> web.Response:
        """POST embeddings."""
        self._reception.identify(request, "embeddings")
        asked = parsed(await self._reception.body(request))
        lane = self._lane_for(request, asked)
        with self._delivery.beating(request):
            answer = await (self._same(request, asked) if speaks_openai(lane) else self._translated(request, asked))
        return self._delivery.plain(request, orjson.dumps(answer))

    async def _same(self, request: web.Request, asked: object) -> Any:
        """What an API says that needs no translation."""
        if not isinstance(asked, dict):
            raise BadRequest('the body must be a JSON object {"model", "input"}')
        name = asked.get("model")
        request[NOTE].model = name if isinstance(name, str) else ""
        data = {**asked, "model": name.removeprefix(PREFIX)} if isinstance(name, str) else asked
        return await self._reception.ask(request, partial(Connector.embeddings, data=data))

    async def _translated(self, request: web.Request, asked: object) -> dict[str, Any]:
        wanted = Embeddings(asked, self._options)
        request[NOTE].model, request[NOTE].served = wanted.model, wanted.served
        if wanted.ignored:
            log.debug("request %s: %s mean nothing here", request[NOTE].id, ", ".join(wanted.ignored))
        calls = [partial(Connector.embeddings, data=data) for data in wanted.calls()]
        asks = [partial(self._reception.ask, request, call, client=wanted.sub_caller) for call in calls]
        return wanted.answer(await all_of(asks))

    def _lane_for(self, request: web.Request, asked: object) -> Lane:
        """A name such as chatgpt/<model> means a model of the API that serves beside the main one."""
        name = asked.get("model") if isinstance(asked, dict) else None
        if isinstance(name, str) and name.startswith(PREFIX):
            self._reception.turn_to(request, UPSTREAM)
        return self._reception.lane(request)

    # -- models

    async def models(self, request: web.Request) -> web.Response:
        """GET models: the main API's, and those of the API beside it by the names under which they are asked for."""
        return self._delivery.plain(request, orjson.dumps(model_list(await self._listed(request))))

    async def model(self, request: web.Request) -> web.Response:
        """GET models/{id}."""
        name = request.match_info["id"]
        return self._delivery.plain(request, orjson.dumps(model(await self._found(request, name), name)))

    async def model_info(self, request: web.Request) -> web.Response:
        """GET model/info, as LiteLLM tells it; with ?model= of one alone."""
        name = request.query.get("model")
        if name is None:
            told: dict[str, Any] = model_info_list(await self._listed(request))
        else:
            told = model_info(await self._found(request, name), name)
        return self._delivery.plain(request, orjson.dumps(told))

    async def _found(self, request: web.Request, name: str) -> dict[str, Any]:
        listed = await self._listed(request, needs_beside=name.startswith(PREFIX))
        for one in listed["data"]:
            if one["id"] == name:
                return dict(one)
        raise ModelNotFound(f'there is no model "{name[:100]}": GET models lists those there are')

    async def _listed(self, request: web.Request, *, needs_beside: bool = False) -> dict[str, Any]:
        self._reception.identify(request, "models")
        enrol = partial(self._reception.enrol, request)
        with self._delivery.beating(request):
            main = await self._models.of(self._reception.lane(request), enrol)
            return {"data": [*main["data"], *await self._beside(request, is_needed=needs_beside)]}

    async def _beside(self, request: web.Request, *, is_needed: bool) -> list[dict[str, Any]]:
        """The models of the API beside the main one, by the names under which they are asked for.

        None if it does not tell them now, unless it is about one of them.
        """
        if not self._reception.is_beside(request, UPSTREAM):
            return []
        self._reception.turn_to(request, UPSTREAM)
        try:
            listed = await self._models.of(self._reception.lane(request), partial(self._reception.enrol, request))
        except ProxyError as error:
            if is_needed:
                raise
            log.warning("request %s: the models of %s are not listed: %s", request[NOTE].id, UPSTREAM, error)
            return []
        return [{**one, "id": PREFIX + str(one["id"])} for one in listed["data"]]

    # -- files

    async def upload(self, request: web.Request) -> web.Response:
        """POST files, a form with `file` and `purpose`."""
        self._reception.identify(request, "files")
        is_same = self._speaks_openai(request)
        if is_same and not (is_form(request) and self._kept.may_have(request)):
            return await self._same_file_call(request)
        form = await Form.begun(request)
        taken = await self._kept.taken(request, form)
        if isinstance(taken, StoredFile):
            return self._told(request, kept_file_object(taken))
        if is_same:
            return as_it_is(request, await self._file_call(request, same_upload(form, taken)))
        made = decoded((await self._file_call(request, upload_for(form, taken))).body)
        return self._told(request, file_object(made, form.purpose or "user_data"))

    async def files(self, request: web.Request) -> web.Response:
        """GET files: those of batches, which are kept here, then the API's."""
        self._reception.identify(request, "files")
        is_same = self._speaks_openai(request)
        if is_same and not self._kept.may_have(request):
            return await self._same_file_call(request)
        kept = await self._kept.page(request, page_of(request.query))
        if kept.rest is None:
            return self._told(request, listed(kept.told, has_more=kept.has_more))
        if is_same and not kept.told:
            return await self._same_file_call(request)
        theirs = await (self._same_list(request, kept.rest) if is_same else self._list(request, kept.rest))
        return self._told(request, listed([*kept.told, *theirs["data"]], has_more=bool(theirs.get("has_more"))))

    async def _list(self, request: web.Request, page: PageAsked) -> dict[str, Any]:
        """Those of an API whose files are translated."""
        data = decoded((await self._file_call(request, RawCall("GET", "v1", "/files"))).body).get("data")
        files = data if isinstance(data, list) else []
        return file_list(files, limit=page.limit, after=page.after, ascending=page.ascending)

    async def _same_list(self, request: web.Request, page: PageAsked) -> dict[str, Any]:
        """Those of an API that speaks OpenAI's dialect itself."""
        query = {**request.query, "limit": page.limit}
        query.pop("after", None)
        call = RawCall("GET", "v1", "/files", urlencode(query), (ACCEPT_ANY,))
        told = decoded((await self._file_call(request, call)).body)
        return told if isinstance(told.get("data"), list) else {"data": []}

    async def file(self, request: web.Request) -> web.Response:
        """GET files/{id}."""
        self._reception.identify(request, "files")
        if (kept := await self._kept.found(request)) is not None:
            return self._told(request, kept_file_object(kept))
        if self._speaks_openai(request):
            return await self._same_file_call(request)
        return self._told(request, file_object(decoded((await self._file_call(request, call_for(request))).body)))

    async def content(self, request: web.Request) -> web.StreamResponse:
        """GET files/{id}/content."""
        self._reception.identify(request, "files")
        if (kept := await self._kept.found(request)) is not None:
            return await self._kept.content(request, kept)
        if self._speaks_openai(request):
            return await self._same_file_call(request, "/content")
        return as_it_is(request, await self._file_call(request, call_for(request, "/content")))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE files/{id}."""
        self._reception.identify(request, "files")
        if (kept := await self._kept.found(request)) is not None:
            await self._kept.delete(kept)
            return self._told(request, file_deleted(kept.id))
        if self._speaks_openai(request):
            return await self._same_file_call(request)
        await self._file_call(request, call_for(request, "/delete", method="POST"))
        return self._told(request, file_deleted(request.match_info["id"]))

    def _speaks_openai(self, request: web.Request) -> bool:
        return speaks_openai(self._reception.lane(request))

    async def _same_file_call(self, request: web.Request, action: str = "") -> web.Response:
        """What an API says that needs no translation, to the call as it came."""
        id, told = request.match_info.get("id"), [ACCEPT_ANY]
        path = "/files" if id is None else f"/files/{quote(id, safe='')}{action}"
        body = await request.read() if request.can_read_body else None
        if body is not None:
            told.append(("Content-Type", request.headers.get("Content-Type", "application/octet-stream")))
        call = RawCall(request.method, "v1", path, request.rel_url.raw_query_string, tuple(told), body)
        return as_it_is(request, await self._file_call(request, call))

    async def _file_call(self, request: web.Request, call: RawCall) -> api_files.Whole:
        """The API's answer to it, as far as it is the caller's to know. Raises NotFound."""
        passage = self._belongings(request).of_call(request[NOTE].caller, call, is_read=False)
        with self._delivery.beating(request):
            whole: Any = await self._reception.ask(request, partial(api_files.whole, call=call))
        return api_files.Whole(whole.type, passage.told(200, whole.body))

    def _belongings(self, request: web.Request) -> Everybodys:
        return self._edge.belongings_for(request)

    def _told(self, request: web.Request, told: dict[str, Any]) -> web.Response:
        return self._delivery.plain(request, orjson.dumps(told))


def speaks_openai(lane: Lane) -> bool:
    return lane.connector.dialect == UNTRANSLATED.name


def as_it_is(request: web.Request, whole: api_files.Whole) -> web.Response:
    return web.Response(body=whole.body, headers=headers(request, {"Content-Type": whole.type}))


def upload_for(form: Form, content: bytes) -> RawCall:
    """The call by which GigaChat gets a file."""
    kind = form.type
    if kind in ("", "application/octet-stream"):
        kind = type_by_filename(form.filename)
    content_type, body = api_files.form(api_files.fit(form.filename), kind, content)
    return RawCall("POST", "v1", "/files", "", (api_files.ACCEPT, ("Content-Type", content_type)), body)


def same_upload(form: Form, content: bytes) -> RawCall:
    """The call by which an API gets it that speaks OpenAI's dialect itself."""
    fields = {api_files.fit(name): text for name, text in form.fields.items()}
    content_type, body = api_files.form(api_files.fit(form.filename), form.type or BINARY_TYPE, content, fields)
    return RawCall("POST", "v1", "/files", "", (ACCEPT_ANY, ("Content-Type", content_type)), body)


def call_for(request: web.Request, action: str = "", *, method: str = "GET") -> RawCall:
    """The API's call about one file."""
    return RawCall(method, "v1", f"/files/{quote(request.match_info['id'], safe='')}{action}", "", (ACCEPT_ANY,))


def page_of(query: Any) -> PageAsked:
    """The page of a list that is asked for. Raises BadRequest."""
    try:
        limit = int(query.get("limit", MOST_FILES))
    except ValueError:
        limit = 0
    if not 1 <= limit <= MOST_FILES:
        raise BadRequest(f'"limit" must be a whole number from 1 to {MOST_FILES}', param="limit")
    if (order := query.get("order", "desc")) not in ("asc", "desc"):
        raise BadRequest('"order" must be desc (the newest first) or asc', param="order")
    return PageAsked(limit, query.get("after", ""), order == "asc", query.get("purpose", ""))
