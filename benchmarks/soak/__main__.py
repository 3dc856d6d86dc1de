"""Run the whole system under load for a long time, and kill, stop, freeze and cut off its programs at random.

    PYTHONPATH=tests python -m benchmarks.soak [--in processes|machines] [--minutes 10] [--seed N] [--calm 20]
        [--pause 0.2] [--rest 0] [--guest linux|osv] [--kinds kill,stop,freeze,cut]

With `--in processes`, each program has a network namespace of its own, which needs root. With `--in machines`, the soak
brings up deploy/fleet.yaml under another name, in DRUMHEAD_HOME, from the image `safelight` (drumhead package compose
safelight).

Clients upload all the time. At the end, the rules of tests/kills/history.py judge the answers that they and all readers
got. Nothing may be lost or published twice, and a task may only be charged with the death of a worker that was killed.
In the middle half of the run, nothing is killed or stopped. When the load pauses at the end of this half, memory and
descriptors must be what they were at its beginning. The program prints one row per minute and exits with 1 if
something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from benchmarks.soak.machines import Machines
from benchmarks.soak.processes import Processes
from benchmarks.soak.target import Sample, Target

from kills.clients import seen_all, settled, upload_once, upload_until, watch
from kills.deaths import taken_up, wrongly_blamed
from kills.history import History
from kills.readers import follow_stream, webhooks
from safelight.wire import State
from support.photos import is_inverse, photo
from support.programs.until import until

CLIENTS, BURST = 3, 12
"""Concurrent uploads, and the uploads that are sent so that a worker has tasks when it ends."""
GROWTH, DESCRIPTORS = 48.0, 48
"""How many more MiB and descriptors a program may have at the end, for instance for open connections."""
HEARD = 120.0
"""Seconds at the end within which workers that were out of reach must be heard again."""
TIMEOUT = 300.0
"""Seconds to wait for whatever must happen; an emulated machine takes a minute to boot on a busy host."""


@dataclass(frozen=True)
class Plan:
    """Describe a run. All times except `minutes` are in seconds."""

    minutes: float
    seed: int
    calm: float
    """How long no fault happens before memory is measured."""
    pause: float
    """The pause between two uploads of a client."""
    rest: float
    """The pause after each fault, once the system has recovered."""
    kinds: Sequence[str]
    """The kinds of faults that may happen; by default all."""


class Soak:
    """Run the soak once."""

    def __init__(self, target: Target, history: History, url: str, plan: Plan) -> None:
        """Prepare a run whose webhooks call `url`."""
        self._target = target
        self._plan = plan
        self._chance = random.Random(plan.seed)
        self.history = history
        self._kinds = [kind for kind in target.kinds if kind in plan.kinds or not plan.kinds]
        self._lasting = [kind for kind in target.lasting if kind in self._kinds]
        self.counts = dict.fromkeys(self._kinds, 0)
        self.recoveries: list[float] = []
        self._numbers = itertools.count()
        self._bursts: list[asyncio.Task[None]] = []
        self._url = url

    async def run(self) -> list[str]:
        """Load and disturb the system; return a list of what went wrong."""
        begun, seconds, target = time.monotonic(), self._plan.minutes * 60, self._target
        print(f"{'minute':>6} {'uploads':>8} {'longest gap':>12}  disturbed", flush=True)
        stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession())
            watcher = asyncio.create_task(watch(target.client, self.history))
            pause = self._plan.pause
            stream = asyncio.create_task(follow_stream(http, target.url, self.history, target.headers))
            uploads = [
                asyncio.create_task(
                    upload_until(stop, target.client, self.history, self._numbers, webhook=self._url, pause=pause)
                )
                for _ in range(CLIENTS)
            ]
            await self._disturb(begun + seconds / 4, self._kinds, begun)
            before = await self._take_samples()
            await self._disturb(begun + 3 * seconds / 4, self._lasting, begun)
            after = await self._take_samples()
            await self._disturb(begun + seconds, self._kinds, begun)
            stop.set()
            await asyncio.gather(*uploads, *self._bursts)
            await settled(target.client, self.history, time_limit=TIMEOUT)
            await self._all_are_heard()
            await seen_all(watcher, self.history, time_limit=TIMEOUT)
            await self._readers_are_done()
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)
        wrong = [*self.history.violations(), *wrongly_blamed(self.history, target.killed)]
        self._report_taken_up()
        return [*wrong, *self._grown(before, after)]

    async def _disturb(self, until: float, kinds: Sequence[str], begun: float) -> None:
        """Cause one fault after another until the time `until`, each followed by new uploads."""
        minute = int((time.monotonic() - begun) / 60)
        for kind in itertools.cycle(kinds):
            if time.monotonic() >= until:
                return
            if kind in ("kill", "stop"):
                await self._burst()
            await self._target.disturb(kind, self._chance)
            self.counts[kind] += 1
            over = time.monotonic()
            await self._more(2 * CLIENTS)
            self.recoveries.append(time.monotonic() - over)
            await asyncio.sleep(self._plan.rest)
            if (passed := int((time.monotonic() - begun) / 60)) > minute:
                minute = passed
                self._report(minute)

    def _report(self, minute: int) -> None:
        done = len(self.history.acknowledged)
        print(f"{minute:6} {done:8} {max(self.recoveries):10.1f} s  {_counted(self.counts)}", flush=True)

    async def _burst(self) -> None:
        """Send several uploads at once, and wait for half of them."""
        for _ in range(BURST):
            upload = upload_once(self._target.client, self.history, next(self._numbers), webhook=self._url)
            self._bursts.append(asyncio.create_task(upload))
        await self._more(BURST // 2)

    async def _more(self, count: int) -> None:
        """Wait until `n` more uploads are acknowledged."""
        enough = len(self.history.acknowledged) + count
        await until(lambda: len(self.history.acknowledged) >= enough, timeout=TIMEOUT)

    async def _take_samples(self) -> dict[str, Sample]:
        """Measure every program once its memory has settled after the last fault."""
        await asyncio.sleep(self._plan.calm)
        return self._target.samples()

    async def _readers_are_done(self) -> None:
        ends = max(task.seq for task in self.history.final.values())
        finished = {task.id for task in self.history.final.values() if task.state is State.FINISHED}
        await until(lambda: self.history.readers["stream"][-1].seq >= ends, timeout=TIMEOUT)
        await until(lambda: not finished - (self.history.called or {}).keys(), timeout=TIMEOUT)

    async def _all_are_heard(self) -> None:
        """Wait until workers that were out of reach have taken back the deaths of their tasks, or until a time
        limit."""

        async def nobody_is_blamed() -> bool:
            for name, task in self.history.final.items():
                if task.deaths:
                    self.history.final[name] = await self._target.client.task(name)
            return not wrongly_blamed(self.history, self._target.killed)

        with suppress(TimeoutError):
            await until(nobody_is_blamed, timeout=HEARD)

    def _report_taken_up(self) -> None:
        """Print how soon the tasks of ended workers were leased again. This is not judged: other load can delay it."""
        found = taken_up(self.history, self._target.killed, self._target.stopped)
        print(f"\ntaken up after a kill (lease {self._target.lease:g} s): {_spread(found.killed, ' s')}")
        beside = self._target.beside
        rows = {
            "taken up after a worker stopped": found.stopped,
            "    of that, until db had the task back": found.handed,
            "    of that, until the worker logged that it stops": beside.signal,
            "    and from there until it logged that it hands back": beside.handing,
            "beside: an answer of a machine's first process": beside.init,
            "beside: a request from here to the master, which asks db": beside.request,
            "given back for a cut or a freeze": found.returned,
        }
        for name, seconds in rows.items():
            print(f"{name}: {_spread([1000 * one for one in seconds], ' ms')}")

    def _grown(self, before: dict[str, Sample], after: dict[str, Sample]) -> list[str]:
        wrong = []
        print(f"\n{'program':>14} {'MiB':>14} {'descriptors':>14}")
        for name, then in before.items():
            now = after[name]
            print(f"{name:>14} {then.memory:6.1f} → {now.memory:5.1f} {then.descriptors:6} → {now.descriptors:5}")
            if now.memory > then.memory + self._target.memory.get(name, GROWTH):
                wrong.append(f"{name} has grown from {then.memory:.0f} to {now.memory:.0f} MiB")
            if now.descriptors > then.descriptors + self._target.descriptors.get(name, DESCRIPTORS):
                wrong.append(f"{name} had {then.descriptors} descriptors and has {now.descriptors}")
        return wrong


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items())


def _spread(values: list[float], unit: str) -> str:
    if not values:
        return "none"
    values = sorted(values)
    middle, last = values[len(values) // 2], values[-1]
    return f"{len(values)}: {middle:.1f}{unit} (median), {last:.1f}{unit} at most"


def _processor() -> float:
    """Return the processor seconds of this program and its children, without orphaned processes."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


