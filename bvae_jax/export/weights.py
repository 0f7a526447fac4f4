"""The weights of a run in a directory or a file that says by itself what they are.

DIR/  model.safetensors  config.json  and, of a finished run, summary.json, evaluation.json,
elbo.json and figures/, as far as it has them
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bvae_jax.config import Config, SplitName, differing_fields, places
from bvae_jax.errors import UserError
from bvae_jax.evaluation.answers import Answers
from bvae_jax.evaluation.elbo import ELBO
from bvae_jax.evaluation.evaluate import EVALUATION
from bvae_jax.files import CHECKSUM, blaming, digest, misfit, replacing, write_json
from bvae_jax.files.archive import DamagedError, read_npz
from bvae_jax.runs import rundir
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.encode import CACHE, of_split
from bvae_jax.runs.hyper import hyperparameters, resolved
from bvae_jax.runs.run import Run, placed
from bvae_jax.runs.rundir import CONFIG, EXPLORER, SUMMARY, WEIGHTS
from bvae_jax.runs.trainer import Trainer, build_model
from bvae_jax.runs.writer import finished_summary
from bvae_jax.types import ImageShape, Params, TrainState, key_for
from bvae_jax.vae import VAE

FORMAT, VERSION = "bvae_jax", "1"
KEYS = ("format", "format_version", "config", "image_shape", "step", "params_sha256")
MORE = ("data", "posterior", CHECKSUM)
"""Of the metadata. Others need not be there: which images the run was trained on; "none" of an
autoencoder, whose log-variances nobody trained; of the rest."""
TORCH, ENCODER, DECODER = "bvae_torch.py", "encoder.onnx", "decoder.onnx"
SPLITS = get_args(SplitName)
SCORES = [of_split(file, split) for file in (EVALUATION, ELBO) for split in SPLITS]
CODES = [of_split(CACHE, split) for split in SPLITS]
OURS = {WEIGHTS, CONFIG, SUMMARY, *SCORES, *CODES, TORCH, ENCODER, DECODER, EXPLORER, "figures"}
"""What an earlier export and commands leave in a directory, which is replaced with it."""
ANEW = "Export the run anew, or fetch the file again."
Arrays = dict[str, np.ndarray]


class Weights(NamedTuple):
    """What `read` found.

    Attributes:
        params: as `Run.params`.
        data: the identity of the data set; empty where it is not known.
    """

    config: Config
    image_shape: ImageShape
    step: int
    params: Params
    model: VAE
    data: str


def export_run(
    run: Run,
    out: Path,
    *,
    dtype: str = "float32",
    overwrite: bool = False,
    more: Sequence[Callable[[Path], None]] = (),
) -> Path:
    """Write a run as a directory that `bvae_jax.load` and commands take for a run's.

    It appears whole or not at all, and nothing in it names a place of this machine.

    Args:
        out: the directory.
        dtype: of the weights, float32 or float16.
        overwrite: replace an earlier export that is there.
        more: each writes another file into the directory.

    Returns:
        The directory.

    Raises:
        UserError: something is there already, the type is another, or a number is too large for it.
    """
    arrays = named(run.params, dtype)
    with directory_written(out, overwrite=overwrite) as part:
        about = metadata(run, arrays)
        (part / WEIGHTS).write_bytes(save(arrays, about))
        write_json(part / CONFIG, json.loads(about["config"]))
        for name in SCORES:
            entries = {}
            for place in (out, run.run_dir):  # an export's own scores are not lost
                entries |= Answers(place / name).of_params(about["params_sha256"])
            if entries:
                write_json(part / name, entries, checksum=True)
        if run.summary:
            summary = run.summary | {"params_sha256": about["params_sha256"]}
            write_json(part / SUMMARY, summary, checksum=True)
            for figure in (run.run_dir / "figures").glob("*.*"):  # without frames of an animation
                (part / "figures").mkdir(exist_ok=True)
                shutil.copyfile(figure, part / "figures" / figure.name)
        for write in more:
            write(part)
    return out


@contextlib.contextmanager
def directory_written(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A directory to fill, which is `out` at the end; after an exception nothing has changed.

    Raises:
        UserError: something is there that may not be replaced.
    """
    there = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    if there and not (out.is_dir() and rundir.is_exported(out)):
        raise UserError(f"{out} exists and is no exported run: it is left alone. Choose another.")
    if there and not overwrite:
        raise UserError(f"{out} holds an exported run already: give --overwrite, or another place.")
    if there and (more := sorted({path.name for path in out.iterdir()} - OURS)):
        raise UserError(f"{out} holds more than an export: {more[0]}. Move that away first.")
    if there and Path.cwd().is_relative_to(os.path.realpath(out)):
        raise UserError(f"--overwrite: {out} is where you are. Change the directory first.")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = tempfile.TemporaryDirectory
    with blaming(out), aside(prefix=f".{out.name}-", dir=out.parent) as part:
        new, old = Path(part, "new"), Path(part, "old")
        new.mkdir()
        yield new
        try:
            if there:
                out.rename(old)
            new.rename(out)
        except BaseException:
            if old.exists() and not out.exists():
                old.rename(out)
            raise


