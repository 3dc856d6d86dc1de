"""Attach cards to networks of the host (bridge, tap, vhost), with a helpful error for anything that the host lacks.

No tap outlives its machine: QEMU's bridge helper creates it for the process, and the kernel removes it afterwards.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from drumhead.errors import DrumheadError, ErrorCode

HELPERS = (Path("/usr/lib/qemu/qemu-bridge-helper"), Path("/usr/libexec/qemu-bridge-helper"))
ALLOWED_BRIDGES = Path("/etc/qemu/bridge.conf")
USUAL_BRIDGES = ("virbr0", "br0")
USUAL_TAP = "tap"
TUN = Path("/dev/net/tun")
VHOST = Path("/dev/vhost-net")
INTERFACES = Path("/sys/class/net")

HostNetwork = Literal["bridge", "tap", "vhost"]


def host_lacks(mode: HostNetwork, reason: str) -> DrumheadError:
    return DrumheadError(
        ErrorCode.UNSUPPORTED,
        f"-n {mode} does not work on this host: {reason}. The default network (without -n) needs none of this",
    )


def host_netdev(mode: HostNetwork, device: str) -> str:
    """Return QEMU's -netdev (without its id) for a card on the host's network. Raises UNSUPPORTED."""
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise host_lacks(mode, f"{TUN} is missing or cannot be opened (as root: modprobe tun)")
    if mode == "tap":
        return f"tap,ifname={_find_tap(device)},script=no,downscript=no"
    bridge = _find_bridge(mode, device)
    netdev = f"tap,br={bridge},helper={_find_helper(mode, bridge)}"
    if mode == "vhost":
        if not os.access(VHOST, os.R_OK | os.W_OK):
            raise host_lacks(mode, f"{VHOST} is missing or cannot be opened (as root: modprobe vhost_net)")
        netdev += ",vhost=on"
    return netdev


def _find_tap(device: str) -> str:
    """Return `device`, or the first tap device that no program has open."""
    known = sorted((path.parent.name for path in INTERFACES.glob("*/tun_flags")), key=lambda name: (len(name), name))
    names = [device] if device else [name for name in known if name.startswith(USUAL_TAP)]
    for name in names:
        if name in known and not _has_carrier(name):
            return name
    if device in known:
        raise host_lacks("tap", f"{device} is in use by another machine; each needs a tap device of its own")
    new = device or next(
        f"{USUAL_TAP}{number}" for number in range(len(names) + 1) if f"{USUAL_TAP}{number}" not in names
    )
    reason = f"there is no tap device {device}" if device else "there is no free tap device"
    raise host_lacks("tap", f"{reason} (as root: ip tuntap add {new} mode tap user $USER; ip link set {new} up)")


def _has_carrier(name: str) -> bool:
    """Return whether a program has a tap device open. A device that is down has no carrier to read and counts as
    free.
    """
    try:
        return (INTERFACES / name / "carrier").read_text().strip() == "1"
    except OSError:
        return False


def _find_bridge(mode: HostNetwork, device: str) -> str:
    names = (device,) if device else USUAL_BRIDGES
    for name in names:
        if (INTERFACES / name / "bridge").is_dir():
            return name
    raise host_lacks(mode, f"there is no bridge {' or '.join(names)} (as root: ip link add {names[0]} type bridge)")


def _find_helper(mode: HostNetwork, bridge: str) -> Path:
    helper = next((path for path in HELPERS if path.is_file()), None)
    if helper is None:
        raise host_lacks(mode, "qemu-bridge-helper is not installed (Debian: apt-get install qemu-system-common)")
    if os.geteuid() != 0 and not helper.stat().st_mode & stat.S_ISUID:
        raise host_lacks(mode, f"{helper} may not create devices for you (as root: chmod u+s {helper}, or use sudo)")
    allowed = ALLOWED_BRIDGES.read_text().split() if os.access(ALLOWED_BRIDGES, os.R_OK) else []
    if bridge not in allowed and "all" not in allowed:
        raise host_lacks(
            mode, f"{ALLOWED_BRIDGES} does not allow it (as root: echo allow {bridge} >> {ALLOWED_BRIDGES})"
        )
    return helper
