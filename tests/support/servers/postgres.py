"""Run a PostgreSQL server from Debian's package, with data in a temporary directory, on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from safelight.db.postgres import schema
from safelight.db.postgres.sessions.address import Address
from support.programs.ports import free_port

_OPTIONS = {
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "autovacuum_naptime": "5s",
    "wal_retrieve_retry_interval": "500ms",
}


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs, which Debian does not install on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    assert path, f"{name} is missing; install Debian's package postgresql"
    return path


class Server:
    """One server. PostgreSQL refuses to run as root, so root runs it as the user of its package."""

    def __init__(self, directory: Path, *, fsync: bool, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        """Describe a server. `prefix` is a command prefix that runs it elsewhere as root: `ip netns exec NAME`."""
        self.directory = directory
        self.host = host
        self._prefix = [*prefix]
        self.port = free_port()
        self.fsync = fsync
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(directory, self._user.pw_uid, self._user.pw_gid)

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def _here(self) -> tuple[str, str]:
        return "-D", str(self.data)

    def run(self, name: str, *argv: str) -> None:
        user = {} if self._user is None else {"user": "postgres", "group": "postgres", "extra_groups": []}
        command = [program(name), *argv]
        if self._prefix:
            command = [*self._prefix, "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
            user = {}
        with (self.directory / f"{name}.out").open("w+") as out:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.directory, **user)
            out.seek(0)
            assert done.returncode == 0, out.read()

    def make(self) -> None:
        self.run(
            "initdb", "-D", str(self.data), "-U", "safelight", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"
        )
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host replication all 127.0.0.1/32 trust\n")
            if self.host != "127.0.0.1":
                rules.write("host all all samenet trust\nhost replication all samenet trust\n")

    def follow(self, primary: Server) -> None:
        """Become a standby of another server."""
        source = f"host={primary.host} port={primary.port} user=safelight application_name=standby"
        self.run("pg_basebackup", "-D", str(self.data), "-d", source, "-R", "-X", "stream", "-c", "fast", "-N")

    def start(self, **options: str) -> None:
        given = {
            **_OPTIONS,
            "listen_addresses": self.host,
            "port": str(self.port),
            **({} if self.fsync else _UNSAFE),
            **options,
        }
        flags = " ".join(f"-c {name}='{value}'" for name, value in given.items())
        self.run("pg_ctl", *self._here, "-w", "-t", "60", "-l", str(self.directory / "log"), "-o", flags, "start")

    def is_running(self) -> bool:
        """Say whether it runs: it may have been killed."""
        file = self.data / "postmaster.pid"
        return file.exists() and _runs(int(file.read_text().split()[0]))

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", *self._here, "-w", "-t", "60", "-m", mode, "stop")

    def promote(self) -> None:
        self.run("pg_ctl", *self._here, "-w", "-t", "60", "promote")

    def kill(self) -> None:
        """Kill the server and all of its processes, as a crash of the machine does."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGSTOP)  # so that it starts no more processes
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for each in (pid, *children):
            os.kill(each, signal.SIGKILL)
        while any(_runs(each) for each in (pid, *children)):
            pass
        (self.data / "postmaster.pid").unlink()  # an orphan that nobody reaps would look alive

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://safelight@{self.host}:{self.port}/{database}"

    async def synchronous(self) -> None:
        """Acknowledge no commit before the standby has it."""
        admin = await asyncpg.connect(self.url())
        try:
            await admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await admin.execute("SELECT pg_reload_conf()")
        finally:
            await admin.close()

    async def empty(self) -> str:
        """Reset the database to an empty schema, which is faster than a new database; return its URL."""
        server = await asyncpg.connect(self.url())
        try:
            # A failed test may have left a transaction open, for which this test would wait.
            await server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            await server.execute("SET client_min_messages = warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        finally:
            await server.close()
        await schema.migrate(Address(url=self.url()))
        return self.url()


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _base() -> str:
    """Return a directory that the server's user can also read."""
    home = pwd.getpwnam("postgres").pw_dir if os.geteuid() == 0 else tempfile.gettempdir()
    return next(place for place in (tempfile.gettempdir(), "/var/tmp", home) if Path(place).stat().st_mode & 0o001)


_UNSAFE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""Settings for tests that do not need durability."""


@contextmanager
def server(*, fsync: bool = False, made: bool = True, **place: Any) -> Iterator[Server]:
    """Run a server as long as the context lasts, or only yield a directory for one if `made` is false.

    `place` are the arguments of `Server` that say where it runs.
    """
    directory = Path(tempfile.mkdtemp(prefix="safelight-postgres-", dir=_base()))
    running = Server(directory, fsync=fsync, **place)
    try:
        if made:
            running.make()
            running.start()
        yield running
    finally:
        if (running.data / "postmaster.pid").exists():
            running.stop()
        shutil.rmtree(directory)
