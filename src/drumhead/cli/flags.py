"""Flags that several commands take, described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for programs.")]
Guest = Annotated[
    Literal["linux", "osv"] | None,
    Parameter(name="--guest", help="The guest of the image, where images of this name exist for both."),
]
FleetFile = Annotated[
    Path | None,
    Parameter(name=["--file", "-f"], help="The fleet file; by default fleet.yaml or deploy/fleet.yaml."),
]
