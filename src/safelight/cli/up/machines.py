"""`safelight up --vm`: run each service and worker in a machine of its own, with the command `drumhead`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath
from typing import Any

from safelight import serve, settings
from safelight.cli.up.called import command_name
from safelight.cli.up.child import die_with_parent
from safelight.cli.up.sign_in import sign_in_link

log = logging.getLogger("up")

PROJECT = Path(__file__).resolve().parents[4]
"""The directory with safelight's sources and the manifest of its image."""
FLEET = "safelight"
SECRETS = "/run/secrets"
"""The directory of a machine with the secrets of its fleet."""
KEY_FILE = "SAFELIGHT_CLUSTER_KEY_FILE"
LOOK_AGAIN = 1.0
"""Seconds between two checks of machines, which take ten seconds or more to boot."""


def run(fleet: str | None, guest: str | None, *, as_json: bool) -> int:
    """Compose the image if the sources have changed, run the fleet until a signal, and return the exit status."""
    file = Path(fleet) if fleet else PROJECT / "deploy/fleet.yaml"
    for needed in (PROJECT / "meta/package.yaml", file):
        if not needed.is_file():
            settings.fail(f"--vm needs {needed}, which only a checkout of safelight has. Run the command there.")
    drumhead = _find("drumhead", "install it beside safelight")
    _find("qemu-system-x86_64", "on Debian: apt-get install qemu-system-x86")
    chosen = ("--guest", guest) if guest else ()
    composing = [drumhead, "package", "compose", "--update", "-C", str(PROJECT), *chosen, FLEET]
    # Only the addresses go to stdout.
    if status := subprocess.run(composing, stdout=sys.stderr, check=False).returncode:
        return status
    return asyncio.run(_run(drumhead, file, chosen, as_json=as_json))


def _find(program: str, advice: str) -> str:
    beside = shutil.which(program, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(program)
    if found is None:
        settings.fail(f"--vm needs the program {program}, which is not installed ({advice}).")
    return found


async def _run(drumhead: str, file: Path, flags: tuple[str, ...], *, as_json: bool) -> int:
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(drumhead, "up", "--file", str(file), *flags),
        stdout=sys.stderr,
        # Only this program receives Ctrl-C; it then stops drumhead once.
        start_new_session=True,
        preexec_fn=die_with_parent(os.getpid()),
    )
    stopping = asyncio.Event()
    serve.at_signals(stopping.set, hangup=True)
    ended = asyncio.create_task(process.wait())
    stop = asyncio.create_task(stopping.wait())
    announcing = asyncio.create_task(_announce(drumhead, file, began, as_json=as_json))
    try:
        await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            log.info("Stopping the machines")
            process.terminate()
        elif process.returncode == 0:  # another supervisor already keeps the fleet, and it is up
            await announcing
    finally:
        announcing.cancel()
        stop.cancel()
    return await ended


async def _announce(drumhead: str, file: Path, began: float, *, as_json: bool) -> None:
    """Wait until every machine is healthy, then print the addresses of its forwarded ports."""
    while (up := await asyncio.to_thread(_look, drumhead, file)) is None:  # noqa: ASYNC110 - another program's
        await asyncio.sleep(LOOK_AGAIN)
    addresses, key = up
    master = addresses.get("master")
    link = await sign_in_link(master, key) if master and key else None
    if as_json:
        more = {"cluster_key_file": str(key) if key else None, "sign_in": link}
        print(json.dumps(addresses | {name: value for name, value in more.items() if value}), flush=True)
        return
    print(f"\nsafelight is ready in {len(addresses)} machines after {time.monotonic() - began:.1f} s")
    for name, address in addresses.items():
        print(f"  {name:<14}{address}")
    if master:
        shown = f" --cluster-key-file {shlex.quote(str(key))}" if key else ""
        print(
            (f"  {'sign in':<14}{link} (works once, within an hour)\n" if link else "")
            + f"  {'page':<14}http://{master}/\n"
            f"  {'upload':<14}{command_name()} upload PHOTO --master {master}{shown} --output results"
        )
    sys.stdout.flush()


def _look(drumhead: str, file: Path) -> tuple[dict[str, str], Path | None] | None:
    """Return the first forwarded address of each machine by name, and the file of the master's cluster key.

    Return None until all are healthy.
    """
    asked = subprocess.run(
        [drumhead, "ps", "--file", str(file), "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    if asked.returncode:
        return None  # not ready yet
    known: dict[str, Any] = json.loads(asked.stdout)
    machines = known["state"]["machines"]
    names = {known["fleet"]["name"] + "-" + member for member in known["fleet"]["members"]}
    if not names <= machines.keys() or any(one["health"] != "healthy" for one in machines.values()):
        return None
    if known["state"]["revision"] < known["fleet"]["revision"] or not known["supervised"]:
        return None  # a record that an earlier run left
    addresses = {
        name.removeprefix(known["fleet"]["name"] + "-"): f"{forwards[0]['host_address']}:{forwards[0]['host_port']}"
        for name, instance in known["instances"].items()
        if (forwards := instance["launch"]["forwards"])
    }
    return addresses, _key_of_master(known)


def _key_of_master(known: dict[str, Any]) -> Path | None:
    """Return the host's file of the secret that the master uses as its cluster key, or None if it has none."""
    inside = PurePosixPath(known["fleet"]["members"].get("master", {}).get("env", {}).get(KEY_FILE, ""))
    if str(inside.parent) != SECRETS or inside.name not in known["secrets"]:
        return None
    return Path(known["secrets"][inside.name])
