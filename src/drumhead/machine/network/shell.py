"""Run a program of the host on a private network, where it reaches machines by name and address, without root.

The program runs in its own namespaces (``namespace``). Like the frames of machines, those of its card travel as
datagrams to the network's multicast group on the host's loopback interface.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.instances import Instances
from drumhead.machine.network import private
from drumhead.machine.network.namespace import Settings

if TYPE_CHECKING:
    from drumhead.home import Home

NETMASK = "255.192.0.0"
MAX_FRAME = 1 << 16
BURST = 64
"""The number of frames relayed in one direction before the other direction has its turn."""
NAMES_INTERVAL = 1.0
"""Seconds between two updates of the names of machines."""
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


async def run_shell(home: Home, network: str, argv: tuple[str, ...]) -> int:
    """Run a program on `network` with this terminal, and return its exit status. Raises UNSUPPORTED."""
    mac = private.derive_mac(network, f"shell {secrets.token_hex(8)}")
    with tempfile.NamedTemporaryFile("w+", prefix="drumhead-shell-", delete=False) as hosts:
        try:
            _write_hosts(home, network, hosts)
            settings = Settings(
                mac=mac,
                address=private.derive_address(mac),
                address6=private.derive_address6(network, mac),
                netmask=NETMASK,
                hosts=hosts.name,
                argv=argv,
            )
            process, card = await _start(settings)
        finally:
            # The namespace has removed it, if it could be set up.
            Path(hosts.name).unlink(missing_ok=True)  # noqa: ASYNC240 - one system call
        naming = asyncio.create_task(_keep_names(home, network, hosts))
        try:
            group = private.multicast_group(home, network)
            return await _attend(group, mac, card, process)
        finally:
            naming.cancel()
            os.close(card)


async def _start(settings: Settings) -> tuple[asyncio.subprocess.Process, int]:
    """Start the program. Return its process and the descriptor of its card. Raises UNSUPPORTED."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = ["-m", "drumhead.machine.network.namespace", str(theirs.fileno())]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, msgspec.json.encode(settings).decode(), pass_fds=[theirs.fileno()]
        )
        theirs.close()
        return process, await _receive_card(ours, process)


async def _receive_card(channel: socket.socket, process: asyncio.subprocess.Process) -> int:
    """Return the descriptor of the program's card. Raises UNSUPPORTED with the reason from the namespace process."""
    try:
        said, files, _, _ = await asyncio.to_thread(socket.recv_fds, channel, 4096, 1)
    except OSError:
        said, files = b"", []
    if not files:
        await process.wait()
        reason = said.decode() or "the namespace could not be set up"
        raise DrumheadError(ErrorCode.UNSUPPORTED, f"drumhead shell does not work on this host: {reason}")
    return files[0]


async def _attend(group: private.MulticastGroup, mac: str, card: int, process: asyncio.subprocess.Process) -> int:
    """Relay the card's frames until the program ends. Return its exit status."""
    loop = asyncio.get_running_loop()
    # Keys such as Ctrl-C are for the program, which is in the same process group.
    for number in (signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, process.terminate)
    os.set_blocking(card, False)
    with private.open_group(group) as link:
        loop.add_reader(card, _relay_out, card, link, (group.address, group.port))
        loop.add_reader(link, _relay_in, link, card, bytes.fromhex(mac.replace(":", "")))
        try:
            status = await process.wait()
        finally:
            loop.remove_reader(card)
            loop.remove_reader(link)
    return status if status >= 0 else 128 - status


def _relay_out(card: int, link: socket.socket, to: tuple[str, int]) -> None:
    # Frames that the network cannot take are lost, as on any Ethernet.
    for _ in range(BURST):
        try:
            frame = os.read(card, MAX_FRAME)
        except OSError:
            return
        with suppress(OSError):
            link.sendto(frame, to)


def _relay_in(link: socket.socket, card: int, own: bytes) -> None:
    for _ in range(BURST):
        try:
            frame = link.recv(MAX_FRAME)
        except OSError:
            return
        if frame[6:12] == own:  # a member of a multicast group receives its own frames
            continue
        with suppress(OSError):
            os.write(card, frame)


async def _keep_names(home: Home, network: str, hosts: IO[str]) -> None:
    """Keep the names of machines up to date in the file that the program sees as /etc/hosts."""
    while True:
        await asyncio.sleep(NAMES_INTERVAL)
        _write_hosts(home, network, hosts)


def _write_hosts(home: Home, network: str, hosts: IO[str]) -> None:
    launches = Instances(home).launches()
    known = [private.network_hosts(launches, network), private.network_hosts6(launches, network)]
    text = HOSTS + "".join(f"{address} {name}\n" for names in known for name, address in names.items())
    hosts.seek(0)
    if hosts.read() != text:
        hosts.seek(0)
        hosts.write(text)  # in place, because the mount refers to this very file
        hosts.truncate()
        hosts.flush()
