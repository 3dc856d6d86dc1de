"""Share limited places and bytes between tenants, so that one tenant never takes all of them."""

from __future__ import annotations

from safelight.errors import Code, Error, plural


def share(most: int, taken: int, theirs: int) -> int:
    """Return how many of `most` places a tenant may have: half of those that the others leave, but at least one.

    `taken` places are held by all together, `theirs` of them by this tenant.
    """
    return max(1, (most - taken + theirs) // 2)


def no_room(room: int) -> Error:
    """Return the error for a photo or upload whose tenant may keep only `room` more bytes."""
    sentence = (
        f"Your photos and results, and the uploads that you have begun, leave {room} {plural(room, 'byte')} of what "
        "may be kept. Delete tasks that you do not need any more."
    )
    return Error(Code.TOO_MANY_REQUESTS, sentence, retry_after=60, limit=room)
