"""Tell which files an image has, as they were seen when it was composed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.closure import merge
from drumhead.image.layers.store import LayerStore
from drumhead.report import silent

if TYPE_CHECKING:
    from drumhead.closure import Index
    from drumhead.home import Home
    from drumhead.records import Image


def image_index(home: Home, image: Image) -> Index | None:
    """Return the index of an image's layers, or None for an image that was not composed on this host."""
    layers = LayerStore(home, "squashfs", silent)
    records = [layers.record(layer.source) for layer in image.layers if layer.kind != "root"]
    known = [record.index for record in records if record is not None]
    return merge(known) if len(known) == len(records) else None
