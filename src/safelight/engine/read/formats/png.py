"""PNG (third edition, W3C 2025): its chunks, and its animations."""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from itertools import islice

import pyvips

from safelight.engine.color.cicp import CodePoints, profile_of
from safelight.engine.color.profile import SRGB, Primaries, rgb_profile
from safelight.engine.failures import damaged, unsupported
from safelight.engine.metadata import exif
from safelight.engine.read.chunks import chunks
from safelight.engine.read.facts import NEUTRAL_RESOLUTION, Facts, blob, orientation
from safelight.engine.read.formats.apng import Animation, animation
from safelight.engine.read.formats.vips import VipsReader

_END = b"\0\0\0\0IEND\xaeB`\x82"
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_MOST_CHUNKS = 1 << 17  # a real file of 256 MiB has some 32,000, of 8 KiB each
_LONGEST_TEXT = 8 * 1024 * 1024
_SRGB_GAMMA = 45455  # the gAMA value for sRGB
_SRGB_CHROMATICITIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_PACKET, _RAW_KEY = b"XML:com.adobe.xmp", b"Raw profile type "
_USED = frozenset({_PACKET, *(_RAW_KEY + kind for kind in (b"exif", b"APP1", b"xmp", b"iptc", b"8bim", b"icc"))})
_RAW_PROFILE = re.compile(rb"\n?[^\n]*\n\s*(\d+)\n")


class PngReader(VipsReader):
    """A file without its end chunk is read, with a note, unless `strict`."""

    animation: Animation | None = None

    def check(self) -> None:
        """See `VipsReader`."""
        self.chunks = list(islice(chunks(self.data), _MOST_CHUNKS + 1))
        if len(self.chunks) > _MOST_CHUNKS:
            raise unsupported("png", f"a PNG of more than {_MOST_CHUNKS} chunks")
        if self.chunks and self.chunks[0].name == b"CgBI":
            raise unsupported("png", "a PNG that was packed for iOS (CgBI)")
        if not self.chunks or self.chunks[0].name != b"IHDR" or self.chunks[0].size != 13:
            raise damaged(self.format, "it does not start with its header chunk")
        last = self.chunks[-1]
        end = last.start + last.size + 4
        if end > len(self.data):
            name = last.name.decode("latin-1")
            raise damaged(self.format, f"it is cut off at byte {len(self.data)}, inside its {name} chunk")
        if last.name != b"IEND":
            if self.strict:
                raise damaged(self.format, f"it ends at byte {len(self.data)} without its end chunk")
            self.notes.append(f"The PNG file ends at byte {end} without its end chunk. All of its pixels were read.")
            self.data = b"".join((self.data[:end], _END))
        self._check_sums()
        self._refuse_unknown()
        if not any(chunk.name == b"IDAT" for chunk in self.chunks):
            raise damaged(self.format, "it has no pixels")
        self.animation = animation(memoryview(self.data), self.chunks, self.format)

    def _refuse_unknown(self) -> None:
        """Raise UNSUPPORTED_FORMAT for an unknown critical chunk (5.4)."""
        for chunk in self.chunks:
            if chunk.name.isalpha() and not chunk.name[0] & 0x20 and chunk.name not in _CRITICAL:
                raise unsupported("png", f"a PNG with the critical chunk {chunk.name.decode()}")

    def _check_sums(self) -> None:
        """Check the checksums of critical chunks, and ignore damaged ancillary ones."""
        for chunk in list(self.chunks):
            start = chunk.start - 4
            content = memoryview(self.data)[start : chunk.start + chunk.size]
            told = int.from_bytes(self.data[chunk.start + chunk.size : chunk.start + chunk.size + 4], "big")
            if zlib.crc32(content) == told:
                continue
            if chunk.name[0] & 0x20:
                self.chunks.remove(chunk)
            else:
                name = chunk.name.decode("latin-1")
                raise damaged(self.format, f"the {name} chunk at byte {start - 4} does not match its checksum")

    def describe(self, image: pyvips.Image) -> Facts:
        """See `VipsReader`."""
        texts = self._texts()
        block = self._content(b"eXIf") or _raw_profile(texts, b"exif", b"APP1")
        packet = texts.get(_PACKET) or _raw_profile(texts, b"xmp")
        return Facts(
            profile=self._profile(image, texts),
            orientation=orientation(block, packet),
            exif=block,
            iptc=_raw_profile(texts, b"iptc", b"8bim"),
            xmp=packet,
            notes=tuple(self.notes),
        )

    def count_frames(self, image: pyvips.Image) -> int:  # noqa: ARG002 -- libvips sees no animation
        """See `VipsReader`."""
        return len(self.animation.frames) if self.animation else 1

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:
        """See `facts.Reader`."""
        if frames and self.animation:
            return self.animation.composed(self.data, self.chunks, self.format)
        if self.animation and self.animation.hides_still:
            return self.animation.first(self.data, self.chunks, self.format)
        return super().load(shrink=shrink)

    def samples(self, image: pyvips.Image) -> pyvips.Image:
        """See `VipsReader`. A resolution without a unit is only a ratio, which libvips takes for an absolute one."""
        if (self._content(b"pHYs") or b"")[8:] == b"\0":
            return image.copy(xres=NEUTRAL_RESOLUTION, yres=NEUTRAL_RESOLUTION)
        return image

    def _content(self, name: bytes) -> bytes | None:
        chunk = next((chunk for chunk in self.chunks if chunk.name == name), None)
        return bytes(self.data[chunk.start : chunk.start + chunk.size]) if chunk else None

    def _profile(self, image: pyvips.Image, texts: dict[bytes, bytes]) -> bytes | None:
        """Look in the order of the specification: cICP, iCCP, sRGB, gAMA with cHRM."""
        if (code := self._content(b"cICP")) and len(code) == 4:
            if code[2] != 0 or code[3] != 1:
                raise unsupported("png", "a PNG whose cICP chunk declares YCbCr or a narrow range")
            return profile_of(CodePoints(code[0], code[1]))
        if profile := self._embedded() or blob(image, "icc-profile-data"):
            return profile
        if self._content(b"sRGB"):
            return None
        return _declared(self._content(b"gAMA"), self._content(b"cHRM")) or _raw_profile(texts, b"icc")

    def _embedded(self) -> bytes | None:
        """Return the profile of the iCCP chunk; libpng drops one whose colours do not match the image."""
        _, _, rest = (self._content(b"iCCP") or b"").partition(b"\0")
        return _inflated(rest[1:]) or None

    def _texts(self) -> dict[bytes, bytes]:
        """Return the texts that are used. Others, of which a small file may hold gigabytes, are not decompressed."""
        found = {}
        for chunk in self.chunks:
            if chunk.name in {b"tEXt", b"zTXt", b"iTXt"}:
                key, _, rest = bytes(self.data[chunk.start : chunk.start + chunk.size]).partition(b"\0")
                if key in _USED:
                    found[key] = chunk.name, rest
        return {key: _text(*one) for key, one in found.items()}


