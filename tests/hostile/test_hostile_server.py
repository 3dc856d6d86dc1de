"""Test the commands with a malicious server: no file is written outside the directory, no escape code is printed."""

import asyncio
import json
import logging
import os
import pty
import re
import subprocess
import sys
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from safelight.cli.photos.results import ResultDirectory
from safelight.client.base import bearer
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.logs import JsonFormatter, TextFormatter
from safelight.wire import Task

pytestmark = pytest.mark.slow
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\r\n\x1b[1A\x08\x7f"
"""Escape codes: a title, clearing the screen, C1, right-to-left text, a new line, cursor movements."""
DIGEST = "0" * 64


def task(**changes):
    output = {"name": "image", "digest": DIGEST, "size": 5, "media_type": "image/png"}
    fields = {
        "id": "1-aaaaaaaaaa",
        "state": 2,
        "seq": 1,
        "created": 1e300,
        "changed": 1.0,
        "filename": "photo.jpg",
        "recipe": "invert",
        "outputs": [output],
        "batch": ESCAPES,
        "engine": ESCAPES,
    }
    return fields | changes


KEY = {"id": ESCAPES, "name": ESCAPES, "scopes": ["read"], "created": 1e300, "created_by": ESCAPES, "expires": 1e300}
CALL = {
    "id": ESCAPES,
    "task": ESCAPES,
    "filename": ESCAPES,
    "url": ESCAPES,
    "created": 1e300,
    "at": 1e300,
    "attempt": 1,
}
SEEN = {"tenant": {"id": "a", "name": ESCAPES}, "use": {"tenant": "a", "tasks": {ESCAPES: 1}}}
AUDIT = {"seq": 1, "at": 1.0, "tenant": "a", "who": ESCAPES, "via": ESCAPES, "action": ESCAPES, "subject": ESCAPES}
ENTRIES = {"entries": [{"key": ESCAPES, "value": ESCAPES, "instance": ESCAPES, "expires": 1e300}], "revision": 1}
OTHERS = {
    "/keys": json.dumps([KEY]),
    "/tenants": json.dumps([SEEN]),
    "/audit": json.dumps(AUDIT, ensure_ascii=False),
    "/webhooks/calls": json.dumps(
        {"calls": [CALL | {"outcome": "failed", "answer": {"status": 500, "detail": ESCAPES}}]}
    ),
    "/webhooks/secret": json.dumps({"secret": ESCAPES, "created": 1e300}),
    "/task/1-aaaaaaaaaa/links": json.dumps({"url": ESCAPES, "expires": 1e300}),
    "/": json.dumps(ENTRIES),
    "/dbendpoint": ESCAPES,
    "/no-text": "\udcff",
}


class Server:
    """Run a master whose answers the test chooses."""

    def __init__(self) -> None:
        self.task = task()
        self.result = b"bytes"
        self.endless = False
        self.redirect = None
        self.asked = []

    async def answer(self, request):
        path = request.path
        if path == "/elsewhere":
            self.asked.append(dict(request.headers))
            return web.Response(body=self.result)
        if path in OTHERS:
            return web.Response(body=OTHERS[path].encode(errors="surrogateescape"))
        if path.endswith("/result") and self.redirect is not None:
            return web.Response(status=307, headers=self.redirect)
        if path.endswith("/result"):
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(self.result)
            while self.endless:
                await response.write(bytes(1 << 16))
            return response
        if path.startswith("/task/"):
            return web.json_response(self.task)
        if path == "/tasks":
            return web.json_response({"tasks": [self.task], "next": None})
        worker = {"id": ESCAPES, "host": ESCAPES, "engine": ESCAPES, "slots": 1, "busy": 0, "isolation": "process"}
        if path == "/summary":
            seen = [{"worker": worker, "first_seen": 1e300, "last_seen": 1e300, "holding": 0}]
            numbers = {"tasks": {"waiting": 1}, "delayed": 0, "oldest_waiting": 1e300, "workers": seen, "seq": 0}
            return web.json_response(numbers)
        if path == "/recipes":
            return web.json_response([{"name": ESCAPES, "spec": {"outputs": {"a": {}}, "description": ESCAPES}}])
        if path == "/events":
            event = {"seq": 1, "at": 1e300, "task": ESCAPES, "state": 3, "kind": ESCAPES, "recipe": ESCAPES}
            failure = {"code": "x", "detail": ESCAPES}
            return web.json_response({"events": [event | {"failure": failure}], "last": 1})
        headers = {"Retry-After": "9" * 5000}
        return web.json_response({"detail": ESCAPES, "code": ESCAPES, "retry_after": "x"}, status=400, headers=headers)


@pytest.fixture
async def server():
    harmful = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", harmful.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    harmful.address = f"127.0.0.1:{runner.addresses[0][1]}"
    yield harmful
    await runner.cleanup()


@asynccontextmanager
async def terminal():
    ours, theirs = pty.openpty()
    shown = bytearray()

    def take():
        try:
            shown.extend(os.read(ours, 65536))
        except OSError:
            asyncio.get_running_loop().remove_reader(ours)

    asyncio.get_running_loop().add_reader(ours, take)
    try:
        yield theirs, shown
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)


