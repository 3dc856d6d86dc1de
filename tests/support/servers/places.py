"""Places for the programs of a cluster: loopback, or a network namespace for each, whose links can be cut.

A cut drops packets in silence, both ways: each side is given a wrong hardware address of the other one, so the bridge
delivers nothing. No connection is reset or refused, as when a switch fails. Needs root.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_NOBODY = "02:00:00:00:00:01"
_numbers = itertools.count()


class Loopback:
    """Run all programs on this machine's loopback interface."""

    def host(self, _name: str) -> str:
        """Return the address on which a program listens."""
        return "127.0.0.1"

    def prefix(self, _name: str) -> Sequence[str]:
        """Return the command prefix that runs a command at the place of a program."""
        return ()


class Namespaces:
    """Run each program in a namespace, all connected to one bridge; the tests themselves are `client`."""

    CLIENT = "client"

    def __init__(self) -> None:
        number = next(_numbers)
        self._tag = f"sl{os.getpid() % 100000}x{number}"
        self._net = f"10.{180 + os.getpid() % 60}.{(os.getpid() // 60 + number) % 250}"
        self._places: dict[str, int] = {}

    def host(self, name: str) -> str:
        """Return the address of a program; the first call makes its namespace."""
        return f"{self._net}.{self._place(name)}"

    def prefix(self, name: str) -> Sequence[str]:
        """Return the command prefix that runs a command in the namespace of a program."""
        return () if name == self.CLIENT else ("ip", "netns", "exec", self._namespace(self._place(name)))

    def cut(self, one: str, other: str) -> None:
        """Drop all packets between two programs."""
        for near, far in ((one, other), (other, one)):
            self._neighbour(near, far, "replace", "lladdr", _NOBODY, "nud", "permanent")

    def heal(self, one: str, other: str) -> None:
        """Deliver packets again."""
        for near, far in ((one, other), (other, one)):
            self._neighbour(near, far, "del")

    def _neighbour(self, near: str, far: str, verb: str, *words: str) -> None:
        device = self._tag if near == self.CLIENT else "eth0"
        _run(*self.prefix(near), "ip", "neigh", verb, self.host(far), *words, "dev", device)

    def _place(self, name: str) -> int:
        number = self._places.get(name)
        if number is None:
            number = self._places[name] = len(self._places) + 1
            self._make(number, is_client=name == self.CLIENT)
        return number

    def _namespace(self, number: int) -> str:
        return f"{self._tag}n{number}"

    def _wire(self, number: int) -> str:
        return f"{self._tag}v{number}"

    def _make(self, number: int, *, is_client: bool) -> None:
        address = f"{self._net}.{number}/24"
        if is_client:
            _run("ip", "link", "add", self._tag, "type", "bridge")
            _run("ip", "addr", "add", address, "dev", self._tag)
            _run("ip", "link", "set", self._tag, "up")
            return
        namespace, wire = self._namespace(number), self._wire(number)
        _run("ip", "netns", "add", namespace)
        _run("ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _run("ip", "link", "set", wire, "master", self._tag, "up")
        inside = ("ip", "-n", namespace)
        _run(*inside, "addr", "add", address, "dev", "eth0")
        _run(*inside, "link", "set", "eth0", "up")
        _run(*inside, "link", "set", "lo", "up")

    def unplug(self, name: str) -> None:
        """Remove the link of a program for good."""
        _run("ip", "link", "del", self._wire(self._place(name)))

    def restart(self, name: str) -> None:
        """Make the namespace of an unplugged program anew, whose kernel knows no connection. The program has ended."""
        number = self._place(name)
        _run("ip", "netns", "del", self._namespace(number))
        self._make(number, is_client=False)

    def remove(self) -> None:
        """Remove the namespaces with their links."""
        for name, number in self._places.items():
            if name != self.CLIENT:
                _run("ip", "netns", "del", self._namespace(number))
        _run("ip", "link", "del", self._tag)


Places = Loopback | Namespaces


@contextmanager
def namespaces() -> Iterator[Namespaces]:
    """Yield namespaces as long as the context lasts. The programs in them must end before."""
    places = Namespaces()
    places.host(Namespaces.CLIENT)
    try:
        yield places
    finally:
        places.remove()


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
