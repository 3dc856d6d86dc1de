"""`python -m safelight.cli` is `safelight`."""

import sys

from safelight.cli import main

if __name__ == "__main__":
    sys.exit(main())
