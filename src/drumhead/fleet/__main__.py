"""Run the supervisor of one fleet in the background: ``python -m drumhead.fleet NAME``.

``drumhead up --detach`` starts it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from drumhead.fleet.store import CHANGED, FleetStore
from drumhead.fleet.supervisor import Supervisor
from drumhead.home import find_home


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # Machines may start thousands of times, and QEMU's command line is 4 kB long.
    logging.getLogger("drumhead.machine.qemu").setLevel(logging.WARNING)
    store = FleetStore(find_home(), sys.argv[1])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it has no terminal
    signal.signal(CHANGED, signal.SIG_IGN)  # other commands send it as soon as the lock is held
    with store.supervising():
        asyncio.run(Supervisor(store, attached=False).run())


if __name__ == "__main__":
    main()
