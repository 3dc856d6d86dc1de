"""Find the format of a data disk from its name. The content never decides it, because a guest can write any header.

If a raw disk that begins like qcow2 were opened as qcow2, QEMU would read and write files of the host that the header
names (as its backing file, or as the file for its data).
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
    """Return the format that the name of a disk implies. This reads the header and blocks the calling thread.

    Raises USAGE if the content does not have that format, and for a qcow2 disk that refers to other files.
    """
    with path.open("rb") as file:
        header = file.read(_FEATURES.size)
    is_qcow2 = header.startswith(MAGIC)
    if path.suffix != ".qcow2":
        if is_qcow2:
            said = f"the disk {path} begins like qcow2, which a guest may have written; if it is qcow2, name it .qcow2"
            raise DrumheadError(ErrorCode.USAGE, said)
        return "raw"
    if not is_qcow2 or len(header) < _FEATURES.size:
        raise DrumheadError(ErrorCode.USAGE, f"{path} is not a qcow2 disk; give a raw disk another extension")
    _, version, backing = _BACKING.unpack_from(header)
    (features,) = _FEATURES.unpack_from(header) if version >= 3 else (0,)
    if backing or features & _EXTERNAL_DATA:
        said = (
            f"the disk {path} refers to other files; make it one file: qemu-img convert -O qcow2 {path.name} NEW.qcow2"
        )
        raise DrumheadError(ErrorCode.USAGE, said)
    return "qcow2"
