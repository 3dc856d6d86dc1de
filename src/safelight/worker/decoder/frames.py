"""What a worker and its decoder processes say to each other: msgpack behind a length of four bytes.

The bytes of pictures do not travel here. A request carries the open input file along (SCM_RIGHTS); outputs lie one
after the other in a memory file that both sides have held since the decoder's start.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from safelight.engine import Limits, Output, Probe
from safelight.errors import Code
from safelight.recipe import Recipe

MAX_REQUEST = 64 * 1024 * 1024
MAX_ANSWER = 1024 * 1024
"""What one frame to, and from, a decoder may have (bytes)."""


class Setup(Struct, frozen=True, kw_only=True, tag=True):
    """The first frame to a decoder."""

    parent: int
    concurrency: int
    memory_limit: int


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """The decoder's answer, once it is confined and warm."""

    version: Annotated[str, Meta(max_length=200)]
    protections: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """Parts of the sandbox that the kernel did not provide."""
    escapes: tuple[str, ...] = ()
    """What the self-test tried and was not refused."""


class Request(Struct, frozen=True, kw_only=True, tag=True):
    """One job. `cpu_limit`: seconds of processor time."""

    recipe: Recipe
    limits: Limits
    cpu_limit: int


class Done(Struct, frozen=True, kw_only=True, tag=True):
    """A job that succeeded; `outputs` have no data, `sizes` tell how the memory file divides. Memory in bytes."""

    original: Probe
    outputs: list[Output]
    sizes: list[int]
    seconds: float
    peak_memory: int | None
    resident: int


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """A job that ended with an Error."""

    code: Code
    detail: str
    extra: dict[str, Any]
    resident: int


ToDecoder = Setup | Request
FromDecoder = Ready | Done | Failed

_to_decoder: msgspec.msgpack.Decoder[ToDecoder] = msgspec.msgpack.Decoder(ToDecoder)
_from_decoder: msgspec.msgpack.Decoder[FromDecoder] = msgspec.msgpack.Decoder(FromDecoder)


def pack(message: ToDecoder | FromDecoder) -> bytes:
    """The whole frame."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body


def length_of(head: bytes, most: int) -> int:
    """The length of the body that follows; ValueError for one that nobody sends."""
    length = int.from_bytes(head, "big")
    if length > most:
        raise ValueError(f"a frame of {length} bytes")
    return length


def unpack_to_decoder(body: bytes) -> ToDecoder:
    """What the worker said."""
    return _to_decoder.decode(body)


def unpack_from_decoder(body: bytes) -> FromDecoder:
    """What the decoder said; msgspec.DecodeError for what it should not say."""
    return _from_decoder.decode(body)


def memory_file(name: str) -> int:
    """A file without a name that lives in memory; where the system has none, one on disk. Close it to be rid of it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def seal(file: int) -> None:
    """Have a memory file stay as it is, whoever holds it; on disk there is no such thing."""
    with suppress(OSError, AttributeError):
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
