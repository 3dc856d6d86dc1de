"""Upload photos by form: one with `POST /task`, several with `POST /tasks`."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import tracing
from safelight.access.caller import Access
from safelight.access.connections.places import Place, Places
from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.http import classic, client, json_response, location
from safelight.http.form import Form, Part
from safelight.master.access.earlier import Earlier
from safelight.master.access.quotas import Quotas
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import BINARY, JSON, Endpoint
from safelight.master.api.idempotency import DESCRIPTION, HEADER, idempotency_key
from safelight.master.api.public_schema import PublicTask, PublicUploaded, public
from safelight.master.metrics import Metrics
from safelight.master.recipes.recipe_book import RecipeBook
from safelight.master.recipes.recipe_cache import Chosen
from safelight.master.upload.ingest import Ingest, StoredPhoto
from safelight.master.upload.task_batcher import TaskBatcher
from safelight.master.webhook.address import check_url
from safelight.recipe.parsing import MAX_BYTES
from safelight.untrusted.validation import meant_by, refusal
from safelight.wire import NewTask, Task, Uploaded

_FIELD_BYTES = 4096
_FIELDS_BYTES = MAX_BYTES + (1 << 20)
_PHOTOS = 1000
"""The most photos in one request."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of an upload form besides the photo."""

    recipe: str = ""
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    batch: Annotated[
        str,
        # SQLite cannot find a batch whose name contains NUL, clients take . and .. out of a URL, and people see names.
        Meta(
            max_length=64,
            pattern=r"^(?!\.{1,2}$)[^\x00-\x1f\x7f]*(?!\n)$",
            extra={"words": 'text without control characters, and neither "." nor ".."'},
        ),
    ] = ""
    webhook: Annotated[str, Meta(max_length=2048)] | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Upload limits of one master: bytes of a photo, seconds without a byte."""

    photo: int
    idle_timeout: float
    private_webhooks: bool = False


class Photo(msgspec.Struct, frozen=True, kw_only=True):
    """A photo of a form, stored or refused."""

    filename: str
    stored: StoredPhoto | None = None
    refusal: Error | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A complete form whose fields are valid."""

    tenant: str
    photos: list[Photo]
    fields: Fields
    recipe: Chosen


