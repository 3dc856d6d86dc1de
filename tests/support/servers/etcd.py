"""Run a real etcd cluster in a temporary directory on free ports."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.programs.ports import free_port

TIMEOUT = 60.0


class Cluster:
    """The members of a cluster, which can be killed and restarted."""

    def __init__(self, root: Path, members: int, options: Sequence[str] = (), scheme: str = "http") -> None:
        self.hosts = ["127.0.0.1"] * members
        self.prefixes: list[Sequence[str]] = [()] * members
        """For each member, a command prefix that runs it elsewhere: `ip netns exec NAME`."""
        self._root = root
        self._options = options
        self._scheme = scheme
        self.ports = [free_port() for _ in range(members)]
        self.peers = [free_port() for _ in range(members)]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._prefixes = 0

    @property
    def url(self) -> str:
        """Return the URL of a store on this cluster."""
        hosts = ",".join(f"{host}:{port}" for host, port in zip(self.hosts, self.ports, strict=True))
        return f"{'etcds' if self._scheme == 'https' else 'etcd'}://{hosts}"

    @contextmanager
    def prefix(self) -> Iterator[str]:
        """Yield an unused key prefix; delete its keys at the end, so that no lease expires during another test."""
        self._prefixes += 1
        prefix = f"/test-{self._prefixes}/"
        yield prefix
        self.call("kv/deleterange", {"key": _text(prefix), "range_end": _text(prefix[:-1] + "0")})

    def start(self, number: int) -> None:
        """Start a member with its existing data."""
        name = f"member-{number}"
        peers = [f"http://{host}:{port}" for host, port in zip(self.hosts, self.peers, strict=True)]
        client = f"{self._scheme}://{self.hosts[number]}:{self.ports[number]}"
        argv = [*self.prefixes[number], "etcd", "--name", name, "--data-dir", str(self._root / name)]
        argv += ["--listen-client-urls", client, "--advertise-client-urls", client, "--logger", "zap"]
        argv += ["--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number]]
        argv += ["--initial-cluster", ",".join(f"member-{n}={url}" for n, url in enumerate(peers)), *self._options]
        with (self._root / f"{name}.log").open("ab") as log:
            self.processes[number] = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    def kill(self, number: int) -> None:
        """Kill a member with SIGKILL."""
        process = self.processes.pop(number)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def leader(self) -> int:
        """Return the number of the leader."""
        for number in self.processes:
            status = self.call("maintenance/status", {}, member=number)
            if status["leader"] == status["header"]["member_id"]:
                return number
        raise AssertionError("the cluster has no leader")

    def call(self, path: str, body: dict[str, Any], *, member: int | None = None) -> dict[str, Any]:
        """Send a request without the code under test."""
        member = next(iter(self.processes)) if member is None else member
        address = f"{self.hosts[member]}:{self.ports[member]}"
        data = json.dumps(body).encode()
        with urllib.request.urlopen(f"http://{address}/v3/{path}", data=data, timeout=10) as answer:
            return dict(json.load(answer))

    def wait(self) -> None:
        """Wait until all members answer and there is a leader."""
        deadline = time.monotonic() + TIMEOUT
        for number, process in self.processes.items():
            while not self._answers(number):
                assert process.poll() is None, (self._root / f"member-{number}.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "etcd did not start"
                time.sleep(0.05)

    def _answers(self, number: int) -> bool:
        if self._scheme == "https":
            return "serving client traffic" in (self._root / f"member-{number}.log").read_text(errors="replace")
        try:
            return self.call("maintenance/status", {}, member=number).get("leader", "0") != "0"
        except OSError:
            return False


@contextmanager
def cluster(root: Path, *, members: int, options: Sequence[str] = (), scheme: str = "http") -> Iterator[Cluster]:
    """Run a cluster as long as the context lasts."""
    running = Cluster(root, members, options, scheme)
    try:
        for number in range(members):
            running.start(number)
        running.wait()
        yield running
    finally:
        for number in list(running.processes):
            running.kill(number)


def _text(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
