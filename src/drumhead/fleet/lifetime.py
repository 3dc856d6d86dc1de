"""Run a machine of a fleet once: start it or take it over, wait until it is healthy, watch it until it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet.health import wait_healthy, wait_unresponsive
from drumhead.fleet.plan import find_forward, machine_spec
from drumhead.image.store import ImageStore
from drumhead.machine.boot import wait_started
from drumhead.machine.instances import Instances
from drumhead.machine.launch import image_digest, start_machine
from drumhead.machine.network.neighbour import Neighbour
from drumhead.machine.network.private import multicast_group
from drumhead.machine.process import wait_process
from drumhead.machine.qemu.channel import is_paused
from drumhead.machine.stop import stop_machine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from drumhead.fleet.plan import PlannedMachine
    from drumhead.fleet.records import HealthCheck
    from drumhead.home import Home
    from drumhead.machine.records import Instance

log = logging.getLogger(__name__)

BOOT_TIME = 120.0
PAUSED = "paused: the host's disk is full"


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of a lifetime: the reason, whether it was a failure, and for how many seconds the machine was healthy."""

    reason: str
    failed: bool
    healthy_for: float


def refuse_stranger(instances: Instances, fleet: str, name: str) -> None:
    """Raise CONFLICT if there is a machine of this name that does not belong to the fleet."""
    found = instances.find(name)
    if found is None or found.launch.fleet == fleet:
        return
    owner = f"belongs to the fleet {found.launch.fleet}" if found.launch.fleet else "belongs to no fleet"
    raise DrumheadError(
        ErrorCode.CONFLICT,
        f"there is a machine {name} already, which {owner}; delete it, or rename the fleet {fleet} or its member",
    )


class Lifetime:
    """A machine of the fleet `fleet` from its start to its end, which ``run`` covers."""

    def __init__(self, home: Home, fleet: str, machine: PlannedMachine, *, attached: bool) -> None:
        self._home = home
        self._fleet = fleet
        self._machine = machine
        self._attached = attached
        self._instances = Instances(home)
        self._healthy_since: float | None = None
        self._paused = False

    async def run(
        self, *, starting: Callable[[], None], healthy: Callable[[], None], remark: Callable[[str], None]
    ) -> End:
        """Start the machine, or take over the running one, and return when it has ended.

        `starting` is called before a start, `healthy` when the machine is healthy. A machine that does not become
        healthy, or that stops answering, is stopped, unless a full disk of the host has paused it. Then `remark` is
        called with that reason, and with an empty text when the machine has gone on. Raises the errors of
        ``start_machine``, and CONFLICT if a machine of this name does not belong to the fleet.
        """
        instance = await self._take_over()
        if instance is None:
            starting()
            instance = await self._start()
        try:
            return await self._attend(instance, healthy, remark)
        except DrumheadError:
            if self._instances.find(self._machine.name) is not None:
                raise
            return self._end("another command has deleted it", failed=True)

    async def _attend(self, instance: Instance, healthy: Callable[[], None], remark: Callable[[str], None]) -> End:
        """Watch a running machine until it ends, and stop it if it fails. Raises NOT_FOUND if it was deleted."""
        ended = asyncio.create_task(wait_process(instance.pid))
        trouble = asyncio.create_task(self._trouble(instance, healthy, remark))
        try:
            await asyncio.wait({ended, trouble}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                reason = trouble.result()
                log.warning("%s: %s; stopping it", self._machine.name, reason)
                await stop_machine(self._instances, self._machine.name)
                return self._end(reason, failed=True)
        finally:
            ended.cancel()
            trouble.cancel()
        last = self._instances.read(self._machine.name)
        if last.exit_status is None:
            return self._end(last.reason, failed=True)
        reason = last.reason or f"ended with status {last.exit_status}"
        return self._end(reason, failed=last.exit_status != 0)

    def _end(self, reason: str, *, failed: bool) -> End:
        since = self._healthy_since
        return End(reason=reason, failed=failed, healthy_for=time.monotonic() - since if since is not None else 0.0)

    async def _take_over(self) -> Instance | None:
        """Return the running machine if it matches the fleet. Stop it and return None if it does not.

        Raises CONFLICT for a machine that does not belong to the fleet.
        """
        refuse_stranger(self._instances, self._fleet, self._machine.name)
        running = self._instances.find(self._machine.name)
        if running is None or not running.pid:
            return None
        image = ImageStore(self._home).find(self._machine.member.image, self._machine.member.guest)
        same = running.launch.image_digest == image_digest(image)
        if same and running.launch.spec == machine_spec(self._fleet, self._machine, image):
            return running
        await stop_machine(self._instances, self._machine.name)
        return None

    async def _start(self) -> Instance:
        image = ImageStore(self._home).find(self._machine.member.image, self._machine.member.guest)
        spec = machine_spec(self._fleet, self._machine, image)
        started = await start_machine(self._home, spec, attached=self._attached, fleet=self._fleet, fresh=False)
        log.info("%s started (%s)", self._machine.name, started.launch.address)
        return self._instances.read(self._machine.name)

    async def _trouble(self, instance: Instance, healthy: Callable[[], None], remark: Callable[[str], None]) -> str:
        """Wait until a running machine fails to become healthy or stops answering, and return the reason to stop it."""

        async def excuse(failure: str) -> bool:
            return await self._is_paused(failure, remark)

        while True:
            reason = await self._failure(instance, healthy, excuse)
            if not await excuse(reason):
                return reason

    async def _is_paused(self, failure: str, remark: Callable[[str], None]) -> bool:
        """Return whether a machine did not answer because a full disk of the host has paused it, and let it try again.

        A machine that is stopped in this state would lose what it has not written yet.
        """
        directory = self._instances.directory(self._machine.name)
        paused = bool(failure) and await is_paused(directory, resume=True)
        if paused != self._paused:
            log.warning("%s %s", self._machine.name, f"is {PAUSED}" if paused else "is no longer paused")
            remark(PAUSED if paused else "")
        self._paused = paused
        return paused

    async def _failure(
        self, instance: Instance, healthy: Callable[[], None], excuse: Callable[[str], Awaitable[bool]]
    ) -> str:
        """Wait until a running machine does not boot, does not become healthy or stops answering. Return the reason."""
        try:
            await wait_started(self._instances, self._machine.name, time_limit=BOOT_TIME)
        except DrumheadError as error:
            return error.message
        check = self._machine.member.health
        forward = find_forward(instance.launch.forwards, check.port) if check is not None else None
        neighbour = self._neighbour(instance, check) if check is not None else None
        if check is not None and forward is not None:
            reason = await wait_healthy(check, forward, neighbour)
            if reason:
                return reason
        await excuse("")
        self._healthy_since = self._healthy_since or time.monotonic()
        log.info("%s is healthy", self._machine.name)
        healthy()
        if check is None or forward is None or not check.failures:
            never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            return await never
        return await wait_unresponsive(check, forward, neighbour, excuse)

    def _neighbour(self, instance: Instance, check: HealthCheck) -> Neighbour:
        """Return the address of the machine's service on its network."""
        group = multicast_group(self._home, instance.launch.spec.private_network)
        return Neighbour(group=group, address=instance.launch.address, port=check.port)
