"""A self-hosted system for photos: clients upload them, workers process them, the results are kept and served."""

import gc
import itertools
import signal
import sys

from safelight import imports

__version__ = "0.1.0"

imports.read_authorities_later()

if "safelight" in {module.partition(".")[0] for flag, module in itertools.pairwise(sys.orig_argv) if flag == "-m"}:
    # `python -m safelight.NAME` imports a lot: until then, Ctrl-C ends it without a traceback. A service handles SIGINT
    # itself as soon as it has something to stop.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Modules are not garbage, so looking for it while they are imported costs time for nothing. `imports.complete` ends
    # this.
    gc.disable()