class Uploads:
    """The handlers of uploads. They answer only when the tasks are durable."""

    def __init__(
        self,
        db: DbClient,
        ingest: Ingest,
        batcher: TaskBatcher,
        recipes: RecipeBook,
        metrics: Metrics,
        limits: Limits,
        quotas: Quotas,
        places: Places,
    ) -> None:
        self._db = db
        self._ingest = ingest
        self._batcher = batcher
        self._recipes = recipes
        self._metrics = metrics
        self._limits = limits
        self._quotas = quotas
        self._places = places

    @tracing.traced("upload")
    @classic
    async def one(self, request: web.Request) -> web.Response:
        """`POST /task`."""
        async with self._admitted(request, most=1) as (place, earlier):
            key = _key(request)
            order = await self._read(request, place, earlier, limit=self._limits.photo + _FIELDS_BYTES, most=1)
            photo = order.photos[0]
            if photo.refusal is not None:
                raise photo.refusal
            task = await self._create(photo, order, key)
            return json_response(public(task), headers={"Location": location(request, f"/task/{task.id}")})

    @tracing.traced("upload")
    async def many(self, request: web.Request) -> web.Response:
        """`POST /tasks`."""
        async with self._admitted(request, most=_PHOTOS) as (place, earlier):
            key, repeatable = _key(request), idempotency_key(request) is not None
            order = await self._read(request, place, earlier, limit=self._limits.photo * _PHOTOS, most=_PHOTOS)
            creating = (self._created(photo, order, _key_of(key, n)) for n, photo in enumerate(order.photos))
            outcomes = await asyncio.gather(*creating)
            later = next((each for each in outcomes if isinstance(each, Error) and each.transient), None)
            if later is not None and (repeatable or not any(isinstance(each, Task) for each in outcomes)):
                raise later  # the client sends all of it again, and no photo becomes a second task
            return json_response(list(map(_uploaded, order.photos, outcomes)))

    async def _created(self, photo: Photo, order: Order, key: str) -> Task | Error:
        """Return the task of a photo, or the error for which it is refused."""
        if photo.refusal is not None:
            return photo.refusal
        try:
            return await self._create(photo, order, key)
        except Error as error:
            return error

    @asynccontextmanager
    async def _admitted(self, request: web.Request, *, most: int) -> AsyncIterator[tuple[Place, Earlier]]:
        """Hold one of the master's and of the tenant's places for uploads, and count the outcome."""
        start = time.perf_counter()
        try:
            earlier = Earlier(self._db, tenant_of(request), _keys(request, most))
            async with self._quotas.upload(tenant_of(request), earlier):
                with self._places.take(client(request)) as place:
                    yield place, earlier
        except Error as error:
            self._metrics.refused.labels(error.code.value).inc()
            raise
        self._metrics.upload_seconds.observe(time.perf_counter() - start)

    async def _room(self, request: web.Request, earlier: Earlier) -> int | None:
        """Return how many bytes of photos the request may have, or None if there is no limit."""
        room = await self._quotas.room(tenant_of(request))
        if room is not None and (request.content_length is None or request.content_length > room):
            room += await earlier.bytes() or 0
        return room

    async def _read(self, request: web.Request, place: Place, earlier: Earlier, *, limit: int, most: int) -> Order:
        """Read the form; photos are stored as they arrive."""
        photos: list[Photo] = []
        values, others = in_address(request), list[str]()
        tenant = tenant_of(request)
        recipe = await self._recipes.of(tenant).choose(values["recipe"]) if "recipe" in values else None
        room = await self._room(request, earlier)
        form = Form(request, idle_timeout=self._limits.idle_timeout, limit=limit, place=place)
        async with aclosing(form.parts()) as parts:
            async for part in parts:
                if part.name == "image":
                    if len(photos) == most:
                        raise _too_many(most)
                    photos.append(photo := await self._photo(part, room, alone=most == 1))
                    if room is not None and photo.stored is not None:
                        room = max(0, room - photo.stored.blob.size)
                elif part.name in Fields.__struct_fields__:
                    if part.name in values:
                        raise _twice(part.name)
                    values[part.name] = await part.text(MAX_BYTES if part.name == "recipe" else _FIELD_BYTES)
                    if part.name == "recipe":  # so an invalid one is refused before the photo after it is stored
                        recipe = await self._recipes.of(tenant).choose(values[part.name])
                else:
                    others.append(part.name)
        if not photos:
            raise Error(
                Code.INVALID_REQUEST, "Image not found. Send the photo as the part named image.", position="image"
            )
        fields = _fields(values, others)
        if fields.webhook is not None:
            check_url(fields.webhook, allow_private=self._limits.private_webhooks)
        return Order(
            photos=photos, fields=fields, recipe=recipe or await self._recipes.of(tenant).choose(""), tenant=tenant
        )

    async def _photo(self, part: Part, room: int | None, *, alone: bool) -> Photo:
        chunks: AsyncIterator[bytes] = part.chunks()
        try:
            return Photo(filename=part.filename, stored=await self._ingest.store(chunks, room=room))
        except Error as error:
            if alone or error.code not in _OWN_FAULT:
                raise
            self._metrics.refused.labels(error.code.value).inc()
            return Photo(filename=part.filename, refusal=error)

    async def _create(self, photo: Photo, order: Order, key: str) -> Task:
        assert photo.stored is not None, "a refused photo has no task"
        new = NewTask(
            tenant=order.tenant,
            interactive=len(order.photos) == 1 and not order.fields.batch,
            input=photo.stored.blob,
            filename=photo.filename,
            media_type=photo.stored.media_type,
            recipe=order.recipe.name,
            recipe_digest=order.recipe.digest,
            spec=order.recipe.spec,
            classic=order.recipe.classic,
            priority=order.fields.priority,
            batch=order.fields.batch,
            webhook=order.fields.webhook,
            idempotency_key=key,
        )
        try:
            task = await self._batcher.create(new, new=photo.stored.new)
        except Error as error:
            if error.code is Code.CONFLICT:  # db names the place in the master's own request
                error.extra["position"] = HEADER
            raise
        self._metrics.uploads.inc()
        return task

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        form = _form({**BINARY, "description": "the photo; its name is kept for downloads"})
        several = _form({"type": "array", "items": BINARY, "maxItems": _PHOTOS})
        header = {HEADER: DESCRIPTION}
        errors = (
            Code.INVALID_REQUEST, Code.INVALID_RECIPE, Code.NOT_FOUND, Code.CONFLICT, Code.TOO_LARGE, Code.NOT_AN_IMAGE,
            Code.TOO_MANY_REQUESTS, Code.UNAVAILABLE, Code.STORAGE_FULL,
        )  # fmt: skip
        return [
            Endpoint(
                method="POST", path="/task", handler=self.one, access=Access.UPLOAD | Access.CLASSIC,
                largest=self._limits.photo + _FIELDS_BYTES,
                tag="uploads", summary="Upload one photo",
                description="Answers once the photo and its task are durable. Parts may come in any order, and the "
                "fields may be in the address instead.",
                query=Fields, request_headers=header, body={"multipart/form-data": form}, answer={JSON: PublicTask},
                errors=errors,
            ),
            Endpoint(
                method="POST", path="/tasks", handler=self.many, access=Access.UPLOAD,
                largest=self._limits.photo * _PHOTOS,
                tag="uploads", summary="Upload many photos",
                description="Each part `image` becomes a task or a problem of its own, in the order given.",
                query=Fields, request_headers=header, body={"multipart/form-data": several},
                answer={JSON: list[PublicUploaded]}, errors=errors,
            ),
        ]  # fmt: skip


