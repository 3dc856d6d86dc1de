"""Start the systems that safelight is compared with on free ports, as their documentation says."""

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

HERE = Path(__file__).resolve().parent
CORES = len(os.sched_getaffinity(0))
_SIZES = (480, 1024, 2048)
_TIMEOUT = 60.0

Outputs = Callable[[list[bytes], str], Awaitable[float]]
"""A function that makes the outputs of a recipe from photos and returns the photos per second."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def program(*argv: str, environment: dict[str, str] | None = None) -> AsyncIterator[None]:
    """Run a program in the background. Print its log if it ends by itself."""
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=log, stderr=log, cwd=HERE, env={**os.environ, **(environment or {})}, start_new_session=True
        )
        try:
            yield
        finally:
            if process.returncode is not None:
                log.seek(0)
                print(log.read().decode(errors="replace")[-2000:])
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            with suppress(ProcessLookupError):  # thumbor leaves its processes behind
                os.killpg(process.pid, signal.SIGKILL)


async def output(*argv: str, given: bytes = b"", environment: dict[str, str] | None = None) -> float:
    """Run a program that prints a number."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=HERE, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    out, errors = await process.communicate(given)
    assert process.returncode == 0, errors.decode(errors="replace")
    return float(out.split()[-1])


async def listening(port: int) -> None:
    """Wait until a program listens on a port."""
    async with asyncio.timeout(_TIMEOUT):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


def made(directory: str, name: str) -> Path:
    """Create a directory in another one."""
    path = Path(directory, name)
    path.mkdir()
    return path


def write(directory: Path, files: list[bytes]) -> list[str]:
    """Write photos as files. Return their names."""
    names = [f"{os.urandom(8).hex()}.jpg" for _ in files]
    for name, data in zip(names, files, strict=True):
        (directory / name).write_bytes(data)
    return names


class Celery:
    """Celery's workers, one process per core, and a Redis that flushes each command."""

    def __init__(self, peers: Path, environment: dict[str, str], directory: Path) -> None:
        self._feed = (str(peers / "bin" / "python"), "celery_feed.py")
        self._environment = environment
        self._directory = directory

    async def tasks(self, seconds: float) -> float:
        """Return the number of tasks per second."""
        return await output(*self._feed, "tasks", str(seconds), environment=self._environment)

    async def photos(self, files: list[bytes]) -> float:
        """Return the number of photos per second. The photos are on disk before the clock starts."""
        names = "\n".join(write(self._directory, files)).encode()
        return await output(*self._feed, "photos", str(self._directory), given=names, environment=self._environment)


@asynccontextmanager
async def celery(peers: Path) -> AsyncIterator[Celery]:
    """Run Redis and Celery's workers."""
    with tempfile.TemporaryDirectory(prefix="safelight-peers-") as directory:
        port = free_port()
        redis = ("redis-server", "--port", str(port), "--dir", directory, "--appendonly", "yes", "--save", "")
        environment = {"REDIS_PORT": str(port)}
        work = ("-m", "celery", "-A", "celery_app", "worker", "--concurrency", str(CORES), "--loglevel", "WARNING")
        async with program(*redis, "--appendfsync", "always"):
            await listening(port)
            async with program(str(peers / "bin" / "python"), *work, environment=environment):
                workers = Celery(peers, environment, Path(directory))
                await workers.tasks(1.0)  # wait until they work, and warm them up
                yield workers


def configure_thumbor(directory: Path, source: Path) -> Path:
    """Write thumbor's settings. Return the file."""
    path = directory / "thumbor.conf"
    path.write_text(
        f"LOADER = 'thumbor.loaders.file_loader'\nFILE_LOADER_ROOT_PATH = '{source}'\nQUALITY = 80\n"
        "STORAGE = 'thumbor.storages.no_storage'\nALLOW_UNSAFE_URL = True\nPROGRESSIVE_JPEG = True\n"
        "RESULT_STORAGE = 'thumbor.result_storages.file_storage'\nRESULT_STORAGE_STORES_UNSAFE = True\n"
        f"RESULT_STORAGE_FILE_STORAGE_ROOT_PATH = '{directory / 'results'}'\nRESPECT_ORIENTATION = True\n"
    )
    return path


@asynccontextmanager
async def thumbor(peers: Path) -> AsyncIterator[Outputs]:
    """Run thumbor, which reads photos from files and stores its results in files."""
    with tempfile.TemporaryDirectory(prefix="safelight-peers-") as directory:
        port, source = free_port(), made(directory, "photos")
        configuration = configure_thumbor(Path(directory), source)
        argv = ("-p", str(port), "-i", "127.0.0.1", "-c", str(configuration), "--processes", str(CORES))
        async with program(str(peers / "bin" / "thumbor"), *argv), aiohttp.ClientSession() as session:
            await listening(port)

            async def outputs(files: list[bytes], recipe: str) -> float:
                names = write(source, files)
                wanted = [(320, "webp")]
                if recipe == "web":
                    wanted = [(size, kind) for size in _SIZES for kind in ("webp", "jpeg")]
                urls = iter(
                    f"http://127.0.0.1:{port}/unsafe/fit-in/{size}x{size}/filters:format({kind})/{name}"
                    for name in names
                    for size, kind in wanted
                )

                async def fetch() -> None:
                    for url in urls:
                        async with session.get(url) as response:
                            assert response.status == 200, url
                            await response.read()

                loop = asyncio.get_running_loop()
                start = loop.time()
                await asyncio.gather(*(fetch() for _ in range(CORES * 4)))
                return len(files) / (loop.time() - start)

            yield outputs


def sharp(peers: Path) -> Outputs:
    """Return a function that runs each round in a Node.js process with sharp."""

    async def outputs(files: list[bytes], recipe: str) -> float:
        with tempfile.TemporaryDirectory(prefix="safelight-peers-") as directory:
            results = made(directory, "results")
            names = "\n".join(write(Path(directory), files)).encode()
            argv = ("node", "sharp.mjs", str(peers), recipe, directory, str(results), str(CORES))
            return len(files) / await output(*argv, given=names)

    return outputs
