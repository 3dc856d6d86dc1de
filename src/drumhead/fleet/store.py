"""Store fleets below one home: the desired fleet, the state that its supervisor reports, and the supervisor's lock."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet.plan import secret_name
from drumhead.fleet.records import Fleet, FleetState
from drumhead.home import entry, make_private
from drumhead.machine.instances import Instances, lock_holder
from drumhead.machine.secrets import make_secret
from drumhead.records import read_cached, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drumhead.home import Home
    from drumhead.machine.records import Instance

CHANGED = signal.SIGUSR1
"""The signal that tells a supervisor that its fleet was changed."""


class FleetStore:
    """One fleet. It has at most one supervisor, which holds a lock that the kernel releases when the supervisor
    ends.
    """

    def __init__(self, home: Home, name: str) -> None:
        """Take the name of a fleet, which need not exist. Raises NOT_FOUND for a text that is no name."""
        self.home = home
        self.name = name
        self.directory: Path = entry(home.fleets, name, "fleet")
        self._supervised_here = False

    def read(self) -> Fleet:
        """Return the desired fleet. Raises NOT_FOUND if it is not up, and UNVERIFIED if its record is damaged."""
        try:
            return read_record(
                self.directory / "fleet.json", Fleet, "`drumhead up` writes it again from its fleet.yaml"
            )
        except FileNotFoundError as error:
            raise DrumheadError(
                ErrorCode.NOT_FOUND, f"there is no fleet {self.name}; `drumhead up` starts one from its fleet.yaml"
            ) from error

    def write(self, fleet: Fleet) -> Fleet:
        """Create missing secrets, store the desired fleet and return it with its new revision."""
        make_private(self.home.fleets)
        for name in fleet.secrets:
            make_secret(self.home, secret_name(self.name, name))
        try:
            revision = self.read().revision + 1
        except DrumheadError:
            revision = 1
        fleet = msgspec.structs.replace(fleet, revision=revision)
        with replacing(self.directory / "fleet.json") as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(fleet)))
        return fleet

    def read_state(self) -> FleetState:
        return read_cached(self.directory / "state.json", FleetState) or FleetState()

    def write_state(self, state: FleetState) -> None:
        with replacing(self.directory / "state.json") as temporary:
            temporary.write_bytes(msgspec.json.encode(state))

    def secret_files(self, fleet: Fleet) -> dict[str, Path]:
        """Return the path of each secret of the fleet by name."""
        return {name: self.home.secrets / secret_name(self.name, name) for name in fleet.secrets}

    def instances(self) -> list[Instance]:
        """Return the machines that belong to the fleet."""
        return [one for one in Instances(self.home).all() if one.launch.fleet == self.name]

    def supervisor(self) -> int:
        """Return the process id of the supervisor, or 0 if there is none."""
        if self._supervised_here:
            return os.getpid()  # do not even open the file: closing it would release our lock
        return lock_holder(self.directory / "supervisor")

    def wake_supervisor(self) -> bool:
        """Tell the supervisor that the fleet was changed. Return False if there is no supervisor."""
        pid = self.supervisor()
        if pid:
            os.kill(pid, CHANGED)
        return bool(pid)

    @contextmanager
    def supervising(self) -> Iterator[None]:
        """Hold the supervisor's lock. Raises CONFLICT if another process holds it."""
        make_private(self.home.fleets)
        self.directory.mkdir(exist_ok=True)
        with (self.directory / "supervisor").open("w") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DrumheadError(ErrorCode.CONFLICT, f"fleet {self.name} is already up") from error
            self._supervised_here = True
            try:
                yield
            finally:
                self._supervised_here = False

    def delete(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
