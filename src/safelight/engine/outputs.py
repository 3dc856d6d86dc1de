"""Make the outputs of a recipe from the decoded pixels, side by side if the caller allows several threads.

Outputs that differ only in how they are encoded share their pixels. Each output is computed by libvips as if it were
the only one, in one thread of libvips, so the bytes do not depend on the number of threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Lock
from typing import Any

import pyvips

from safelight.engine.failures import computing
from safelight.engine.formats import Format
from safelight.engine.image import Image
from safelight.engine.limits import Limits, judge_output
from safelight.engine.read.original import Original
from safelight.engine.records import Output
from safelight.engine.transform.apply import apply
from safelight.engine.transform.scale import held
from safelight.engine.write.encode import encode, holds, keeps_frames
from safelight.errors import Code, Error, lacks_memory
from safelight.recipe import Recipe

_MOST_SHARED = 24 << 20
"""The most bytes of pixels to hold for outputs that share them; others are computed again, to save memory."""
_MOST_SIDE_BY_SIDE = 12_000_000
"""The most pixels of all outputs together to encode them at the same time: an encoder takes up to 40 bytes for each."""

_Pixels = tuple[Any, ...]
_Watch = Callable[[pyvips.Image], None]


class Outputs:
    """The outputs of one photo. `watch` is called with each image before its pixels are computed."""

    def __init__(
        self,
        start: Image,
        recipe: Recipe,
        formats: Mapping[str, Format],
        original: Original,
        limits: Limits,
        watch: _Watch,
    ) -> None:
        self._start = start
        self._recipe = recipe
        self._formats = formats
        self._original = original
        self._limits = limits
        self._watch = watch
        self._pixels = {name: self._pixels_of(name) for name in formats}
        """What determines the pixels of each output."""

    def made(self, threads: int) -> list[Output]:
        """Make all outputs, in the order of the recipe, in up to that many threads. Raises Error."""
        if threads > 1 and len(self._formats) > 1:
            try:
                return self._made_side_by_side(threads)
            except Exception as error:
                # libvips collects the messages of all threads in one place. One after the other, the outputs fail with
                # the error that they have in one thread, or succeed if memory was lacking, also for the threads.
                if not isinstance(error, Error) and not lacks_memory(error):
                    raise
        shared = _Shared(self._pixels.values(), self._watch)
        return [self._output(name, shared) for name in self._formats]

    def _made_side_by_side(self, threads: int) -> list[Output]:
        shared = _Shared(self._pixels.values(), self._watch)
        areas = {}
        for name, pixels in self._pixels.items():
            group = shared.groups[pixels]
            with computing(self._original.format, name):
                image = group.image = group.image or self._changed(name)
            areas[name] = image.width * image.height * image.frames
        if sum(areas.values()) > _MOST_SIDE_BY_SIDE:
            raise MemoryError
        with ThreadPoolExecutor(threads, "output") as pool, ExitStack() as on_error:
            on_error.callback(pool.shutdown, cancel_futures=True)
            begun = {name: pool.submit(self._output, name, shared) for name in self._order(areas)}
            return [begun[name].result() for name in self._formats]

    def _order(self, areas: dict[str, int]) -> list[str]:
        """Return the largest output of each group first, so that no thread waits for pixels that another computes."""
        seen: Counter[Any] = Counter()
        turns = {}
        for name in areas:
            turns[name] = seen[self._pixels[name]]
            seen[self._pixels[name]] += 1
        return sorted(areas, key=lambda name: (turns[name], -areas[name]))

    def _pixels_of(self, name: str) -> _Pixels:
        wanted, format_ = self._recipe.outputs[name], self._formats[name]
        keeps = wanted.color == "keep" and holds(self._original.facts.profile, format_)
        bit_depth = wanted.bit_depth if format_.deep else 8
        return wanted.operations, "keep" if keeps else "srgb", bit_depth, keeps_frames(format_, self._original.probe)

    def _changed(self, name: str) -> Image:
        """Return the image after the operations, whose pixels are still to be computed."""
        operations, color, bit_depth, frames = self._pixels[name]
        image = replace(self._start, color=color, bit_depth=bit_depth)
        if not frames:
            image = image.first_frame()
        for index, operation in enumerate(operations):
            if scaled := held(operation, image):
                judge_output(*scaled, image.frames, self._limits)
            try:
                image = apply(operation, image)
            except ValueError as error:
                position = f"$.outputs.{name}.operations[{index}]"
                detail = f"The output {name!r} could not be made: {error} (at {position})."
                raise Error(Code.OPERATION_FAILED, detail, output=name, position=position) from error
            judge_output(image.width, image.height, image.frames, self._limits)
        return image

    def _output(self, name: str, shared: _Shared) -> Output:
        with computing(self._original.format, name):
            image = shared.take(self._pixels[name], lambda: self._changed(name))
            self._watch(image.pixels)
        orientation = 1 if self._recipe.auto_orient else self._original.probe.orientation
        wanted, facts = self._recipe.outputs[name], self._original.facts
        with computing(self._original.format, name, image.width * image.height * image.frames):
            finished = encode(name, image, wanted, self._formats[name], facts, orientation)
        if finished.size > self._limits.max_output_bytes:
            detail = (
                f"The output {name!r} has {finished.size} bytes; at most {self._limits.max_output_bytes} are allowed."
            )
            raise Error(Code.OPERATION_FAILED, detail, output=name, limit=self._limits.max_output_bytes)
        return finished


class _Group:
    """Outputs with the same pixels."""

    def __init__(self, users: int) -> None:
        self.users = users
        """The outputs that are still to be made."""
        self.image: Image | None = None
        self.settled = False
        """Whether it has been decided if the pixels are held."""
        self.held = 0
        """Their bytes in memory."""
        self.lock = Lock()


class _Shared:
    """The images of all groups; each is computed once, and forgotten when its last user has taken it."""

    def __init__(self, pixels: Iterable[_Pixels], watch: _Watch) -> None:
        self.groups = {one: _Group(users) for one, users in Counter(pixels).items()}
        self._watch = watch
        self._room = _MOST_SHARED
        self._lock = Lock()

    def take(self, pixels: _Pixels, make: Callable[[], Image]) -> Image:
        """Return the image with those pixels, in memory if others use it too and there is room."""
        group = self.groups[pixels]
        with group.lock:
            image = group.image or make()
            if group.users > 1 and not group.settled:
                image = self._settled(image.ready(), group)
            group.users -= 1
            group.image = image if group.users else None
            if not group.users:
                with self._lock:
                    self._room += group.held
            return image

    def _settled(self, image: Image, group: _Group) -> Image:
        group.settled = True
        pixels = image.pixels
        size = pixels.width * pixels.height * pixels.bands * (2 if pixels.format == "ushort" else 1)
        with self._lock:
            if size > self._room:
                return image
            self._room -= size
        group.held = size
        self._watch(pixels)
        return replace(image, pixels=pixels.copy_memory())
