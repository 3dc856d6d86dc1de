"""The decoder program, which processes photos for the worker that started it, inside a sandbox.

`child` starts it as `python -m safelight.worker.decoder.program SOCKET OUTPUT` with two inherited file descriptors. It
ends when the worker closes the socket or dies.
"""

from __future__ import annotations

import base64
import errno
import math
import mmap
import os
import resource
import socket
import sys
import time

import msgspec

from safelight import engine, imports
from safelight.errors import Code, Error
from safelight.recipe import BUILTIN, OutputSpec, Recipe
from safelight.recipe.operations import Resize
from safelight.worker.decoder import sandbox
from safelight.worker.decoder.frames import (
    MAX_REQUEST,
    Done,
    Failed,
    FromDecoder,
    Ready,
    Request,
    Setup,
    ToDecoder,
    length_of,
    pack,
    unpack_to_decoder,
)
from safelight.worker.decoder.sandbox import escapes

_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
)
"""A PNG of one black pixel."""
_TYPICAL = Recipe(outputs={"image": OutputSpec(operations=(Resize(width=1),), format="jpeg")})


class Memory:
    """The memory of this process, read from files that were opened before it was confined."""

    def __init__(self) -> None:
        self._status = self._reset = -1
        try:
            self._status = os.open("/proc/self/status", os.O_RDONLY)
            self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY)
        except OSError:
            pass  # there is no /proc

    def forget_peak(self) -> None:
        """Reset the peak."""
        if self._reset >= 0:
            os.pwrite(self._reset, b"5", 0)

    def peak(self) -> int | None:
        """Return the largest resident size since then, in bytes; None if it is not known."""
        return self._field(b"VmHWM:") if self._reset >= 0 else None

    def resident(self) -> int:
        """Return the resident size in bytes, 0 if it is not known."""
        return self._field(b"VmRSS:") or 0

    def _field(self, name: bytes) -> int | None:
        if self._status < 0:
            return None
        _, _, rest = os.pread(self._status, 8192, 0).partition(name)
        return int(rest.split(maxsplit=1)[0]) * 1024


def main() -> None:
    """Serve until the worker closes the socket."""
    imports.complete()
    channel = socket.socket(fileno=int(sys.argv[1]))
    output = int(sys.argv[2])
    setup, _ = _receive(channel)
    if not isinstance(setup, Setup):
        sys.exit("the first frame must be Setup")
    memory = Memory()
    confined = sandbox.confine(setup.parent, setup.memory_limit)
    gaps = escapes.succeeded(setup.parent, setup.memory_limit)
    engine.set_concurrency(setup.concurrency)
    # Warm up after confining, because the threads that this starts must be confined as well.
    _warm_up()
    ready = Ready(
        version=engine.VERSION, protections=confined.protections, missing=confined.missing, escapes=tuple(gaps)
    )
    channel.sendall(pack(ready))
    while True:
        request, source = _receive(channel)
        if not isinstance(request, Request) or source is None:
            return
        channel.sendall(pack(_serve(request, source, output, memory)))


def _receive(channel: socket.socket) -> tuple[ToDecoder | None, int | None]:
    """Return the next frame and the file that came with it; None and None once the worker has closed the socket."""
    head, files, _, _ = socket.recv_fds(channel, 4, 1)
    if not head:
        return None, None
    head += _exactly(channel, 4 - len(head))
    return unpack_to_decoder(_exactly(channel, length_of(head, MAX_REQUEST))), files[0] if files else None


def _exactly(channel: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = channel.recv(count - len(data))
        if not part:
            raise EOFError("the worker closed the socket in the middle of a frame")
        data += part
    return bytes(data)


def _serve(request: Request, source: int, output: int, memory: Memory) -> FromDecoder:
    memory.forget_peak()
    _limit_processor(request.cpu_limit)
    started = time.perf_counter()
    try:
        with _mapped(source) as data:
            result = engine.process(data, request.recipe, request.limits, threads=request.threads)
        sizes = _write(result.outputs, output)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        detail = "The results together are larger than a decoder may write. Ask for fewer or smaller ones."
        return Failed(code=Code.TOO_LARGE, detail=detail, extra={}, resident=memory.resident())
    except Error as error:
        return Failed(code=error.code, detail=error.detail, extra=error.extra, resident=memory.resident())
    except MemoryError:
        detail = "The photo needs more memory than a decoder may use. Upload a smaller one."
        return Failed(code=Code.OUT_OF_MEMORY, detail=detail, extra={}, resident=memory.resident())
    finally:
        os.close(source)
    return Done(
        original=result.original,
        outputs=[msgspec.structs.replace(made, data=b"") for made in result.outputs],
        sizes=sizes,
        seconds=time.perf_counter() - started,
        peak_memory=memory.peak(),
        resident=memory.resident(),
    )


def _limit_processor(seconds: int) -> None:
    """Limit the processor time of a job: the kernel counts the whole process, so the limit grows with each job."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(usage.ru_utime + usage.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _mapped(file: int) -> memoryview:
    """Map the input into memory; an empty file cannot be mapped."""
    size = os.fstat(file).st_size
    return memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ) if size else b"")


def _write(outputs: list[engine.Output], file: int) -> list[int]:
    """Write the outputs one after the other; the worker reads them and then truncates the file."""
    at = 0
    for made in outputs:
        rest = memoryview(made.data)
        while rest:
            written = os.pwrite(file, rest, at)
            at, rest = at + written, rest[written:]
    return [made.size for made in outputs]


def _warm_up() -> None:
    """Let libvips load modules and start threads that the first photo would otherwise wait for."""
    engine.process(_PIXEL, BUILTIN["invert"])
    photo = engine.process(_PIXEL, _TYPICAL).outputs[0].data
    engine.process(photo, BUILTIN["web"])


if __name__ == "__main__":
    main()
