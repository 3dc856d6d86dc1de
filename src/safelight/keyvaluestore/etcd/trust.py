"""The settings for connections to etcd, and TLS with files that are read again when they are renewed."""

from __future__ import annotations

import logging
import ssl
import time

import msgspec

from safelight.access.connections.tls import load_chain, look
from safelight.access.policy import PolicyError
from safelight.errors import Code, Error
from safelight.logs import Sparing

log = logging.getLogger(__name__)

_LOOK_AGAIN = 5.0
"""Seconds between two checks whether the files have changed."""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a cluster: TLS authorities, a client certificate with its key (PEM files), a user."""

    authorities: str | None = None
    certificate: str | None = None
    key: str | None = None
    user: str | None = None
    password_file: str | None = None


class Trust:
    """The authorities and the client certificate for etcd.

    A certificate is often valid for days only, and a new connection needs the renewed one.
    """

    def __init__(self, access: Access) -> None:
        """Read the files. Raises INVALID_REQUEST."""
        self._access = access
        self._files = [file for file in (access.authorities, access.certificate, access.key) if file is not None]
        self._state, self._looked = look(self._files), time.monotonic()
        self._context = _context(access)
        self._refused = Sparing(log, logging.WARNING)

    def context(self) -> ssl.SSLContext:
        """Return the context of the next request, which is a new one after the files have changed."""
        if time.monotonic() - self._looked >= _LOOK_AGAIN:
            self._looked = time.monotonic()
            if (state := look(self._files)) != self._state:
                try:
                    self._context = _context(self._access)
                except Error as error:
                    self._refused("The certificates for etcd stay as they were: %s", error.detail)
                else:
                    self._state = state
                    log.info("The certificates for etcd were read again")
        return self._context


def check_pairs(access: Access, *, tls: bool) -> None:
    """Raise INVALID_REQUEST for settings that have no effect or no meaning without another one, or without TLS."""
    files = {"authorities": access.authorities, "certificate": access.certificate, "key": access.key}
    if not tls and (given := [name for name, file in files.items() if file is not None]):
        raise Error(Code.INVALID_REQUEST, f"--etcd-{given[0]} needs TLS: write etcds:// instead of etcd://.")
    if access.certificate is None and access.key is not None:
        raise Error(Code.INVALID_REQUEST, "--etcd-key needs --etcd-certificate.")
    if (access.user is None) != (access.password_file is None):
        raise Error(Code.INVALID_REQUEST, "Give --etcd-user and --etcd-password-file together.")


def _context(access: Access) -> ssl.SSLContext:
    """Return a context with the authorities and the certificate for etcd. Raises INVALID_REQUEST."""
    try:
        context = ssl.create_default_context(cafile=access.authorities)
    except OSError as error:
        sentence = f"--etcd-authorities: {access.authorities} cannot be used: {error.strerror or error}."
        raise Error(Code.INVALID_REQUEST, sentence) from None
    if access.certificate is not None:
        key = ("--etcd-key", access.key) if access.key is not None else ("--etcd-certificate", access.certificate)
        try:
            load_chain(context, ("--etcd-certificate", access.certificate), key)
        except PolicyError as error:
            raise Error(Code.INVALID_REQUEST, str(error)) from None
    return context
