"""Run folders of images through recipes, beside Pillow as an independent reader, and report what differs.

    python -m benchmarks.pictures [--recipe invert] [--tolerance 3] [--each 30] DIRECTORY…

Each image goes through a decoder process as in a worker, and through Pillow (orientation obeyed, its ICC profile
converted by littleCMS, a PNG's gAMA and cHRM by hand, then the recipe's operation). What differs by more than
`tolerance` levels in the mean is listed by what the image is; so is what only one of the two reads. Directories of
other projects' images (Pillow, libvips, PngSuite, libtiff, libavif, libheif, libwebp, raw samples) are named by path;
none are part of this repository.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401 -- Pillow then opens JPEG XL
from PIL import Image, ImageCms, ImageFile, ImageOps, PngImagePlugin

from safelight.errors import Error
from safelight.recipe import Recipe, parse
from safelight.worker.decoder import open_pool
from safelight.worker.decoder.contract import Job, Settings

Group = tuple[str, str]


def reference(path: Path, *, invert: bool) -> np.ndarray:
    """What Pillow shows on white, in sRGB."""
    with Image.open(path) as opened:
        if getattr(opened, "default_image", False):
            opened.seek(1)  # the picture for programs without animations is none of its frames
        opened.load()
        image = ImageOps.exif_transpose(opened)
    if profile := image.info.get("icc_profile"):
        try:
            converted = ImageCms.profileToProfile(
                image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB"),
                ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )  # fmt: skip
            if image.has_transparency_data:
                converted.putalpha(image.convert("RGBA").getchannel("A"))
            image = converted
        except ImageCms.PyCMSError:
            pass
    elif "gamma" in image.info and "srgb" not in image.info:
        image = in_srgb(image, image.info["gamma"], image.info.get("chromaticity"))
    return on_white(image, invert=invert)


def in_srgb(image: Image.Image, gamma: float, chromaticity: tuple[float, ...] | None) -> Image.Image:
    """Bring the colours of a PNG from its gAMA and cHRM chunks to sRGB (IEC 61966-2-1), which Pillow does not."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, float) / 257 + 0.5).astype(np.uint8))
    samples = np.asarray(image.convert("RGBA"), float) / 255
    coded = samples[..., :3]
    if abs(gamma - 0.45455) <= 0.005:  # what writers of sRGB put there (PNG specification, 11.3.2.2)
        light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    else:
        light = coded ** (1 / gamma)
    if chromaticity:
        light = np.clip(light @ (np.linalg.inv(to_xyz(*SRGB)) @ to_xyz(*chromaticity)).T, 0, 1)
    shown = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return Image.fromarray((np.dstack([shown, samples[..., 3]]) * 255 + 0.5).astype(np.uint8))


SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""White, red, green and blue as x and y, in the order of a cHRM chunk."""


def to_xyz(*chromaticity: float) -> np.ndarray:
    """The matrix from linear RGB to XYZ, whose white stays white in any other such matrix scaled alike."""
    white, *primaries = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(*[iter(chromaticity)] * 2, strict=True))
    columns = np.stack(primaries, axis=1)
    matrix = columns * np.linalg.solve(columns, white)
    return matrix / white[:, None]


def on_white(image: Image.Image, *, invert: bool = False) -> np.ndarray:
    """RGB on white; `invert` first, leaving transparency as it is."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, float) / 257 + 0.5).astype(np.uint8))
    if image.mode == "La":
        image = image.convert("LA")
    samples = np.asarray(image.convert("RGBA"), float)
    colors, alpha = samples[..., :3], samples[..., 3:] / 255
    return (255 - colors if invert else colors) * alpha + 255 * (1 - alpha)


def kind(path: Path) -> str:
    """What Pillow says an image is."""
    try:
        with Image.open(path) as image:
            profile = "profile" if image.info.get("icc_profile") else "no profile"
            return f"{image.format} {image.mode}, {profile}"
    except Exception:  # noqa: BLE001 -- damaged files make it raise anything
        return "not opened by Pillow"


def difference(made: bytes, path: Path, *, invert: bool) -> str | float:
    """The mean difference in levels, or why there is none."""
    try:
        right = reference(path, invert=invert)
    except Exception as error:  # noqa: BLE001 -- damaged files make it raise anything
        return f"only safelight reads it (Pillow: {type(error).__name__})"
    with Image.open(io.BytesIO(made)) as image:
        ours = on_white(image)
    return "another size" if ours.shape != right.shape else float(np.abs(ours - right).mean())


def readable(path: Path) -> bool:
    """Whether Pillow reads all of it."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:  # noqa: BLE001 -- damaged files make it raise anything
        return False
    return True


async def compare(paths: list[Path], recipe: Recipe, tolerance: float, *, invert: bool) -> dict[Group, list[str]]:
    """Group every image by the outcome and by what it is."""
    groups: dict[Group, list[str]] = defaultdict(list)
    async with open_pool(Settings(count=1)) as pool:
        for path in paths:
            about = kind(path)
            try:
                result = await pool.process(Job(source=path, recipe=recipe))
            except Error as error:
                both = "only Pillow reads it" if readable(path) else "neither reads it"
                groups[f"{both}: {error.code.value}", about].append(f"{path}  {error.detail}")
                continue
            found = difference(result.outputs[0].data, path, invert=invert)
            if isinstance(found, str):
                groups[found, about].append(str(path))
            elif found > tolerance:
                groups[f"differs by more than {tolerance:g} levels", about].append(f"{path}  {found:.1f}")
            else:
                groups["alike", about].append(str(path))
    return groups


def main() -> int:
    """Compare, and print the groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="+", type=Path, help="directories of images, searched to the bottom")
    parser.add_argument("--recipe", choices=["plain", "invert"], default="plain", help="what to make of each image")
    parser.add_argument("--tolerance", type=float, default=3.0, help="levels of the mean that still count as alike")
    parser.add_argument("--each", type=int, default=10, help="how many images of each group to name")
    arguments = parser.parse_args()
    pillow_heif.register_heif_opener()
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 1 << 26
    paths = sorted(path for directory in arguments.directory for path in directory.rglob("*") if path.is_file())
    invert = arguments.recipe == "invert"
    recipe = parse({"outputs": {"image": {"format": "png", "operations": [{"op": "invert"}] if invert else []}}})
    groups = asyncio.run(compare(paths, recipe, arguments.tolerance, invert=invert))
    totals: dict[str, int] = defaultdict(int)
    for (outcome, _), names in groups.items():
        totals[outcome] += len(names)
    for outcome, count in sorted(totals.items()):
        print(f"{count:6} {outcome}")
        for (other, about), names in sorted(groups.items()):
            if other == outcome and outcome != "alike":
                print(f"       {len(names):4} {about}")
                print("".join(f"            {name}\n" for name in names[: arguments.each]), end="")
    print(f"{len(paths):6} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
