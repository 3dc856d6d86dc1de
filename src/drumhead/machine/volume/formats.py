"""The format of a data disk. Its content never decides it: a guest writes that, the header of a raw disk included.

Were a raw disk that begins like qcow2 opened as one, QEMU would read and write the host's files that this header names
(as its backing file, or as the file that its data is in).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

from drumhead.errors import DrumheadError, ErrorCode

MAGIC = b"QFI\xfb"
_BACKING = struct.Struct(">4sIQ")
_FEATURES = struct.Struct(">72xQ")
_EXTERNAL_DATA = 1 << 2


def disk_format(path: Path) -> Literal["raw", "qcow2"]:
    """Return the format that a disk's name says. Blocks.

    Raises USAGE where the content is not of that format, and for a qcow2 disk that refers to other files.
    """
    with path.open("rb") as file:
        header = file.read(_FEATURES.size)
    is_qcow2 = header.startswith(MAGIC)
    if path.suffix != ".qcow2":
        if is_qcow2:
            said = f"the disk {path} begins as qcow2 does, which a guest may have written; if it is one, name it .qcow2"
            raise DrumheadError(ErrorCode.USAGE, said)
        return "raw"
    if not is_qcow2 or len(header) < _FEATURES.size:
        raise DrumheadError(ErrorCode.USAGE, f"{path} is no qcow2 disk; a raw one is named otherwise")
    _, version, backing = _BACKING.unpack_from(header)
    (features,) = _FEATURES.unpack_from(header) if version >= 3 else (0,)
    if backing or features & _EXTERNAL_DATA:
        said = (
            f"the disk {path} refers to other files; make it one file: qemu-img convert -O qcow2 {path.name} NEW.qcow2"
        )
        raise DrumheadError(ErrorCode.USAGE, said)
    return "qcow2"
