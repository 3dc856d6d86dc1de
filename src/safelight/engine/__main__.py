"""Print as JSON which formats this installation reads and writes: python -m safelight.engine."""

from __future__ import annotations

import sys

import msgspec

from safelight.engine import can_read, can_write
from safelight.engine.formats import FORMATS
from safelight.engine.read.plugins import present


def main() -> None:
    """Print one record for each format."""
    animated = {"gif", "webp", "png", *(["avif"] if present("PIL") else [])}
    rows = [
        {
            "format": format_.name,
            "label": format_.label,
            "reads": can_read(format_.name),
            "writes": can_write(format_.name),
            "animated": format_.name in animated,
        }
        for format_ in FORMATS.values()
    ]
    sys.stdout.buffer.write(msgspec.json.encode(rows))


if __name__ == "__main__":
    main()
