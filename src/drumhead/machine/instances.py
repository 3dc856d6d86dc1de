"""Store the instances of a home, and derive their state from their files.

There is no daemon for machines that could be killed. QEMU holds a lock on its pid file while it runs, and the
guest reports into a file through its status port. The state follows from these two files at any time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from drumhead.blobs import replacing
from drumhead.errors import MALFORMED, DrumheadError, ErrorCode, message_of
from drumhead.home import entry, files_in, make_private
from drumhead.machine.records import Instance, Launch, Supervision
from drumhead.text import INDENTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drumhead.home import Home

log = logging.getLogger(__name__)

RECORD, IMAGE = "instance.json", "image.json"
"""The record of a machine's last start, and that of the image that it was started from."""
FLOCK = struct.Struct("hhqqi4x")
"""struct flock on 64-bit Linux: type, whence, start, length, pid."""
SUPERVISOR, SUPERVISION, STOPPING = "supervisor", "supervision.json", "stopping"
"""The supervisor's lock, its record, and a file that exists while the machine must not be started again."""
CONSOLE_BYTES = 8192
STATUS_BYTES = 1 << 20
"""How much of the end of a status file is read. Machines write a few hundred bytes, but a guest may write anything."""
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^ -\x7e\u00a0-\uffff]")
PAGE = os.sysconf("SC_PAGE_SIZE")


class StatusLine(msgspec.Struct, kw_only=True):
    """One line of the status port."""

    event: str = ""
    code: int = 0
    reason: str = ""
    card: str = ""
    address: str = ""


class Instances:
    """The instances of one home. Several processes may use it at once; changing an instance requires its lock."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def directory(self, name: str) -> Path:
        """Return the directory of an instance. Raises NOT_FOUND for a text that is no name."""
        return entry(self.home.instances, name, "instance")

    def names(self) -> list[str]:
        return [path.parent.name for path in files_in(self.home.instances, f"*/{RECORD}")]

    def launches(self) -> list[Launch]:
        return [launch for name in self.names() if (launch := self._find_launch(name))]

    def all(self) -> list[Instance]:
        return [observe(self.directory(launch.spec.name), launch) for launch in self.launches()]

    def find(self, name: str) -> Instance | None:
        launch = self._find_launch(name)
        return observe(self.directory(name), launch) if launch else None

    def read(self, name: str) -> Instance:
        """Return an instance. Raises NOT_FOUND."""
        instance = self.find(name)
        if instance is None:
            known = ", ".join(self.names()) or "none"
            raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no instance {name}; there are: {known}")
        return instance

    def last_end(self, name: str) -> str:
        """Return in one line why a machine ended, also if it is asleep now. Raises NOT_FOUND."""
        return end_reason(_observe(self.directory(name), self.read(name).launch))

    def read_running(self, name: str) -> Instance:
        """Return a running instance. Raises NOT_FOUND, CONFLICT."""
        instance = self.read(name)
        if not instance.pid:
            raise DrumheadError(ErrorCode.CONFLICT, f"{name} is not running; `drumhead start {name}` starts it")
        return instance

    def write(self, launch: Launch) -> None:
        """Record a start that is about to happen, and remove the status of the last run. The caller holds the lock."""
        directory = self.directory(launch.spec.name)
        for old in ("status", "pid", STOPPING):
            (directory / old).unlink(missing_ok=True)
        with replacing(directory / RECORD) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(launch)))

    def delete(self, name: str) -> None:
        """Delete an instance and its files, but not its volumes.

        Raises NOT_FOUND, and CONFLICT if it is running or its supervisor would start it again.
        """
        with self.lock(name):
            running = bool(self.read(name).pid)
            if running or supervisor_pid(self.directory(name)) not in {0, os.getpid()}:
                what = "running" if running else "asleep or about to be restarted"
                raise DrumheadError(ErrorCode.CONFLICT, f"{name} is {what}; stop it first, or delete it with --force")
            # Remove the record first, so that the remains of an interrupted deletion are not an instance.
            (self.directory(name) / RECORD).unlink()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock of an instance. The kernel releases it when this process ends.

        At the end, remove the directory if there is no instance: it was deleted, or its first start was refused.
        Raises CONFLICT if another process holds the lock.
        """
        directory = self.directory(name)
        handle = _lock_file(directory)
        try:
            yield
        finally:
            if not (directory / RECORD).exists():
                shutil.rmtree(directory, ignore_errors=True)
            os.close(handle)

    def is_locked(self, name: str) -> bool:
        """Return whether a command is starting or deleting an instance, or whether this one is."""
        try:
            with self.lock(name):
                return False
        except DrumheadError:
            return True

    def _find_launch(self, name: str) -> Launch | None:
        path = self.directory(name) / RECORD
        try:
            return msgspec.json.decode(path.read_bytes(), type=Launch)
        except FileNotFoundError:
            return None
        except MALFORMED as error:
            raise DrumheadError(ErrorCode.CONFLICT, f"{path} cannot be read ({error}); delete {path.parent}") from error


