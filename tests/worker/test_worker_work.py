"""Test how a worker processes its tasks."""

import io
import os
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from safelight.client.master import Client
from safelight.wire import State
from support.photos import is_inverse, photo
from support.programs.ports import free_port
from support.programs.processes import service
from support.programs.system import System
from worker.conftest import Start
from worker.work import blob, kinds, metrics

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


async def result_of(client: Client, id: str, output: str | None = None) -> bytes:
    async with client.result(id, output=output) as response:
        return await response.read()


async def test_processed_photos_appear_in_the_log_and_the_metrics(client: Client, start: Start) -> None:
    worker = await start()
    task = await client.upload(photo(1), filename="one.png")
    done = await client.wait(task.id, timeout=20)
    assert is_inverse(photo(1), await result_of(client, task.id))
    assert done.attempts == 1
    assert done.engine
    await worker.log("Nothing to do at the moment")
    said = [line["message"] for line in worker.lines if line.get("task") == task.id]
    assert said == [f"Working on task {task.id}", "        processing one.png", "        done"]
    again = await client.upload(photo(2), filename="two.png")
    await client.wait(again.id, timeout=20)
    numbers = await metrics(worker)
    assert 'safelight_worker_attempts_total{outcome="finished",recipe="invert"} 2.0' in numbers
    assert 'safelight_worker_processing_seconds_count{recipe="invert"} 2.0' in numbers
    assert f"safelight_worker_input_bytes_total {float(len(photo(1)) + len(photo(2)))}" in numbers
    assert "safelight_worker_slots 1.0" in numbers
    async with aiohttp.ClientSession() as http, http.get(await worker.address() + "/readyz") as response:
        assert response.status == 200


async def test_all_outputs_of_a_recipe_are_stored(client: Client, start: Start) -> None:
    await start()
    task = await client.wait((await client.upload(photo(4), recipe="web")).id, timeout=20)
    assert len(task.outputs) == 6
    for output in task.outputs:
        data = await result_of(client, task.id, output.name)
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.size == (output.width, output.height)
        assert len(data) == output.size


async def test_a_damaged_photo_fails_at_once_with_its_reason(client: Client, start: Start) -> None:
    worker = await start()
    data = photo(1, width=400, kind="JPEG")
    task = await client.wait((await client.upload(data[: len(data) // 2])).id, timeout=20)
    assert task.state is State.FAILED
    assert task.failure is not None
    assert task.failure.code == "damaged_image"
    assert task.attempts == 1
    assert 'outcome="failed"' in await metrics(worker)


@pytest.mark.parametrize("damage", ["gone", "other bytes"])
async def test_an_input_that_storage_has_lost_fails_permanently(
    whole: System, client: Client, start: Start, damage: str
) -> None:
    task = await client.upload(photo(10 if damage == "gone" else 11))
    assert task.input is not None
    path = blob(whole.data / "storage", task.input.digest)
    data = path.read_bytes()
    path.unlink()
    if damage == "other bytes":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    await start()
    task = await client.wait(task.id, timeout=20)
    assert task.state is State.FAILED
    assert task.failure is not None
    assert "Upload it again" in task.failure.detail
    assert await kinds(client, task) == ["created", "leased", "failed"]


async def test_a_large_input_goes_through_a_file_that_is_removed(whole: System, client: Client, start: Start) -> None:
    worker = await start()
    buffer = io.BytesIO()
    Image.frombytes("RGB", (2500, 2500), os.urandom(2500 * 2500 * 3)).save(buffer, "PNG", compress_level=0)
    assert len(buffer.getvalue()) > 16 << 20
    task = await client.wait((await client.upload(buffer.getvalue(), recipe="thumbnail")).id, timeout=30)
    assert task.state is State.FINISHED, task.failure
    home = whole.data / "worker-0"
    assert {path.name for path in home.rglob("*") if path.is_file()} == {"lock", "decoding"}
    assert await worker.stop() == 0
    assert list(home.iterdir()) == []


async def test_threads_instead_of_processes(client: Client, start: Start) -> None:
    worker = await start("--isolation", "thread")
    task = await client.wait((await client.upload(photo(5))).id, timeout=20)
    assert is_inverse(photo(5), await result_of(client, task.id))
    assert "thread" in {seen.worker.isolation for seen in (await client.summary()).workers}
    assert await worker.stop() == 0


async def test_a_task_of_the_classic_protocol(whole: System, client: Client, start: Start) -> None:
    db, storage = (f"http://127.0.0.1:{whole.ports[name]}" for name in ("db", "storage"))
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{db}/task") as response:
            name = await response.text()
        form = aiohttp.FormData()
        form.add_field("image", photo(3), filename="three.png")
        async with http.post(f"{storage}/upload/{name}", data=form) as response:
            assert response.status == 200
        async with http.post(f"{db}/task/{name}/ready") as response:
            assert response.status == 200
        await start()
        await client.wait(name, timeout=20)
        async with http.get(f"http://{whole.master}/task/{name}/download") as response:
            assert is_inverse(photo(3), await response.read())


async def test_a_worker_waits_for_everything(tmp_path: Path) -> None:
    store = f"127.0.0.1:{free_port()}"
    async with service("worker", store, "--slots", "1", "--data", str(tmp_path / "worker")) as worker:
        await worker.log(f"Waiting for the key-value store at {store}")
        async with service("keyvaluestore", "--port", store.partition(":")[2], "--data", str(tmp_path / "kv")):
            await worker.log("Waiting for masterendpoint to register")
            async with (
                service("master", store, "--data", str(tmp_path / "master")) as master,
                service("storage", store, "--data", str(tmp_path / "storage")),
                service("db", store, "--data", str(tmp_path / "db")),
                Client.connect(await master.address()) as client,
            ):
                assert await client.is_ready(wait=30)
                task = await client.wait((await client.upload(photo(1))).id, timeout=30)
                assert task.state is State.FINISHED
