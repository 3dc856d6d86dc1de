"""Test the requests for programs that run in a machine, with a stand-in for its guest."""

import json

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.session.protocol import MAX_REQUEST, open_session
from drumhead.records import Command
from support.guests.stubs import guest


async def test_a_program_with_more_arguments_than_a_machine_takes_is_refused_at_once(tmp_path_factory):
    directory, sent = tmp_path_factory.mktemp("one"), []  # a socket's path has at most 107 bytes

    async def start(reader, writer):
        if line := await reader.readline():  # a command that is refused sends none
            sent.append(len(line))
            writer.write(json.loads(line)["token"].encode() + b"x\0\0\0\1\0")
        await reader.read()

    large = Command(argv=("x",), env={"CERTIFICATES": "y" * MAX_REQUEST})
    async with guest(directory / "exec.0.sock", start):
        with pytest.raises(DrumheadError, match="variables, the machine's own included; keep large values in files"):
            async with open_session(directory, large):
                pass
        async with open_session(directory, Command(argv=("x", ""))) as session:
            assert [frame async for frame in session.frames()] == [("exit", b"\0")]
        room = MAX_REQUEST - sent.pop()
        async with open_session(directory, Command(argv=("x", "y" * room))):
            assert sent.pop() == MAX_REQUEST
        with pytest.raises(DrumheadError, match=f"take {MAX_REQUEST + 1} bytes; at most {MAX_REQUEST}") as refused:
            async with open_session(directory, Command(argv=("x", "y" * (room + 1)))):
                pass
    assert refused.value.code is ErrorCode.USAGE
