"""``python -m drumhead_start``: read the machine's configuration and become its program."""

import sys
import types

from .machine import Machine

if __name__ == "__main__":
    # The program gets its own __main__ module.
    sys.modules["__main__"] = types.ModuleType("__main__")
    Machine().run()
