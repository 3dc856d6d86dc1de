"""``drumhead shell``: reach machines from the host, by name and address."""

from __future__ import annotations

import os

from drumhead.cli.output import notice
from drumhead.home import find_home
from drumhead.machine.instances import Instances
from drumhead.machine.network.shell import run_shell


async def shell_command(
    *command: str,
    private_network: str = "default",
) -> int:
    """Open a shell of this host that is on a private network and reaches machines by name and address.

    The command needs no root. The shell sees the files of the host, but no network other than the private one. The
    exit status is that of the shell or the command.

    Parameters
    ----------
    command:
        A program and its arguments to run instead of a shell; flags that follow it are its own.
    private_network:
        The private network; that of a fleet has the fleet's name.
    """
    networks = sorted({one.spec.private_network for one in Instances(find_home()).launches() if one.address})
    if private_network not in networks:
        known = f"there are machines on: {', '.join(networks)}" if networks else "there are no machines yet"
        notice(f"No machine is on the network {private_network}; {known}")
    if not command:
        notice(f"A shell on the network {private_network}; `exit` leaves it.")
    return await run_shell(find_home(), private_network, command or (os.environ.get("SHELL", "/bin/sh"),))
