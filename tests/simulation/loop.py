"""An event loop with simulated time, and the processes that run on it.

When nothing is ready, the clock jumps to the next timer. Everything runs on one thread: functions that the product
gives to a thread run on the loop, after a delay that the seed chooses. Each callback belongs to the process in whose
context it was scheduled. No code of a dead process runs, not even its clean-up; code of a frozen process runs later.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulation.disk import Disk
    from simulation.network import Network

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
"""The current process; None for the simulation itself."""

_EPSILON = 1e-7


class Process:
    """One run of a program on its own machine."""

    def __init__(self, name: str, number: int, data: Path) -> None:
        self.name = name
        self.number = number
        self.data = data
        self.alive = True
        self.wall_offset = 0.0
        """Seconds by which the machine's wall clock is wrong."""
        self.disk: Disk | None = None
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)
        self._frozen: list[asyncio.Handle] | None = None
        self._kept: list[object] = []
        """Objects whose destruction would run clean-up code, kept alive by these references."""

    def __repr__(self) -> str:
        return f"{self.name}#{self.number}"

    def freeze(self) -> None:
        """Suspend the process, as SIGSTOP does."""
        if self._frozen is None:
            self._frozen = []

    def thaw(self, loop: SimulatedLoop) -> None:
        """Resume the process."""
        if self._frozen is not None:
            loop.resume(self._frozen)
            self._frozen = None

    def keep(self, item: object) -> None:
        """Keep an object from being destroyed."""
        self._kept.append(item)

    def admits(self, handle: asyncio.Handle) -> bool:
        """Return whether a callback may run now."""
        if not self.alive:
            self._kept.append(handle)
            return False
        if self._frozen is not None:
            self._frozen.append(handle)
            return False
        return True


class _Handle(asyncio.Handle):
    def _run(self) -> None:
        process = self._context.get(PROCESS)
        if process is None or process.admits(self):
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    def _run(self) -> None:
        process = self._context.get(PROCESS)
        if process is None or process.admits(self):
            super()._run()


class _Jump:
    """Replace the loop's selector: waiting takes no time."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        self._loop.advance(timeout)
        return []


class SimulatedLoop(asyncio.BaseEventLoop):
    """Run callbacks in simulated time, as the module describes."""

    network: Network

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._now = 1000.0
        self._clock_resolution = 1e-9
        self._selector = _Jump(self)
        self._last_answer = 0.0
        self._busy: dict[int, float] = {}
        self.slow_disk = 0.0
        """Seconds by which threads may currently be slower."""
        self.in_thread = False
        """Whether the current code is that of a thread."""
        self.spent = 0.0
        """Seconds that the thread has taken so far; only for the thread, the clock is ahead by them."""
        self.set_task_factory(_keep_task)

    def time(self) -> float:
        return self._now + self.spent

    def act(self, function: Callable[[], Any]) -> float:
        """Run a thread's function without interruption; return the seconds that it takes in the thread."""
        self.in_thread = True
        try:
            function()
        finally:
            spent, self.spent, self.in_thread = self.spent, 0.0, False
        return spent

    def advance(self, seconds: float) -> None:
        self._now += max(0.0, seconds)

    def resume(self, handles: list[asyncio.Handle]) -> None:
        """Run callbacks that waited for their frozen process."""
        self._ready.extend(handle for handle in handles if not handle.cancelled())

    async def create_server(self, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await self.network.create_server(factory, host, port, **options)

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await self.network.create_connection(factory, **options)

    async def sendfile(
        self, transport: Any, file: Any, offset: int = 0, count: int | None = None, *, fallback: bool = True
    ) -> int:
        """Send a file as the kernel would."""
        data: bytes = await self.run_in_executor(None, os.pread, file.fileno(), count or 0, offset)
        if transport.is_closing():
            raise ConnectionResetError("Cannot write to closing transport")
        transport.write(data)
        return len(data)

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _call_soon(self, callback: Any, args: Any, context: contextvars.Context | None) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        """Run a callback of another thread: slightly later, and in order."""
        self._last_answer = max(self._last_answer, self.time() + self._rng.uniform(0, 0.0005)) + _EPSILON
        return self.call_at(self._last_answer, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run a function without interruption after a delay; its result arrives after another delay."""
        future = self.create_future()
        when = self._now + self.disk_delay()
        if isinstance(executor, ThreadPoolExecutor) and executor._max_workers == 1:
            when = self._busy[id(executor)] = max(when, self._busy.get(id(executor), 0.0)) + _EPSILON
        self.call_at(when, self._run_function, future, func, args)
        return future

    def disk_delay(self) -> float:
        """Return the seconds until a thread starts its work."""
        slow = self._rng.uniform(0, self.slow_disk) if self.slow_disk else 0.0
        return self._rng.uniform(0.00005, 0.002) + slow

    def _run_function(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if future.cancelled():
            return
        results: list[tuple[Any, Exception | None]] = []

        def call() -> None:
            try:
                results.append((func(*args), None))
            except Exception as raised:  # noqa: BLE001 - it is given to whoever waits
                results.append((None, raised))

        spent = self.act(call)
        self.call_later(spent + self._rng.uniform(0.00005, 0.0005), _settle, future, *results[0])


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _keep_task(loop: Any, coroutine: Any, context: Any = None) -> asyncio.Task[Any]:
    """Make a task that lives as long as its process, so that a crash does not run its `finally`."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
    process = PROCESS.get() if context is None else context.get(PROCESS)
    if process is not None:
        process.keep(task)
    return task


class OneThread:
    """Replace `threading.Thread`: the thread runs only when it is joined."""

    def __init__(self, *, target: Callable[[], None], name: str = "", daemon: bool = False) -> None:
        self._target = target
        self.name, self.daemon = name, daemon

    def start(self) -> None:
        """Do nothing."""

    def join(self) -> None:
        """Run the thread to its end."""
        self._target()


class Pump:
    """Repeat one step while there is work, each time after a delay."""

    def __init__(self, loop: SimulatedLoop, step: Callable[[], None], more: Callable[[], bool]) -> None:
        self._loop, self._step, self._more = loop, step, more
        self._due = False
        self._free_at = 0.0

    def wake(self) -> None:
        """Schedule a step, because there is work."""
        if not self._due:
            self._due = True
            self._loop.call_at(max(self._loop.time(), self._free_at) + self._loop.disk_delay(), self._run)

    def _run(self) -> None:
        self._due = False
        if self._more():
            self._free_at = self._loop.time() + self._loop.act(self._step)
            if self._more():
                self.wake()
