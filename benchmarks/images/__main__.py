"""Run directories of images through recipes, compare them with Pillow, and report differences.

    python -m benchmarks.images [--recipe invert] [--tolerance 3] [--each 30] DIRECTORY…

Each image goes through a decoder process as in a worker, and through Pillow as an independent reader (with the
orientation applied, the ICC profile converted by littleCMS, a PNG's gAMA and cHRM converted by this program, then the
recipe's operation). Images whose mean differs by more than `tolerance` levels are listed by kind of image, and so are
images that only one of the two reads. Give directories with images of other projects (Pillow, libvips, PngSuite,
libtiff, libavif, libheif, libwebp, raw samples); none are part of this repository.
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
    """Return Pillow's image on white, in sRGB."""
    with Image.open(path) as opened:
        if getattr(opened, "default_image", False):
            opened.seek(1)  # skip the separate image for programs without animations
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
    """Convert the colours of a PNG by its gAMA and cHRM chunks to sRGB (IEC 61966-2-1), which Pillow does not do."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, float) / 257 + 0.5).astype(np.uint8))
    samples = np.asarray(image.convert("RGBA"), float) / 255
    coded = samples[..., :3]
    if abs(gamma - 0.45455) <= 0.005:  # the value that writers of sRGB use (PNG specification, 11.3.2.2)
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
    """Return the matrix from linear RGB to XYZ. Matrices for all chromaticities are scaled so that white stays
    white."""
    white, *primaries = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(*[iter(chromaticity)] * 2, strict=True))
    columns = np.stack(primaries, axis=1)
    matrix = columns * np.linalg.solve(columns, white)
    return matrix / white[:, None]


def on_white(image: Image.Image, *, invert: bool = False) -> np.ndarray:
    """Return RGB on white. With `invert`, invert the colours first, but not the transparency."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, float) / 257 + 0.5).astype(np.uint8))
    if image.mode == "La":
        image = image.convert("LA")
    samples = np.asarray(image.convert("RGBA"), float)
    colors, alpha = samples[..., :3], samples[..., 3:] / 255
    return (255 - colors if invert else colors) * alpha + 255 * (1 - alpha)


def kind(path: Path) -> str:
    """Return the kind of an image according to Pillow."""
    try:
        with Image.open(path) as image:
            profile = "profile" if image.info.get("icc_profile") else "no profile"
            return f"{image.format} {image.mode}, {profile}"
    except Exception:  # noqa: BLE001 -- damaged files make it raise anything
        return "not opened by Pillow"


def difference(made: bytes, path: Path, *, invert: bool) -> str | float:
    """Return the mean difference in levels, or why there is none."""
    try:
        right = reference(path, invert=invert)
    except Exception as error:  # noqa: BLE001 -- damaged files make it raise anything
        return f"only safelight reads it (Pillow: {type(error).__name__})"
    with Image.open(io.BytesIO(made)) as image:
        ours = on_white(image)
    return "another size" if ours.shape != right.shape else float(np.abs(ours - right).mean())


def readable(path: Path) -> bool:
    """Return whether Pillow can read the whole image."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:  # noqa: BLE001 -- damaged files make it raise anything
        return False
    return True


async def compare(paths: list[Path], recipe: Recipe, tolerance: float, *, invert: bool) -> dict[Group, list[str]]:
    """Group the images by outcome and by kind."""
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
    parser.add_argument("directory", nargs="+", type=Path, help="directories of images, searched recursively")
    parser.add_argument("--recipe", choices=["plain", "invert"], default="plain", help="what to make of each image")
    parser.add_argument(
        "--tolerance", type=float, default=3.0, help="the mean difference in levels up to which images count as alike"
    )
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
