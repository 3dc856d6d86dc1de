"""Errors of partial stores, in the same words for every backend."""

from __future__ import annotations

from safelight.errors import Code, Error


def busy() -> Error:
    """Return the error for a call while another one changes the same upload."""
    return Error(Code.CONFLICT, "Another request is changing this upload. Try again soon.", busy=True)


def too_many(count: int) -> Error:
    """Return the error for too many open uploads."""
    sentence = f"{count} partial uploads are open, which is the limit. Try again later."
    return Error(Code.TOO_MANY_REQUESTS, sentence, retry_after=30)


def closed(offset: int) -> Error:
    """Return the error for finishing an upload that is already closed."""
    return Error(Code.CONFLICT, "This upload is closed.", offset=offset)


def check_whole(offset: int, size: int) -> None:
    """Raise CONFLICT unless all bytes of an upload have arrived."""
    if offset != size:
        raise Error(Code.CONFLICT, f"Only {offset} of {size} bytes arrived.", offset=offset)
