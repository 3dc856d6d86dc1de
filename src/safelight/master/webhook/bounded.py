"""Bound how much of a receiver's answer is parsed, since receivers are strangers."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

_LONGEST = 16 * 1024
"""Bytes of an answer to parse: more than a head and the beginning of a body have."""


class BoundedConnector(aiohttp.TCPConnector):
    """Makes connections for one answer each, of which only the beginning is parsed.

    Any number of interim answers (103 Early Hints) may come before an answer. The library parses and skips them, so a
    few receivers that send nothing else would take the event loop for themselves.
    """

    def __init__(self, **settings: Any) -> None:
        """Take what `aiohttp.TCPConnector` takes."""
        super().__init__(**settings, force_close=True)
        self._factory = partial(_Beginning, asyncio.get_running_loop())  # type: ignore[assignment]


class _Beginning(ResponseHandler):
    """Parses the beginning of an answer and leaves the rest with its sender."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with room for `_LONGEST` bytes."""
        super().__init__(loop)
        self._room = _LONGEST

    def data_received(self, data: bytes) -> None:
        """Take bytes as long as there is room for them."""
        beginning = data[: self._room]
        self._room -= len(beginning)
        super().data_received(beginning)
        if not self._room:
            if self.transport is not None:
                self.transport.pause_reading()
            # This ends the wait for an answer. One that has already begun can still be read as far as it was parsed.
            self.set_exception(aiohttp.ClientError(f"no answer within {_LONGEST} bytes"))
