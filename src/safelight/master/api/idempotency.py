"""The header `Idempotency-Key`, with which a client makes a request that creates tasks safe to repeat."""

from __future__ import annotations

import re

from aiohttp import web

from safelight.errors import Code, Error

HEADER = "Idempotency-Key"
DESCRIPTION = "1 to 100 visible ASCII characters; the same key again returns the existing task"


def idempotency_key(request: web.Request) -> str | None:
    """Return the client's key. Raises INVALID_REQUEST."""
    key = request.headers.get(HEADER)
    if key is not None and re.fullmatch(r"[\x21-\x7e]{1,100}", key) is None:
        raise Error(Code.INVALID_REQUEST, f"An {HEADER} has 1 to 100 visible ASCII characters.", position=HEADER)
    return key
