"""Test that machines learn one another's names, with stand-ins for their guests."""

import asyncio
import json

import pytest

from drumhead.home import Home
from drumhead.machine.boot import wait_started
from drumhead.machine.instances import Instances
from drumhead.machine.network.names import announce_names
from drumhead.machine.stop import delete_machine
from drumhead.machine.supervision.supervisor import _wait_end
from support.guests.stubs import guest, holding_pid_file, launched


@pytest.fixture
def instances(tmp_path_factory):
    return Instances(Home(root=tmp_path_factory.mktemp("home")))  # a socket's path has at most 107 bytes


def recorded(instances, name, address):
    launch = launched(name, address=address)
    with instances.lock(name):
        instances.write(launch)
    return launch


@pytest.mark.parametrize("supervised", [False, True])
async def test_a_machine_learns_the_names_of_those_that_start_while_it_boots(instances, supervised):
    requests, told = [], asyncio.Event()
    recorded(instances, "one", "10.64.0.1")
    directory = instances.directory("one")

    async def take(reader, writer):
        requests.append(json.loads(await reader.readline()))
        writer.write(b'{"ok":true}\n')
        told.set()

    with holding_pid_file(directory):
        wait = _wait_end(instances, instances.read("one"), told) if supervised else wait_started(instances, "one")
        waiting = asyncio.create_task(wait)
        newcomer = recorded(instances, "two", "10.64.0.2")
        async with guest(directory / "control.sock", take):
            await announce_names(instances, newcomer)
            assert not requests, "it does not run yet"
            (directory / "status").write_text('{"event":"started"}\n')
            async with asyncio.timeout(30):
                await waiting
    (names,) = (one["hosts"] for one in requests)
    assert (names["one"], names["two"]) == ("10.64.0.1", "10.64.0.2")


async def test_a_machine_forgets_the_name_of_one_that_is_deleted(instances):
    requests = []
    recorded(instances, "one", "10.64.0.1")
    recorded(instances, "two", "10.64.0.2")
    directory = instances.directory("one")
    (directory / "status").write_text('{"event":"started"}\n')

    async def take(reader, writer):
        requests.append(json.loads(await reader.readline()))
        writer.write(b'{"ok":true}\n')

    with holding_pid_file(directory):
        async with guest(directory / "control.sock", take):
            await delete_machine(instances, "two")
    (names,) = (one["hosts"] for one in requests)
    assert names == {"one": "10.64.0.1", "one.localhost": "10.64.0.1"}
