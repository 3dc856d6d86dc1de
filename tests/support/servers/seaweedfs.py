"""Run SeaweedFS, a real S3 server, in a temporary directory on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.store import S3Store

from support.programs.ports import free_port

if TYPE_CHECKING:
    from obstore.store import S3Config

ACCESS_KEY, SECRET_KEY = "safelight", "a secret of the tests"
TIMEOUT = 150.0
"""Seconds for a start. SeaweedFS answers within three, but now and then only after its retry a minute later."""


class Seaweed:
    """A server with one identity that has all rights. It keeps its ports and its data over restarts."""

    bucket = "s3://photos"

    def __init__(self, root: Path, *, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        """Describe a server. `prefix` is a command prefix that runs it elsewhere: `ip netns exec NAME`."""
        self.host = host
        self._prefix = [*prefix]
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
        names += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")
        self._root = root
        self.ports = {name: free_port() for name in names}
        self._process: subprocess.Popen[bytes] | None = None
        self._places = 0

    @property
    def endpoint(self) -> str:
        """Return the URL of the S3 API."""
        return f"http://{self.host}:{self.ports['s3.port']}"

    def start(self) -> None:
        """Start the server, make the bucket, and wait until it answers."""
        self._root.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self._root / "s3.json").write_text(json.dumps({"identities": [identity]}))
        argv = [
            *self._prefix,
            str(Path(sys.executable).parent / "weed"),
            "server",
            f"-dir={self._root}",
            f"-ip={self.host}",
            f"-ip.bind={self.host}",
            "-master.volumeSizeLimitMB=64",
            "-master.telemetry=false",
            "-volume.max=100",
            "-volume.preStopSeconds=0",
            "-s3",
            "-s3.autoCreateBucket",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.localSocket=s3.sock",  # relative, because the path of a socket must be short
            "-filer.localSocket=filer.sock",
            f"-s3.config={self._root / 's3.json'}",
            *(f"-{name}={port}" for name, port in self.ports.items()),
        ]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self._root, start_new_session=True)
        self._wait(self._process)
        self.store().put("made", b"")  # makes the bucket

    def stop(self) -> None:
        """Kill the server; acknowledged data stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Suspend the server: it accepts connections and never answers, as if the network dropped packets.

        Until the thread that gets the signal runs, the others answer, so wait until all have stopped.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let the suspended server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def store(self) -> S3Store:
        """Return the whole bucket, to read it without the code under test."""
        config: S3Config = {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
        }
        return S3Store("photos", config=config, client_options={"allow_http": True})

    def url(self) -> str:
        """Return the URL of an unused prefix in the bucket. It has a space, encoded as in other URLs."""
        self._places += 1
        return f"{self.bucket}/place%20{self._places}"

    def environment(self) -> dict[str, str]:
        """Return the environment with which a program finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"SeaweedFS did not start: {(self._root / 'log').read_text(errors='replace')[-2000:]}")


@contextmanager
def seaweedfs(root: Path) -> Iterator[Seaweed]:
    """Run the server as long as the context lasts."""
    server = Seaweed(root)
    try:
        server.start()
        yield server
    finally:
        server.stop()
