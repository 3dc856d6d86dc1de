"""List webhook calls with their answers, and make one again."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from safelight.cli.connection import HERE, Where, master
from safelight.cli.groups import commands
from safelight.cli.printing import ago, out, print_json, say, table
from safelight.wire import WebhookCall

app = commands("webhooks")


@app.default
@app.command(name="list")
async def list_command(
    *,
    outcome: Literal["delivered", "failed", "given_up"] | None = None,
    limit: Annotated[PositiveInt, Parameter(name=["--limit", "-l"])] = 30,
    where: Where = HERE,
) -> None:
    """List webhook calls with their answers, newest first.

    Parameters
    ----------
    outcome:
        List only calls that were delivered, that failed and will be repeated, or that were given up.
    limit:
        How many calls to list at most.
    """
    async with master(where) as client:
        page = await client.webhook_calls(outcome=outcome, limit=min(limit, 1000))
    if where.json:
        print_json(page.calls)
        return
    if not page.calls:
        out.print("No webhook was called.")
        return
    columns = ("CALL", "OUTCOME", "ATTEMPT", "WHEN", "TASK", "URL", "ANSWER")
    out.print(table(*columns, rows=[_row(call) for call in page.calls], right=("ATTEMPT", "WHEN")))


@app.command(name="resend")
async def resend_command(call: str, /, *, where: Where = HERE) -> None:
    """Make a webhook call again, at once.

    Parameters
    ----------
    call:
        The number of the call, as `safelight webhooks` shows it.
    """
    async with master(where) as client:
        found = await client.resend(call)
    if where.json:
        print_json(found)
    else:
        say(f"The webhook {found.url} is called again for the task {found.task}.")


def _row(call: WebhookCall) -> tuple[str, ...]:
    status = "" if call.answer.status is None else f"{call.answer.status} "
    answer = f"{status}{call.answer.detail}".strip().splitlines()
    outcome = call.outcome.replace("_", " ")
    return (call.id, outcome, str(call.attempt), ago(call.at), call.task, call.url, answer[0][:80] if answer else "")
