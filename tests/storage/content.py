"""Provide bytes to store, and the paths of stored blobs."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path


def made(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def chunks(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(store, digest: str, start: int = 0, end: int | None = None, *, verify: bool = False) -> bytes:
    async with store.open(digest, verify=verify) as reading:
        return b"".join([bytes(chunk) async for chunk in reading.chunks(start, end)])


def files(root: Path, directory: str) -> list[Path]:
    return [path for path in (root / directory).rglob("*") if path.is_file()]