def _text(kind: bytes, rest: bytes) -> bytes:
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflated(rest[1:])
    flag, rest = rest[:1], rest[2:]
    for _ in range(2):  # the language, and the translated keyword
        _, _, rest = rest.partition(b"\0")
    return _inflated(rest) if flag == b"\1" else rest


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _LONGEST_TEXT)
    except zlib.error:
        return b""


def _raw_profile(texts: dict[bytes, bytes], *kinds: bytes) -> bytes | None:
    """Read a block that ImageMagick or exiftool wrote as hexadecimal text: the first of these kinds that exists."""
    for kind in kinds:
        text = texts.get(_RAW_KEY + kind, b"")
        if head := _RAW_PROFILE.match(text):
            try:
                found = binascii.unhexlify(b"".join(text[head.end() :].split()))
            except binascii.Error:
                continue
            return bytes(exif.body(found))
    return None


def _declared(gamma: bytes | None, chromaticities: bytes | None) -> bytes | None:
    """Return the profile for gAMA and cHRM, or None for sRGB or invalid values."""
    power = int.from_bytes(gamma, "big") if gamma and len(gamma) == 4 else 0
    exponent = 100_000 / power if power and abs(power - _SRGB_GAMMA) > 500 else None
    values = struct.unpack(">8I", chromaticities) if chromaticities and len(chromaticities) == 32 else ()
    usual = not values or all(abs(a - b) <= 100 for a, b in zip(values, _SRGB_CHROMATICITIES, strict=True))
    if (exponent is None and usual) or (exponent is not None and not 0.1 <= exponent <= 10):
        return None
    xy = [value / 100_000 for value in values]
    try:
        primaries = SRGB if usual else Primaries(*((xy[at], xy[at + 1]) for at in (2, 4, 6, 0)))
        return rgb_profile(primaries, exponent)
    except ValueError:
        return None
