"""Read the system's certificate authorities when a connection needs them, not when a program starts.

aiohttp reads them when it is imported, which is a seventh of what the start of a service costs. Services talk to each
other without TLS or with authorities of their own, so most programs never need the system's.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

_MODULE = "aiohttp.connector"


def read_later() -> None:
    """Change the import of aiohttp, unless it is imported already."""
    if _MODULE not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds aiohttp's module that creates TLS contexts, once."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Executes a module in such a way that the TLS contexts it creates have no authorities yet."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
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
            self._loader.exec_module(module)
        finally:
            ssl.SSLContext.load_default_certs = load  # type: ignore[method-assign]
