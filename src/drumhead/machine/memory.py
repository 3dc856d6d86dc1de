"""Ask running machines how much of their own memory they use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError
from drumhead.machine.qemu.channel import control, is_paused
from drumhead.machine.records import GuestMemory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.machine.instances import Instances
    from drumhead.machine.records import Instance

ANSWER_TIME = 2.0


async def with_memory(instances: Instances, found: Iterable[Instance]) -> list[Instance]:
    """Return the instances. Running ones that answer within ANSWER_TIME seconds have their memory filled in; of the
    others it is known whether they are paused.
    """

    async def ask(instance: Instance) -> Instance:
        if instance.state != "running":
            return instance
        directory = instances.directory(instance.launch.spec.name)
        try:
            answer = await control(directory, {"do": "memory"}, time_limit=ANSWER_TIME)
            memory = msgspec.convert(answer.get("memory"), GuestMemory)
        except (DrumheadError, msgspec.ValidationError):
            # A program without channels, or a machine that is paused, busy or about to end.
            return msgspec.structs.replace(instance, paused=await is_paused(directory))
        return msgspec.structs.replace(instance, memory=memory)

    return await asyncio.gather(*map(ask, found))
