"""Make all outputs of a recipe from one upload, with a single decode."""

from __future__ import annotations

from typing import Any

import pyvips
from msgspec import structs

from safelight.engine.failures import HarmlessComplaint, computing, lacks, out_of_memory
from safelight.engine.image import Image
from safelight.engine.library import check
from safelight.engine.limits import Limits, judge_decode, needed_by_codec
from safelight.engine.outputs import Outputs
from safelight.engine.read.facts import Facts
from safelight.engine.read.original import Original
from safelight.engine.records import Probe, Result
from safelight.engine.transform.scale import Size, target
from safelight.engine.transform.turn import reorders
from safelight.engine.write.encode import keeps_frames, resolve
from safelight.errors import Code, Error
from safelight.recipe import OutputSpec, Recipe
from safelight.recipe.operations import Flip, Resize, Rotate, SmartCrop

DEFAULT_LIMITS = Limits()
_MOST_LOST = 1 / 8
"""The most that the reader may cut off, in pixels of an output."""


class Stop:
    """Stops a `process` call from another thread: the call fails with TIMED_OUT when pixels are next computed."""

    def __init__(self) -> None:
        self._images: list[pyvips.Image] = []
        self._stopped = False

    def stop(self) -> None:
        """Stop the call now."""
        self._stopped = True
        for image in list(self._images):
            image.set_kill(True)

    def watch(self, image: pyvips.Image) -> None:
        """From now on, make `stop` end the computation of this image."""
        self._images.append(image)
        if self._stopped:
            image.set_kill(True)


def probe(source: Any, limits: Limits = DEFAULT_LIMITS) -> Probe:
    """Read the header of a photo without decoding pixels. `source`: bytes (or any buffer), or a Path.

    Errors: NOT_AN_IMAGE, UNSUPPORTED_FORMAT, DAMAGED_IMAGE, TOO_LARGE, TOO_MANY_PIXELS (all frames counted).
    """
    try:
        header = Original(source, limits).probe
    except HarmlessComplaint as complaint:
        header = Original(source, limits, lenient=complaint.detail).probe
    judge_decode(header, header.frames, limits)
    return header


def process(
    source: Any, recipe: Recipe, limits: Limits = DEFAULT_LIMITS, *, stop: Stop | None = None, threads: int = 1
) -> Result:
    """Make every output of the recipe, in its order. `source`: bytes (or any buffer), or a Path.

    `threads`: how many outputs may be made at the same time. The results do not depend on it. Several need up to 480 MB
    more than one, in addition to `limits.max_memory`.

    Errors: those of `probe`, INVALID_RECIPE, OPERATION_FAILED, OUT_OF_MEMORY; TIMED_OUT after `stop`.
    """
    check(recipe)
    try:
        return _processed(Original(source, limits, strict=recipe.strict), recipe, limits, stop, threads)
    except HarmlessComplaint as complaint:
        original = Original(source, limits, strict=recipe.strict, lenient=complaint.detail)
        return _processed(original, recipe, limits, stop, threads)


def _processed(original: Original, recipe: Recipe, limits: Limits, stop: Stop | None, threads: int) -> Result:
    header = original.probe
    formats = {name: resolve(output, header) for name, output in recipe.outputs.items()}
    animated = any(keeps_frames(format_, header) for format_ in formats.values())
    frames = header.frames if animated else 1
    shrink = _common_shrink(recipe, original) if frames == 1 else 1
    several = len(recipe.outputs) > 1
    judge_decode(header, frames, limits, shrink=shrink, whole=several or _needs_all(recipe, header, frames))
    watch = stop.watch if stop else _ignore
    try:
        with computing(original.format, next(iter(formats))):
            pixels = original.load(frames=frames > 1, shrink=shrink)
            watch(pixels)
            if several:
                pixels = pixels.copy_memory()
                watch(pixels)
        start = _start(pixels, header, original.facts, frames, upright=recipe.auto_orient, streaming=not several)
        outputs = Outputs(start, recipe, formats, original, limits, watch).made(threads)
    except Error as error:
        if error.code is Code.DAMAGED_IMAGE and lacks(needed_by_codec(header)):
            raise out_of_memory() from error
        if _may_be_damage(error):
            original.verify()  # locates the damage; some readers fail silently
        raise
    original.finish()
    return Result(original=header, outputs=[structs.replace(output, notes=original.facts.notes) for output in outputs])


def _may_be_damage(error: Error) -> bool:
    """Return whether libvips failed in a way for which a damaged file may be the cause."""
    if isinstance(error, HarmlessComplaint) or not isinstance(error.__cause__, pyvips.Error):
        return False
    return error.code in {Code.OPERATION_FAILED, Code.DAMAGED_IMAGE}


def _ignore(_image: pyvips.Image) -> None: ...


def _start(pixels: pyvips.Image, header: Probe, facts: Facts, frames: int, *, upright: bool, streaming: bool) -> Image:
    orientation = header.orientation if upright else 1
    width, height = (header.height, header.width) if orientation >= 5 else (header.width, header.height)
    return Image(
        pixels=pixels,
        width=width,
        height=height,
        frames=frames,
        orientation=orientation,
        profile=facts.profile,
        color="srgb",
        bit_depth=8,
        streaming=streaming,
    )


def _common_shrink(recipe: Recipe, original: Original) -> int:
    """Return the factor by which the reader may shrink, so that every output still scales down by half or more.

    The reader of JPEG cuts off the last columns and rows if the factor does not divide the size. The rest would be
    stretched, so that is allowed only as far as nobody sees it: to decode everything takes several times as long.
    """
    header = original.probe
    if not original.format.shrinks:
        return 1
    size = header.width, header.height
    if recipe.auto_orient and header.orientation >= 5:
        size = size[::-1]
    sides = [pair for output in recipe.outputs.values() for pair in zip(size, _scaled(output, size), strict=True)]
    cuts = original.format.name == "jpeg"
    for shrink in (8, 4, 2):
        lost = max(side % shrink * wanted / side for side, wanted in sides) if cuts else 0.0
        if lost <= _MOST_LOST and all(side >= 2 * shrink * wanted for side, wanted in sides):
            return shrink
    return 1


def _scaled(output: OutputSpec, size: Size) -> Size:
    """Return the size to which an output scales before other operations."""
    first = output.operations[0] if output.operations else None
    return target(first, *size).scaled if isinstance(first, Resize | SmartCrop) else size


def _needs_all(recipe: Recipe, header: Probe, frames: int) -> bool:
    """Return whether the only output reads pixels in a different order than the file has before it scales down."""
    (output,) = recipe.outputs.values()
    if frames > 1:
        return True
    if output.operations and isinstance(output.operations[0], Resize | SmartCrop):
        return False
    turned = recipe.auto_orient and reorders(header.orientation)
    return turned or any(
        isinstance(operation, Rotate | SmartCrop) or operation == Flip(direction="vertical")
        for operation in output.operations
    )
