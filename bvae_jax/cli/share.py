"""`bvae encode`, `bvae sample`, `bvae export` and `bvae push`: what leaves a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bvae_jax.cli.flags import QUIET, Flag, Flags, of_function, parse
from bvae_jax.errors import UserError, printable
from bvae_jax.runtime import fatal

RUN = Flag(Path, "Directory of a run, or hf:USER/NAME.", positional=True, required=True)


LOADING = ("step", "beta", "dataset")
"""Flags that say which of a run's parameters are meant, and where its images are."""


def _loading(*names: str) -> Flags:
    from bvae_jax.runs.run import load

    return {name: of_function(load)[name] for name in names or LOADING}


def _load(given: dict[str, Any], **options: Any) -> Any:
    """The run that is meant; of one for many β, which that is is said."""
    with fatal():
        from bvae_jax.runs.run import load

    given.pop("plugin", None)
    chosen: Any = {name: given.pop(name, None) for name in LOADING}
    return load(given.pop("run_dir"), **chosen, **options).told()


def _print_written(out: Path) -> None:
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else ()
    print(printable(f"{out}: {', '.join(names)}" if names else str(out)))


def encode_flags() -> Flags:
    """Those of `bvae encode`."""
    with fatal():
        loading = _loading("step", "beta")

    images = Flag(
        str,
        "A folder of pictures (PNG, JPEG, WebP), an .npz file of images, or the name of a data set "
        "that bvae data list shows.",
        positional=True,
        required=True,
        metavar="IMAGES",
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

    images, out, progress = given["images"], given["out"].expanduser(), not given.get("quiet")
    run = _load({**given}, data=False)
    try:
        if is_own(run.config, images):
            run = _load(given, progress=progress)
        count = run.encode_to(out, images, progress=progress)
    except UserError as error:
        raise UserError(str(error).replace("--dataset", "IMAGES")) from error
    print(printable(f"{out}: {count:,} images, {run.config.latents} latents"))
    return 0


def sample_flags() -> Flags:
    """Those of `bvae sample`."""
    with fatal():
        from bvae_jax.runs.codes import write_samples

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
        from bvae_jax.runs.codes import write_samples

    run = _load(given, data=given.get("source") == "aggregate")
    arrays, grid, first, *others = write_samples(run, given.pop("out").expanduser(), **given)
    last = f" to {others[-1].name}" if others else ""
    for line in (grid, arrays, f"{first}{last}"):
        print(printable(str(line)))
    return 0


def export_flags() -> Flags:
    """Those of `bvae export`."""
    with fatal():
        from bvae_jax.export.formats import export

        loading = _loading("step", "beta")

    flags = of_function(export, "run")
    flags["out"] = flags["out"]._replace(aliases=("-o",))
    return {"run_dir": RUN} | flags | loading


def export(argv: Sequence[str]) -> int:
    """Write a run's weights for other libraries: as safetensors, as PyTorch code, as ONNX or as an
    .npz file. All commands take a directory that it writes; of a file bvae_jax.load(FILE,
    data=False), bvae encode, sample and export."""
    given = parse(argv, "bvae export", export.__doc__, export_flags())
    _print_written(_load(given, data=False).export(**given))
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
    made = run_push(given.pop("run"), given.pop("to"), **given)
    if given.get("out"):
        _print_written(Path(made))
    else:
        print(made)
    return 0
