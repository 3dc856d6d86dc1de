"""The settings of access control."""

from typing import Annotated

import msgspec
from msgspec import Meta

from safelight import settings

PublicUrl = Annotated[
    str | None,
    Meta(
        description="The address of the page as browsers see it, with its path: https://example.org/photos.",
        extra={"metavar": "URL"},
    ),
]
CorsOrigins = Annotated[
    str,
    Meta(
        description="The origins whose pages may call the API, separated by commas: https://app.example.org.",
        extra={"metavar": "ORIGINS"},
    ),
]


def _file(description: str) -> Meta:
    return Meta(description=description, extra={"metavar": "FILE"})


def _list(description: str, metavar: str) -> Meta:
    return Meta(description=f"{description}, separated by commas.", extra={"metavar": metavar})


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The access settings of every service."""

    cluster_key_file: Annotated[
        str | None, _file("The file with the key by which the services of this system recognise one another.")
    ] = None
    open: Annotated[bool, Meta(description="Let everybody who can reach the port do everything.")] = False
    allowed_hosts: Annotated[str, _list("More names under which this service is addressed", "NAMES")] = ""
    classic_networks: Annotated[
        str, _list("The networks whose programs may speak the classic protocol without a key", "NETWORKS")
    ] = ""
    classic_tenant: Annotated[
        str, Meta(description="The tenant of programs that speak the classic protocol.", extra={"metavar": "TENANT"})
    ] = "default"
    trusted_proxies: Annotated[
        str, _list("The addresses or networks of proxies whose X-Forwarded headers are trusted", "NETWORKS")
    ] = ""
    tls_certificate: Annotated[str | None, _file("The PEM file of this service's certificate chain.")] = None
    tls_key: Annotated[str | None, _file("The PEM file of the certificate's private key.")] = None
    tls_authorities: Annotated[
        str | None, _file("The PEM file of the authorities that sign this system's certificates, if not the machine's.")
    ] = None
    connections: Annotated[
        int, Meta(ge=1, description="How many connections one address without the cluster key may hold.")
    ] = 512
    header_timeout: Annotated[
        settings.Period, Meta(description="How long a new connection may take to send the head of a request.")
    ] = 15.0
