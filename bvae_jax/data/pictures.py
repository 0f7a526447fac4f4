"""Pictures in files, or in memory, as images: what they have in common, and their pixels."""

import contextlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from bvae_jax.runtime import bar
from bvae_jax.types import ImageShape

SIDE = 64
SMALLEST = 8
"""Sides, in pixels, that pictures keep if it is that of all: from this one to the one above."""
FORMATS = ("PNG", "JPEG", "WEBP")
THREADS = min(8, os.cpu_count() or 1)
MOST_BYTES, MOST_PICTURES = 2**26, 256
"""Of images that are decoded before any of them is passed on: what bounds the memory."""

GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I")
"""Pillow's, of pictures without colours."""
GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Eight-bit levels from one grey to the next, by Pillow's name of the depth in the file."""

File = Path | io.BytesIO
"""A picture that nobody has decoded."""
Pixels = UInt8[np.ndarray, "height width channels"]
Images = UInt8[np.ndarray, "image height width channels"]


class Form(NamedTuple):
    """What images pictures become where nothing else is wanted.

    Attributes:
        side: in pixels.
        grey: all of them are.
    """

    side: int
    grey: bool


def find_form(files: Sequence[File], shown: str = "") -> Form:
    """That of these pictures; those that cannot be read have no say.

    Args:
        shown: what a bar is called that is shown meanwhile; "" for none.
    """
    sides: set[int] = set()
    grey = True
    with (
        ThreadPoolExecutor(THREADS) as pool,
        bar(total=len(files), desc=shown, unit=" images", delay=1, disable=not shown) as progress,
    ):
        for start in range(0, len(files), THREADS):
            part = files[start : start + THREADS]
            with _size_matters():
                found = list(pool.map(_side_and_grey, part, [not grey] * len(part)))
            sides |= {side for side, _ in found if side}
            grey = grey and all(one for _, one in found)
            progress.update(len(part))
            if not grey and (len(sides) > 1 or max(sides) > SIDE):
                break
    kept = len(sides) == 1 and SMALLEST <= min(sides) <= SIDE
    return Form(min(sides) if kept else SIDE, grey and bool(sides))


def _side_and_grey(file: File, known: bool) -> tuple[int, bool]:
    """A picture's shorter side, 0 where it cannot be read, and whether it is grey, which is not
    looked at where it is `known` that not all are."""
    try:
        with Image.open(file, formats=FORMATS) as picture:
            side = min(picture.size)
            if known or picture.mode in GREY_MODES:
                return side, True
            pixels = np.asarray(_plain(picture, SIDE, "RGB"))
            return side, bool((pixels == pixels[..., :1]).all())
    except MemoryError:
        raise
    except Exception:  # it is decoded, and named, later
        return 0, True


class Decoded(NamedTuple):
    """Pictures that were decoded together.

    Attributes:
        rows: indices of the files.
        images: of these files.
        failed: index of a file that cannot be read -> why.
        sizes: of the pictures: width, height.
    """

    rows: list[int]
    images: Images
    failed: dict[int, str]
    sizes: list[tuple[int, int]]


def decode_all(
    files: Sequence[File], shape: ImageShape, threads: int = THREADS
) -> Iterator[Decoded]:
    """Decode pictures in chunks, in their order.

    Args:
        shape: of an image: a square of 1 channel (grey) or 3.
    """
    chunk = min(MOST_PICTURES, max(threads, MOST_BYTES // math.prod(shape)))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(files), chunk):
            with _size_matters():
                found = list(pool.map(lambda file: _try(file, shape), files[start : start + chunk]))
            failed = {start + i: why for i, why in enumerate(found) if isinstance(why, str)}
            rows = [start + i for i, image in enumerate(found) if not isinstance(image, str)]
            decoded = [image for image in found if not isinstance(image, str)]
            images = np.array([pixels for pixels, _ in decoded], np.uint8).reshape(-1, *shape)
            yield Decoded(rows, images, failed, [size for _, size in decoded])


@contextlib.contextmanager
def _size_matters() -> Iterator[None]:
    """What Pillow has to say of a picture's metadata does not matter; how large it is does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _try(file: File, shape: ImageShape) -> tuple[Pixels, tuple[int, int]] | str:
    """The image and the picture's width and height, or why there is none."""
    try:
        return decode(file, shape)
    except UnidentifiedImageError:
        size = file.getbuffer().nbytes if isinstance(file, io.BytesIO) else file.stat().st_size
        return "not PNG, JPEG or WebP" if size else "empty"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
    except OSError as error:
        return error.strerror or str(error)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files
        return str(error) or type(error).__name__


def decode(file: File, shape: ImageShape) -> tuple[Pixels, tuple[int, int]]:
    """A picture's central square, resized; and the picture's width and height.

    Args:
        shape: of the image: a square of 1 channel (grey) or 3.

    Raises:
        Exception: of many types, from Pillow: it cannot be read.
    """
    side, _, channels = shape
    with Image.open(file, formats=FORMATS) as picture:
        size = picture.size
        plain = _plain(picture, 2 * side, "L" if channels == 1 else "RGB")
    square = ImageOps.fit(plain, (side, side), Image.Resampling.LANCZOS)
    return np.asarray(square).reshape(shape), size


def _scale_transparent(picture: Image.Image) -> None:
    """A PNG names its transparent colour in its own depth: make it that of the pixels, which Pillow
    gives with eight bits."""
    colour = picture.info.get("transparency")
    tiles = getattr(picture, "tile", [])  # of a picture in a file
    depth = str(tiles[0][3]) if tiles else ""
    if isinstance(colour, int) and depth in GREY_STEPS:
        picture.info["transparency"] = colour * GREY_STEPS[depth]
    elif isinstance(colour, tuple) and depth.startswith("RGB;16"):
        picture.info["transparency"] = tuple(part >> 8 for part in colour)


def _plain(picture: Image.Image, side: int, mode: str) -> Image.Image:
    """Eight bits, grey or RGB, opaque and upright.

    Args:
        side: a large JPEG is decoded at a fraction of its size, no smaller than this.
    """
    _scale_transparent(picture)
    picture.draft(None, (side, side))
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith("I"):  # 16 bits: Pillow's own conversion cuts off all above 255
        pixels = np.asarray(picture).astype(np.uint32)
        seen = 255 * (pixels != picture.info.get("transparency", -1))
        levels = np.stack([(pixels + 128) // 257, seen], axis=-1)
        picture = Image.fromarray(levels.astype(np.uint8))
    if picture.has_transparency_data:
        # Before resizing: what lies under transparent pixels must not bleed into others.
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)
