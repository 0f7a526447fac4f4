"""`bvae encode`, `bvae sample`, `bvae export` and `bvae push`: what leaves a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bvae_jax.cli.flags import QUIET, Flag, Flags, of_function, parse
from bvae_jax.runtime import fatal

RUN = Flag(Path, "Directory of a run, or hf:USER/NAME.", positional=True, required=True)


def _loading() -> Flags:
    """Flags that say which of a run's parameters are meant."""
    from bvae_jax.runs.run import load

    return {name: of_function(load)[name] for name in ("step", "beta")}


def encode_flags() -> Flags:
    """Those of `bvae encode`."""
    with fatal():
        loading = _loading()

    images = Flag(
        str,
        "A folder of pictures (PNG, JPEG, WebP), an .npz file of images, or the name of a data set "
        "as of --dataset.",
        positional=True,
        required=True,
    )
    told = "File to write: .npz (codes, logvars, files or indices, factors) or .csv."
    out = Flag(Path, told, required=True, aliases=("-o",))
    return {"run_dir": RUN, "images": images, "out": out} | loading | QUIET


def encode(argv: Sequence[str]) -> int:
    """Write the codes of images into a file: means and log-variances of q(z|x), in the order of the
    images' names. Pictures are cropped and resized as those that the run was trained on."""
    given = parse(argv, "bvae encode", encode.__doc__, encode_flags())
    with fatal():
        from bvae_jax.runs.codes import is_own
        from bvae_jax.runs.run import load

    path, images, out = given["run_dir"], given["images"], given["out"].expanduser()
    options: Any = {name: given.get(name) for name in ("step", "beta")}
    run, progress = load(path, **options, data=False), not given.get("quiet", False)
    if is_own(run.config, images):
        run = load(path, **options, progress=progress)
    count = run.encode_to(out, images, progress=progress)
    print(f"{out}: {count:,} images, {run.config.latents} latents")
    return 0


def sample_flags() -> Flags:
    """Those of `bvae sample`."""
    with fatal():
        from bvae_jax.runs.samples import write_samples

        loading = _loading()

    flags = of_function(write_samples, "run")
    flags["n"] = flags["n"]._replace(aliases=("-n",))
    flags["out"] = flags["out"]._replace(required=True, aliases=("-o",))
    return {"run_dir": RUN} | flags | loading


def sample(argv: Sequence[str]) -> int:
    """Draw pictures from a run's prior, or from its aggregate posterior: a PNG each, a grid of all,
    and an .npz file of the same and of their z."""
    given = parse(argv, "bvae sample", sample.__doc__, sample_flags())
    with fatal():
        from bvae_jax.runs.run import load
        from bvae_jax.runs.samples import write_samples

    given.pop("plugin", None)
    options: Any = {name: given.pop(name, None) for name in ("step", "beta")}
    run = load(given.pop("run_dir"), **options, data=given.get("source") == "aggregate")
    arrays, grid, *pictures = write_samples(run, given.pop("out").expanduser(), **given)
    print(f"{grid}\n{arrays}\n{pictures[0]} to {pictures[-1].name}")
    return 0


def export_flags() -> Flags:
    """Those of `bvae export`."""
    with fatal():
        from bvae_jax.export.formats import export

        loading = _loading()

    flags = of_function(export, "run")
    flags["out"] = flags["out"]._replace(aliases=("-o",))
    return {"run_dir": RUN} | flags | loading


def export(argv: Sequence[str]) -> int:
    """Write a run's weights for other libraries: as safetensors, as PyTorch code, as ONNX or as an
    .npz file. bvae_jax.load and all commands take what it writes, too."""
    given = parse(argv, "bvae export", export.__doc__, export_flags())
    with fatal():
        from bvae_jax.runs.run import load

    given.pop("plugin", None)
    options: Any = {name: given.pop(name, None) for name in ("step", "beta")}
    out = load(given.pop("run_dir"), **options, data=False).export(**given)
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else ()
    print(f"{out}: {', '.join(names)}" if names else out)
    return 0


def push_flags() -> Flags:
    """Those of `bvae push`."""
    with fatal():
        from bvae_jax.export.hub import push

    flags = of_function(push)
    flags["to"] = flags["to"]._replace(positional=True, required=True)
    flags["out"] = flags["out"]._replace(aliases=("-o",))
    return flags | {"run": RUN}


def push(argv: Sequence[str]) -> int:
    """Push a run to the Hugging Face Hub: weights, config, scores, figures, and a model card that
    is made from them. bvae_jax.load("hf:USER/NAME") and all commands take it from there."""
    given = parse(argv, "bvae push", push.__doc__, push_flags())
    with fatal():
        from bvae_jax.export.hub import push as run_push

    given.pop("plugin", None)
    print(run_push(given.pop("run"), given.pop("to"), **given))
    return 0