def _form(image: dict[str, object]) -> dict[str, object]:
    """Return the schema of a form, given the schema of its photos."""
    return {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": image,
            "recipe": {"type": "string", "description": "a recipe's name, or a recipe as JSON", "default": "invert"},
            "priority": {"type": "integer", "minimum": -100, "maximum": 100, "default": 0},
            "batch": {"type": "string", "maxLength": 64, "description": "a name for tasks that belong together"},
            "webhook": {"type": "string", "description": "an http(s) URL that is called when the task has ended"},
        },
    }


_OWN_FAULT = frozenset({Code.NOT_AN_IMAGE, Code.UNSUPPORTED_FORMAT, Code.TOO_LARGE})
"""Errors that affect only one photo of a request."""


def _uploaded(photo: Photo, outcome: Task | Error) -> Uploaded | PublicUploaded:
    if isinstance(outcome, Error):
        return Uploaded(filename=photo.filename, problem=outcome.problem())
    return PublicUploaded(filename=photo.filename, task=public(outcome))


def _too_many(most: int) -> Error:
    if most == 1:
        return Error(Code.INVALID_REQUEST, "POST /task takes one photo. Send several to POST /tasks.", position="image")
    return Error(
        Code.INVALID_REQUEST, f"A request has at most {most} photos. Send the others in another request.", limit=most
    )


def _key(request: web.Request) -> str:
    """Return the client's idempotency key, or a new one, so that the call to db can be repeated."""
    return idempotency_key(request) or secrets.token_hex(16)


def _keys(request: web.Request, most: int) -> list[str]:
    """Return the keys that the tasks of a request may have, if the client gave one."""
    key = idempotency_key(request)
    if key is None:
        return []
    return [key] if most == 1 else [_key_of(key, n) for n in range(most)]


def _key_of(key: str, n: int) -> str:
    """Return the key of one of the photos of a request."""
    return f"{key}.{n}"


def in_address(request: web.Request) -> dict[str, str]:
    """Return the fields of an upload that are in the address. Raises INVALID_REQUEST for one that is there twice."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name in found:
            raise _twice(name)
        if name in Fields.__struct_fields__:
            found[name] = value
        elif meant := meant_by(name, Fields.__struct_fields__):
            sentence = f"An upload has no field {name!r}; did you mean {meant}?"
            raise Error(Code.INVALID_REQUEST, sentence, position=name)
    return found


def _twice(name: str) -> Error:
    return Error(Code.INVALID_REQUEST, f"Give the field {name} once.", position=name)


def _fields(values: dict[str, str], others: Sequence[str]) -> Fields:
    """Convert the fields of a form. Other parts are ignored, but not one that looks like a misspelt field."""
    for name in others:
        if meant := meant_by(name, ("image", *Fields.__struct_fields__)):
            sentence = f"The form has no field {name!r}; did you mean {meant}?"
            raise Error(Code.INVALID_REQUEST, sentence, position=name)
    try:
        return msgspec.convert(values, Fields, strict=False)
    except msgspec.ValidationError as error:
        raise refusal(error, Fields, whole="form", flat=True) from None
