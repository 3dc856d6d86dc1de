"""Control Debian's Firefox with WebDriver BiDi, Firefox's own protocol.

Playwright drives only a Firefox that it has patched: it sends a
command that Debian's does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

_PREFERENCES = """
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("toolkit.telemetry.reportingpolicy.firstRun", false);
user_pref("remote.active-protocols", 1);
"""
_LISTENING = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
TIMEOUT = 60.0


class Firefox:
    """Control one tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.context = ""
        self.problems: list[str] = []

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; keep the messages that are logged meanwhile."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(TIMEOUT):
            while True:
                message = await self._socket.receive_json()
                if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                    self.problems.append(str(message["params"]["text"]))
                if message.get("id") == number:
                    assert message["type"] == "success", message
                    return dict(message["result"])

    async def open(self, url: str, *, width: int, height: int) -> None:
        """Open an address in a window of a given size."""
        await self.send(
            "browsingContext.setViewport", context=self.context, viewport={"width": width, "height": height}
        )
        await self.send("browsingContext.navigate", context=self.context, url=url, wait="complete")

    async def evaluate(self, expression: str) -> Any:
        """Evaluate an expression (a promise is awaited); return its text, number or boolean."""
        answer = await self.send(
            "script.evaluate", expression=expression, target={"context": self.context}, awaitPromise=True
        )
        assert answer["type"] == "success", answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait, frame by frame, until an expression is true."""
        waiting = f"""new Promise((resolve) => {{
            const look = () => (({expression}) ? resolve(true) : requestAnimationFrame(look));
            look();
        }})"""
        assert await self.evaluate(waiting)

    async def press(self, *keys: str) -> None:
        """Press keys one after another."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        await self.send(
            "input.performActions", context=self.context, actions=[{"type": "key", "id": "keys", "actions": actions}]
        )


@contextlib.asynccontextmanager
async def firefox(profile: Path) -> AsyncIterator[Firefox]:
    """Run Firefox with an empty profile."""
    await asyncio.to_thread(_prepare, profile)
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/firefox-esr",
        "--headless",
        "--no-remote",
        "--remote-debugging-port=0",
        f"--profile={profile}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(profile), "PATH": "/usr/bin:/bin", "MOZ_HEADLESS": "1"},
    )
    try:
        address = await _address(process)
        drain = asyncio.create_task(_drain(process))
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{address}/session", max_msg_size=0) as socket,
        ):
            running = Firefox(socket)
            await running.send("session.new", capabilities={})
            contexts = (await running.send("browsingContext.getTree"))["contexts"]
            running.context = contexts[0]["context"]
            await running.send("session.subscribe", events=["log.entryAdded"])
            yield running
            await running.send("browser.close")
        drain.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _prepare(profile: Path) -> None:
    profile.mkdir(parents=True)
    (profile / "user.js").write_text(_PREFERENCES)


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(TIMEOUT):
        async for line in process.stderr:
            if found := _LISTENING.search(line.decode(errors="replace")):
                return found[1]
    raise AssertionError("Firefox ended before it listened")


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    async for _ in process.stderr:
        pass
