"""Real frames of 3D Shapes above the nearest images of shapes3d.

python experiments/shapes3d_figure.py FRAMES.npz [docs/shapes3d.png]

FRAMES.npz holds `images` uint8 [frame, 64, 64, 3]; their factors are found by search.
"""

import sys
from pathlib import Path

import numpy as np

from bvae_jax.data import shapes3d
from bvae_jax.plots.run import save_image_grid

FIXED = np.stack([shapes3d.SKY, shapes3d.WHITE])
# Where there is always floor, wall and object: what colour they have says their hues.
PLACES = (
    (slice(58, 64), slice(0, 20)),
    (slice(22, 30), [0, 1, 2, 61, 62, 63]),
    (slice(42, 48), slice(31, 34)),
)
SHOWN = (0, 14, 28, 11, 24, 5, 48, 17)  # of all shapes, sizes and orientations


def nearest(frame, views):
    """The image that is nearest to a frame [64, 64, 3], in the mean absolute difference."""
    colours = np.concatenate([[hue(frame[place]) for place in PLACES], FIXED])
    images = np.minimum(views @ colours.astype(np.float32), 1)
    return images[np.abs(images - frame).mean((1, 2, 3)).argmin()]


def hue(pixels):
    """The hue that pixels have, whatever their brightness."""
    pixels = pixels.reshape(-1, 3)
    pixels = pixels[pixels.max(1) > 0.35]
    seen = np.median(pixels / pixels.max(1, keepdims=True), axis=0)
    apart = np.square(shapes3d.HUE_COLOURS - seen).sum(1)
    return shapes3d.HUE_COLOURS[apart.argmin()]


def main(frames, path="docs/shapes3d.png"):
    with np.load(frames) as archive:
        frames = archive["images"] / np.float32(255)
    (tables,) = shapes3d.arrays()
    views = tables.reshape(-1, *tables.shape[-3:]).astype(np.float32) / shapes3d.LEVELS
    ours = np.stack([nearest(frame, views) for frame in frames])
    psnr = -10 * np.log10(np.square(ours - frames).mean((1, 2, 3)))
    print(f"L1 {np.abs(ours - frames).mean():.4f}, PSNR {psnr.mean():.1f} dB")
    rows = np.stack([frames[list(SHOWN)], ours[list(SHOWN)]])
    save_image_grid(Path(path), rows, row_labels=("published", "rendered"))


if __name__ == "__main__":
    main(*sys.argv[1:])
