"""Run the drumhead command: the program `drumhead` and `python -m drumhead` start here."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command and return its exit status, also if Ctrl-C comes while modules are imported."""
    try:
        from drumhead.cli import main as run  # noqa: PLC0415 - see above

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
