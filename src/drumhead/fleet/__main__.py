"""The keeper of one fleet in the background: ``python -m drumhead.fleet NAME``, started by ``drumhead up --detach``."""

from __future__ import annotations

import asyncio
import logging
import sys

from drumhead.fleet.store import FleetStore
from drumhead.fleet.supervisor import Keeper
from drumhead.home import find_home


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    store = FleetStore(find_home(), sys.argv[1])
    with store.keeping():
        asyncio.run(Keeper(store, attached=False).run())


if __name__ == "__main__":
    main()