async def soak(running: AbstractAsyncContextManager[Target], plan: Plan) -> bool:
    """Run the soak and print its result; return whether all was well."""
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(running)
        history = History(lambda number, result: is_inverse(photo(number), result))
        url = await stack.enter_async_context(webhooks(history, target.listen))
        run = Soak(target, history, url.replace(target.listen, target.webhook_host), plan)
        wrong = await run.run()
    done, times = len(run.history.acknowledged), sorted(run.recoveries)
    print(f"\n{done} photos acknowledged of {len(run.history.calls)} uploads, seed {plan.seed}; {_counted(run.counts)}")
    print(f"{2 * CLIENTS} more after a fault: {times[len(times) // 2]:.1f} s (median), {times[-1]:.1f} s at most")
    print(f"{_processor():.0f} s of processor")
    print(*(f"WRONG: {each}" for each in wrong), sep="\n")
    return not wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in", dest="place", choices=["processes", "machines"], default="processes")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--calm", type=float, default=20, help="seconds without faults before memory is measured")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two uploads of a client")
    parser.add_argument("--rest", type=float, default=0, help="seconds between two faults")
    parser.add_argument("--guest", choices=["linux", "osv"], default="linux", help="which guest the machines run")
    parser.add_argument(
        "--kinds", default="", help="the kinds of faults that may happen, separated by commas; by default all"
    )
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    machines = options.place == "machines"
    running = Machines.running(directory, options.guest) if machines else Processes.running(directory)
    kinds = options.kinds.split(",") if options.kinds else []
    plan = Plan(options.minutes, options.seed, options.calm, options.pause, options.rest, kinds)
    if not asyncio.run(soak(running, plan)):
        print(f"The data are in {directory}")
        sys.exit(1)
    shutil.rmtree(directory)
    print("Nothing lost, nothing twice, nobody blamed; every reader has seen all")


if __name__ == "__main__":
    main()
