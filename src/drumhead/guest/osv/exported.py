"""The start of an exported disk, which contains its configuration, because no host provides one or receives reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from drumhead.guest.contract import RunConfig
from drumhead.guest.osv import program
from drumhead.guest.osv.cmdline import command_line, option
from drumhead.guest.osv.guest import DATA, LOADER, OPTIONS
from drumhead.guest.osv.skeleton import CONFIG_MOUNT
from drumhead.tree import Tree, regular

if TYPE_CHECKING:
    from drumhead.records import Command

CONFIG_PARTITION = "/dev/vblk0.2"
"""The third partition of the only disk; the root is the second."""


def exported_start(command: Command, hostname: str) -> tuple[str, Tree]:
    """Return OSv's command line and the files of the configuration partition. Cards use DHCP."""
    config = RunConfig(hostname=hostname, command=command)
    start = program.read(command)
    place = CONFIG_MOUNT if start.managed else program.OWN_FILES
    mounts = [
        option("mount-fs", f"rofs,{CONFIG_PARTITION},{place}"),
        option("mount-fs", f"ramfs,ramfs,{DATA}"),
    ]
    tree = program.config_tree(config, start)
    if start.managed:
        settings = msgspec.json.decode(tree["config.json"].read(), type=program.Settings)
        tree = Tree()
        tree.add("config.json", regular(msgspec.json.encode(msgspec.structs.replace(settings, channels={}))))
    return command_line([*OPTIONS, *mounts, *start.options], start.environment, [LOADER, *start.argv]), tree
