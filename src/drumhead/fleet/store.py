"""fleets/ of one home: what each fleet should be, what its keeper says of it, and whether it has a keeper."""

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
from drumhead.fleet.records import Fleet, FleetState
from drumhead.machine.instances import Instances, lock_holder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drumhead.home import Home
    from drumhead.machine.records import Instance


class FleetStore:
    """One keeper works on a fleet at a time; it holds a lock that the kernel releases with it."""

    def __init__(self, home: Home, name: str) -> None:
        self.home = home
        self.name = name
        self.directory: Path = home.fleets / name
        self._kept_by_us = False

    def read(self) -> Fleet:
        """What the fleet should be. Raises NOT_FOUND when it is not up."""
        try:
            return msgspec.json.decode((self.directory / "fleet.json").read_bytes(), type=Fleet)
        except FileNotFoundError as error:
            raise DrumheadError(
                ErrorCode.NOT_FOUND, f"there is no fleet {self.name} here; `drumhead up` starts one from its fleet.yaml"
            ) from error

    def write(self, fleet: Fleet) -> Fleet:
        """Note what the fleet should be from now on; returns it with its new revision."""
        try:
            revision = self.read().revision + 1
        except DrumheadError:
            revision = 1
        fleet = msgspec.structs.replace(fleet, revision=revision)
        with replacing(self.directory / "fleet.json") as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(fleet)))
        return fleet

    def read_state(self) -> FleetState:
        try:
            return msgspec.json.decode((self.directory / "state.json").read_bytes(), type=FleetState)
        except FileNotFoundError:
            return FleetState()

    def write_state(self, state: FleetState) -> None:
        with replacing(self.directory / "state.json") as temporary:
            temporary.write_bytes(msgspec.json.encode(state))

    def instances(self) -> list[Instance]:
        """The machines that carry the fleet's name, and no other."""
        return [one for one in Instances(self.home).all() if one.launch.fleet == self.name]

    def keeper(self) -> int:
        """The process that keeps the fleet; 0 when there is none."""
        if self._kept_by_us:
            return os.getpid()  # not even to be looked for: closing the file would let go of our lock
        return lock_holder(self.directory / "keeper")

    def wake_keeper(self) -> bool:
        """Tell the keeper that the fleet was changed; False when there is none."""
        pid = self.keeper()
        if pid:
            os.kill(pid, signal.SIGHUP)
        return bool(pid)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Be the keeper. Raises CONFLICT when there is one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "keeper").open("w") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DrumheadError(ErrorCode.CONFLICT, f"fleet {self.name} is up already") from error
            self._kept_by_us = True
            try:
                yield
            finally:
                self._kept_by_us = False

    def delete(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
