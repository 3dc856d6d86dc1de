"""Share a result or an original by a signed link."""

from __future__ import annotations

from safelight.cli.connection import HERE, Where, access, master
from safelight.cli.durations import limited
from safelight.cli.printing import print_json, say
from safelight.cli.tasks.which import find
from safelight.client.access import AccessClient
from safelight.errors import Code, Error


async def share_command(
    task: str | None = None,
    /,
    *,
    output: str | None = None,
    original: bool = False,
    expires: str = "7d",
    revoke_all: bool = False,
    where: Where = HERE,
) -> None:
    """Make a link that shows one result, or the original, to anybody who has the link.

    Parameters
    ----------
    task:
        The id of the task, or the number that it begins with.
    output:
        The output to show; by default the first by name.
    original:
        Show the original instead.
    expires:
        How long the link works, such as 30d.
    revoke_all:
        End all links that were made so far in this tenant, instead of making one.
    """
    if (task is None) != revoke_all:
        raise Error(Code.INVALID_REQUEST, "Name a task, or give --revoke-all.")
    if original and output is not None:
        raise Error(Code.INVALID_REQUEST, "A link shows one file: give --output or --original.")
    lifetime = limited(expires, "--expires", days=366)
    async with access(where) as (client, _):
        if task is None:
            await _revoke_all(client, where)
            return
        link = await client.link(await _id(task, where), output=output, original=original, expires_in=lifetime)
    if where.json:
        print_json(link)
    else:
        say(link.url)


async def _revoke_all(client: AccessClient, where: Where) -> None:
    await client.revoke_links()
    if not where.json:
        say("Revoked all links.")


async def _id(task: str, where: Where) -> str:
    if not task.isdecimal():
        return task
    async with master(where) as client:
        return (await find(client, task)).id
