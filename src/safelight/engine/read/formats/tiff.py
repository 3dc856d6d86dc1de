"""TIFF (6.0, BigTIFF): find the page with the image, interpret its samples, and check that all are present."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyvips

from safelight.engine.color.samples import from_float, from_lab, unpremultiplied
from safelight.engine.failures import damaged, unsupported
from safelight.engine.formats import Format
from safelight.engine.metadata import iptc
from safelight.engine.metadata.directory import Directory, Structure, StructureError
from safelight.engine.read.facts import Facts, blob, orientation
from safelight.engine.read.formats.vips import FailOn, VipsReader

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _SUB_DIRECTORIES, _ORIENTATION = 254, 255, 330, 274
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_SAMPLES, _PLANES, _INK_SET, _INKS, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 277, 284, 332, 334, 338, 339
_OFFSETS, _LENGTHS = (273, 324), (279, 325)  # for strips, and for tiles
_REDUCED, _MASK = 1, 4
_SEPARATE = 2
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _SEPARATED: 4, _YCBCR: 3, _LAB: 3}
_ASSOCIATED, _UNASSOCIATED = 1, 2  # transparency by which the colours are premultiplied, or are not
_BRIGHTEST = 1000.0
_MOST_PARTS = 1 << 20  # 100 million pixels in tiles of 16 by 16 are 390,625
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
_WARNING, _JPEG = frozenset({2, 3, 4, 32773}), 7  # compressions whose decoders only warn of damage
_FILL_ORDER, _ROWS, _FAX_OPTIONS, _PREDICTOR, _COLOR_MAP, _TILE_SIDES = 266, 278, (292, 293), 317, 320, (322, 323)
_JPEG_TABLES, _YCBCR_VALUES, _XMP, _IPTC, _PHOTOSHOP, _PROFILE = 347, (529, 530, 531, 532), 700, 33723, 34377, 34675
_NEEDED = frozenset(
    {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, *_OFFSETS}
    | {*_LENGTHS, _FILL_ORDER, _ROWS, *_FAX_OPTIONS, _PREDICTOR, _COLOR_MAP, *_TILE_SIDES, _INK_SET, _JPEG_TABLES}
    | {*_YCBCR_VALUES, _XMP, _IPTC, _PHOTOSHOP, _PROFILE}
)
"""The tags that are needed to read the pixels and metadata blocks."""
_COMPRESSION_NAMES = {
    6: "old-style JPEG", 9: "JBIG", 10: "JBIG", 32766: "NeXT", 32771: "CCITT RLE with words", 32809: "ThunderScan",
    32908: "PixarLog", 34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log 24", 34712: "JPEG 2000", 33003: "JPEG 2000",
    33005: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_PHOTOMETRIC_NAMES = {
    4: "a transparency mask as its image", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours",
    32844: "SGI LogL luminance (HDR)", 32845: "SGI LogLuv colours (HDR)",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """The directory with the image: a page of the file (`number`), or a subdirectory of the first page."""

    directory: Directory
    number: int
    below: int = -1


class TiffReader(VipsReader):
    """Reads the first page that is not a reduced copy of another one.

    If `lenient`, or if warnings count, libtiff gets only that page and the tags for its pixels, so that it cannot
    complain about anything else.
    """

    def __init__(self, data: memoryview, format_: Format, *, strict: bool = False, lenient: bool = False) -> None:
        self._lenient = lenient
        super().__init__(data, format_, strict=strict)

    def check(self) -> None:
        """See `VipsReader`."""
        self._whole = self.data
        try:
            self.page = _full_page(Structure(self.data))
            directory = self.page.directory
            self._kind = directory.value(_PHOTOMETRIC, _BLACK_IS_ZERO)
            self._sample_format = directory.value(_SAMPLE_FORMAT, _UNSIGNED)
            self._bits = directory.value(_BITS, 1)
            self._samples = directory.value(_SAMPLES, 1)
            self._extra = directory.values(_EXTRA_SAMPLES)
            _refuse_unreadable(directory)
            _check_complete(directory, len(self.data), self.format)
        except StructureError as error:
            raise damaged(self.format, str(error)) from None
        if self._kind == _LAB:  # libvips refuses 8 bits of it, and assumes another white point
            self.data = Structure(self.data).holding(directory, _PHOTOMETRIC, (_RGB,))
        if _ASSOCIATED in self._extra:  # libvips divides as if every sample ended at 255, or at 65,535
            unassociated = tuple(_UNASSOCIATED if kind == _ASSOCIATED else kind for kind in self._extra)
            self.data = Structure(self.data).holding(directory, _EXTRA_SAMPLES, unassociated)
        compression = directory.value(_COMPRESSION, 1)
        if compression in _WARNING or (compression == _JPEG and not self._lenient):
            self.fail_on: FailOn = "warning"
        if self._lenient or self.fail_on == "warning":
            self.data = Structure(self.data).holding_only(directory, _NEEDED)
            self.page = Page(directory, 0)

    def options(self, *, frames: bool, shrink: int) -> dict[str, Any]:  # noqa: ARG002 -- of other formats
        """See `VipsReader`."""
        if self.page.below >= 0:
            return {"page": self.page.number, "subifd": self.page.below}
        return {"page": self.page.number}

    def describe(self, image: pyvips.Image) -> Facts:
        """See `VipsReader`."""
        packet = blob(image, "xmp-data")
        try:
            told = _ORIENTATION in self.page.directory
            turn = self.page.directory.value(_ORIENTATION, 1) if told else orientation(None, packet)
        except StructureError:
            turn = 1
        block = self._captions() or blob(image, "photoshop-data")
        return Facts(
            profile=None if self._kind == _LAB else blob(image, "icc-profile-data"),  # L*a*b* needs no profile
            orientation=turn if 1 <= turn <= 8 else 1,
            exif=memoryview(self._whole),
            iptc=block if block and iptc.carried(block, position=True) else None,
            xmp=packet,
            notes=tuple(self.notes),
        )

    def _captions(self) -> bytes:
        """Return IPTC as the file has it: if its type is a number of four bytes, libtiff swaps them."""
        try:
            return self.page.directory.raw(_IPTC)
        except StructureError:
            return b""

    def samples(self, image: pyvips.Image) -> pyvips.Image:
        """See `VipsReader`."""
        # libvips replaces an index into the palette by one band or by three
        colors = _COLORS[self._kind] if self._kind != _PALETTE else image.bands - self._samples + 1
        image, opacity = self._with_known_bands(image, colors)
        if self._kind == _LAB:
            return from_lab(image)
        if image.format == "uint":
            image = (image / 65537.0 + 0.5).cast("ushort")
        if self._bits < 8 and opacity:  # libvips only shifts it
            top = 256 - (1 << (8 - self._bits))
            image = image.linear([1.0] * colors + [255 / top], [0.5] * (colors + 1), uchar=True)
        if opacity == _ASSOCIATED:
            image = unpremultiplied(image)
        if self._sample_format == _FLOAT:
            return self._from_float(image, colors)
        deep = image.format == "ushort"
        if self._kind == _SEPARATED:
            return image.copy(interpretation="cmyk")
        names = ("grey16", "rgb16") if deep else ("b-w", "srgb")
        return image.copy(interpretation=names[image.bands >= 3])

    def _from_float(self, image: pyvips.Image, colors: int) -> pyvips.Image:
        """Raise UNSUPPORTED_FORMAT if most of the image is brighter than white, as its scale is then unknown."""
        image = image.copy_memory()  # the pixels are read twice
        colored = image.extract_band(0, n=colors)
        if colored.relational(colored, "noteq").max() > 0:
            raise unsupported("tiff", "TIFF with floating-point samples that are not numbers")
        if colored.avg() > 1.0 or colored.max() > _BRIGHTEST:
            raise unsupported("tiff", "TIFF with floating-point samples that do not lie between 0 and 1")
        return from_float(image, colors, light=colors == 3 and self.facts.profile is None)

    def _with_known_bands(self, image: pyvips.Image, colors: int) -> tuple[pyvips.Image, int]:
        """Return the colours and the transparency, and which kind of transparency the file declares (0: none)."""
        for index, kind in enumerate(self._extra):
            if kind in {_ASSOCIATED, _UNASSOCIATED} and colors + index < image.bands:
                return image.extract_band(0, n=colors).bandjoin(image.extract_band(colors + index)), kind
        return image.extract_band(0, n=colors) if image.bands > colors else image, 0


def _full_page(structure: Structure) -> Page:
    """Return the first full page, else the largest subdirectory of the first page, else the first page."""
    pages = [Page(directory, number) for number, directory in enumerate(structure.chain())]
    if not pages:
        raise StructureError("it has no directory")
    for page in pages:
        if not _subfile(page.directory) & (_REDUCED | _MASK):
            return page
    below = [
        Page(structure.directory(offset), 0, index)
        for index, offset in enumerate(pages[0].directory.values(_SUB_DIRECTORIES)[:16])
    ]
    full = [page for page in below if not _subfile(page.directory) & (_REDUCED | _MASK)]
    return max(full or pages, key=lambda page: page.directory.value(_WIDTH) * page.directory.value(_HEIGHT))


def _subfile(directory: Directory) -> int:
    old = {2: _REDUCED}.get(directory.value(_OLD_SUBFILE_TYPE), 0)
    return directory.value(_SUBFILE_TYPE, old)


def _refuse_unreadable(directory: Directory) -> None:
    """Raise UNSUPPORTED_FORMAT for valid files that are ambiguous or not supported."""
    compression = directory.value(_COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        raise unsupported(
            "tiff", f"TIFF compressed with {_COMPRESSION_NAMES.get(compression, f'method {compression}')}"
        )
    kind = directory.value(_PHOTOMETRIC, _BLACK_IS_ZERO)
    if kind not in _COLORS:
        raise unsupported("tiff", f"TIFF with {_PHOTOMETRIC_NAMES.get(kind, f'colours of kind {kind}')}")
    bits, formats = directory.values(_BITS) or (1,), directory.values(_SAMPLE_FORMAT) or (_UNSIGNED,)
    if len(set(bits)) > 1 or len(set(formats)) > 1:
        raise unsupported("tiff", "TIFF with samples of different sizes")
    if feature := _unreadable_samples(kind, bits[0], formats[0]):
        raise unsupported("tiff", feature)
    if bits[0] < 8 and kind != _PALETTE and directory.value(_SAMPLES, 1) > 1:
        raise unsupported("tiff", "TIFF with grey of less than 8 bits and extra channels")
    if directory.value(_PLANES, 1) == _SEPARATE and directory.value(_SAMPLES, 1) > 1:
        if _OFFSETS[1] in directory:
            raise unsupported("tiff", "TIFF in tiles with its colours in separate planes")
        if bits[0] == 16 and formats[0] == _FLOAT:  # libvips would mix up their bytes
            raise unsupported("tiff", "TIFF with floating-point samples of 16 bits in separate planes")
        if kind == _YCBCR:  # libvips would read the planes as red, green and blue
            raise unsupported("tiff", "TIFF with YCbCr colours in separate planes")
        if kind in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE}:  # libvips would read the samples as interleaved
            raise unsupported("tiff", "TIFF with grey or a palette and its extra channels in separate planes")
    if kind in {_WHITE_IS_ZERO, _LAB} and _ASSOCIATED in directory.values(_EXTRA_SAMPLES):
        raise unsupported("tiff", "TIFF with L*a*b* or inverted grey that is premultiplied by its opacity")
    if kind == _SEPARATED and _has_other_inks(directory):
        raise unsupported("tiff", "TIFF with inks other than cyan, magenta, yellow and black")


def _has_other_inks(directory: Directory) -> bool:
    return directory.value(_INK_SET, 1) != 1 or directory.value(_INKS, 4) < 4 or directory.value(_SAMPLES, 4) < 4


def _unreadable_samples(kind: int, bits: int, sample_format: int) -> str:
    match sample_format:
        case int(unsigned) if unsigned in {_UNSIGNED, _VOID}:
            depths = {1, 2, 4, 8, 16, 32} if kind in {_WHITE_IS_ZERO, _BLACK_IS_ZERO} else {8, 16, 32}
            if kind == _PALETTE:
                depths = {1, 2, 4, 8}
            elif kind in {_SEPARATED, _LAB}:
                depths = {8, 16}
            elif kind == _YCBCR:
                depths = {8}
            return "" if bits in depths else f"TIFF with {bits} bits a sample in these colours"
        case int(real) if real == _FLOAT:
            fits = bits in {16, 32} and kind in {_BLACK_IS_ZERO, _RGB}
            return "" if fits else f"TIFF with floating-point samples of {bits} bits in these colours"
        case int(signed) if signed == _SIGNED:
            return f"TIFF with signed samples of {bits} bits, whose black and white no standard defines,"
        case _:
            return "TIFF with complex samples"


def _check_complete(directory: Directory, size: int, format_: Format) -> None:
    """Raise DAMAGED_IMAGE if pixels are missing or past the end; libtiff would show white or black."""
    for offsets_tag, lengths_tag in zip(_OFFSETS, _LENGTHS, strict=True):
        parts = "strip" if offsets_tag == _OFFSETS[0] else "tile"
        if offsets_tag in directory and directory.entries[offsets_tag].count > _MOST_PARTS:
            raise unsupported("tiff", f"TIFF of more than {_MOST_PARTS} {parts}s")
        offsets, lengths = directory.values(offsets_tag), directory.values(lengths_tag)
        for index, (offset, length) in enumerate(zip(offsets, lengths, strict=False)):
            if offset + length > size:
                part = f"{parts} {index + 1} of {len(offsets)}"
                raise damaged(format_, f"it is cut off at byte {size}; {part} reaches to byte {offset + length}")
            if offset == 0 or length == 0:
                raise damaged(format_, f"{parts} {index + 1} of {len(offsets)} is missing")
        if offsets and len(lengths) < len(offsets):
            raise damaged(format_, f"it names {len(offsets)} parts of its image, and the sizes of {len(lengths)}")
    if not any(tag in directory for tag in _OFFSETS):
        raise damaged(format_, "it names no pixels")
