"""The public records of the API: tasks without the fields that only services may see."""

from __future__ import annotations

from typing import Any

import msgspec

from safelight import wire

_HIDDEN = frozenset({"lease", "traceparent"})


def _default(field: msgspec.structs.FieldInfo) -> tuple[Any, ...]:
    if field.default_factory is not msgspec.NODEFAULT:
        return (msgspec.field(default_factory=field.default_factory),)
    return () if field.required else (field.default,)


PublicTask: Any = msgspec.defstruct(
    "Task",
    [(f.name, f.type, *_default(f)) for f in msgspec.structs.fields(wire.Task) if f.name not in _HIDDEN],
    frozen=True,
    kw_only=True,
    namespace={"__doc__": "A task. `seq` numbers its latest change."},
    module=__name__,
)
"""`wire.Task` without its hidden fields."""

PublicPage: Any = msgspec.defstruct(
    "TaskPage",
    [("tasks", list[PublicTask]), ("next", str | None, None)],
    frozen=True,
    kw_only=True,
    namespace={"__doc__": wire.TaskPage.__doc__},
    module=__name__,
)

PublicUploaded: Any = msgspec.defstruct(
    "Uploaded",
    [("filename", str, ""), ("task", PublicTask | None, None), ("problem", dict[str, Any] | None, None)],
    frozen=True,
    kw_only=True,
    namespace={"__doc__": wire.Uploaded.__doc__},
    module=__name__,
)


def public(task: wire.Task) -> Any:
    """Return the public record of a task."""
    return msgspec.convert(task, PublicTask, from_attributes=True)


def public_page(page: wire.TaskPage) -> Any:
    """Return the public record of a page of tasks."""
    return PublicPage(tasks=[public(task) for task in page.tasks], next=page.next)