async def run(server, directory, *words, program="safelight.cli"):
    """Run a command on a terminal; return its exit status and its output."""
    where = "keyvaluestore" if words[0] == "store" else "master"
    async with terminal() as (end, shown):
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", program, *words, f"--{where}", server.address),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=end,
                stderr=end,
                cwd=directory,
                env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "400", "HOME": str(directory)},
            )
        finally:
            os.close(end)
        async with asyncio.timeout(60):
            status = await process.wait()
        await asyncio.sleep(0)
        while True:  # read what is left in the terminal's buffer
            before = len(shown)
            await asyncio.sleep(0.02)
            if len(shown) == before:
                return status, shown.decode(errors="surrogateescape")


OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[\?1049[hl]|\x1b\[H")


def assert_harmless(shown):
    """Assert that the output is text, except the command's own colours and cursor codes."""
    rest = OURS.sub("", shown).replace("\r\n", "\n")
    assert not re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", rest), repr(rest)


@pytest.mark.parametrize(
    "words",
    [
        ["tasks"],
        ["task", "1-aaaaaaaaaa"],
        ["status"],
        ["top", "--once"],
        ["recipes", "list"],
        ["tasks", "--json"],
        ["status", "--json"],
        ["cancel", "1-aaaaaaaaaa"],
        ["recipes", "show", "nothing"],
        ["download", "1-aaaaaaaaaa"],
        ["workers", "list"],
        ["keys", "list"],
        ["tenants", "list"],
        ["tenants", "webhook-secret"],
        ["audit"],
        ["webhooks", "list"],
        ["share", "1-aaaaaaaaaa"],
        ["store", "list"],
        ["store", "get", "dbendpoint"],
        ["store", "get", "no-text"],
    ],
    ids=" ".join,
)
async def test_escape_codes_of_a_server_do_not_reach_the_terminal(server, tmp_path, words):
    server.task = task(filename=ESCAPES + ".jpg", recipe=ESCAPES, failure={"code": "x", "detail": ESCAPES})
    status, shown = await run(server, tmp_path, *words)
    assert "Traceback" not in shown
    assert status in range(7), shown
    assert_harmless(shown)
    assert "owned" in shown or words[0] in ("cancel", "download", "recipes") or "no-text" in words
    if "--json" in words:
        json.loads(OURS.sub("", shown))


NAMES = {
    "a path as the photo's name": {"filename": "../../../escape.jpg"},
    "a path of Windows": {"filename": "..\\..\\escape.jpg"},
    "an absolute path": {"filename": "/etc/cron.d/escape"},
    "a path as the id": {"id": "../../escape", "filename": ""},
    "a dot": {"filename": "."},
    "a flag": {"filename": "-rf.jpg"},
    "a hidden file": {"filename": ".bashrc"},
    "a zero": {"filename": "a\x00b.jpg"},
}


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize(
    ("output", "media_type"),
    [
        ("../../escape", "image/png"),
        ("image", "x/../../escape"),
        ("/escape", "text/x-sh"),
        ("a\x1b[2J", "image/svg+xml"),
    ],
)
async def test_a_result_is_saved_only_in_the_folder(server, tmp_path, what, output, media_type):
    directory = tmp_path / "a" / "b" / "results"
    directory.mkdir(parents=True)
    made = {"name": output, "digest": DIGEST, "size": 5, "media_type": "image/png"}
    server.task = task(outputs=[made], **NAMES[what])
    told = msgspec.convert(server.task, Task)
    # Decoding the record would refuse this media type, but saving must not rely on that.
    told = told.evolve(outputs=[told.outputs[0].evolve(media_type=media_type)])
    async with Client.connect(server.address) as client:
        (saved,), _ = await ResultDirectory(directory).save(client, told)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [saved]
    assert saved.parent == directory
    assert saved.read_bytes() == b"bytes"
    assert re.fullmatch(r"[^\x00-\x1f/\\.-][^\x00-\x1f/\\]*\.(png|bin)", saved.name), saved.name


async def test_an_endless_result_is_given_up(server, tmp_path):
    server.endless = True
    status, shown = await run(server, tmp_path, "download", "1-aaaaaaaaaa")
    assert status == 6
    assert "more than the 5 bytes" in shown
    assert list(tmp_path.glob("*photo*")) == []


@pytest.mark.parametrize(
    "location",
    [None, "", "http://[", "file:///etc/passwd", "//nowhere", "http://127.0.0.1:999999/", "http://:80/", "/elsewhere"],
)
async def test_a_redirect_to_an_invalid_address_is_reported(server, tmp_path, location):
    server.redirect = {} if location is None else {"Location": location}
    async with Client.connect(server.address) as client:
        with pytest.raises(Error) as refused:
            async with client.result("1-aaaaaaaaaa"):
                pass
    assert refused.value.code is Code.UNAVAILABLE


async def test_a_key_is_not_sent_to_the_target_of_a_redirect(server, tmp_path):
    server.redirect = {"Location": f"http://{server.address.replace('127.0.0.1', 'localhost')}/elsewhere"}
    async with (
        Client.connect(server.address, credentials=bearer("the-key")) as client,
        client.result("1-aaaaaaaaaa") as answer,
    ):
        assert await answer.read() == b"bytes"
    (headers,) = server.asked
    assert "the-key" not in str(headers)


async def test_a_result_is_not_written_through_a_link(server, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    directory = tmp_path / "results"
    directory.mkdir()
    (directory / "photo.image.png").symlink_to(victim)
    status, _ = await run(server, directory, "download", "1-aaaaaaaaaa", "--overwrite")
    assert status == 0
    assert victim.read_text() == "kept"
    assert (directory / "photo.image.png").read_bytes() == b"bytes"


def test_a_log_contains_only_lines_of_text():
    record = logging.makeLogRecord(
        {"name": "db", "msg": f"photo {ESCAPES}", "levelno": 20, "levelname": "INFO", "file": ESCAPES}
    )
    for formatter in (TextFormatter(), JsonFormatter("db")):
        line = formatter.format(record)
        assert "\n" not in line
        assert_harmless(line)
    assert json.loads(line)["message"] == f"photo {ESCAPES}"


def test_drumheads_tables_and_logs_contain_only_text(tmp_path):
    """Show a package whose record another host made, and the log of a machine that prints escape codes."""
    script = f"""
import sys
from drumhead.cli import output
from drumhead.text import write_output
with output.printable_streams():
    output.print_table(["NAME"], [[{ESCAPES!r}]])
    output.print_json([{ESCAPES!r}])
    output.notice({ESCAPES!r})
    output.complain({ESCAPES!r})
    print("version", {ESCAPES!r})
    write_output(("\\x1b[32mgreen" + {ESCAPES!r} + "\\r\\n").encode())
"""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, stderr=theirs, cwd=tmp_path)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass
    os.close(ours)
    assert process.wait(30) == 0, shown
    assert shown.count(b"owned") == 6
    assert b"\x1b[32mgreen" in shown
    assert_harmless(shown.decode())
