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


async def announce_names(instances: Instances, *changed: Launch) -> None:
    """Send the names on networks to their running machines, because machines have joined or left them.

    Machines whose commands do not run yet get them later (``tell_names``). One that does not answer gets them at its
    next start.
    """
    networks, names = {one.spec.private_network for one in changed}, {one.spec.name for one in changed}
    running = [one.launch for one in instances.all() if one.state == "running"]
    told = [one for one in running if one.spec.private_network in networks and one.spec.name not in names]
    await asyncio.gather(*[_send_names(instances, one) for one in told])


async def tell_names(instances: Instances, machine: Instance) -> None:
    """Send the names on its network to a machine whose command has just started, unless it is alone there."""
    if len({*_names(instances, machine.launch).values()}) > 1:
        await _send_names(instances, machine.launch)


async def _send_names(instances: Instances, launch: Launch) -> None:
    if not launch.address:
        return
    names6 = private.network_hosts6(instances.launches(), launch.spec.private_network)
    request = {"do": "hosts", "hosts": _names(instances, launch), "hosts6": names6}
    with suppress(DrumheadError):
        await control(instances.directory(launch.spec.name), request, time_limit=ANSWER_TIME)


def _names(instances: Instances, launch: Launch) -> dict[str, str]:
    return private.network_hosts(instances.launches(), launch.spec.private_network)
