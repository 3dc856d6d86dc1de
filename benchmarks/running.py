"""The whole system as `safelight up` runs it, on free ports, with data that goes at the end."""

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def running(*argv: str) -> AsyncIterator[str]:
    """Run it with further arguments of `safelight up`; give the master's `host:port` when all is ready."""
    with tempfile.TemporaryDirectory(prefix="safelight-benchmark-") as data:
        command = (sys.executable, "-m", "safelight.cli", "up", "--port", "0", "--json", "--data", data, *argv)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdout is not None
        try:
            yield json.loads(await process.stdout.readline())["master"]
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()
