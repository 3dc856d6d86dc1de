"""Refuse certificates: the programs of `safelight up` know one another by addresses, and speak plain HTTP."""

from typing import Annotated

from msgspec import Meta

from safelight import settings
from safelight.access.settings import AccessSettings

NoTls = Annotated[
    str | None,
    Meta(description="Refused: all speak plain HTTP here, behind a proxy with TLS.", extra={"metavar": "FILE"}),
]


def check(config: AccessSettings, path: str | None) -> None:
    """End with an error if any program would get a certificate, wherever that is given: the others never reach it.

    `path` is the settings file, which each program reads by itself, as it reads the variables.
    """
    for name in ("tls_certificate", "tls_key"):
        places = [settings.source(name, program, path) for program in settings.PROGRAMS]
        flag = f"--{name.replace('_', '-')}" if getattr(config, name) is not None else None
        if place := next(filter(None, (*places, flag)), None):
            settings.fail(
                f"{place}: everything speaks plain HTTP here. Leave this out and put a proxy with TLS in front of the "
                "master (docs/guide/proxies.md), or run each service by itself."
            )
