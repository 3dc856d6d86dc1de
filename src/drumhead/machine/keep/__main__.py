"""Keep one detached machine running: ``python -m drumhead.machine.keep NAME``, by ``drumhead run -d --restart``."""

from __future__ import annotations

import asyncio
import logging
import sys

from drumhead.errors import DrumheadError
from drumhead.home import find_home
from drumhead.machine.keep.keeper import keep


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        asyncio.run(keep(find_home(), sys.argv[1]))
    except DrumheadError as error:
        sys.exit(f"drumhead: {error.message}")


if __name__ == "__main__":
    main()
