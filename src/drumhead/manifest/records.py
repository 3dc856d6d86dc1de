"""What a project says about itself, after reading and checking."""

from __future__ import annotations

from typing import Literal

import msgspec

from drumhead.records import Command, GuestName

RuntimeName = Literal["native", "node", "python"]


class PythonNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """The ``python:`` key of package.yaml (ours, not Capstan's).

    `lock` is a path inside the project (requirements with hashes, uv.lock or pylock.toml); empty means: look for one.
    """

    lock: str = ""
    extras: tuple[str, ...] = ()


class PackageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """meta/package.yaml. The first five keys are Capstan's.

    `files` maps a path in the image to a path in the project; when empty, the whole project (less what is ignored)
    lands at ``/``, as with Capstan. `kernel` is NAME@VERSION; empty means the newest of the guest's.
    """

    name: str
    title: str
    author: str
    version: str = ""
    require: tuple[str, ...] = ()
    guest: GuestName = "linux"
    kernel: str = ""
    files: dict[str, str] = {}
    python: PythonNeeds = PythonNeeds()


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """meta/run.yaml: every config set as the command that it stands for.

    `bases` names, for config sets that inherit, whose command they start: ``PACKAGE:CONFIG_SET``. Their own argv is
    empty until the image is composed.
    """

    runtime: RuntimeName
    config_sets: dict[str, Command]
    bases: dict[str, str] = {}
    default: str
    """The config set that runs when none is named; empty when several exist and none is the default."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A directory with meta/package.yaml. `root` is absolute; `run` is None without meta/run.yaml.

    `notices` are sentences for the user: old package names that were resolved, keys that mean nothing here.
    """

    root: str
    package: PackageManifest
    run: RunManifest | None
    notices: tuple[str, ...] = ()
