"""The access policy that the settings describe: one frozen record that all checks use."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import msgspec
from yarl import URL

from safelight.access.cluster_key import ClusterKey
from safelight.access.networks import Networks, is_loopback
from safelight.access.settings import AccessSettings
from safelight.errors import Error

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
"""A path that is the same in a route, a cookie, a header and a link, whether it is quoted or not."""


class PolicyError(Exception):
    """A setting of access is wrong; the message says which, and what to write."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets in, and how.

    `local` is whether programs on this machine need no key: the service listens on loopback only, and no proxy passes
    requests on to it. `public` is the address of the page as browsers see it, `prefix` its path without a trailing
    slash (empty at the top), `hosts` the names under which the service is addressed.
    """

    local: bool
    open: bool = False
    loopback_only: bool = True
    cluster: ClusterKey | None = None
    hosts: frozenset[str] = frozenset()
    public: URL | None = None
    prefix: str = ""
    origins: frozenset[str] = frozenset()
    classic: Networks = Networks()
    classic_tenant: str = "default"
    proxies: Networks = Networks()

    @classmethod
    def of(
        cls,
        settings: AccessSettings,
        *,
        host: str,
        advertised: str | None = None,
        public_url: str | None = None,
        cors_origins: str = "",
    ) -> Policy:
        """Make the policy of a service that listens on `host`. Raises PolicyError."""
        public = _public_url(public_url)
        loopback_only = is_loopback(host)
        proxies = _networks("trusted-proxies", settings.trusted_proxies)
        cluster = _cluster_key(settings.cluster_key_file)
        if not loopback_only and cluster is None and not settings.open:
            raise PolicyError(
                f"This service would listen on {host}, where other machines reach it, and nothing says who gets in. "
                "Add --open to let everybody in, or --cluster-key-file FILE with the key that all services of this "
                "system share (safelight up makes one)."
            )
        names = _hosts(settings.allowed_hosts)
        names |= {host_of(advertised)} if advertised else set()
        # `raw_host` is as browsers send it: with xn-- for other letters than those of ASCII.
        names |= {public.raw_host} if public is not None and public.raw_host else set()
        names |= {host.lower()} if host not in _EVERYWHERE else set()
        # Nobody else decides where the name of this machine leads, so it cannot be rebound.
        names |= set() if loopback_only else {socket.gethostname().lower()}
        return cls(
            local=loopback_only and public is None and not proxies,
            open=settings.open,
            loopback_only=loopback_only,
            cluster=cluster,
            hosts=frozenset(names),
            public=public,
            prefix=public.path.rstrip("/") if public is not None else "",
            origins=_origins(cors_origins),
            classic=_networks("classic-networks", settings.classic_networks),
            classic_tenant=settings.classic_tenant,
            proxies=proxies,
        )


def _cluster_key(path: str | None) -> ClusterKey | None:
    try:
        return ClusterKey(Path(path)) if path else None
    except Error as error:
        raise PolicyError(f"--cluster-key-file: {error.detail}") from None


def _networks(flag: str, text: str) -> Networks:
    try:
        return Networks.parse(text)
    except ValueError as error:
        raise PolicyError(f"--{flag}: {error}") from None


def _hosts(text: str) -> set[str]:
    """Return the names as browsers send them. Raises PolicyError for one that no request could have."""
    found = set()
    for name in filter(None, map(str.strip, text.split(","))):
        try:
            sent = URL.build(scheme="http", host=name).raw_host or ""
        except ValueError:
            sent = ""
        if not sent or "*" in sent:
            raise PolicyError(
                f"--allowed-hosts: {name} is not the name of a host. Write names without a port, path or asterisk: "
                "photos.example.org,nas.lan"
            )
        found.add(sent.lower().rstrip("."))
    return found


def _public_url(text: str | None) -> URL | None:
    if not text:
        return None
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.query_string or url.fragment or url.user:
        raise PolicyError(f"--public-url: {text} is not an address of a page. Write https://HOST or https://HOST/PATH.")
    if _PREFIX.fullmatch(url.raw_path) is None:
        allowed = "only a-z, A-Z, 0-9, -, ., _ and ~ between single slashes"
        raise PolicyError(f"--public-url: the path of {text} may have {allowed}.")
    return url


def _origins(text: str) -> frozenset[str]:
    found = set()
    for name in (part.strip() for part in text.split(",")):
        if not name:
            continue
        try:
            url = URL(name)
            origin = str(url.origin())
        except ValueError:
            raise PolicyError(
                f"--cors-origins: {name} is not an origin. Write https://HOST or https://HOST:PORT."
            ) from None
        if url.path not in ("", "/") or url.scheme not in ("http", "https"):
            raise PolicyError(f"--cors-origins: {name} is not an origin. Write {origin}, without a path.")
        found.add(origin)
    return frozenset(found)


def host_of(address: str) -> str:
    """Return the host of a service's address, which is `host:port` or a URL."""
    return split_host(address.strip().rpartition("://")[2].partition("/")[0])


def split_host(value: str) -> str:
    """Return the host of `host:port`, lower-case, without brackets and a trailing full stop."""
    if value.startswith("["):
        return value[1:].partition("]")[0].lower()
    return value.partition(":")[0].lower().rstrip(".")
