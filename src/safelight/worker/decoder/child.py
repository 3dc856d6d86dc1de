"""The worker's side of one decoder process."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import termios
from array import array
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import msgspec

from safelight.errors import Code, Error
from safelight.recipe import Recipe
from safelight.untrusted.text import printable
from safelight.worker.decoder import answers, awake
from safelight.worker.decoder.contract import Job, Result, Settings
from safelight.worker.decoder.frames import (
    MAX_ANSWER,
    Done,
    Failed,
    FromDecoder,
    Ready,
    Request,
    Setup,
    length_of,
    memory_file,
    pack,
    seal,
    unpack_from_decoder,
)
from safelight.worker.decoder.usage import Usage

_log = logging.getLogger(__name__)

# The variables that a decoder inherits; none of them is secret.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "FONTCONFIG_FILE", "FONTCONFIG_PATH", "HOME")
_ALLOCATORS = (
    "/usr/lib/*/libjemalloc.so.2",
    "/usr/lib64/libjemalloc.so.2",
    "/usr/lib/libjemalloc.so.2",
    "/usr/local/lib/libjemalloc.so.2",
)
_NO_MEMORY = (
    "failed to allocate", "bad_alloc", "MemoryError", "out of memory", "Cannot allocate memory", "memory allocation of",
)  # fmt: skip

_MEMORY_OF_SEVERAL = 512 << 20
"""Bytes that several outputs at the same time may need in addition to the limit for decoding a photo."""
_MOST_THREADS = 32
_READS = 16
_HANG_UP_GRACE = 2.0  # seconds for a decoder that has closed its socket to end


class UnreadError(Error):
    """A decoder ended or hung before it had read what it was sent, so a photo in it is not to blame."""

    def __init__(self, cause: Error) -> None:
        super().__init__(cause.code, cause.detail, **cause.extra)


class Child:
    """A running decoder process."""

    def __init__(
        self, process: subprocess.Popen[bytes], channel: socket.socket, output: int, messages: int, memory_limit: int
    ) -> None:
        self._process = process
        self._channel = channel
        self._output = output
        self._messages = messages
        self._memory_limit = memory_limit
        self._last_output = b""
        self._line = asyncio.Lock()
        self._busy = False
        self._jobs = 0
        self._resident = 0
        self._kills_seen = 0
        self._usage = Usage(process.pid, output)
        self._excess: Error | None = None
        self.end_reason = "recycled"
        """The reason why it would be replaced now."""

    @classmethod
    async def start(cls, settings: Settings, directory: Path) -> tuple[Child, Ready]:
        """Start a decoder in a working directory and wait until it has warmed up. Raises Error, OSError."""
        child = cls(*_spawn(directory), settings.memory_limit)
        setup = Setup(parent=os.getpid(), concurrency=settings.concurrency, memory_limit=settings.memory_limit)
        try:
            ready = await child._exchange(pack(setup), None, settings.start_limit)
            if isinstance(ready, Ready):
                if settings.sandbox == "require":
                    _require_sandbox(ready)
                return child, ready
        except BaseException:
            await child.end()
            raise
        await child.end()
        raise Error(Code.DECODER_CRASHED, "The decoder sent an unexpected message.")

    async def run(self, job: Job) -> Result:
        """Run a job. Raises the engine's errors, those of a decoder that has ended, and UnreadError."""
        self._jobs += 1
        self._busy, self.end_reason = True, "cancelled"
        try:
            answer = await self._ask(job)
            result = self._result(answer, job.recipe) if isinstance(answer, Done) else answer
        except Error as error:
            self.end_reason = error.code.value
            raise
        self._busy, self.end_reason = False, "recycled"
        if isinstance(result, Failed):
            raise answers.failure(result)
        return result

    @property
    def busy(self) -> bool:
        """Whether it processes a photo."""
        return self._busy

    def reusable(self, settings: Settings) -> bool:
        """Return whether the decoder can take another job."""
        return (
            not self._busy
            and self._process.poll() is None
            and not self._speaks()
            and self._jobs < settings.recycle_after
            and self._resident < settings.recycle_memory
        )

    def _speaks(self) -> bool:
        """Return whether there is an unsolicited answer, which would be taken for the answer to the next photo."""
        try:
            return bool(self._channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def watch(self, settings: Settings) -> None:
        """End the process if it exceeds its limits; to be called regularly."""
        if self._output < 0 or self._process.poll() is not None:
            return
        self._excess = self._usage.excess(settings.memory_limit, busy=self._busy)
        if self._excess is not None:
            _log.warning("decoder %d is ended: %s", self._process.pid, self._excess.detail)
            self._process.kill()

    async def end(self) -> None:
        """End the decoder, whatever it is doing, also if this is cancelled. Calling it again changes nothing."""
        ending = asyncio.create_task(self._end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise

    async def _end(self) -> None:
        await self._kill()
        async with self._line:  # a caller that waits for an answer must learn of the end first
            self._channel.close()
            for file in (self._output, self._messages):
                if file >= 0:
                    os.close(file)
            self._output = self._messages = -1

    async def _ask(self, job: Job) -> Done | Failed:
        self._kills_seen = _kernel_kills()
        threads = self._threads(job)
        cpu_limit = math.ceil(job.time_limit * (threads + 1)) + 1
        request = Request(recipe=job.recipe, limits=job.limits, cpu_limit=cpu_limit, threads=threads)
        source = _opened(job.source)
        try:
            answer = await self._exchange(pack(request), source, job.time_limit)
        finally:
            os.close(source)
        if isinstance(answer, Ready):
            raise Error(Code.DECODER_CRASHED, "The decoder sent an unexpected message.")
        self._resident = answer.resident
        self._read_messages()
        return answer

    def _threads(self, job: Job) -> int:
        """Return how many threads may process a photo: one if several could need more memory than there is."""
        roomy = self._memory_limit >= job.limits.max_memory + _MEMORY_OF_SEVERAL
        return min(job.threads, _MOST_THREADS, len(job.recipe.outputs)) if roomy else 1

    async def _exchange(self, frame: bytes, source: int | None, limit: float) -> FromDecoder:
        """Send one frame and receive one. If this is interrupted, the decoder can no longer be used."""
        async with self._line:
            try:
                async with awake.timeout(limit):
                    await self._send(frame, source)
                    head = await self._receive(4)
                    return unpack_from_decoder(await self._receive(length_of(head, MAX_ANSWER)))
            except TimeoutError:
                unread = self._has_unread()
                await self._kill()
                detail = f"The decoder took longer than {limit:g} s and was stopped."
                slow = Error(Code.TIMED_OUT, detail, limit=limit)
                raise (UnreadError(slow) if unread else slow) from None
            except ConnectionError:  # its end was closed with unread bytes in it, or before they were sent
                raise UnreadError(await self._cause()) from None
            except EOFError:
                raise await self._cause() from None
            except (ValueError, msgspec.MsgspecError) as error:
                await self._kill()
                raise Error(Code.DECODER_CRASHED, f"The decoder's answer cannot be read: {error}.") from None

    async def _send(self, frame: bytes, source: int | None) -> None:
        head, rest = frame[:4], memoryview(frame)[4:]
        socket.send_fds(self._channel, [head], [] if source is None else [source])
        await asyncio.get_running_loop().sock_sendall(self._channel, rest)

    def _has_unread(self) -> bool:
        """Return whether the decoder has not read all that it was sent."""
        left = array("i", [0])
        fcntl.ioctl(self._channel, termios.TIOCOUTQ, left)
        return left[0] > 0

    async def _receive(self, count: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < count:
            part = await loop.sock_recv(self._channel, count - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _result(self, done: Done, recipe: Recipe) -> Result:
        """Read the outputs. Check the sizes that the decoder reports against the bytes that it has written."""
        written = os.fstat(self._output).st_size
        if len(done.sizes) != len(done.outputs) or min(done.sizes, default=0) < 0 or sum(done.sizes) > written:
            raise Error(Code.DECODER_CRASHED, "The decoder reported outputs that it has not written.")
        made = answers.outputs(done, recipe, self._fetch(done.sizes))
        return Result(outputs=made, original=done.original, seconds=done.seconds, peak_memory=done.peak_memory)

    def _fetch(self, sizes: list[int]) -> list[bytes]:
        data, at = [], 0
        for size in sizes:
            data.append(os.pread(self._output, size, at))
            at += size
        os.ftruncate(self._output, 0)
        return data

    async def _kill(self) -> None:
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    async def _cause(self) -> Error:
        """Return why a decoder has closed its socket, as far as that is known."""
        during = "on this photo" if self._jobs else "while it started"
        try:
            status = await asyncio.to_thread(self._process.wait, _HANG_UP_GRACE)
        except subprocess.TimeoutExpired:
            await self._kill()
            return Error(Code.DECODER_CRASHED, f"The decoder stopped answering {during}.")
        self._read_messages()
        if self._excess is not None:
            return self._excess
        last_output = printable(self._last_output.decode(errors="replace"))
        _log.warning("Decoder %d ended with status %d. It last wrote: %s", self._process.pid, status, last_output)
        if any(word in last_output for word in _NO_MEMORY):
            return _too_large()
        if status >= 0:
            detail = f"The decoder ended with status {status} {during}."
            return Error(Code.DECODER_CRASHED, detail, exit_status=status)
        name = _name_of(-status)
        if name == "SIGXCPU":
            return Error(Code.TIMED_OUT, "The photo took more processor time than it may.")
        if name == "SIGKILL" and _kernel_kills() > self._kills_seen:
            return _too_large()
        return Error(Code.DECODER_CRASHED, f"The decoder was ended by {name} {during}.", signal=name)

    def _read_messages(self) -> None:
        """Read its standard error, where libraries report problems, and remember the end of it."""
        try:
            for _ in range(_READS):  # do not wait for a decoder that never stops writing
                if self._messages < 0 or not (said := os.read(self._messages, 65536)):
                    return
                self._last_output = (self._last_output + said)[-4096:]
        except BlockingIOError:
            return


def _require_sandbox(ready: Ready) -> None:
    lacking = [*ready.missing, *(f"a decoder could {escape}" for escape in ready.escapes)]
    if lacking:
        detail = (
            f"The sandbox of the decoders is not complete here. Missing: {'; '.join(map(answers.text, lacking))}. "
            "Use a kernel that has it, or start with --sandbox prefer and accept the risk."
        )
        raise Error(Code.UNAVAILABLE, detail)


def _spawn(directory: Path) -> tuple[subprocess.Popen[bytes], socket.socket, int, int]:
    """Start the program; return it, the worker's end of its socket, the file of its outputs, and its standard error.

    This does not use asyncio's subprocesses, because some versions wait forever if they are cancelled during the start.
    """
    with ExitStack() as on_failure, ExitStack() as afterwards:
        ours, theirs = socket.socketpair()
        on_failure.callback(ours.close)
        afterwards.callback(theirs.close)
        ours.setblocking(False)  # noqa: FBT003 -- the socket module's signature
        output = memory_file("safelight outputs")
        on_failure.callback(os.close, output)
        messages, write = os.pipe()
        on_failure.callback(os.close, messages)
        afterwards.callback(os.close, write)
        for end in (messages, write):  # a decoder must never wait until the worker reads
            os.set_blocking(end, False)
        # A session of its own, so that Ctrl-C in a terminal reaches only the worker, which then drains.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "safelight.worker.decoder.program", str(theirs.fileno()), str(output)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=write,
            cwd=directory,
            env=_environment(),
            pass_fds=(theirs.fileno(), output),
            start_new_session=True,
        )
        on_failure.pop_all()
    return process, ours, output, messages


def _name_of(number: int) -> str:
    """Return the name of a signal; of the real-time ones, only the first and the last have one in Python."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _too_large() -> Error:
    detail = "The photo needs more memory than a decoder may use. Upload a smaller one."
    return Error(Code.OUT_OF_MEMORY, detail)


def _environment() -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry)
    environment["MALLOC_ARENA_MAX"] = "2"
    # jemalloc would keep address space, of which it takes ever larger pieces, and all of it counts as allocated.
    environment["MALLOC_CONF"] = "retain:false"
    if allocator := _allocator():
        environment["LD_PRELOAD"] = allocator
    return environment


@cache
def _allocator() -> str | None:
    """Return the system's jemalloc, because with glibc's allocator a long-lived process with libvips keeps growing."""
    found = (str(path) for pattern in _ALLOCATORS for path in Path("/").glob(pattern.removeprefix("/")))
    return next(found, None)


def _opened(source: bytes | Path) -> int:
    """Return a file descriptor of the input."""
    if isinstance(source, Path):
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    file = memory_file("safelight input")
    rest = memoryview(source)
    while rest:
        rest = rest[os.write(file, rest) :]
    seal(file)
    return file


def _kernel_kills() -> int:
    """Return how often the kernel of this machine has killed a process for lack of memory (proc(5), vmstat)."""
    try:
        statistics = Path("/proc/vmstat").read_bytes()
    except OSError:
        return 0
    _, found, rest = statistics.partition(b"\noom_kill ")
    return int(rest.split(maxsplit=1)[0]) if found else 0
