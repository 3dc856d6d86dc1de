"""``python -m drumhead_start``: read the machine's configuration and become its program."""

import sys
import types

from .machine import Machine

if __name__ == "__main__":
    # The program gets a __main__ module of its own.
    sys.modules["__main__"] = types.ModuleType("__main__")
    Machine().run()
