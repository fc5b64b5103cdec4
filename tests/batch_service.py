"""A service with batches that does what a test wants: waits, refuses, loses its answers, breaks off."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Told = dict[str, Any]


def answered(line: Told) -> Told:
    """A native answer: the prompt, once more."""
    choice = {"message": {"content": line["body"]["messages"][-1][1]}, "finish_reason": "stop"}
    return {"status_code": 200, "request_id": "r", "body": {"status": "ok", "data": {"choices": [choice]}}}


class BatchService:
    """Files and batches, in memory. A batch is over when it is looked at, unless batches are held."""

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Told] = {}
        self.keys: dict[str, str] = {}
        #: What came, by the names of the operations below.
        self.calls: list[str] = []
        #: Calls that are done, and whose answer is lost.
        self.lost: list[str] = []
        #: Answers that come in place of others, by call.
        self.refusals: dict[str, list[tuple[int, Told]]] = {}
        #: Lines of a file that are told before it breaks off.
        self.breaks_after: int | None = None
        self.is_held = False
        #: How far a batch is that is held.
        self.completed = 0
        self.ends = "completed"
        #: What is wrong with an input file.
        self.inspect: Callable[[list[Told]], list[Told]] = lambda _: []
        #: Lines that have no answer, and why.
        self.errors: dict[str, Told] = {}

    def requests(self) -> list[str]:
        """The prompts of all batches that were begun, in their order."""
        begun = [batch for batch in self.batches.values() if batch["status"] != "failed"]
        return [line["body"]["messages"][-1][1] for batch in begun for line in batch["lines"]]

    # -- the operations

    async def upload(self, request: web.Request) -> Told:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        assert (form["purpose"], form["expires_after[anchor]"]) == ("batch", "created_at")
        assert 3600 <= int(str(form["expires_after[seconds]"])) <= 30 * 86_400
        id = f"file_{len(self.calls)}"
        self.files[id] = file.file.read()
        return {"id": id, "object": "file"}

    async def create(self, request: web.Request) -> Told:
        asked = await request.json()
        assert (asked["endpoint"], asked["completion_window"]) == ("/", "168h")
        id = self.keys.setdefault(request.headers["Idempotency-Key"], f"batch_{len(self.batches)}")
        if id not in self.batches:
            lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
            assert {(line["method"], line["url"]) for line in lines} == {("POST", "/")}
            self.batches[id] = {"id": id, "lines": lines, "input_file_id": asked["input_file_id"]} | self.state(lines)
        return self.told(id)

    def state(self, lines: list[Told]) -> Told:
        errors = self.inspect(lines)
        counts = {"total": 0 if errors else len(lines), "completed": 0, "failed": 0}
        return {
            "status": "failed" if errors else "in_progress",
            "errors": {"object": "list", "data": errors} if errors else None,
            "output_file_id": None,
            "error_file_id": None,
            "request_counts": counts,
        }

    async def look(self, request: web.Request) -> Told:
        batch = self.batches[request.match_info["id"]]
        if batch["status"] == "in_progress":
            if self.is_held:
                batch["request_counts"]["completed"] = self.completed
            else:
                self.finish(batch)
        return self.told(batch["id"])

    def finish(self, batch: Told) -> None:
        good, bad = [], []
        for line in batch["lines"]:
            if error := self.errors.get(line["body"]["messages"][-1][1]):
                bad.append({"custom_id": line["custom_id"], "response": None, "error": None, **error})
            else:
                good.append({"custom_id": line["custom_id"], "response": answered(line), "error": None})
        for kind, lines in (("output", good), ("error", bad)):
            if lines:
                batch[f"{kind}_file_id"] = f"file_{batch['id']}_{kind}"
                told = "".join(json.dumps(line) + "\n" for line in lines)
                self.files[f"file_{batch['id']}_{kind}"] = told.encode()
        batch["status"] = self.ends
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}

    def told(self, id: str) -> Told:
        return {name: value for name, value in self.batches[id].items() if name != "lines"}

    async def delete(self, request: web.Request) -> Told:
        return {"deleted": self.files.pop(request.match_info["id"], None) is not None}

    async def content(self, request: web.Request) -> web.StreamResponse:
        lines = self.files[request.match_info["id"]].splitlines(keepends=True)
        response = web.StreamResponse(headers={"Content-Length": str(sum(map(len, lines)))})
        await response.prepare(request)
        count, self.breaks_after = self.breaks_after, None
        for line in lines[:count]:
            await response.write(line[:3])  # pieces are no lines
            await response.write(line[3:])
        if count is not None:
            assert request.transport
            request.transport.close()
        return response

    # -- being it

    def serve(self, operation: Callable[[web.Request], Any]) -> Callable[[web.Request], Any]:
        async def serve(request: web.Request) -> web.StreamResponse:
            call = operation.__name__
            self.calls.append(call)
            if refusals := self.refusals.get(call):
                status, told = refusals.pop(0)
                return web.json_response(told, status=status, headers={"Retry-After": "0.05"})
            try:
                told = await operation(request)
            except KeyError:
                return web.json_response({"error": {"message": "there is none"}}, status=404)
            if call in self.lost:
                self.lost.remove(call)
                assert request.transport
                request.transport.close()
            return told if isinstance(told, web.StreamResponse) else web.json_response(told)

        return serve


@asynccontextmanager
async def batch_service() -> AsyncIterator[BatchService]:
    service = BatchService()
    app = web.Application(client_max_size=1 << 30)
    for method, path, operation in (
        ("POST", "/v1/files", service.upload),
        ("GET", "/v1/files/{id}/content", service.content),
        ("DELETE", "/v1/files/{id}", service.delete),
        ("POST", "/v1/batches", service.create),
        ("GET", "/v1/batches/{id}", service.look),
    ):
        app.router.add_route(method, path, service.serve(operation))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        await runner.cleanup()