def named(params: Params, dtype: str = "float32") -> Arrays:
    """{"encoder": {"Conv_0": {"kernel": ...}}} -> {"encoder.Conv_0.kernel": ...}.

    Args:
        dtype: float32 or float16.

    Raises:
        UserError: the type is another, or a number is too large for it.
    """
    if dtype not in ("float32", "float16"):
        raise UserError(f"--dtype: got {dtype!r}, wanted float32 or float16.")
    arrays = {}
    for name, leaf in flatten_dict(dict(params), sep=".").items():
        whole = np.asarray(leaf)
        with np.errstate(over="ignore"):
            arrays[name] = whole.astype(dtype)
        if np.isinf(arrays[name]).any() and not np.isinf(whole).any():
            raise UserError(f"--dtype {dtype}: {name} reaches {abs(whole).max():g}: give float32.")
    return arrays


def nested(arrays: Arrays) -> Params:
    """The inverse of `named`, in float32."""
    return unflatten_dict({n: jnp.asarray(a, jnp.float32) for n, a in arrays.items()}, sep=".")


def metadata(run: Run, arrays: Arrays) -> dict[str, str]:
    """What stands beside its parameters, each as a text.

    Args:
        arrays: the parameters, as they are written.
    """
    config = resolved(portable(run.config))
    found = {
        "format": FORMAT,
        "format_version": VERSION,
        "config": json.dumps(config.to_dict()),
        "image_shape": json.dumps(list(run.image_shape)),
        "step": str(int(run.state.step)),
        "params_sha256": fingerprint(nested(arrays)),
    }
    if rundir.is_exported(run.run_dir):
        data = read(run.run_dir).data
    else:
        data = rundir.read_data(rundir.of_beta(run.run_dir)[0]).get("identity", "")
    found |= {"data": data} if data else {}
    found |= {} if run.variational else {"posterior": "none"}
    return found | {CHECKSUM: digest(found)}


def portable(config: Config) -> Config:
    """Without paths of this machine; of a run for many β, with the one that it is at."""
    here = {"data_dir": "", "multi_rate": "", "multi_rate_decoder": Config.multi_rate_decoder}
    for name, path in places(config).items():
        if name != "data_dir":
            kind, colon, _ = getattr(config, name).rpartition(":")
            before = kind.partition(":")[0] + colon if name == "dataset" else ""
            here[name] = before + Path(path).name
    return config.replace(**here)


def write_npz(run: Run, file: Path, dtype: str = "float32") -> Path:
    """The same names and arrays, and the metadata as texts, in an .npz file.

    Args:
        dtype: of the arrays, float32 or float16.

    Raises:
        UserError: the type is another, or a number is too large for it.
    """
    arrays = named(run.params, dtype)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as out:
        texts = {key: np.array(text) for key, text in metadata(run, arrays).items()}
        np.savez(out, **arrays, **texts)  # pyright: ignore
    return file


def is_exported_npz(path: Path) -> bool:
    """Whether a file is one of `write_npz`, which a later one may replace."""
    try:
        return path.is_file() and str(read_npz(path).get("format")) == FORMAT
    except DamagedError:
        return False


