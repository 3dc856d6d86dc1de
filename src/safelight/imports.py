"""Keep what a program imports cheap: no garbage collection, and no certificate authorities that nothing needs.

aiohttp reads the system's authorities when it is imported, which is a tenth of what the start of a service costs.
Services talk to each other without TLS or with authorities of their own, so most programs never need the system's.
"""

from __future__ import annotations

import gc
import importlib.abc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

_CREATES_CONTEXTS = "aiohttp.connector"


def begin() -> None:
    """Stop the collector while a program imports its modules."""
    gc.disable()


def complete() -> None:
    """Start the collector. It ignores everything that exists now, also when the program ends."""
    gc.freeze()
    gc.enable()


def read_authorities_later() -> None:
    """Let aiohttp's TLS contexts read the system's authorities before their first connection, unless it is imported."""
    if _CREATES_CONTEXTS not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds aiohttp's module that creates TLS contexts, once."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _CREATES_CONTEXTS:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            executed = partial(_without_authorities, spec.loader.exec_module)
            spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


def _without_authorities(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Execute a module in such a way that the TLS contexts it creates have no authorities yet."""
    import ssl  # noqa: PLC0415 - a program that opens no connection does not need it

    class Context(ssl.SSLContext):
        """A context that reads the authorities before its first connection, and is an ordinary one from then on."""

        def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
            return self._read().wrap_bio(*args, **options)

        def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
            return self._read().wrap_socket(*args, **options)

        def _read(self) -> ssl.SSLContext:
            self.__class__ = ssl.SSLContext  # type: ignore[assignment]
            self.load_default_certs()
            return self

    def load_default_certs(context: ssl.SSLContext, *_: object) -> None:
        context.__class__ = Context

    load = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = load_default_certs  # type: ignore[assignment, method-assign]
    try:
        execute(module)
    finally:
        ssl.SSLContext.load_default_certs = load  # type: ignore[method-assign]
