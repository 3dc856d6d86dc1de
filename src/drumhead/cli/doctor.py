"""``drumhead doctor``: whether this host has what drumhead needs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from drumhead import host
from drumhead.cli.flags import Json
from drumhead.cli.output import notice, print_json, print_table, size_text
from drumhead.errors import EXIT_STATUS, ErrorCode
from drumhead.home import Home, find_home
from drumhead.machine.qemu.acceleration import remembered
from drumhead.machine.qemu.command_line import PROGRAM

_DEVICES = {
    "/dev/kvm": "machines at full speed; without it they run in software emulation",
    "/dev/net/tun": "drumhead shell, and machines on a network of the host",
}
_LITTLE_SPACE = 2 << 30


def doctor_command(*, json: Json = False) -> int:
    """Check whether this host has what drumhead needs, and print what to install.

    The exit status is 4 if something is missing that composing images or running machines needs.
    """
    home = find_home()
    writable = _is_writable(home)
    missing = [name for name in host.TOOLS if host.look_for(name) is None]
    unusable = [path for path in _DEVICES if not os.access(path, os.R_OK | os.W_OK)]
    if json:
        print_json(
            {
                "missing": missing,
                "unusable": unusable,
                "home": str(home.root),
                "writable": writable,
                "free": _free_space(home),
            }
        )
    else:
        _print(missing, unusable, _free_space(home))
        if not writable:
            notice(f"{home.root} cannot be written; set DRUMHEAD_HOME to a directory that you can write to.")
    needed = any(host.TOOLS[name].needed for name in missing) or not writable
    return EXIT_STATUS[ErrorCode.HOST_TOOL] if needed else 0


def _print(missing: list[str], unusable: list[str], free: int) -> None:
    rows = [
        (name, host.look_for(name) or ("missing" if tool.needed else "missing, optional"), tool.purpose)
        for name, tool in host.TOOLS.items()
    ]
    rows += [(path, "not usable" if path in unusable else _state(path), purpose) for path, purpose in _DEVICES.items()]
    print_table(("Program or device", "On this host", "For"), rows)
    packages = sorted({host.TOOLS[name].package for name in missing})
    if packages:
        notice(f"On Debian, install the missing programs with: apt-get install {' '.join(packages)}")
    if "/dev/kvm" in unusable and Path("/dev/kvm").exists():
        notice("/dev/kvm cannot be opened; add yourself to the group kvm.")
    if "/dev/net/tun" in unusable:
        notice("/dev/net/tun cannot be opened; as root: modprobe tun; chmod 666 /dev/net/tun")
    if free < _LITTLE_SPACE:
        notice(f"Only {size_text(free)} are free for {find_home().root}; images and packages take a few GiB.")


def _state(device: str) -> str:
    """Return the state of a device that can be opened. Whether KVM works is known only after the first machine."""
    if device != "/dev/kvm":
        return "usable"
    known = remembered(find_home()) if host.look_for(PROGRAM) else None
    if known is None:
        return "can be opened; the first machine will test it"
    return "usable" if known.works else "can be opened, but cannot run a machine"


def _is_writable(home: Home) -> bool:
    """Return whether this user can write to the home, or create it."""
    place = _existing(home)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _free_space(home: Home) -> int:
    """Return the number of free bytes on the file system where the home is or will be."""
    return shutil.disk_usage(_existing(home)).free


def _existing(home: Home) -> Path:
    """Return the home, or the closest directory above it that exists and that this user may look into."""
    return next(path for path in (home.root, *home.root.parents) if os.access(path, os.F_OK))