def read(path: Path) -> Weights:
    """The weights of an exported directory, or of one file.

    Args:
        path: the directory, model.safetensors of one, or an .npz file of `write_npz`.

    Raises:
        UserError: it is not a file of ours, damaged, or its arrays are not those of its config.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"No exported run in {path}: it has no {WEIGHTS}. Give an exported one.")
    if file.suffix not in (".npz", ".safetensors"):
        raise rundir.only_weights(file)
    about, arrays = _read_npz(file) if file.suffix == ".npz" else _read_safetensors(file)
    config, shape, step = _read_about(file, about)
    if path.is_dir():
        differing = differing_fields(config, rundir.read_config(path))
        if differing:
            raise UserError(
                f"{path / CONFIG} was edited: {WEIGHTS} was made with other values "
                f"({'; '.join(differing)}). Put the old values back."
            )
    model, states = build_model(config, shape)
    like = flatten_dict(states.params["vae"], sep=".")
    if wrong := _misfit(arrays, like):
        raise UserError(f"{file} does not fit its config and image_shape {shape}: {wrong}. {ANEW}")
    params = nested({name: arrays[name] for name in like})
    if fingerprint(params) != about["params_sha256"]:
        raise UserError(f"{file} is damaged: its parameters are not those of its SHA-256. {ANEW}")
    return Weights(config, shape, step, params, model, about.get("data", ""))


def _read_safetensors(file: Path) -> tuple[dict[str, str], Arrays]:
    try:
        with safe_open(file, "numpy") as opened:
            about = _checked_about(file, opened.metadata() or {})
            types = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
            if strange := {
                name: kind for name, kind in types.items() if kind not in ("F32", "F16")
            }:
                name, kind = next(iter(strange.items()))
                raise UserError(f"{file}: {name} is of {kind}, wanted F32 or F16. {ANEW}")
            return about, {name: opened.get_tensor(name) for name in types}
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{file} is damaged or no safetensors file: {error}. {ANEW}") from None


def _read_npz(file: Path) -> tuple[dict[str, str], Arrays]:
    try:
        arrays = read_npz(file)
    except DamagedError as error:
        raise UserError(f"{file} is damaged: {error} {ANEW}") from None
    if "codes" in arrays:
        raise UserError(f"{file} holds codes, wanted weights: bvae_jax.score_file scores codes.")
    texts = {name: str(arrays.pop(name)) for name in (*KEYS, *MORE) if name in arrays}
    return _checked_about(file, texts), arrays


def _checked_about(file: Path, about: Mapping[str, str]) -> dict[str, str]:
    """Metadata of ours.

    Raises:
        UserError: they are those of something else.
    """
    if about.get("format") != FORMAT or any(key not in about for key in KEYS):
        raise UserError(f"{file} holds no weights of bvae_jax: wanted a file of bvae export.")
    if about["format_version"] != VERSION:
        raise UserError(
            f"{file}: got format {about['format_version']}, wanted {VERSION}: it was written by "
            "another version of bvae_jax."
        )
    found = {**about}
    expected = found.pop(CHECKSUM, None)  # which older ones do not have
    if expected not in (None, digest(found)):
        raise UserError(f"{file} is damaged: its metadata are not what was written. {ANEW}")
    return found


def _read_about(file: Path, about: Mapping[str, str]) -> tuple[Config, ImageShape, int]:
    kinds = {"config": dict, "image_shape": list[int], "step": int}
    found: dict[str, Any] = {}
    for key, kind in kinds.items():
        try:
            found[key] = json.loads(about[key])
            wrong = misfit(found[key], kind)
        except (ValueError, RecursionError) as error:
            wrong = str(error)
        if wrong:
            raise UserError(f"{file}: {key} in its metadata is damaged: {wrong}. {ANEW}")
    shape, step = found["image_shape"], found["step"]
    if len(shape) != 3 or not all(0 < side < 10_000 for side in shape) or not 0 <= step < 2**31:
        raise UserError(
            f"{file}: got image_shape {shape}, step {step}, wanted height, width, channels. {ANEW}"
        )
    config = resolved(rundir.parse_config(file, found["config"]))
    height, width, channels = shape
    return config, (height, width, channels), step


def _misfit(arrays: Mapping[str, np.ndarray], like: Mapping[str, Any]) -> str:
    """In words which array is missing, too many or of another shape; empty if none is."""
    for name in sorted({*arrays, *like}):
        if name not in arrays:
            return f"it has no {name}"
        if name not in like:
            return f"it has {name}, which the network has not"
        got, wanted = arrays[name], like[name]
        if got.shape != wanted.shape:
            return f"{name} is {list(got.shape)}, wanted {list(wanted.shape)}"
        if got.dtype not in (np.float32, np.float16):
            return f"{name} is of {got.dtype}, wanted float32"
    return ""


def load_exported(
    path: Path,
    *,
    step: int | None,
    dataset: str | None,
    data: bool,
    trainer: Trainer | None,
    progress: bool,
) -> Run:
    """What `bvae_jax.load` gives of an exported directory or file: everything but resuming.

    Raises:
        UserError: as `read` and `bvae_jax.load`.
    """
    found = read(path)
    if step not in (None, found.step):
        raise UserError(f"--step: got {step}, but {path} was exported at step {found.step}.")
    if data and not path.is_dir():
        raise rundir.only_weights(path)
    opened = None
    if data:
        config = placed(path, rundir.read_config(path), dataset)
        opened = trainer or Trainer(config, progress=progress)
        rundir.check_data(path, opened.dataset, found.data)
        if opened.dataset.image_shape != found.image_shape:
            raise UserError(f"{path}: {opened.dataset.name} has images of another shape.")
    config = opened.config if opened else found.config
    hyper = {name: jnp.float32(value) for name, value in hyperparameters(found.config).items()}
    key = key_for("run", config.seed)
    params: Params = {"vae": found.params, "aux": {}}
    state = TrainState(jnp.int32(found.step), params, {}, key, hyper, {}, {})
    # The average is what was exported: there is nothing to average any more.
    summary = finished_summary(path, found.step, config) if path.is_dir() else None
    model = opened.model if opened else found.model
    return Run(path, config, summary, jax.device_put(state), model, found.image_shape, opened)
