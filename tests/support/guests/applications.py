"""Compose and run an application: a project in a directory, its image, and its machine."""

from __future__ import annotations

import urllib.request
from contextlib import asynccontextmanager

from support.guests.machines import LIMIT, find, forwarded, wait_log

PACKAGE = "name: {name}\ntitle: {name}\nauthor: somebody\nrequire: [{require}]\n"


class Application:
    """A project in a directory, and its image."""

    def __init__(self, drumhead, root):
        self.drumhead, self.root = drumhead, root
        self.name = root.name
        self.ran = []
        """The config sets that have run to their end."""

    def write(self, files, *, require="", run):
        """Write the project: its manifests and the texts `files` by name."""
        manifest = PACKAGE.format(name=self.name, require=require)
        for name, text in {"meta/package.yaml": manifest, "meta/run.yaml": run, **files}.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def compose(self):
        """Compose the project; return drumhead's output."""
        done = self.drumhead.run("package", "compose", "-C", self.root, f"apps/{self.name}", pack_fast=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def run(self, config_set, *flags):
        """Run a config set to its end; return its output."""
        self.ran.append(config_set)
        return self.drumhead("run", "--run", config_set, "-i", f"apps/{self.name}", f"{self.name}-{config_set}", *flags)

    @asynccontextmanager
    async def running(self, port, says, *flags, memory="256M"):
        """Run a machine with the default command, wait until it has printed `says`, and yield the host's port for
        `port`."""
        self.drumhead("run", "-d", "-i", f"apps/{self.name}", self.name, "-m", memory, "-f", f"0:{port}", *flags)
        try:
            await self._wait(says)
            yield forwarded(find(self.drumhead, self.name), port)
        finally:
            # Do not switch it off: SQLite may lose a commit if the end of the journal is not on the disk yet.
            self.drumhead.run("stop", self.name)
            self.drumhead("delete", "--force", self.name)

    async def _wait(self, says):
        try:
            await wait_log(self.drumhead.home, self.name, says)
        except TimeoutError as error:
            raise AssertionError(f"{self.name} never wrote {says!r}: {self.drumhead('logs', self.name)}") from error


def get(port, path="/"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT) as answer:
        return answer.read().decode()
