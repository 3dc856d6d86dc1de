"""``drumhead runtime …``: templates of meta/run.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from drumhead.cli.flags import Json
from drumhead.cli.output import print_json, print_table
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.manifest.init import run_template
from drumhead.manifest.run_yaml import REQUIRES, RUNTIMES

Runtime = Annotated[str, Parameter(name=["--runtime", "-r"])]


def list_command(*, json: Json = False) -> None:
    """List the runtimes that meta/run.yaml can name."""
    facts = [
        {"runtime": name, "description": text, "requires": list(requires)}
        for (name, text), requires in zip(RUNTIMES.items(), REQUIRES.values(), strict=True)
    ]
    if json:
        print_json(facts)
    else:
        rows = [(str(fact["runtime"]), str(fact["description"]), ", ".join(fact["requires"])) for fact in facts]
        print_table(("Runtime", "Description", "Requires"), rows)


def preview_command(*, runtime: Runtime) -> None:
    """Print a meta/run.yaml for a runtime, with comments that explain its keys.

    Parameters
    ----------
    runtime:
        The runtime: native, node or python.
    """
    print(run_template(runtime), end="")


def init_command(
    path: Path = Path(),
    /,
    *,
    runtime: Runtime,
    force: Annotated[bool, Parameter(name=["--force", "-f"], negative="")] = False,
) -> None:
    """Write meta/run.yaml for a runtime.

    Parameters
    ----------
    path:
        The directory of the project.
    runtime:
        The runtime: native, node or python.
    force:
        Replace an existing file.
    """
    file = path / "meta" / "run.yaml"
    text = run_template(runtime)
    if file.exists() and not force:
        raise DrumheadError(ErrorCode.CONFLICT, f"{file} already exists; --force replaces it")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    print(f"wrote {file}")
