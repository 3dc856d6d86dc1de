"""Apply the owners and modes in a project's manifest to its files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from drumhead.debian.accounts import DECLARATIONS, GROUP, PASSWD, Accounts
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.patterns import match_whole
from drumhead.tree import Tree, directory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drumhead.manifest.records import Permission
    from drumhead.records import Filesystem
    from drumhead.tree import Entry


def check_permissions(permissions: Sequence[Permission], filesystem: Filesystem) -> None:
    """Check that a file system can store the permissions. Raises UNSUPPORTED with the line of the manifest."""
    for permission in permissions:
        owned = permission.owner or permission.group
        if filesystem == "rofs":
            what = "owners" if owned else "modes"
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                f"{permission.place}: OSv's file system stores no {what}; remove the permissions of "
                f"{permission.path}, or compose with --guest linux",
            )
        if filesystem == "erofs" and owned:
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                f"{permission.place}: {permission.path} cannot have an owner in an erofs layer; leave out --fs erofs",
            )


def apply_permissions(files: Tree, permissions: Sequence[Permission], base: Tree) -> Tree:
    """Return the project's `files` with their owners and modes. Later permissions override earlier ones.

    Directories that `base` has too, such as /tmp, have its mode unless a permission changes it.
    Names of accounts are looked up in /etc/passwd and /etc/group of the project, or else of `base`. Raises MANIFEST for
    an unknown name and for a path that matches no file.
    """
    result = Tree()
    result.update(files)
    for path, entry in files:
        known = base.get(base.resolve(path)) if entry.kind == "directory" else None
        if known and known.kind == "directory":
            result.add(path, known)
    for permission in permissions:
        change = _change(permission, files, base)
        matches = match_whole(permission.path.strip("/"))
        named = [(path, entry) for path, entry in result if matches(path)]
        if not named and permission.path.endswith("/"):
            named = [(permission.path.strip("/"), directory())]
        if not named:
            raise DrumheadError(
                ErrorCode.MANIFEST,
                f"{permission.place}: {permission.path} matches no file of the project; "
                "add a slash at the end of the path to create an empty directory",
            )
        for path, entry in named:
            if permission.path.endswith("/") and entry.kind != "directory":
                raise DrumheadError(ErrorCode.MANIFEST, f"{permission.place}: {permission.path} is not a directory")
            result.add(path, change(entry))
    return result


def closed_notices(files: Tree, permissions: Sequence[Permission]) -> list[str]:
    """Return a notice if others than root cannot read some of a project's files and no permission sets their mode.

    After a checkout with the umask 077 or 027 that is every file, and a server that gives up root, or a container,
    which runs as nobody, cannot read them.
    """
    meant = [match_whole(one.path.strip("/")) for one in permissions if one.mode is not None or one.owner]
    closed = [
        path
        for path, entry in files
        if entry.kind == "file"
        and not entry.mode & 0o004
        and not path.startswith("meta/")
        and not any(matches(path) for matches in meant)
    ]
    if not closed:
        return []
    more = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
    mode = files[closed[0]].mode
    notice = (
        f"/{closed[0]} (mode {mode:04o}){more}: a program that does not run as root cannot read such files of the "
        "project; chmod -R o=rX, or `permissions` in meta/package.yaml, changes that"
    )
    return [notice]


def replaced_notices(files: Tree, collected: Tree) -> list[str]:
    """Return a notice for each file of accounts of a project that lacks some of those that packages declare.

    The project's file replaces the collected one.
    """
    debian, notices = Accounts().files(), []
    for path in (PASSWD, GROUP):
        if (own := files.get(path)) is None or own.kind != "file" or (all_of_them := collected.get(path)) is None:
            continue
        declared = _names(all_of_them.read().decode()) - _names(debian[path])
        if lacking := declared - _names(own.read().decode(errors="replace")):
            notices.append(
                f"/{path} of the project replaces the one with the accounts that packages declare, and lacks "
                f"{', '.join(sorted(lacking))}; add what the programs need, or delete the file"
            )
    return notices


def _names(text: str) -> set[str]:
    return {line.partition(":")[0] for line in text.splitlines()}


def _change(permission: Permission, files: Tree, base: Tree) -> Callable[[Entry], Entry]:
    """Return a function that applies a permission to an entry."""
    uid, gid = _owner(permission, files, base)

    def change(entry: Entry) -> Entry:
        mode = entry.mode
        if permission.mode is not None and entry.kind != "symlink":
            mode = permission.mode
            if permission.pattern and entry.kind == "directory":
                mode |= (mode & 0o444) >> 2  # whoever may read a directory may also search it
        return replace(entry, mode=mode, uid=entry.uid if uid is None else uid, gid=entry.gid if gid is None else gid)

    return change


def _owner(permission: Permission, files: Tree, base: Tree) -> tuple[int | None, int | None]:
    """Return the numbers of the user and the group, or None for one that does not change."""
    uid = gid = None
    if permission.owner.isdigit():
        uid = gid = int(permission.owner)
    elif permission.owner:
        found = _find(permission, permission.owner, PASSWD, files, base)
        uid, gid = int(found[2]), int(found[3])
    if permission.group.isdigit():
        gid = int(permission.group)
    elif permission.group:
        gid = int(_find(permission, permission.group, GROUP, files, base)[2])
    return uid, gid


def _find(permission: Permission, name: str, file: str, files: Tree, base: Tree) -> list[str]:
    """Return the fields of an account. Raises MANIFEST."""
    entry = files.get(file) or base.get(file)
    text = entry.read().decode(errors="replace") if entry and entry.kind == "file" else ""
    for line in text.splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3 and fields[2].isdigit() and (file == GROUP or fields[3].isdigit()):
            return fields
    raise DrumheadError(
        ErrorCode.MANIFEST,
        f"{permission.place}: /{file} of the image has no {name}; give the number, or declare it in a file of the "
        f"project, {DECLARATIONS}NAME.conf: {'g' if file == GROUP else 'u'} {name} -",
    )
