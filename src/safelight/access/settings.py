"""The settings that say who gets in."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from safelight import settings

class AccessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service takes."""

    cluster_key_file: Annotated[
        str | None,
        Meta(description="file with the key that this system's services show one another; line 2: the one before it"),
    ] = None
    open: Annotated[bool, Meta(description="let in everybody who reaches the port, and let them do everything")] = False
    allowed_hosts: Annotated[
        str, Meta(description="further names under which this service is addressed, separated by commas")
    ] = ""
    classic_networks: Annotated[
        str, Meta(description="networks whose programs may speak the classic protocol without a key: 10.1.0.0/16,…")
    ] = ""
    classic_tenant: Annotated[str, Meta(description="the tenant that programs of the classic protocol belong to")] = (
        "default"
    )
    trusted_proxies: Annotated[
        str, Meta(description="addresses or networks of proxies whose X-Forwarded headers are believed: 127.0.0.1,…")
    ] = ""
    tls_certificate: Annotated[str | None, Meta(description="PEM file of this service's certificate chain")] = None
    tls_key: Annotated[str | None, Meta(description="PEM file of the certificate's private key")] = None
    tls_authorities: Annotated[
        str | None, Meta(description="PEM file of the authorities that sign this system's services (default: system's)")
    ] = None
    connections: Annotated[
        int, Meta(ge=1, description="connections at once from one address that has shown no key")
    ] = 512
    header_timeout: Annotated[
        settings.Period, Meta(description="how long a new connection may take to send a request's head")
    ] = 15.0

