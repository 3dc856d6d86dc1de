"""Forms of uploads, part by part."""

from __future__ import annotations

BOUNDARY = "a-boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {**FORM, "Accept": "application/json"}


def part(name: str, data: bytes | str, *, filename: str | None = None, headers: str = "") -> bytes:
    data = data.encode() if isinstance(data, str) else data
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{headers}\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
