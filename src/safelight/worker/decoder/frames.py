"""The messages between a worker and its decoder processes: msgpack after a length of four bytes.

They do not contain the bytes of photos. A request comes with the open file of the input (SCM_RIGHTS). Outputs are
written one after the other to a file in memory, which both sides have open since the decoder was started.
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
"""The largest frame to, and from, a decoder, in bytes."""


_Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]
_Seconds = Annotated[float, Meta(ge=0, le=7 * 86400)]


class Setup(Struct, frozen=True, kw_only=True, tag=True):
    """The first frame for a decoder."""

    parent: int
    concurrency: int
    memory_limit: int


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Setup`, once the decoder is confined and has warmed up."""

    version: Annotated[str, Meta(max_length=200)]
    protections: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """Parts of the sandbox that the kernel does not provide."""
    escapes: tuple[str, ...] = ()
    """Attempts of the self-test that were not refused."""


class Request(Struct, frozen=True, kw_only=True, tag=True):
    """A job. `cpu_limit` is in seconds of processor time, `threads` how many outputs to make at the same time."""

    recipe: Recipe
    limits: Limits
    cpu_limit: int
    threads: int


class Done(Struct, frozen=True, kw_only=True, tag=True):
    """The result of a job. `outputs` have no data; `sizes` are those of the outputs in the file. Memory is in bytes."""

    original: Probe
    outputs: list[Output]
    sizes: list[_Bytes]
    seconds: _Seconds
    peak_memory: _Bytes | None
    resident: _Bytes


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """The error of a job."""

    code: Code
    detail: str
    extra: dict[str, Any]
    resident: _Bytes


ToDecoder = Setup | Request
FromDecoder = Ready | Done | Failed

_to_decoder: msgspec.msgpack.Decoder[ToDecoder] = msgspec.msgpack.Decoder(ToDecoder)
_from_decoder: msgspec.msgpack.Decoder[FromDecoder] = msgspec.msgpack.Decoder(FromDecoder)


def pack(message: ToDecoder | FromDecoder) -> bytes:
    """Return a message as a frame."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body


def length_of(head: bytes, most: int) -> int:
    """Return the length of the body that follows. Raises ValueError if it is too large."""
    length = int.from_bytes(head, "big")
    if length > most:
        raise ValueError(f"a frame of {length} bytes")
    return length


def unpack_to_decoder(body: bytes) -> ToDecoder:
    """Decode the body of a frame from the worker."""
    return _to_decoder.decode(body)


def unpack_from_decoder(body: bytes) -> FromDecoder:
    """Decode the body of a frame from a decoder. Raises ValueError, msgspec.DecodeError."""
    try:
        return _from_decoder.decode(body)
    except RecursionError:
        raise ValueError("a frame that is nested too deeply") from None


def memory_file(name: str) -> int:
    """Return the descriptor of an unnamed file in memory or, where the system has none, on disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def seal(file: int) -> None:
    """Make a memory file immutable for everybody; for a file on disk this does nothing."""
    with suppress(OSError, AttributeError):
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
