"""Records of a project's validated manifests."""

from __future__ import annotations

from typing import Literal

import msgspec

from drumhead.records import Command, GuestName

RuntimeName = Literal["native", "node", "python"]


class PythonNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """The ``python:`` key of package.yaml, which Capstan does not have.

    `lock` is a path inside the project (requirements with hashes, uv.lock or pylock.toml). If it is empty, drumhead
    searches for a lock. `extras` and `groups` are installed beside the project's dependencies. With `sources`, the
    sources of all dependencies are in the image, beside their bytecode.
    """

    lock: str = ""
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    sources: bool = False


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the ``permissions:`` key of package.yaml, which Capstan does not have.

    `path` starts with a slash. With `pattern` it has wildcards; with a slash at its end it is a directory that is
    created if it does not exist. `owner` and `group` are names or numbers; an empty string, or None for `mode`, means
    unchanged. `place` is FILE:LINE.
    """

    path: str
    pattern: bool = False
    owner: str = ""
    group: str = ""
    mode: int | None = None
    place: str = ""


class PackageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of meta/package.yaml. The first five keys are those of Capstan.

    `files` maps paths in the image to paths in the project; if it is empty, the whole project (except ignored
    files) is placed at ``/``, as with Capstan. `kernel` is NAME@VERSION; empty means the guest's newest kernel.
    """

    name: str
    title: str
    author: str
    version: str = ""
    require: tuple[str, ...] = ()
    guest: GuestName = "linux"
    kernel: str = ""
    files: dict[str, str] = {}
    permissions: tuple[Permission, ...] = ()
    python: PythonNeeds = PythonNeeds()


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """The config set of a package that a config set inherits (``base: PACKAGE:CONFIG_SET``). `place` is FILE:LINE."""

    package: str
    config_set: str
    place: str


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of meta/run.yaml, with every config set as a command.

    `bases` maps config sets to those that they inherit. Their argv is empty until the image is composed.
    """

    runtime: RuntimeName
    config_sets: dict[str, Command]
    bases: dict[str, Base] = {}
    warm: tuple[str, ...] = ()
    """Python modules that a snapshot of the image imports."""
    default: str
    """The config set that runs by default; empty if several exist and none is the default."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A directory with meta/package.yaml. `root` is absolute; `run` is None without meta/run.yaml.

    `notices` are sentences for the user: old package names that were resolved, keys without effect.
    """

    root: str
    package: PackageManifest
    run: RunManifest | None
    notices: tuple[str, ...] = ()
