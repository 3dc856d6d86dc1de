"""Compare an image with the previous image of the same name, and give the reason for each difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from drumhead.closure import Index
    from drumhead.image.layers.store import LayerStore
    from drumhead.records import Image, Layer


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `what` is a layer or a path, `why` a few words (``edited``, ``mode 0644 → 0755``)."""

    what: str
    why: str


def compare(old: Image, new: Image, layers: LayerStore) -> list[Change]:
    """Return the differences between two images, layer by layer and file by file."""
    changes = []
    if old.kernel != new.kernel:
        why = "its initial files changed"
        if old.kernel.version != new.kernel.version:
            why = f"{old.kernel.version} → {new.kernel.version} is in the store"
        changes.append(Change(what=f"kernel {new.kernel.package}", why=why))
    before, after = _by_role(old), _by_role(new)
    for role in [*before, *(role for role in after if role not in before)]:
        changes += _layer_changes(role, before.get(role), after.get(role), layers)
    for what, one, two in (
        ("commands", old.commands, new.commands),
        ("default command", old.default, new.default),
        ("overlay size", old.overlay_size, new.overlay_size),
        ("title or version", (old.title, old.version), (new.title, new.version)),
    ):
        if one != two:
            changes.append(Change(what=what, why="changed in the manifest or on the command line"))
    return changes


def _by_role(image: Image) -> dict[str, Layer]:
    """Map roles to layers. A package's role is its name without the version."""
    return {f"{layer.kind} {layer.name.split(' ')[0]}": layer for layer in image.layers}


def _layer_changes(role: str, old: Layer | None, new: Layer | None, layers: LayerStore) -> list[Change]:
    if old is None or new is None:
        return [Change(what=role, why="no longer required" if new is None else "required now")]
    if old.blob == new.blob or new.kind == "root":  # a root layer changes with the layers that it unites
        return []
    if old.source == new.source:
        same = new.filesystem == old.filesystem
        return [Change(what=role, why="packed again" if same else f"packed as {new.filesystem}, was {old.filesystem}")]
    if new.kind == "package":
        return [Change(what=role, why=f"{old.name.partition(' ')[2]} → {new.name.partition(' ')[2]} is in the store")]
    before, after = layers.record(old.source), layers.record(new.source)
    if before is None or after is None:
        return [Change(what=role, why="its files changed")]
    return compare_files(before.index, after.index)


def compare_files(before: Index, after: Index) -> list[Change]:
    """Return the differences between two trees, sorted by path. Bytecode is left out, as it changes with its source."""
    changes = []
    for path in sorted(before.keys() | after.keys()):
        if "__pycache__" in path.split("/"):
            continue
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if old is None or new is None:
            why = "deleted" if new is None else "added"
        elif old.kind != new.kind:
            why = f"{old.kind} became {new.kind}"
        elif (old.digest, old.target) != (new.digest, new.target):
            why = "edited" if new.kind == "file" else f"points to {new.target}, was {old.target}"
        elif (old.uid, old.gid) != (new.uid, new.gid):
            why = f"owner {old.uid}:{old.gid} → {new.uid}:{new.gid}"
        else:
            why = f"mode {old.mode:04o} → {new.mode:04o}"
        changes.append(Change(what=f"/{path}", why=why))
    return changes
