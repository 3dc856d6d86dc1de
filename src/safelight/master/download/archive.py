"""Stream many results as one ZIP, without compressing them again, with ZIP64 where necessary."""

from __future__ import annotations

import asyncio
import time
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.http import form
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import BINARY, Endpoint
from safelight.master.download.downloads import LOST, Downloads, File, content_disposition
from safelight.untrusted.validation import refusal
from safelight.wire import State, Task, TaskFilter

_PAGE = 500
_ZIP = "application/zip"
_FORM = "application/x-www-form-urlencoded"
_FORM_BYTES = 4 << 20
_MAX_TASKS = 10_000
"""The most tasks that a request can name."""
_STALL_TIMEOUT = 60.0
"""Seconds after which a client that reads nothing is disconnected."""
_PIECE = 256 * 1024
"""Bytes of the directory to send at once."""
_LIST = "left-out.txt"
"""The file of an archive that lists what it leaves out because storage has lost it."""
_LIST_HEAD = "This archive lacks these results. If storage has lost one, rerun its task to make it again.\n\n"
_EARLIEST, _LATEST = 315_532_800, 4_354_819_198
"""The first and last second of the years 1980 to 2107, which a ZIP counts."""


class ArchiveQuery(TaskFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The results to download; without any filter, those of every finished task."""

    tasks: Annotated[str, Meta(min_length=1, description="ids of tasks, separated by commas")] = ""
    output: Annotated[str, Meta(description="only the outputs of this name", max_length=64)] | None = None


class Archive:
    """The handlers of archives."""

    def __init__(self, db: DbClient, storage: StorageClient, downloads: Downloads) -> None:
        self._db = db
        self._storage = storage
        self._downloads = downloads

    async def get(self, request: web.Request) -> web.StreamResponse:
        """`GET /archive`."""
        return await self._send(request, http.query(request, ArchiveQuery))

    async def post(self, request: web.Request) -> web.StreamResponse:
        """`POST /archive`: a form, for more ids than a URL holds."""
        given = await form.fields(request, limit=_FORM_BYTES)
        try:
            query = msgspec.convert(given, ArchiveQuery, strict=False)
        except msgspec.ValidationError as error:
            raise refusal(error, ArchiveQuery, whole="form", flat=True) from None
        return await self._send(request, query)

    async def _send(self, request: web.Request, query: ArchiveQuery) -> web.StreamResponse:
        _check(query)
        lacking: list[str] = []
        members = self._members(query, tenant_of(request), lacking)
        first = await anext(members, None)
        if first is None:
            missing = "a result yet" if query.output is None else f"an output {query.output!r}"
            raise Error(Code.NOT_FOUND, f"None of these tasks has {missing}.")
        response = web.StreamResponse(headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"})
        response.content_type = _ZIP
        name = f"safelight-{time.strftime('%Y-%m-%d')}.zip"
        response.headers["Content-Disposition"] = content_disposition(name, attached=True)
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        async with aclosing(zipped(self._storage, _joined(first, members), lacking)) as chunks:
            # The response begins with the first bytes, so that it can be an error while storage is away.
            return await self._stream(request, response, await anext(chunks), chunks)

    @staticmethod
    async def _stream(
        request: web.Request, response: web.StreamResponse, begun: bytes, chunks: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        await response.prepare(request)
        try:
            await _write(response, begun)
            async for chunk in chunks:
                await _write(response, chunk)
            await response.write_eof()
        except (Error, OSError) as error:
            # Close the connection, so that an incomplete archive is not taken for a complete one.
            if request.transport is not None:
                request.transport.abort()
            if isinstance(error, Error):
                raise
        return response

    async def _members(self, query: ArchiveQuery, tenant: str, lacking: list[str]) -> AsyncIterator[tuple[Task, File]]:
        """Find the results; append to `lacking` which of the named tasks have none, and why."""
        async for task in self._tasks(query, tenant, lacking):
            if task.state is not State.FINISHED:
                lacking.append(f"task {task.id} has no result: it is {task.state.name.lower()}\n")
            else:
                # A classic task has a single result without a name.
                names: list[str | None] = [output.name for output in task.outputs]
                for name in names or [None]:
                    if query.output in (None, name):
                        yield task, await self._downloads.result_file(task, name)

    async def _tasks(self, query: ArchiveQuery, tenant: str, lacking: list[str]) -> AsyncIterator[Task]:
        if query.tasks:
            ids = dict.fromkeys(map(str.strip, query.tasks.split(",")))
            if len(ids) > _MAX_TASKS:
                sentence = f"An archive can name at most {_MAX_TASKS} tasks; request several archives."
                raise Error(Code.INVALID_REQUEST, sentence, position="tasks", limit=_MAX_TASKS)
            for id in ids:  # noqa: A001 - a task's id is called id
                try:
                    task = await self._db.get(id, tenant=tenant)
                except Error as error:
                    if error.code is not Code.NOT_FOUND:
                        raise
                    lacking.append(f"task {id} does not exist\n")  # it may have been deleted since it was chosen
                    continue
                if query.recipe in (None, task.recipe) and query.batch in (None, task.batch):
                    yield task
            return
        if query.states and State.FINISHED not in query.states:
            return
        before: str | None = None
        while True:
            page = await self._db.find(query.page(before=before, limit=_PAGE, state="finished"), tenant=tenant)
            for task in page.tasks:
                yield task
            if (before := page.next) is None:
                return

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        form = {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ArchiveQuery.__struct_fields__},
            "additionalProperties": False,
        }
        errors = (Code.INVALID_REQUEST, Code.NOT_FOUND, Code.UNAVAILABLE)
        description = (
            "The archive is streamed, without compressing photos again. Named tasks without a result, and results that "
            f"are lost in storage, are left out and listed in {_LIST}."
        )
        return [
            Endpoint(
                method="GET", path="/archive", handler=self.get, access=Access.READ, tag="results",
                summary="Download many results as a ZIP", description=description, query=ArchiveQuery,
                answer={_ZIP: BINARY}, errors=errors,
            ),
            Endpoint(
                method="POST", path="/archive", handler=self.post, access=Access.READ, tag="results",
                summary="Download many results as a ZIP, chosen by a form", description=description,
                body={_FORM: form}, answer={_ZIP: BINARY}, errors=(*errors, Code.TOO_LARGE),
            ),
        ]  # fmt: skip


def _check(query: ArchiveQuery) -> None:
    """Refuse filters that are not applied to named tasks. Raises INVALID_REQUEST, also for an unknown state."""
    asked = {"state": query.states, "search": query.search, "reason": query.reason,
             "since": query.since, "until": query.until}  # fmt: skip
    for name, value in asked.items():
        if query.tasks and value not in (None, []):
            sentence = f"Name tasks, or say which with {name}, but not both."
            raise Error(Code.INVALID_REQUEST, sentence, position=name)


async def _write(response: web.StreamResponse, chunk: bytes) -> None:
    async with asyncio.timeout(_STALL_TIMEOUT):
        await response.write(chunk)


async def _joined(first: tuple[Task, File], rest: AsyncIterator[tuple[Task, File]]) -> AsyncIterator[tuple[Task, File]]:
    yield first
    async for member in rest:
        yield member


class _Sink:
    """An unseekable file for `zipfile`, which is emptied after each chunk."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        data, self._held = bytes(self._held), bytearray()
        return data


async def zipped(
    storage: StorageClient, members: AsyncIterator[tuple[Task, File]], lacking: list[str]
) -> AsyncGenerator[bytes, None]:
    """Stream a ZIP of blobs. Only its directory is kept in memory, a few hundred bytes for each file.

    The lines of `lacking` are in the list of what is left out, as are blobs that storage has lost. Raises DAMAGED_BLOB
    if that shows only after the first bytes.
    """
    sink = _Sink()
    names: dict[str, int] = {}
    archive = zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True)  # type: ignore[call-overload]
    try:
        async for task, file in members:
            begun = False
            try:
                async with storage.open(file.digest) as answer:
                    begun = True
                    entry = _entry(_unique(file.filename, names), task.changed)
                    with archive.open(entry, "w", force_zip64=file.size >= zipfile.ZIP64_LIMIT) as member:
                        async for chunk in answer.chunks():
                            member.write(chunk)
                            yield sink.taken()
            except Error as error:
                if error.code not in LOST:
                    raise
                what = f"{file.filename} of task {task.id}"
                if begun:  # the next archive leaves it out, since storage now knows of the damage
                    raise Error(error.code, f"{what}: {error.detail}") from error
                lacking.append(f"{what} is {LOST[error.code]} in storage\n")
        if lacking:
            archive.writestr(_entry(_unique(_LIST, names), time.time()), _LIST_HEAD + "".join(lacking))
    finally:
        await asyncio.to_thread(archive.close)  # writes the directory, which takes long for many files
    end = sink.taken()
    for start in range(0, len(end), _PIECE):
        yield end[start : start + _PIECE]


def _entry(filename: str, changed: float) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(filename, _date(changed))
    entry.external_attr = 0o644 << 16
    return entry


def _date(seconds: float) -> tuple[int, int, int, int, int, int]:
    """Return a time as years, months, …, seconds, or the nearest one that a ZIP can express."""
    return time.gmtime(max(_EARLIEST, min(seconds, _LATEST)))[:6]


def _unique(filename: str, names: dict[str, int]) -> str:
    """Give files of the same name a number: `cat.image.png`, `cat.image-2.png`.

    Names that differ only in case are the same for Windows and macOS. `names` holds the last number of each, since
    phones call every photo the same.
    """
    stem, dot, extension = filename.rpartition(".")
    found, first = filename, filename.casefold()
    number = names.get(first, 1)
    while found.casefold() in names:
        number += 1
        found = f"{stem}-{number}{dot}{extension}"
    names[first] = number
    names.setdefault(found.casefold(), 1)
    return found
