"""Test decoder pools: results, failures that affect only one picture, replaced decoders, and clean-up."""

import asyncio
import contextlib
import gc
import importlib.util
import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from safelight import engine
from safelight.engine import Limits
from safelight.errors import Code, Error
from safelight.recipe import BUILTIN, Recipe, parse
from safelight.worker.decoder import Job, NoDecoderError, Settings, open_pool
from safelight.worker.decoder.child import Child
from support.programs import pids
from support.programs.until import readable, until

MIB = 1024 * 1024
PHOTO = Path(importlib.util.find_spec("skimage").submodule_search_locations[0]) / "data" / "rocket.jpg"
# This takes minutes on any machine.
ENDLESS = parse(
    {"outputs": {"a": {"operations": [{"op": "resize", "width": 9000, "enlarge": True}, {"op": "blur", "sigma": 100}]}}}
)
TWO_FORMATS = parse({"outputs": {"a": {"format": "webp"}, "b": {"format": "png"}}})


def job(source=PHOTO, recipe=BUILTIN["invert"], **fields):
    return Job(source=source, recipe=recipe, **fields)


def children():
    return [pid for pid in pids.children(os.getpid()) if b"decoder.program" in command_line(pid)]


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return b""


def processor_time(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_files():
    gc.collect()  # close now what earlier tests left open, not between two counts
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this listing
            found.append(str(fd.readlink()).split(":")[0])
    return sorted(found)


async def started(work):
    """Let a job reach its decoder; the pool sends the job's frame before it first waits."""
    task = asyncio.create_task(work)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def failure(awaitable):
    with pytest.raises(Error) as caught:
        async with asyncio.timeout(30):
            await awaitable
    return caught.value


@pytest.fixture(params=["process", "thread"])
async def pool(request):
    async with open_pool(Settings(isolation=request.param, count=2)) as opened:
        yield opened


async def test_bytes_and_files_give_all_outputs(pool):
    for source in (PHOTO, PHOTO.read_bytes()):
        result = await pool.process(job(source, TWO_FORMATS))
        assert [output.name for output in result.outputs] == ["a", "b"]
        assert [Image.open(io.BytesIO(output.data)).format for output in result.outputs] == ["WEBP", "PNG"]
        assert (result.original.format, result.original.width) == ("jpeg", 640)
        assert 0 < result.seconds < 30
    assert "vips" in pool.version


async def test_a_confined_decoder_makes_what_the_engine_makes(pool):
    mark = {"op": "watermark", "text": "safelight", "font": "serif"}
    recipe = parse({"outputs": {"a": {"operations": [mark]}, "b": {"format": "avif", "effort": 1}}})
    result = await pool.process(job(recipe=recipe))
    # The bytes that an AVIF encoder writes depend on its number of threads.
    engine.set_concurrency(Settings().concurrency)
    assert result.outputs == engine.process(PHOTO, recipe).outputs


@pytest.mark.slow
async def test_many_at_once_and_large_outputs(pool):
    enlarge = parse(
        {"outputs": {"a": {"operations": [{"op": "resize", "width": 2000, "enlarge": True}], "format": "png"}}}
    )
    results = await asyncio.gather(*(pool.process(job(recipe=enlarge)) for _ in range(6)))
    assert len({result.outputs[0].data for result in results}) == 1
    assert results[0].outputs[0].size > MIB


async def test_the_engines_errors_arrive_with_all_their_members(pool):
    error = await failure(pool.process(job(b"<html>")))
    assert (error.code, error.detail.startswith("The file is a web page")) == (Code.NOT_AN_IMAGE, True)
    error = await failure(pool.process(job(limits=Limits(max_pixels=10))))
    assert (error.code, error.extra) == (Code.TOO_MANY_PIXELS, {"limit": 10})
    error = await failure(pool.process(job(b"")))
    assert error.code is Code.NOT_AN_IMAGE
    assert (await pool.process(job())).outputs
    assert not pool.restarts


@pytest.mark.slow
async def test_a_job_past_its_time_limit_is_stopped_without_affecting_others(pool):
    endless, neighbour = await asyncio.gather(
        failure(pool.process(job(recipe=ENDLESS, time_limit=0.5))), pool.process(job(recipe=BUILTIN["web"]))
    )
    assert endless.code is Code.TIMED_OUT
    assert len(neighbour.outputs) == 6
    await asyncio.gather(*(pool.process(job()) for _ in range(4)))


@pytest.mark.slow
async def test_cancelling_a_job_frees_its_decoder(pool):
    tasks = [await started(pool.process(job(recipe=ENDLESS))) for _ in range(2)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(30):
        assert (await pool.process(job())).outputs


SAYS_THREADS = """
from safelight.errors import Code, Error
raise Error(Code.OPERATION_FAILED, f"{options['threads']} threads")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "threads", "recipe", "used"),
    [(2048, 1, "web", 1), (2048, 2, "web", 2), (2048, 9, "web", 6), (2048, 9, "invert", 1), (1024, 9, "web", 1)],
)
async def test_threads_are_used_as_far_as_outputs_and_memory_allow(hostile, attack, memory, threads, recipe, used):
    async with hostile(memory_limit=memory * MIB) as pool:
        error = await failure(pool.process(attack(SAYS_THREADS, threads=threads, recipe=BUILTIN[recipe])))
    assert error.detail == f"{used} threads"


@pytest.mark.slow
async def test_several_threads_give_the_same_results_in_a_sandbox(pool):
    results = await asyncio.gather(*(pool.process(job(recipe=BUILTIN["web"], threads=n)) for n in (1, 2, 6)))
    assert results[0].outputs == results[1].outputs == results[2].outputs


@pytest.mark.slow
async def test_the_limits_hold_for_several_threads():
    (endless,) = ENDLESS.outputs.values()
    twice = Recipe(outputs={"a": endless, "b": endless})
    async with open_pool(Settings(count=1)) as pool:
        error = await failure(pool.process(job(recipe=twice, time_limit=0.5, threads=4)))
        assert error.code is Code.TIMED_OUT
        task = await started(pool.process(job(recipe=twice, threads=4)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len((await pool.process(job(recipe=BUILTIN["web"], threads=4))).outputs) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS"])
async def test_a_crash_is_charged_to_one_job(name):
    async with open_pool(Settings(count=2)) as pool:
        before = {pid: processor_time(pid) for pid in children()}
        tasks = [await started(pool.process(job(recipe=ENDLESS)))]
        await until(lambda: any(processor_time(pid) > least + 0.1 for pid, least in before.items()))
        victim, other = sorted(before, key=lambda pid: processor_time(pid) - before[pid], reverse=True)
        os.kill(other, signal.SIGSTOP)  # so that its job is certainly in progress
        tasks.append(await started(pool.process(job())))
        os.kill(victim, getattr(signal, name))
        os.kill(other, signal.SIGCONT)
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(pool.process(job()) for _ in range(4)))
        (error,) = (outcome for outcome in outcomes if isinstance(outcome, Exception))
        assert isinstance(error, Error)
        assert (error.code, error.extra["signal"]) == (Code.DECODER_CRASHED, name)
        assert not error.transient
        assert pool.restarts == {"decoder_crashed": 1}
        # The other decoder may have done all four before the new one was started.
        await until(lambda: len(set(children()) - set(before)) == 1)


@pytest.mark.slow
async def test_a_decoder_that_dies_idle_costs_no_job():
    async with open_pool(Settings(count=1)) as pool:
        for _ in range(5):
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
            assert (await pool.process(job())).outputs
        assert pool.restarts == {"died_idle": 5}


@pytest.mark.slow
@pytest.mark.parametrize("dies", [True, False], ids=["dies", "hangs"])
async def test_a_photo_that_a_decoder_does_not_read_is_given_to_another(dies):
    """Stop a decoder before it can read the photo."""
    async with open_pool(Settings(count=1)) as pool:
        (pid,) = children()
        os.kill(pid, signal.SIGSTOP)
        task = await started(pool.process(job(time_limit=60.0 if dies else 3.0)))
        if dies:
            os.kill(pid, signal.SIGKILL)
        assert (await task).outputs
        assert pool.restarts == {"died_idle": 1}


@pytest.mark.slow
async def test_a_photo_that_no_decoder_reads_is_not_to_blame(monkeypatch):
    send, kills = Child._send, []

    async def kill_and_send(child, frame, source):
        if source is not None:
            kills.append(child)
            await child._kill()
        await send(child, frame, source)

    monkeypatch.setattr(Child, "_send", kill_and_send)
    async with open_pool(Settings(count=2)) as pool:
        error = await failure(pool.process(job()))
        assert isinstance(error, NoDecoderError)
        assert "before they had read a photo" in error.detail
        assert len(kills) == 3
        monkeypatch.undo()
        assert (await pool.process(job())).outputs


async def test_a_decoder_for_which_there_was_no_memory_is_started_later(monkeypatch):
    start, refused = Child.start, asyncio.Event()

    async def start_later(*arguments):
        if refused.is_set():
            return await start(*arguments)
        refused.set()
        raise MemoryError

    async with open_pool(Settings(count=1)) as pool:
        (pid,) = children()
        monkeypatch.setattr(Child, "start", start_later)
        os.kill(pid, signal.SIGKILL)
        error = await failure(pool.process(job()))
        assert isinstance(error, NoDecoderError)
        assert "no memory left" in error.detail
        assert (await pool.process(job())).outputs


@pytest.mark.slow
async def test_decoders_are_recycled():
    async with open_pool(Settings(count=1, recycle_after=3)) as pool:
        seen = set()
        for _ in range(7):
            await pool.process(job())
            seen |= set(children())
        assert len(seen) >= 3
        assert pool.restarts["recycled"] == 2


@pytest.mark.slow
async def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = open_files()
    async with open_pool(Settings(count=2)) as pool:
        assert len(children()) == 2
        await pool.process(job(PHOTO.read_bytes()))
        await failure(pool.process(job(b"")))
        during = open_files()
        for _ in range(20):
            await pool.process(job())
        assert open_files() == during
    assert children() == []
    assert open_files() == before
    assert list(tmp_path.iterdir()) == []


async def test_a_thread_that_cannot_start_takes_no_place():
    async with open_pool(Settings(isolation="thread", count=1)) as pool:
        usual = threading.stack_size(1 << 60)  # more than there are addresses
        try:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await pool.process(job(recipe=ENDLESS))
        finally:
            threading.stack_size(usual)
        async with asyncio.timeout(30):
            assert (await pool.process(job())).outputs


async def test_closing_a_pool_ends_its_jobs():
    async with open_pool(Settings(count=2)) as pool:
        tasks = [await started(pool.process(job(recipe=ENDLESS))) for _ in range(3)]
    errors = [await failure(task) for task in tasks[:2]]
    assert [error.code for error in errors] == [Code.DECODER_CRASHED] * 2
    assert children() == []
    tasks[2].cancel()


@pytest.mark.slow
async def test_starting_can_be_cancelled():
    before = open_files()
    for turns in range(12):
        entering = asyncio.create_task(open_pool(Settings(count=2)).__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        entering.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(entering, return_exceptions=True)
    assert children() == []
    assert open_files() == before


@pytest.mark.slow
async def test_a_pool_can_end_while_a_decoder_is_replaced():
    before = open_files()
    for turns in range(10):
        async with open_pool(Settings(count=1)) as pool:
            (pid,) = children()
            watch = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            await readable(watch)
            work = asyncio.create_task(pool.process(job()))
            for _ in range(turns):
                await asyncio.sleep(0)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
    assert children() == []
    assert open_files() == before


async def test_a_pool_that_cannot_start_raises_an_error():
    error = await failure(open_pool(Settings(count=1, start_limit=0.001)).__aenter__())
    assert error.code is Code.UNAVAILABLE
    assert error.transient
    assert children() == []


PARENT = """
import asyncio, os, sys
from pathlib import Path
from safelight.worker.decoder import Settings, open_pool
async def main():
    async with open_pool(Settings(count=2)) as pool:
        assert "pyvips" not in sys.modules
        tasks = Path("/proc/self/task").iterdir()
        print(*(pid for task in tasks for pid in (task / "children").read_text().split()), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.slow
async def test_decoders_die_with_their_worker():
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=subprocess.PIPE)
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 2
    watches = [os.pidfd_open(pid) for pid in pids]
    parent.kill()
    for watch in watches:
        await readable(watch)
    await parent.communicate()


def environment(pid):
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_decoder_knows_no_secrets(monkeypatch):
    monkeypatch.setenv("SAFELIGHT_KEY", "secret")
    async with open_pool(Settings(count=1)):
        (pid,) = children()
        assert b"secret" not in environment(pid)
