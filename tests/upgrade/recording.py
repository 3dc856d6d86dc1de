"""Record the data of the current release as text for the tests of later releases, and rebuild recorded data.

    PYTHONPATH=tests python -m upgrade.recording

writes `releases/VERSION/`: the databases as SQL, and the files of storage in base64. Run it when a version is released.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from safelight import __version__
from safelight.client.accounts import AccountClient
from safelight.client.master import Client
from safelight.client.partials import PartialClient
from safelight.wire import NewPartial
from safelight.wire.accounts import ApiKey, Scope
from support.photos import photo
from support.programs.system import system

RELEASES = Path(__file__).with_name("releases")
_DATABASES = ("db/tasks.sqlite", "keyvaluestore/keyvaluestore.sqlite")
_LEFT_OUT = {"handover", "incoming", "ages.new"}
PARTIAL = b"the first bytes "
RECIPE = {"outputs": {"small": {"format": "png", "operations": [{"op": "invert"}]}}}


async def _fill(data: Path) -> dict[str, Any]:
    """Run the system with a directory; return what a later release must find there."""
    async with system(data) as whole, Client.connect(whole.master) as client:
        await whole.start("worker-0")
        done = await client.wait((await client.upload(photo(1, width=24), filename="a.png")).id, timeout=60)
        again = await client.wait((await client.upload(photo(1, width=24), batch="twice")).id, timeout=60)
        refused = await client.wait((await client.upload(photo(2, width=24)[:60])).id, timeout=60)
        await client.save_recipe("small", RECIPE)
        await whole.kill("worker-0")
        waiting = await client.upload(photo(3, width=24), filename="b.png", recipe="small")
        async with PartialClient.connect(f"127.0.0.1:{whole.ports['storage']}") as partials:
            upload = await partials.create(NewPartial(size=len(PARTIAL) + 3))
            await partials.append(upload.id, 0, PARTIAL)
        async with AccountClient.connect(f"127.0.0.1:{whole.ports['db']}") as accounts:
            await accounts.create_key(
                ApiKey(id="kept", tenant="default", name="kept", digest="0" * 64, scopes=[Scope.READ])
            )
        return {
            "finished": [done.id, again.id],
            "failed": refused.id,
            "waiting": waiting.id,
            "partial": upload.id,
            "seq": (await client.summary()).seq,
        }


def record(data: Path, target: Path, expected: dict[str, Any]) -> None:
    """Write a directory of data as text."""
    target.mkdir(parents=True, exist_ok=True)
    for name in _DATABASES:
        with closing(sqlite3.connect(data / name)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            text = "\n".join([*connection.iterdump(), f"PRAGMA user_version = {version};", ""])
        (target / f"{name.partition('/')[0]}.sql").write_text(text)
    storage = data / "storage"
    files = {
        str(path.relative_to(storage)): base64.b64encode(path.read_bytes()).decode()
        for path in sorted(storage.rglob("*"))
        if path.is_file() and path.relative_to(storage).parts[0] not in _LEFT_OUT
    }
    (target / "storage.json").write_text(json.dumps(files, indent=1) + "\n")
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def build(release: Path, data: Path) -> dict[str, Any]:
    """Rebuild the data directory of a release; return what must be found there."""
    for name in _DATABASES:
        (data / name).parent.mkdir(parents=True)
        with closing(sqlite3.connect(data / name)) as connection:
            connection.executescript((release / f"{name.partition('/')[0]}.sql").read_text())
    for name, text in msgspec.json.decode((release / "storage.json").read_bytes(), type=dict[str, str]).items():
        path = data / "storage" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(text))
    return msgspec.json.decode((release / "expected.json").read_bytes(), type=dict[str, Any])


def main() -> None:
    """Record the current release."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        record(data, RELEASES / __version__, asyncio.run(_fill(data)))


if __name__ == "__main__":
    main()
