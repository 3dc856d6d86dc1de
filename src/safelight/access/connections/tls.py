"""TLS on a service's port, with a certificate that is read again when it is renewed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

from safelight import background
from safelight.access.policy import PolicyError
from safelight.access.settings import AccessSettings
from safelight.logs import Sparing

log = logging.getLogger(__name__)

_LOOK_AGAIN = 5.0
"""Seconds between two checks whether the files have changed."""

State = tuple[tuple[int, int, int], ...]


class Certificate:
    """A service's certificate and key. Open connections keep the certificate with which they began."""

    def __init__(self, certificate: str, key: str) -> None:
        """Read the files. Raises PolicyError."""
        self._files = (certificate, key)
        self._state = self._look()
        self._current = _loaded(self._files)
        self.context = _loaded(self._files)
        self.context.sni_callback = self._choose

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Read the files again whenever they change until the context ends."""
        async with background.running(self._watch, "certificate"):
            yield

    async def _watch(self) -> None:
        refused = Sparing(log, logging.WARNING)
        while True:
            await asyncio.sleep(_LOOK_AGAIN)
            await asyncio.to_thread(self._refresh, refused)

    def _refresh(self, refused: Sparing) -> None:
        state = self._look()
        if state == self._state:
            return
        try:
            self._current = _loaded(self._files)
        except PolicyError as error:
            # The next look tries again: what was wrong, such as the mode of a file, may not show in its state.
            refused("The certificate stays as it was: %s", error)
        else:
            log.info("The certificate was read again")
            self._state = state

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _host: str | None, _listening: ssl.SSLContext) -> None:
        """Continue a handshake with the newest certificate; OpenSSL also asks if the client names no host.

        A context that is in use cannot take a renewed certificate: it keeps one for each type of key, and would go on
        to show the old one after a change of the type.
        """
        connection.context = self._current

    def _look(self) -> State:
        return look(self._files)


def look(files: Sequence[str]) -> State:
    """Return what shows whether files have changed."""
    found = []
    for file in files:
        try:
            status = Path(file).stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def certificate(settings: AccessSettings) -> Certificate | None:
    """Return the certificate of a service that uses TLS, or None for plain HTTP. Raises PolicyError."""
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise PolicyError("Give --tls-certificate and --tls-key together.")
    return Certificate(settings.tls_certificate, settings.tls_key)


def _loaded(files: tuple[str, str]) -> ssl.SSLContext:
    """Return a new context with a certificate and its key. Raises PolicyError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_chain(context, ("--tls-certificate", files[0]), ("--tls-key", files[1]))
    return context


def load_chain(context: ssl.SSLContext, certificate: tuple[str, str], key: tuple[str, str]) -> None:
    """Load a certificate chain and its private key, each given as a flag and a file.

    Raises PolicyError, with what is wrong with which file.
    """
    for (flag, file), kind, mark in (
        (certificate, "certificate", b"CERTIFICATE"),
        (key, "private key", b"PRIVATE KEY"),
    ):
        try:
            content = Path(file).read_bytes()
        except OSError as error:
            raise PolicyError(f"{flag}: {file} cannot be read: {error.strerror}.") from None
        if b"-----BEGIN " not in content or b"%s-----" % mark not in content:
            raise PolicyError(f"{flag}: {file} contains no {kind} in PEM (a line -----BEGIN … {mark.decode()}-----).")

    def ask() -> NoReturn:
        """Refuse to ask for a passphrase on the terminal, where nobody may be."""
        flag, file = key
        raise PolicyError(f"{flag}: {file} is encrypted. Write the key without a passphrase (openssl pkey -in {file}).")

    try:
        context.load_cert_chain(certificate[1], key[1], password=ask)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            advice = f"{certificate[1]} must begin with the one that belongs to it, before those of authorities."
            raise PolicyError(f"{key[0]}: {key[1]} is not the key of the certificate. {advice}") from None
        raise PolicyError(f"{certificate[0]} and {key[0]} cannot be used: {error}.") from None
    except OSError as error:
        raise PolicyError(f"{certificate[0]} and {key[0]} cannot be used: {error.strerror or error}.") from None
