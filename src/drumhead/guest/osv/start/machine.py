"""Run the machine: configuration, channels to the host, the program, requests from the host, the end."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from . import program, shims, waits
from .channels import Answer, Line, redirect_output

CONFIG = Path("/drumhead/config.json")
OWN_FILES = Path("/run/drumhead")
"""The directory to which /etc/hosts and /etc/resolv.conf link."""
SECRETS = Path("/run/secrets")
"""The directory in which each secret of the machine is a file."""
SIOCGIFADDR = 0x8915
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LANG": "C.UTF-8"}
TERMINATED, KILLED = 128 + signal.SIGTERM, 128 + signal.SIGKILL
SWITCH_OFF = os._exit
"""The function that ends the process, and with it the machine."""


class Machine:
    """The machine of this process. ``run`` does not return."""

    def __init__(self) -> None:
        self._config: dict[str, Any] = json.loads(CONFIG.read_bytes())
        self._lines: list[Line] = []
        self._status: Line | None = None
        self._ending = _thread.allocate_lock()
        self._left = 0
        self._stopping = False

    def run(self) -> NoReturn:
        config = self._config
        shims.install(config["hostname"])
        waits.install()
        self._write_names(config["hosts"])
        self._write_secrets(config["secrets"])
        self._open_channels(config["channels"])
        for card in config["cards"]:
            self._report({"event": "address", "card": card, "address": address_of(card)})
        programs: list[dict[str, Any]] = [*config.get("before", ()), config]
        first, *rest = programs
        problem = self._find_unmounted() or enter(first)
        if problem:
            self._report({"event": "failed", "reason": problem})
            self._end(None)
        os._exit = self._leave
        self._report({"event": "started", "pid": os.getpid()})
        self._end(self._run_programs(first, rest))

    def _find_unmounted(self) -> str:
        """Return the problem with a volume, or an empty string."""
        mounted = {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " " in line}
        for path in self._config["volumes"]:
            if path not in mounted:
                return f"OSv could not mount the volume at {path} (see the console); the image must have the directory"
        return ""

    def _write_names(self, hosts: dict[str, str]) -> None:
        OWN_FILES.mkdir(parents=True, exist_ok=True)
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in hosts.items())]
        # By rename, because a program may be reading the file.
        new = OWN_FILES / "hosts.new"
        new.write_text("\n".join([*lines, ""]))
        new.replace(OWN_FILES / "hosts")
        nameserver = self._config["nameserver"]
        # OSv lacks what libc needs for UDP queries; TCP works.
        text = f"nameserver {nameserver}\noptions use-vc\n" if nameserver else ""
        (OWN_FILES / "resolv.conf").write_text(text)

    def _write_secrets(self, secrets: dict[str, str]) -> None:
        if not secrets:
            return
        SECRETS.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in secrets.items():
            path = SECRETS / name
            path.touch(mode=0o600)
            # OSv's file system in memory creates files with mode 0777, whatever mode is requested.
            path.chmod(0o600)
            path.write_text(text)

    def _open_channels(self, channels: dict[str, Any]) -> None:
        if not channels:
            return
        address = channels["address"]
        self._lines.append(redirect_output(address, channels["log"]))
        self._status = Line(address, channels["status"])
        self._lines.append(self._status)
        control = Line(address, channels["control"])
        threading.Thread(target=control.read, args=(self._handle,), name="control", daemon=True).start()

    def _report(self, event: dict[str, Any]) -> None:
        if self._status is not None:
            self._status.write(event)
        elif event["event"] == "failed":
            sys.stderr.write(f"{event['reason']}\n")

    def _handle(self, request: dict[str, Any]) -> Answer:
        match request.get("do"):
            case "stop":
                stop = threading.Thread(target=self._stop, args=(float(request.get("grace", 10)),), daemon=True)
                return {"ok": True}, stop.start
            case "hosts" if isinstance(hosts := request.get("hosts"), dict):
                self._write_names(hosts)
            case "memory":
                return {"ok": True, "memory": memory()}, None
            case other:
                return {"ok": False, "reason": f"OSv machines do not know the request {other}"}, None
        return {"ok": True}, None

    def _stop(self, grace: float) -> None:
        """Act like SIGTERM and, `grace` seconds later, like SIGKILL, because OSv delivers neither."""
        self._stopping = True
        handler = signal.getsignal(signal.SIGTERM)
        if handler is signal.SIG_DFL:
            self._end(TERMINATED)
        # This runs the program's own handler in its main thread and wakes its event loop.
        _thread.interrupt_main(signal.SIGTERM)
        time.sleep(grace)
        self._end(KILLED)

    def _run_programs(self, first: dict[str, Any], rest: list[dict[str, Any]]) -> int:
        """Run programs one after another until one fails. Return the exit status of the last one that ran."""
        handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
        self._left = len(rest)
        status = self._run_program(first["argv"])
        for one in rest:
            if status or self._stopping:
                break
            self._left -= 1
            program.start_anew()
            for number, handler in handlers:
                signal.signal(number, handler)
            if problem := enter(one):
                sys.stderr.write(f"{problem}\n")
                return 1
            status = self._run_program(one["argv"])
        return status

    def _run_program(self, argv: list[str]) -> int:
        """Run the program and return the exit status with which the interpreter would end."""
        status = 0
        try:
            program.run(argv)
        except SystemExit as end:
            status = self._exit_status(end.code)
        except BaseException as error:  # noqa: BLE001 - whatever a program raises ends it
            own = str(Path(__file__).parent)
            trace = error.__traceback__
            while trace and trace.tb_next and trace.tb_frame.f_code.co_filename.startswith((own, "<frozen runpy>")):
                trace = trace.tb_next
            sys.excepthook(type(error), error.with_traceback(trace), trace)
            status = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        with contextlib.suppress(SystemExit):
            if self._left:
                program.wait_threads()
            else:
                threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads, as Python's end does
        atexit._run_exitfuncs()  # noqa: SLF001
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
        return status

    @staticmethod
    def _exit_status(code: object) -> int:
        if code is None:
            return 0
        if isinstance(code, int):
            return code & 0xFF
        sys.stderr.write(f"{code}\n")
        return 1

    def _leave(self, status: int) -> NoReturn:
        """Replace ``os._exit``: end the machine, not only the process."""
        if self._left and not status & 0xFF:
            os.write(2, b"the next config set cannot run: the program ended this Python (os._exit)\n")
            status = 1
        self._end(status)

    def _end(self, status: int | None) -> NoReturn:
        """Flush disks and channels, report to the host, and switch off. Only the first call has an effect."""
        self._ending.acquire()
        for path in self._config["volumes"]:
            flush_directory(path)
        try:
            if status is not None:
                self._report({"event": "exit", "code": status & 0xFF})
            for line in self._lines:
                line.close()
        except OSError as error:
            os.write(2, f"the end was not reported to the host: {error}\n".encode())
        SWITCH_OFF(status or 0)


def enter(one: dict[str, Any]) -> str:
    """Set the environment and directory of a program. Return a problem, or an empty string."""
    os.environ.clear()
    os.environ.update({**ENVIRONMENT, **one["env"]})
    time.tzset()  # libc has read TZ already
    try:
        os.chdir(one["cwd"])
    except OSError as error:
        return f"cannot enter {one['cwd']}: {error.strerror}"
    return ""


def address_of(card: str) -> str:
    """Return the IPv4 address of a network card, or an empty string."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, contextlib.suppress(OSError):
        request = struct.pack("256s", card.encode())
        return socket.inet_ntoa(fcntl.ioctl(asking, SIOCGIFADDR, request)[20:24])
    return ""


def memory() -> dict[str, int]:
    """Return the ``total`` and ``free`` memory in bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
    return {name: int(fields[field].split()[0]) << 10 for name, field in (("total", "MemTotal"), ("free", "MemFree"))}


def flush_directory(path: str) -> None:
    """Flush the file system that is mounted at `path`, because OSv does not unmount it when it ends."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        os.write(2, f"{path} was not flushed: {error}\n".encode())
