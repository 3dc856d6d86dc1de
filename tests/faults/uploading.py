"""Send one upload without retries, and return its answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from support.photos import photo


@dataclass(frozen=True)
class Answer:
    """An answer: the status, the document, the header Retry-After, and the seconds that it took."""

    status: int
    document: dict[str, Any]
    retry_after: str | None
    seconds: float

    @property
    def is_refusal(self) -> bool:
        """Return whether the answer asks the client to retry later."""
        return self.status == 503 and self.retry_after is not None and bool(self.document["detail"])


async def upload(
    http: aiohttp.ClientSession, master: str, number: int, *, width: int = 160, kind: str = "PNG"
) -> Answer:
    """Upload a photo once to the master at HOST:PORT."""
    form = aiohttp.FormData()
    form.add_field("image", photo(number, width=width, kind=kind), filename=f"{number}.{kind.lower()}")
    began = time.monotonic()
    asked = http.post(f"http://{master}/task", data=form, headers={"Accept": "application/json"})
    async with asyncio.timeout(90), asked as answer:
        document = msgspec.json.decode(await answer.read())
        return Answer(answer.status, document, answer.headers.get("Retry-After"), time.monotonic() - began)
