"""SeaweedFS, a real S3 server, in a temporary directory and on free ports."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import S3Config

ACCESS_KEY, SECRET_KEY = "safelight", "a secret of the tests"
TIMEOUT = 60.0


class Seaweed:
    """A running server with one identity, who may do everything."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._places = 0

    def store(self) -> S3Store:
        """Return the whole bucket, to look into it without our code."""
        return S3Store("photos", config=self._config(), client_options={"allow_http": True})

    def _config(self) -> S3Config:
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
        }

    def url(self) -> str:
        """Return the URL of a place that nobody else uses; the first write makes the bucket."""
        self._places += 1
        return f"s3://photos/place-{self._places}"

    def environment(self) -> dict[str, str]:
        """The environment with which a program finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def seaweedfs(root: Path) -> Iterator[Seaweed]:
    """Run the server for as long as the context lasts."""
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (root / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    names += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    argv = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={root}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false",
        "-volume.max=100",
        "-volume.preStopSeconds=0",
        "-s3",
        "-s3.autoCreateBucket",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={root / 's3.sock'}",
        f"-filer.localSocket={root / 'filer.sock'}",
        f"-s3.config={root / 's3.json'}",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (root / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log, cwd=root) as process:
        try:
            server = Seaweed(f"http://127.0.0.1:{ports['s3.port']}")
            _wait(server, process, root / "log")
            server.store().put("made", b"")  # makes the bucket
            yield server
        finally:
            process.kill()


def _wait(server: Seaweed, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.endpoint}/healthz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")
