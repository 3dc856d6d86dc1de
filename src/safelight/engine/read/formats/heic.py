"""HEIC, through pillow-heif: its libheif has a decoder for HEVC, which that of libvips lacks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pyvips

from safelight.engine.color.cicp import profile_of
from safelight.engine.color.samples import from_narrow, unpremultiplied, widened
from safelight.engine.failures import damaged, unsupported
from safelight.engine.formats import Format
from safelight.engine.read.boxes import main_image
from safelight.engine.read.facts import Facts, Reader
from safelight.engine.read.plugins import from_bytes, guarded
from safelight.engine.records import Probe

_BANDS = {"I": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "RGBa": 4}


class HeicReader(Reader):
    """See `facts.Reader`. libheif turns the image as the file's boxes say."""

    def __init__(self, data: memoryview, format_: Format) -> None:
        self._format = format_
        try:
            main = main_image(data)
        except ValueError as error:
            raise damaged(format_, str(error)) from None
        if main.codec and not main.is_hevc:
            raise unsupported(format_.name, f"a HEIF image of the codec {main.codec!r}")
        with guarded(format_):
            file = import_module("pillow_heif").open_heif(bytes(data), convert_hdr_to_8bit=False)
            self._picture: Any = file[file.primary_index]
        self._mode, _, depth = self._picture.mode.partition(";")
        self._deep = depth == "16"
        self._stretches = main.stretches
        info = self._picture.info
        grey = self._mode in {"I", "L", "LA"}
        profile = info.get("icc_profile") or (profile_of(main.colors) if main.colors else None)
        self.facts = Facts(profile=profile, exif=info.get("exif"), xmp=info.get("xmp"))
        width, height = self._picture.size
        if not (width and height):
            raise damaged(format_, "its image has no pixels")
        self.probe = Probe(
            format=format_.name,
            width=width,
            height=height,
            frames=1,
            mode=("grey16" if grey else "rgb16") if self._deep else ("b-w" if grey else "srgb"),
            bands=_BANDS[self._mode],
            bits=16 if self._deep else 8,
            has_alpha=self._mode.upper().endswith("A"),
            has_profile=profile is not None,
            orientation=1,
            progressive=False,
        )

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:  # noqa: ARG002 -- the contract's
        """See `facts.Reader`."""
        bands, size = _BANDS[self._mode], 2 if self._deep else 1
        with guarded(self._format):
            width, height = self._picture.size
            data = bytes(self._picture.data)
            stride = self._picture.stride
        image = from_bytes(data, stride // (bands * size), height, bands, deep=self._deep)
        image = image.crop(0, 0, width, height)
        image = from_narrow(image) if self._stretches else widened(image, self._picture.info.get("bit_depth", 16))
        return unpremultiplied(image) if self._mode == "RGBa" else image
