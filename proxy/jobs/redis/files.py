"""The files in Redis."""

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex

from proxy.errors import JobsUnavailable
from proxy.jobs import Page
from proxy.jobs.files import StoredFile, content_of, put_all
from proxy.jobs.record import fields_of_file, file_of, tag, tags
from proxy.jobs.redis.link import JobsLink, flat, page, paired, read

TEXTS = ("id", "caller", "purpose", "about")
COUNTS = ("bytes",)
NUMBERS = ("created", "expires_at")
FIELDS = (*TEXTS, *COUNTS, *NUMBERS)

#: Seconds after which what has come of a file is forgotten, if no more of it comes.
LIFE = 3600


class RedisFiles:
    """See `FileStore`."""

    def __init__(self, link: JobsLink) -> None:
        self._link = link

    def __repr__(self) -> str:
        return f"<RedisFiles in {self._link}>"

    async def add(self, file: StoredFile, content: AsyncIterable[bytes], *, is_owed: bool = False) -> StoredFile:
        upload = token_hex(8)

        async def put(number: int, part: bytes) -> None:
            await self._link.run("put_part", part, upload=upload, number=number, life=LIFE, is_owed=is_owed)

        try:
            return await self._complete(replace(file, bytes=await put_all(content, put)), upload)
        except BaseException:
            with suppress(JobsUnavailable):  # then its time does it
                await self._link.run("give_up", upload=upload)
            raise

    async def _complete(self, file: StoredFile, upload: str) -> StoredFile:
        told = await self._link.run(
            "complete_file",
            **tags(id=file.id, caller=file.caller),
            upload=upload,
            bytes=file.bytes,
            expires_at=file.expires_at,
            fields=flat(fields_of_file(file)),
        )
        return file_in(paired(told))

    async def get(self, id: str, *, caller: str | None) -> StoredFile | None:
        told = await self._link.run("entry", kind="file", **tags(id=id, caller=caller))
        return file_in(paired(told)) if told else None

    async def list(
        self,
        *,
        caller: str | None,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Page[StoredFile]:
        tests = {"purpose": [] if purpose is None else [tag(purpose)]}
        entries, last = await page(
            self._link, "file", FIELDS, "files", caller, tests, after=after, limit=limit, newest_first=newest_first
        )
        return Page(tuple(map(file_in, entries)), last)

    async def content(self, id: str) -> AsyncIterator[bytes]:
        file = await self.get(id, caller=None)
        async for part in content_of(file, lambda number: self._link.run("part", id=tag(id), number=number)):
            yield part

    async def delete(self, id: str, *, caller: str | None) -> bool:
        return bool(await self._link.run("delete_file", **tags(id=id, caller=caller)))

    async def purge(self) -> int:
        await self._link.all_of("forget_uploads")
        return await self._link.all_of("forget_files")


def file_in(found: Mapping[str, bytes | None]) -> StoredFile:
    return file_of(
        {
            **read(found, TEXTS, bytes.decode),
            **read(found, COUNTS, int),
            **read(found, NUMBERS, float),
        }
    )
