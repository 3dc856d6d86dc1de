"""Run the safelight command: the program `safelight` and `python -m safelight` start here."""

import sys


def main() -> int:
    """Run one command and return its exit status, also if Ctrl-C comes while modules are imported."""
    try:
        from safelight.cli import main as run  # noqa: PLC0415 - see above

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
