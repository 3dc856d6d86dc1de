"""`python -m drumhead` is `drumhead`."""

import sys

from drumhead.cli import main

if __name__ == "__main__":
    sys.exit(main())
