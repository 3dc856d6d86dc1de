"""The part of Google Cloud Storage's XML API that storage uses, after Google's reference of it, in memory.

No emulator that can be installed compares generations in this API or takes multipart uploads by it, and both are what
storage relies on. So this one is ours: it shows that the library's requests for Google are right by the reference, not
that Google answers alike. `python -m support.servers.google PORT` runs it.
"""

from __future__ import annotations

import email.utils
import hashlib
import itertools
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

from support.programs.ports import free_port
from support.servers.listening import wait_listening

BUCKET = "photos"
SLOW = "written-slowly"
"""Objects whose names end so may be written once a second, as all of Google's, so that other tests need not wait."""
_KEPT = ("Content-Type", "Content-Disposition", "Cache-Control")
_META = "x-goog-meta-"
_LARGEST = 1 << 30


class Object(NamedTuple):
    """An object as it is at one generation."""

    data: bytes
    generation: int
    changed: float
    headers: dict[str, str]

    def described(self) -> dict[str, str]:
        """Return the headers that describe it."""
        tag, changed = hashlib.md5(self.data).hexdigest(), email.utils.formatdate(self.changed, usegmt=True)  # noqa: S324
        return {**self.headers, "ETag": f'"{tag}"', "Last-Modified": changed, "x-goog-generation": str(self.generation)}


class Upload(NamedTuple):
    """A multipart upload that is not complete."""

    name: str
    headers: dict[str, str]
    parts: dict[int, bytes]


