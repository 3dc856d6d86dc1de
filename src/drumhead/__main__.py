"""Run the drumhead command with `python -m drumhead`."""

import sys

from drumhead.cli import main

if __name__ == "__main__":
    sys.exit(main())
