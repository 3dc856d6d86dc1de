"""Send single requests of the tus protocol."""

from __future__ import annotations

import base64
import hashlib

import aiohttp


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def sha1(data: bytes) -> str:
    return f"sha1 {encoded(hashlib.sha1(data).digest())}"


class Tus:
    """Send the protocol's requests one by one."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def send(self, method: str, path: str, *, body=None, **headers: str) -> aiohttp.ClientResponse:
        names = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        names.setdefault("Tus-Resumable", "1.0.0")
        async with self._session.request(method, self.url + path, data=body, headers=names) as answer:
            await answer.read()
        return answer

    async def create(self, size: int, *, body=None, **metadata: str) -> aiohttp.ClientResponse:
        given = ",".join(f"{name} {encoded(value)}" for name, value in metadata.items())
        kind = {"Content_Type": "application/offset+octet-stream"} if body is not None else {}
        return await self.send(
            "POST", "/uploads", body=body, Upload_Length=str(size), Upload_Metadata=given or None, **kind
        )

    async def opened(self, size: int, **metadata: str) -> str:
        answer = await self.create(size, **metadata)
        assert answer.status == 201, await answer.text()
        return answer.headers["Location"]

    async def patch(self, path: str, offset: int, body, **headers: str) -> aiohttp.ClientResponse:
        headers.setdefault("Content_Type", "application/offset+octet-stream")
        return await self.send("PATCH", path, body=body, Upload_Offset=str(offset), **headers)

    async def offset(self, path: str) -> int:
        answer = await self.send("HEAD", path)
        assert answer.status == 200
        return int(answer.headers["Upload-Offset"])
