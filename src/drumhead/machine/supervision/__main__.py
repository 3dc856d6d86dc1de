"""Supervise one detached machine: ``python -m drumhead.machine.supervision NAME``.

``drumhead run -d`` starts this with ``--restart`` and ``--sleep-after``.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from drumhead.errors import DrumheadError
from drumhead.home import find_home
from drumhead.machine.supervision.supervisor import supervise


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # Machines may start thousands of times, and QEMU's command line is 4 kB long.
    logging.getLogger("drumhead.machine.qemu").setLevel(logging.WARNING)
    try:
        asyncio.run(supervise(find_home(), sys.argv[1]))
    except DrumheadError as error:
        sys.exit(f"drumhead: {error.message}")


if __name__ == "__main__":
    main()