class Objects:
    """The objects of one bucket, and the routes to them."""

    def __init__(self) -> None:
        self._objects: dict[str, Object] = {}
        self._uploads: dict[str, Upload] = {}
        self._generations = itertools.count(time.time_ns() // 1000)

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_get(f"/{BUCKET}", self._list)
        app.router.add_get(f"/{BUCKET}/{{name:.+}}", self._get)  # and HEAD
        app.router.add_put(f"/{BUCKET}/{{name:.+}}", self._put)
        app.router.add_post(f"/{BUCKET}/{{name:.+}}", self._post)
        app.router.add_delete(f"/{BUCKET}/{{name:.+}}", self._delete)
        return app

    async def _get(self, request: web.Request) -> web.Response:
        found = self._found(request.match_info["name"])
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if asked is None:
            if request.method == "HEAD":
                return web.Response(headers={**found.described(), "Content-Length": str(len(found.data))})
            return web.Response(body=found.data, headers=found.described())
        start, end = int(asked[1]), min(int(asked[2] or len(found.data)) + 1, len(found.data))
        if start >= len(found.data):
            raise web.HTTPRequestRangeNotSatisfiable
        told = {**found.described(), "Content-Range": f"bytes {start}-{end - 1}/{len(found.data)}"}
        return web.Response(status=206, body=found.data[start:end], headers=told)

    async def _put(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await request.read()
        if (upload := request.query.get("uploadId")) is not None:
            self._upload(upload).parts[int(request.query["partNumber"])] = body
            return web.Response(headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})  # noqa: S324
        if (source := request.headers.get("x-goog-copy-source")) is not None:
            old = self._found(unquote(source).lstrip("/").partition("/")[2])
            made = self._write(request, name, old.data, old.headers)
            return web.Response(text="<CopyObjectResult/>", headers={"x-goog-generation": str(made.generation)})
        return web.Response(headers=self._write(request, name, body, _given(request)).described())

    async def _post(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if "uploads" in request.query:
            number = secrets.token_hex(8)
            self._uploads[number] = Upload(name, _given(request), {})
            return _xml(
                f"<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{escape(name)}</Key>"
                f"<UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
            )
        upload = self._upload(request.query["uploadId"])
        numbers = [int(number) for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", await request.text())]
        data = b"".join(upload.parts[number] for number in numbers)
        made = self._write(request, name, data, upload.headers)
        del self._uploads[request.query["uploadId"]]
        tag = made.described()["ETag"]
        answer = _xml(
            f"<CompleteMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{escape(name)}</Key>"
            f"<ETag>{escape(tag)}</ETag></CompleteMultipartUploadResult>"
        )
        answer.headers["x-goog-generation"] = str(made.generation)
        return answer

    async def _delete(self, request: web.Request) -> web.Response:
        if (upload := request.query.get("uploadId")) is not None:
            self._upload(upload)
            del self._uploads[upload]
        else:
            self._found(request.match_info["name"])
            del self._objects[request.match_info["name"]]
        return web.Response(status=204)

    async def _list(self, request: web.Request) -> web.Response:
        if "uploads" in request.query:
            told = "".join(f"<Upload><Key>{escape(one.name)}</Key></Upload>" for one in self._uploads.values())
            return _xml(f"<ListMultipartUploadsResult>{told}</ListMultipartUploadsResult>")
        asked = request.query
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        after = asked.get("continuation-token") or asked.get("start-after", "")
        most = int(asked.get("max-keys", 1000))
        found, prefixes, last = [], set(), ""
        for name in sorted(self._objects):
            if name <= after or not name.startswith(prefix):
                continue
            if len(found) == most:
                break
            rest, last = name.removeprefix(prefix), name
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest[: rest.index(delimiter) + 1])
                continue
            found.append(_listed(name, self._objects[name]))
        else:
            last = ""
        told = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(prefixes))
        following = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if last else ""
        return _xml(f"<ListBucketResult>{''.join(found)}{told}{following}</ListBucketResult>")

    def _write(self, request: web.Request, name: str, data: bytes, headers: dict[str, str]) -> Object:
        wanted, before = request.headers.get("x-goog-if-generation-match"), self._objects.get(name)
        if wanted is not None and int(wanted) != (0 if before is None else before.generation):
            text = "<Error><Code>PreconditionFailed</Code><Message>A condition did not hold.</Message></Error>"
            raise web.HTTPPreconditionFailed(text=text)
        if name.endswith(SLOW) and before is not None and time.time() - before.changed < 1:
            raise web.HTTPTooManyRequests(text="<Error><Code>SlowDown</Code></Error>")
        made = self._objects[name] = Object(data, next(self._generations), time.time(), headers)
        return made

    def _found(self, name: str) -> Object:
        if name not in self._objects:
            raise web.HTTPNotFound(text="<Error><Code>NoSuchKey</Code></Error>")
        return self._objects[name]

    def _upload(self, id: str) -> Upload:
        if id not in self._uploads:
            raise web.HTTPNotFound(text="<Error><Code>NoSuchUpload</Code></Error>")
        return self._uploads[id]


def _given(request: web.Request) -> dict[str, str]:
    """Return what is kept of the headers of an upload."""
    meta = {name.lower(): value for name, value in request.headers.items() if name.lower().startswith(_META)}
    return {name: request.headers[name] for name in _KEPT if name in request.headers} | meta


def _listed(name: str, one: Object) -> str:
    changed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.changed))
    return (
        f"<Contents><Key>{escape(name)}</Key><Generation>{one.generation}</Generation><Size>{len(one.data)}</Size>"
        f"<LastModified>{changed}</LastModified><ETag>{escape(one.described()['ETag'])}</ETag></Contents>"
    )


def _xml(text: str) -> web.Response:
    return web.Response(text=f'<?xml version="1.0" encoding="UTF-8"?>{text}', content_type="application/xml")


class Google:
    """The server as a program of its own."""

    def __init__(self) -> None:
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._places = 0

    @property
    def endpoint(self) -> str:
        """The URL of the API."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        argv = [sys.executable, "-m", "support.servers.google", str(self._port)]
        tests = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": tests})
        wait_listening(self._process, self._port)

    def stop(self) -> None:
        """Kill the server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def url(self) -> str:
        """Return the URL of a place that nobody else uses."""
        self._places += 1
        return f"gs://{BUCKET}/place-{self._places}"

    def environment(self) -> dict[str, str]:
        """Return the environment with which a program finds the server."""
        account = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        return {"GOOGLE_BASE_URL": self.endpoint, "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}


@contextmanager
def google() -> Iterator[Google]:
    """Run the server for as long as the context lasts."""
    server = Google()
    try:
        server.start()
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    web.run_app(Objects().app(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