def observe(directory: Path, launch: Launch) -> Instance:
    """Return a machine with its state, from its pid file, its status file and the record of its supervisor."""
    instance = _observe(directory, launch)
    if launch.spec.restart == "no" and not launch.spec.sleep_after:
        return instance
    try:
        supervision = msgspec.json.decode((directory / SUPERVISION).read_bytes(), type=Supervision)
    except (FileNotFoundError, *MALFORMED):
        return instance
    alive = bool(supervisor_pid(directory))
    if supervision.asleep and not instance.pid and alive:
        return msgspec.structs.replace(instance, supervision=supervision, state="asleep", exit_status=None)
    ended_alone = not instance.pid and (supervision.asleep or not supervision.reason)
    if not alive and (supervision.waits or ended_alone or instance.state == "running"):
        # The supervisor was killed, or could not record its own end, unless the machine was stopped for good.
        supervision = msgspec.structs.replace(supervision, waits=False, lost=not (directory / STOPPING).exists())
    return msgspec.structs.replace(instance, supervision=supervision)


def write_supervision(directory: Path, record: Supervision) -> None:
    """Write the record from which ``drumhead instances`` shows restarts. Warn if the host's disk is full.

    The record only shows what the supervisor does, which goes on without it.
    """
    try:
        with replacing(directory / SUPERVISION) as temporary:
            temporary.write_bytes(msgspec.json.encode(record))
    except OSError as error:
        log.warning("%s: %s", directory.name, message_of(error))


def supervisor_pid(directory: Path) -> int:
    """Return the process id of a machine's supervisor, or 0 if there is none."""
    try:
        file = (directory / SUPERVISOR).open()
    except FileNotFoundError:
        return 0
    with file:
        return int(file.read().strip() or 0) if is_locked(file) else 0


def is_locked(file: IO[str]) -> bool:
    """Return whether another process holds the lock of a file; if not, it is locked (shared) until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _observe(directory: Path, launch: Launch) -> Instance:
    # Read in this order, because a machine writes its status before it releases its pid file.
    pid = lock_holder(directory / "pid")
    lines = status_lines(directory / "status")
    reported = {line.card: line.address for line in lines if line.event == "address"}
    addresses = {card: address for card, address in reported.items() if address}  # a lease may have ended
    last = next((line for line in reversed(lines) if line.event in {"exit", "failed", "started"}), StatusLine())
    has_started = any(line.event == "started" for line in lines)
    if pid:
        return Instance(
            launch=launch,
            # A guest whose command never ran has reported a failure or an exit, and is about to end.
            state="running" if last.event != "failed" and has_started else "starting",
            pid=pid,
            addresses=addresses,
            resident=resident_memory(pid),
        )
    return Instance(
        launch=launch,
        state="exited" if last.event == "exit" else "failed",
        exit_status=last.code if last.event == "exit" else None,
        reason=last.reason or ("" if last.event == "exit" else failure(directory)),
        ended_at=end_time(directory),
        addresses=addresses,
    )


NO_MEMORY = ("Out of memory", "deadlocked on memory", "not enough memory", "Cannot allocate memory", "unpacking failed")
PANIC = "Kernel panic - not syncing"
CONSOLE_LINES = 8


def failure(directory: Path) -> str:
    """Return why a machine ended without reporting a status, as far as its console shows."""
    end = console_end(directory)
    if any(sign in end for sign in NO_MEMORY) or not (directory / "log").exists():
        return f"the machine ended before its command could; it may need more memory (-m){end}"
    return f"the machine ended without reporting a status{end}"


def end_reason(instance: Instance) -> str:
    """Return in one line why a machine ended."""
    return instance.reason.splitlines()[0] if instance.reason else f"ended with status {instance.exit_status}"


def console_end(directory: Path) -> str:
    """Return the last lines of a machine's console, to be appended to a message."""
    path = directory / "console"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - CONSOLE_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        text = ""
    lines = [shown for line in text.splitlines() if (shown := CONTROLS.sub("", line).strip())]
    if not lines:
        return "; its console is empty"
    # The reason of a panic is followed by pages of calls and registers.
    panic = next((number for number, line in enumerate(lines) if PANIC in line), len(lines))
    lines = lines[: panic + 1]
    return "; its console ends with:" + "".join(f"{INDENTED}{line[:160]}" for line in lines[-CONSOLE_LINES:])


def _lock_file(directory: Path) -> int:
    """Create and lock the lock file of an instance; return its descriptor. Raises CONFLICT."""
    while True:
        make_private(directory.parent)
        directory.mkdir(exist_ok=True)
        try:
            handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # another process has just removed the directory
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A file that another process has removed meanwhile locks nothing.
            if os.fstat(handle).st_nlink:
                return handle
        except BlockingIOError as error:
            os.close(handle)
            message = f"another command is starting, stopping or deleting {directory.name}"
            raise DrumheadError(ErrorCode.CONFLICT, message) from error
        os.close(handle)


def lock_holder(path: Path) -> int:
    """Return the id of the process that holds the lock on a pid file, or 0 if there is none."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        answer = fcntl.fcntl(handle, fcntl.F_GETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(handle)
    kind, _, _, _, pid = FLOCK.unpack(answer)
    return 0 if kind == fcntl.F_UNLCK else pid


def status_lines(path: Path) -> list[StatusLine]:
    """Return the latest status lines of the guest without an incomplete last line."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - STATUS_BYTES))
            text = file.read(STATUS_BYTES)
    except FileNotFoundError:
        return []
    lines = []
    for line in text.split(b"\n")[:-1]:
        try:
            # The text of a reason may be cut within a character.
            lines.append(msgspec.json.decode(line.decode(errors="replace"), type=StatusLine))
        except MALFORMED:
            continue  # a guest may write anything
    return lines


def end_time(directory: Path) -> float:
    """Return the time at which a machine last wrote to its status, console or log."""
    times = [path.stat().st_mtime for name in ("status", "console", "log") if (path := directory / name).exists()]
    return max(times, default=0.0)


def resident_memory(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0
