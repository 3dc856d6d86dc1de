"""A client and a worker written only from the page about the classic protocol: with http.client, without our code."""

from __future__ import annotations

import http.client
import io
import json
import uuid
from typing import Any

from PIL import Image, ImageOps


def ask(address: str, method: str, path: str, body: bytes | None = None, kind: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def multipart(data: bytes, filename: str | None) -> tuple[bytes, str]:
    """Return a form with one part named image, with or without a file name."""
    boundary = uuid.uuid4().hex
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"{named}\r\n\r\n'
    return head.encode() + data + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def upload(master: str, data: bytes, filename: str | None = None) -> tuple[int, bytes]:
    return ask(master, "POST", "/task", *multipart(data, filename))


class Worker:
    """Find the services in the key-value store, and process one task at a time."""

    def __init__(self, keyvaluestore: str) -> None:
        self.master = ask(keyvaluestore, "GET", "/masterendpoint")[1].decode().strip()
        self.storage = ask(keyvaluestore, "GET", "/storageendpoint/")[1].decode().strip()

    def next(self) -> Any:
        """Return the next task, or None."""
        status, body = ask(self.master, "GET", "/task/next")
        task = json.loads(body)
        if status == 404:
            assert task == {"id": -1, "state": 0}
            return None
        assert status == 200
        assert task["state"] == 1
        return task["id"]

    def process(self, task: Any) -> None:
        """Fetch the photo, invert it, and store the result."""
        status, photo = ask(self.master, "GET", f"/task/{task}/download")
        assert status == 200
        status, _ = ask(self.storage, "POST", f"/upload/{task}", *multipart(inverted(photo), None))
        assert status == 200

    def finish(self, task: Any) -> int:
        return ask(self.master, "POST", f"/task/{task}/finish")[0]

    def work(self) -> bool:
        """Process the next task; return whether there was one."""
        task = self.next()
        if task is None:
            return False
        self.process(task)
        assert self.finish(task) == 200
        return True


def inverted(photo: bytes) -> bytes:
    with Image.open(io.BytesIO(photo)) as opened:
        result = io.BytesIO()
        ImageOps.invert(opened.convert("RGB")).save(result, "PNG")
    return result.getvalue()
