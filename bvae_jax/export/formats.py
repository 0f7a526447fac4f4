"""`bvae export`: a run in the formats of other libraries."""

import dataclasses
import functools
import importlib.util
import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from bvae_jax.errors import UserError, needs
from bvae_jax.export.weights import (
    DECODER,
    ENCODER,
    TORCH,
    export_run,
    is_exported_npz,
    metadata,
    named,
    write_npz,
)
from bvae_jax.likelihoods import LIKELIHOODS
from bvae_jax.networks import NETWORKS
from bvae_jax.runs import rundir
from bvae_jax.runs.run import Run

To = Literal["safetensors", "torch", "onnx", "npz"]
TEMPLATE = Path(__file__).with_name("template") / TORCH
OPSET = 18
CLOSE = 1e-3
"""How far the check of an ONNX file lets codes and pixels be away from JAX's, and of their size."""


def export(
    run: Run,
    out: str | Path | None = None,
    *,
    to: To = "safetensors",
    dtype: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
) -> Path:
    """Write a run's weights for other libraries: see docs/sharing.md for what the files hold.

    Args:
        out: the directory, or of npz the file; exports/NAME or exports/NAME.npz if None.
        to: safetensors: a directory of the weights, config, summary, scores and figures. torch:
            the same and bvae_torch.py, which defines the networks in PyTorch. onnx: the same and
            encoder.onnx, decoder.onnx. npz: one file.
        dtype: of the weights, float32 or float16; those of ONNX files are float32.
        overwrite: replace what was exported there before.

    Returns:
        The directory or the file.

    Raises:
        UserError: something is there already, a package is missing, or a part of the user's own
            has no counterpart in PyTorch.
    """
    if to not in get_args(To):
        raise UserError(f"--to: got {to!r}, wanted one of {', '.join(get_args(To))}.")
    if dtype != "float32" and to == "onnx":
        raise UserError(f"--dtype: got {dtype} with --to onnx, wanted float32 there.")
    path = Path(out).expanduser() if out else Path("exports", _name(run))
    if to == "npz":
        path = path if out else path.with_name(f"{path.name}.npz")
        if path.suffix != ".npz":
            raise UserError(f"--out: got {path}, wanted the name of an .npz file.")
        if path.exists() and not overwrite:
            raise UserError(f"{path} is there already: give --overwrite, or another place.")
        if path.exists() and not is_exported_npz(path):
            raise UserError(f"{path} is no exported run: it is left alone. Choose another place.")
        return write_npz(run, path, dtype)
    more: list[Callable[[Path], None]] = []
    if to in ("torch", "onnx"):
        if part := own_part(run):
            raise UserError(
                f"--to {to}: {part} is your own, which {TEMPLATE.name} cannot know: wanted "
                "--to safetensors or npz, whose weights you give to PyTorch code of your own."
            )
        more.append(torch_code)
    if to == "onnx":
        for package in ("torch", "onnx", "onnxscript"):
            needs(package, "export", "--to onnx")
        more.append(functools.partial(write_onnx, run))
    return export_run(run, path, dtype=dtype, overwrite=overwrite, more=more)


def torch_code(directory: Path) -> None:
    """Write the file that defines the networks in PyTorch."""
    shutil.copyfile(TEMPLATE, directory / TEMPLATE.name)


def _name(run: Run) -> str:
    """That of its directory, or of its file without what is after the dot."""
    place = run.run_dir.resolve()
    whole, beta = rundir.of_beta(place)
    if beta is not None:
        return f"{whole.name}-{place.name}"
    return place.stem if place.is_file() else place.name


def own_part(run: Run) -> str:
    """As "network mine": what of a run only its user's own code computes; empty if nothing is."""
    for kind, known in (("network", NETWORKS), ("likelihood", LIKELIHOODS)):
        name = getattr(run.config, kind)
        if not known[name].__module__.startswith("bvae_jax."):
            return f"{kind} {name}"
    return ""


def write_onnx(run: Run, directory: Path) -> None:
    """Encoder and decoder as ONNX files, from the PyTorch ones that are in the directory.

    encoder.onnx: images [batch, channels, height, width] -> mean, logvar [batch, latent], of an
    autoencoder codes; decoder.onnx: z [batch, latent] -> images. Where onnxruntime is installed
    they are run, and compared with JAX.

    Raises:
        UserError: they do not give what JAX gives.
    """
    import onnx  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    spec: Any = importlib.util.spec_from_file_location("bvae_torch", directory / TEMPLATE.name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vae, about = module.load(directory), metadata(run, named(run.params))
    height, width, channels = run.image_shape
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it says that there is no torchvision
    parts = (
        (ENCODER, vae.encode, (channels, height, width), "images", outputs(run)),
        (DECODER, vae.decode, (run.config.latents,), "z", ("images",)),
    )
    for name, function, shape, taken, given in parts:
        whole = torch.nn.Module()
        whole.vae, whole.forward = vae, function
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: Any = torch.onnx.export(
                whole,
                (torch.rand(2, *shape),),
                input_names=[taken],
                output_names=list(given),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        proto = made.model_proto
        onnx.helper.set_model_props(proto, about)
        onnx.save_model(proto, directory / name)
    if importlib.util.find_spec("onnxruntime"):
        check_onnx(run, directory)


def outputs(run: Run) -> tuple[str, ...]:
    """What its encoder gives, by name."""
    return ("mean", "logvar") if run.variational else ("codes",)


def check_onnx(run: Run, directory: Path, images: int = 3) -> dict[str, float]:
    """Run the ONNX files on random images and compare with JAX, in float32 as they are.

    Returns:
        mean, logvar (or codes), images -> the largest difference.

    Raises:
        UserError: it is larger than rounding explains.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports]

    encoder, decoder = (
        part.clone(dtype=jnp.float32) for part in (run.model.encoder, run.model.decoder)
    )
    model = run.model.clone(encoder=encoder, decoder=decoder, products="float32")
    run = dataclasses.replace(run, model=model)
    rng = np.random.default_rng(0)
    x = rng.random((images, *run.image_shape), np.float32)
    z = rng.normal(size=(images, run.config.latents)).astype(np.float32)
    posterior, pictures = run.encode(x), np.moveaxis(np.asarray(run.decode(z)), 3, 1)

    def ran(name: str, **inputs: np.ndarray) -> Sequence[Any]:
        providers = ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(directory / name, providers=providers).run(None, inputs)

    found = (*ran(ENCODER, images=np.moveaxis(x, 3, 1)), *ran(DECODER, z=z))
    names, differences = outputs(run), {}
    wanted = (*posterior[: len(names)], pictures)
    for name, one, other in zip((*names, "images"), found, wanted, strict=True):
        differences[name] = float(np.max(np.abs(one - np.asarray(other))))
        if not np.allclose(one, other, rtol=CLOSE, atol=CLOSE, equal_nan=True):
            raise UserError(
                f"--to onnx: {name} of the ONNX file is {differences[name]:g} away from JAX; "
                f"at most {CLOSE:g} is wanted. Another version of torch or onnxruntime may do."
            )
    return differences
