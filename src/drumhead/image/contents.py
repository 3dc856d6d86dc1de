"""Tell which files an image has and which of them cannot run, as they were seen when it was composed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.closure import merge
from drumhead.guest import find_guest
from drumhead.image.checks.programs import visible_findings
from drumhead.image.layers.store import LayerStore
from drumhead.report import silent

if TYPE_CHECKING:
    from drumhead.closure import Index
    from drumhead.guest.contract import Finding
    from drumhead.home import Home
    from drumhead.records import Image


def image_index(home: Home, image: Image) -> Index | None:
    """Return the index of an image's layers, or None for an image that was not composed on this host."""
    layers = LayerStore(home, "squashfs", silent)
    records = [layers.record(layer.source) for layer in image.layers if layer.kind != "root"]
    known = [record.index for record in records if record is not None]
    return merge(known) if len(known) == len(records) else None


def image_findings(home: Home, image: Image) -> list[Finding]:
    """Return the findings about files of an image that its guest cannot run."""
    guest = find_guest(image.guest)
    layers = LayerStore(home, guest.filesystems[0], silent, guest)
    records = [layers.record(layer.source) for layer in image.layers if layer.kind != "root"]
    return visible_findings((record.index, layers.findings(record)) for record in records if record is not None)
