"""The command that shows which image formats this installation reads and writes."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import msgspec
from cyclopts import Parameter

from safelight.cli.printing import out, print_json, table
from safelight.errors import Code, Error


async def formats_command(*, json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Show which image formats the packages of this installation read and write.

    Other machines may have other packages: run the command where the workers are.

    Parameters
    ----------
    json:
        Print JSON.
    """
    # Runs in a process of its own, because the command itself does not import the libraries that decode photos.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "safelight.engine", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    told, complaint = await process.communicate()
    if process.returncode != 0:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise Error(Code.UNAVAILABLE, f"This installation has no image library: {last}.")
    rows = msgspec.json.decode(told)
    if json:
        print_json(rows)
        return 0
    shown = [
        (row["format"], row["label"], *("yes" if row[key] else "no" for key in ("reads", "writes", "animated")))
        for row in rows
    ]
    out.print(table("FORMAT", "NAME", "READ", "WRITTEN", "ANIMATED", rows=shown))
    if not all(row["reads"] for row in rows):
        out.print('To read the others: pip install "safelight[formats]".', markup=False)
    return 0
