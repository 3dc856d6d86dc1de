"""Tell running machines the names of the machines on their private network."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError
from drumhead.machine.network import private
from drumhead.machine.qemu.channel import control

if TYPE_CHECKING:
    from drumhead.machine.instances import Instances
    from drumhead.machine.records import Instance, Launch

ANSWER_TIME = 5.0


async def announce_names(instances: Instances, newcomer: Launch) -> None:
    """Send the names on a network to its running machines, because `newcomer` has joined it.

    Machines whose commands do not run yet get them later (``tell_names``). One that does not answer gets them at its
    next start.
    """
    network = newcomer.spec.private_network
    running = [one for one in instances.all() if one.state == "running" and one.launch.spec.private_network == network]
    told = [one for one in running if one.launch.spec.name != newcomer.spec.name]
    await asyncio.gather(*[tell_names(instances, one) for one in told])


async def tell_names(instances: Instances, machine: Instance) -> None:
    """Send the names on its network to a running machine, unless it is alone there."""
    network, members = machine.launch.spec.private_network, instances.launches()
    names = private.network_hosts(members, network)
    if not machine.launch.address or {*names.values()} == {machine.launch.address}:
        return
    request = {"do": "hosts", "hosts": names, "hosts6": private.network_hosts6(members, network)}
    with suppress(DrumheadError):
        await control(instances.directory(machine.launch.spec.name), request, time_limit=ANSWER_TIME)
