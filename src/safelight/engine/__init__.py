"""The image engine: libvips behind a handful of calls. It blocks, and knows nothing of services.

Importing it configures libvips for the whole process (readers blocked, no cache).
"""

from safelight.engine.library import VERSION, can_read, can_write, check, set_concurrency
from safelight.engine.limits import Limits
from safelight.engine.process import Stop, probe, process
from safelight.engine.records import Output, Probe

__all__ = [
    "VERSION",
    "Limits",
    "Output",
    "Probe",
    "Stop",
    "can_read",
    "can_write",
    "check",
    "probe",
    "process",
    "set_concurrency",
]
