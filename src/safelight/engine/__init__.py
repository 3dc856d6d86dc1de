"""The image engine: a few functions on top of libvips. They block, and are independent of the services.

The records do not need libvips, for callers that only pass them on. The first use of anything else loads libvips and
configures it for the whole process (untrusted readers blocked, no cache).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safelight.engine.limits import Limits
from safelight.engine.records import Output, Probe, Result

if TYPE_CHECKING:
    from safelight.engine.library import VERSION, can_read, can_write, check, set_concurrency
    from safelight.engine.pipeline import Stop, probe, process

__all__ = [
    "VERSION",
    "Limits",
    "Output",
    "Probe",
    "Result",
    "Stop",
    "can_read",
    "can_write",
    "check",
    "probe",
    "process",
    "set_concurrency",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.library")  # first: libvips reads its environment when it is loaded
    if name in {"Stop", "probe", "process"}:
        module = import_module(f"{__name__}.pipeline")
    value = globals()[name] = getattr(module, name)
    return value
