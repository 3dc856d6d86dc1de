"""Send files to clients."""

from __future__ import annotations

import asyncio
from io import FileIO

from safelight.errors import Code, Error


async def send_file(transport: asyncio.WriteTransport, file: FileIO, start: int, size: int) -> None:
    """Send `size` bytes of a file from `start` on, by sendfile unless the connection is encrypted.

    This waits for earlier bytes to be sent. Raises DAMAGED_BLOB if the file ends before, ConnectionError, OSError.
    """
    file.seek(start)  # asyncio's way without sendfile seeks only to other offsets than 0
    sent = await asyncio.get_running_loop().sendfile(transport, file, start, size)
    if sent < size:
        raise Error(Code.DAMAGED_BLOB, "The file is shorter than it should be.")
