"""The raw files of cameras: told apart from other TIFFs, and developed by LibRaw (through rawpy)."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any

import pyvips

from safelight.engine.failures import unsupported
from safelight.engine.formats import Format
from safelight.engine.metadata.directory import Directory, Structure, StructureError
from safelight.engine.read.facts import Facts
from safelight.engine.read.plugins import from_bytes, guarded
from safelight.engine.records import Probe

_COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_DIRECTORIES = 259, 262, 271, 330
_COLOR_FILTER_ARRAY, _LINEAR_RAW = 32803, 34892
_PATTERN, _DNG_VERSION = 33422, 50706
_COMPRESSIONS = frozenset({32767, 32769, 32770, 32772, 34713, 65000, 65535})  # which only cameras write
_MAKES = {
    "NIKON": "nef", "SONY": "arw", "PENTAX": "pef", "RICOH": "pef", "SAMSUNG": "srw", "OLYMPUS": "orf",
    "OM DIGITAL": "orf", "PANASONIC": "rw2", "CANON": "cr2", "FUJIFILM": "raf",
}  # fmt: skip
_MOST_DIRECTORIES = 32


def kind(data: memoryview) -> str | None:
    """Tell which raw format a TIFF is, None for an ordinary TIFF or one too broken to say."""
    try:
        return _kind(_directories(Structure(data)))
    except StructureError:
        return None


def _kind(directories: list[Directory]) -> str | None:
    if any(_DNG_VERSION in directory for directory in directories):
        return "dng"
    if not any(_is_raw(directory) for directory in directories):
        return None
    make = next((text for directory in directories if (text := _text(directory))), "").upper()
    return next((name for start, name in _MAKES.items() if make.startswith(start)), "raw")


def _directories(structure: Structure) -> list[Directory]:
    """The pages, and what lies below them."""
    found: list[Directory] = []
    for page in structure.chain():
        found.append(page)
        for offset in page.values(_SUB_DIRECTORIES):
            if len(found) < _MOST_DIRECTORIES:
                found.append(structure.directory(offset))
    return found


def _is_raw(directory: Directory) -> bool:
    return (
        directory.value(_PHOTOMETRIC) in {_COLOR_FILTER_ARRAY, _LINEAR_RAW}
        or directory.value(_COMPRESSION) in _COMPRESSIONS
        or _PATTERN in directory
    )


def _text(directory: Directory) -> str:
    try:
        return directory.text(_MAKE)
    except StructureError:
        return ""


class RawReader:
    """See `facts.Reader`. The camera's white balance, sRGB, upright."""

    def __init__(self, data: memoryview, format_: Format) -> None:
        self._format = format_
        with guarded(format_):
            self._raw: Any = import_module("rawpy").RawPy()
            self._raw.open_buffer(io.BytesIO(data))
            sizes = self._raw.sizes
        if self._raw.num_colors not in {1, 3, 4}:
            raise unsupported(format_.name, f"a raw file of {self._raw.num_colors} colours")
        upright = sizes.flip in {5, 6}
        width, height = (sizes.iheight, sizes.iwidth) if upright else (sizes.iwidth, sizes.iheight)
        self.facts = Facts(exif=data)
        self.probe = Probe(
            format=format_.name,
            width=width,
            height=height,
            frames=1,
            mode="rgb16",
            bands=3,
            bits=16,
            has_alpha=False,
            has_profile=False,
            orientation=1,
            progressive=False,
        )

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:  # noqa: ARG002 -- the contract's
        """See `facts.Reader`."""
        with guarded(self._format):
            made = self._raw.postprocess(use_camera_wb=True, output_bps=16)
        height, width, bands = made.shape
        return from_bytes(made.tobytes(), width, height, bands, deep=True)
