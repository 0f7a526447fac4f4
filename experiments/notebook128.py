"""A beta-VAE for a folder of pictures at 128 x 128: the notebook's, with all that it shows.

Without --pictures it draws a folder of pictures itself, rendered 3D Shapes at 64 x 64, enlarged.

python experiments/notebook128.py [--pictures DIR] [--scale small|full]
"""

import jax
import jax.numpy as jnp
import numpy as np
from common import Scale, arguments, drawing, settings, trained_run
from PIL import Image

from bvae_jax.data import shapes3d as shapes
from bvae_jax.plots.run import mosaic
from bvae_jax.runs.traversals import coders, interpolate

FEW = {"network": "conv", "latents": 32, "samples": 1, "batch_size": 16, "steps": 1500}
# values: how many pictures to draw where none are given
SCALES = {"small": Scale(FEW, 1, (1000,)), "full": Scale({}, 1, (5400,))}
COLUMNS, ROWS = 7, ("original", "decoded", "generated", "", "between")
NUMBERS = ("nll", "kl", "elbo", "bits_per_dim", "active_latents")


def render(directory, count):
    """Pictures of random factors, in a folder for each shape."""
    chosen = np.random.default_rng(0).choice(shapes.DATASET.size, count, replace=False)
    for index in chosen:
        factors = shapes.DATASET.factors(jnp.asarray([index]))
        image = np.asarray(shapes.render(factors, *shapes.arrays()))[0]
        path = directory / f"shape{factors[0, 4]}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(np.round(255 * image))).save(path)
    return directory


def main(argv=None):
    args = arguments(__doc__, "notebook128", SCALES, argv, pictures="a folder of pictures")
    folder = args.pictures or args.dir / "pictures"
    if not args.pictures and not folder.exists():
        render(args.dir / "drawing", *args.scale.values).rename(folder)
    data = {"dataset": f"folder:{folder}", "image_size": 128, "data_dir": str(args.dir / "data")}
    config = settings("notebook128", args.scale.changes | data, "beta_vae")
    result = trained_run(args.dir / "run", config)
    program, (encoder, decoder) = result.trainer, coders(result.trainer, result.params)
    images = program.images(program.eval_indices.ravel()[:COLUMNS])
    means = encoder(images).mean
    drawn = decoder(jax.random.normal(jax.random.key(0), (2 * COLUMNS, config.latents)))
    between = interpolate(decoder, means[:1], means[1:2], COLUMNS)[0]
    with drawing(args.figure, height=2.6) as axes:
        axes.imshow(mosaic(np.stack([images, decoder(means), *jnp.split(drawn, 2), between])))
        axes.set_yticks(64 + 130 * np.arange(len(ROWS)), ROWS)
        axes.set(xticks=[], frame_on=False)
    print("| " + " | ".join(NUMBERS) + " |\n|" + " --- |" * len(NUMBERS))
    print("| " + " | ".join(f"{result.summary[name]:.4g}" for name in NUMBERS) + " |")


if __name__ == "__main__":
    main()
