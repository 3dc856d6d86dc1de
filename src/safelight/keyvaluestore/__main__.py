"""The key-value store as a program."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from aiohttp import web
from msgspec import Meta

from safelight import serve, settings
from safelight.client.availability.reachability import Reachability
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.errors import Code, Error
from safelight.keyvaluestore import app
from safelight.keyvaluestore.store import KeyValueStore

if TYPE_CHECKING:
    from safelight.keyvaluestore.etcd import Access


class Config(serve.StandaloneConfig, frozen=True, kw_only=True):
    """Run the key-value store, where services register and find one another."""

    port: serve.Port = 8000
    data: serve.DataDirectory = "data/keyvaluestore"
    store: Annotated[
        str | None,
        Meta(
            description="The URL of the store: sqlite:///FILE, or etcd://HOST:PORT,HOST:PORT/PREFIX (etcds:// by TLS); "
            "by default a file in the data directory.",
            extra={"metavar": "URL"},
        ),
    ] = None
    max_entries: Annotated[int, Meta(ge=1, description="Refuse more entries than this.")] = 10_000
    etcd_authorities: Annotated[
        str | None,
        Meta(
            description="A PEM file of the certificate authorities that TLS to etcd trusts; by default the system's.",
            extra={"metavar": "FILE"},
        ),
    ] = None
    etcd_certificate: Annotated[
        str | None, Meta(description="The PEM file of this service's certificate for etcd.", extra={"metavar": "FILE"})
    ] = None
    etcd_key: Annotated[
        str | None, Meta(description="The PEM file of that certificate's key.", extra={"metavar": "FILE"})
    ] = None
    etcd_user: Annotated[str | None, Meta(description="The user at etcd.", extra={"metavar": "NAME"})] = None
    etcd_password_file: Annotated[
        str | None, Meta(description="The file with the user's password.", extra={"metavar": "FILE"})
    ] = None


@asynccontextmanager
async def build(config: Config, service: serve.Service) -> AsyncIterator[web.Application]:
    """Open the backend that the store's URL names, and yield the application."""
    url = config.store or f"sqlite://{config.data}/keyvaluestore.sqlite"
    scheme, _, place = url.partition("://")
    opened: AbstractAsyncContextManager[KeyValueStore]
    match scheme:
        case "sqlite":
            from safelight.keyvaluestore.sqlite import SqliteStore  # noqa: PLC0415 - only what is chosen is imported

            opened = SqliteStore.open(Path(place), max_entries=config.max_entries, registry=service.registry)
        case "etcd" | "etcds":
            opened = _etcd(url, config, service)
        case _:
            settings.fail(
                f"--store: the key-value store has no backend for {scheme}://. Write sqlite:///FILE or "
                "etcd://HOST:PORT,HOST:PORT."
            )
    async with opened as store:
        service.on_stop(store.wake)
        service.neighbours.offer(KeyValueStoreClient, store)
        yield app.make(store, service.registry)


def etcd_access(config: Config) -> "Access":
    """Return how to reach a cluster, according to the settings of the service."""
    from safelight.keyvaluestore.etcd import Access  # noqa: PLC0415 - only what is chosen

    return Access(
        authorities=config.etcd_authorities,
        certificate=config.etcd_certificate,
        key=config.etcd_key,
        user=config.etcd_user,
        password_file=config.etcd_password_file,
    )


def etcd_prefix(url: str) -> str:
    """Return the prefix of all keys that `etcd://HOST:PORT/PREFIX` names; without one it is `/safelight/`."""
    return f"/{url.partition('://')[2].partition('/')[2].strip('/') or 'safelight'}/"


@asynccontextmanager
async def _etcd(url: str, config: Config, service: serve.Service) -> AsyncIterator[KeyValueStore]:
    from safelight.keyvaluestore.etcd import EtcdStore, Gateway  # noqa: PLC0415 - only what is chosen

    prefix, access = etcd_prefix(url), etcd_access(config)
    try:
        async with (
            Gateway.open(url, access) as gateway,
            EtcdStore.open(gateway, prefix=prefix, max_entries=config.max_entries, registry=service.registry) as store,
            (etcd := Reachability("etcd")).asked(store.check),
        ):
            service.depends_on(etcd)
            yield store
    except Error as error:
        if error.code is Code.INVALID_REQUEST:
            settings.fail(f"--store: {error.detail}")
        raise


def main(argv: Sequence[str] | None = None) -> None:
    """Run the service."""
    serve.run("keyvaluestore", Config, build, argv)


if __name__ == "__main__":
    main()
