"""`bvae explore` from Python: a run or a sweep in, a page out."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from bvae_jax.comparison.base import Comparison
from bvae_jax.comparison.matching import match, representatives
from bvae_jax.comparison.reading import read_comparison
from bvae_jax.comparison.report import title as title_of
from bvae_jax.errors import UserError
from bvae_jax.explore.page import COLUMNS, Explorer, atlas, make_page, program_json, rounded
from bvae_jax.explore.program import Program, trace
from bvae_jax.files import read_json
from bvae_jax.metrics.base import active, ratio
from bvae_jax.metrics.mig import mig
from bvae_jax.networks.gates import Rates
from bvae_jax.objectives import get_objective
from bvae_jax.runs import rundir
from bvae_jax.runs.encode import codes_of, encode_points, encode_run, encoding_order, same_images
from bvae_jax.runs.figures import betas_of
from bvae_jax.runs.grid import SYMBOLS, text
from bvae_jax.runs.hyper import many_rates
from bvae_jax.runs.run import Run, load, load_shared, located
from bvae_jax.runs.rundir import only_weights
from bvae_jax.runs.sweepdir import SweepConfig
from bvae_jax.runs.trainer import Trainers
from bvae_jax.runs.traversals import best_start
from bvae_jax.step import weights
from bvae_jax.types import Images, Params, Scalar
from bvae_jax.types import Latents as Codes
from bvae_jax.vae import CODEBOOK, decode

FILE = rundir.EXPLORER
IMAGES, PIXELS, FEWEST = 200, 4_000_000, 24
"""On a page; fewer where they are large."""
POINTS = 2000
"""Images whose codes are counted."""
BARS = 40
TAIL = 0.005
"""Of the codes that lie beyond each end of a latent's band."""
KNOWS = 0.1
"""Share of a factor's entropy below which a latent is not named after it."""


class Model(NamedTuple):
    """A decoder on the page.

    Attributes:
        label: what it is called beside others.
        rate, distortion: mean KL and negative log-likelihood, nats; nan where they are not known.
        beta: of a run for many, that of these codes; 0 of others.
    """

    label: str
    run: Run
    rate: float = math.nan
    distortion: float = math.nan
    beta: float = 0.0


class Latents(NamedTuple):
    """What is known of each latent of a run, from `POINTS` images.

    Attributes:
        codes: posterior means.
        size: mean KL in nats; of an autoencoder the standard deviation of its codes.
        active: as in metrics.
        factors: what each latent knows best, "" where that is little.
        shares: which part of that factor's entropy it knows.
        score: MIG; 0 where there are no factors.
    """

    codes: Float[np.ndarray, "n latent"]
    size: Float[np.ndarray, " latent"]
    active: Bool[np.ndarray, " latent"]
    factors: list[str]
    shares: Float[np.ndarray, " latent"]
    score: float = 0.0


def explore(
    path: str | Path,
    *,
    out: str | Path | None = None,
    seed: int | None = None,
    float32: bool = False,
    step: int | None = None,
    dataset: str | None = None,
) -> Path:
    """Write a page on which one moves the latents of a run, or of a sweep's runs together.

    Of a sweep there is one run for each setting: that which is nearest to the setting's means.
    The score is MIG where `bvae compare` left it, otherwise the ELBO or the distortion.

    Args:
        path: directory of a run or of a sweep, or hf:USER/NAME.
        out: the file; explore.html in that directory if None.
        seed: of a sweep, the runs of this seed.
        float32: keep all digits of the weights: twice the size.
        step: of a run, the checkpoint to take; the newest if None.
        dataset: of a run, where its images are now, as folder:DIRECTORY or npz:FILE.

    Returns:
        The file.

    Raises:
        UserError: there is no run or sweep, nothing is trained yet, or its decoder is too large for
            a page or uses what a page cannot compute.
    """
    directory = located(path)
    if directory.is_file():
        raise only_weights(directory)
    file = Path(out).expanduser() if out else directory / FILE
    if file.is_dir():
        raise UserError(f"--out: {file} is a directory, wanted the name of a file.")
    if file.exists() and not file.is_file():  # it would be replaced, also by a root's /dev/stdout
        raise UserError(f"--out: {file} is no plain file, wanted the name of one, as page.html.")
    above = next(folder for folder in file.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):  # before minutes of work
        raise UserError(f"--out: {above} is no directory that can be written to.")
    stored = directory / rundir.CONFIG
    if not (stored.is_file() and "values" in read_json(stored)):
        if seed is not None:
            raise UserError(f"--seed: {directory} is a run: wanted a sweep for that.")
        return of_run(load(directory, step=step, dataset=dataset), float32=float32).write(file)
    if step is not None or dataset is not None:
        raise UserError(f"--step, --dataset: {directory} is a sweep: wanted a run for that.")
    return of_sweep(directory, seed=seed, float32=float32).write(file)


def of_run(run: Run, *, float32: bool = False) -> Explorer:
    """The page of a run.

    Raises:
        UserError: as `explore`.
    """
    config = run.config
    name, rates = title_of([SweepConfig(config, {})]), None if run.one_beta else many_rates(config)
    if rates and rates.low < rates.high:
        title = f"{name}: one network for β from {rates.low:g} to {rates.high:g}"
        return _page(title, models_of(run, rates), [program_of(run, rates)], float32)
    hyper = sorted(get_objective(config.objective).hyper, key=lambda name: name != "beta")
    values = [f"{SYMBOLS.get(name, name)} = {text(config.value(name))}" for name in hyper[:1]]
    return _page(": ".join([name, *values]), [Model("", run)], [program_of(run)], float32)


def models_of(run: Run, rates: Rates) -> list[Model]:
    """A run for many β at some of them; where it is finished, its summary has the curve."""
    known = {point["beta"]: point for point in (run.summary or {}).get("rates", ())}
    models = []
    for beta in betas_of(rates):
        numbers = (known.get(beta, {}).get(name, math.nan) for name in ("kl", "nll"))
        models.append(Model(f"β = {text(beta)}", run.at(beta), *numbers, beta=beta))
    return models


def of_sweep(sweep_dir: Path, *, seed: int | None = None, float32: bool = False) -> Explorer:
    """The page of a sweep.

    Raises:
        UserError: as `explore`.
    """
    trainers = Trainers()
    comparison = read_comparison([sweep_dir], None, trainers, progress=False)
    return of_comparison(comparison, trainers, seed=seed, float32=float32)


def of_comparison(
    comparison: Comparison,
    trainers: Trainers,
    *,
    seed: int | None = None,
    float32: bool = False,
) -> Explorer:
    """The page of a sweep: a run for each setting.

    Raises:
        UserError: as `explore`; or no run has the seed, or the runs have different images.
    """
    rows: Any = comparison.members
    whole, *others = {rundir.of_beta(path)[0] for path in comparison.run_dirs.values()}
    if not others and many_rates(rundir.read_config(whole)):
        return of_run(load_shared(whole, trainers), float32=float32)
    models = []
    for setting, member in representatives(comparison, seed).items():
        run = load_shared(comparison.run_dirs[member], trainers)
        if models and not same_images(models[0].run.trainer, run.trainer):
            raise UserError("The runs have different images, wanted runs on the same.")
        rates = (float(rows.loc[member].get(name, np.nan)) for name in ("kl", "nll"))
        models.append(Model(setting, run, *rates))
    title = title_of(comparison.sweeps)
    return _page(title, models, [program_of(one.run) for one in models], float32)


def _page(
    title: str, models: Sequence[Model], programs: Sequence[Program], float32: bool
) -> Explorer:
    """The page of models; those of a single program differ in its level."""
    first = models[0].run
    trainer, shape = first.trainer, first.image_shape
    many = len(programs) < len(models)
    points = min(POINTS // 2 if many else POINTS, trainer.dataset.size)
    count = max(FEWEST, min(IMAGES, PIXELS // math.prod(shape)))
    indices = encoding_order(trainer)[: min(count, points)]
    images = np.asarray(trainer.images(indices))
    known = [look(model, points) for model in models]
    reference = max(known, key=lambda one: one.active.sum())
    order = in_order(reference)
    pairs = [follows(reference, reference if many else one, order) for one in known]
    shown = max(range(len(models)), key=lambda i: (known[i].score, known[i] is reference))
    decoded = np.asarray(models[shown].run.reconstruct(images))
    data = {
        "shape": shape,
        "atlas": atlas(images),
        "columns": min(COLUMNS, len(images)),
        "captions": [f"image {index}" for index in indices.tolist()],
        "start": best_start(images, decoded, known[shown].codes[: len(images)]),
        "first": shown,
        "plane": plane(known[shown], pairs[shown]),
        "prior": first.variational,
        "continuous": many,
        "size": "KL" if first.variational else "sd",
        "rows": order.tolist(),
        "models": [
            model_json(model, min(i, len(programs) - 1), known[i], pairs[i], len(images))
            for i, model in enumerate(models)
        ],
        "programs": [program_json(program, float32=float32) for program in programs],
    }
    return make_page(title, about(models, known[shown]), data)


def look(model: Model, points: int) -> Latents:
    """Encode images of a run's data set, and see what latents know."""
    run = model.run
    if model.beta:  # the directory has no place for the codes of a β that nobody asked for
        encoded = encode_points(run.trainer, run.params, points)
    else:
        encoded = encode_run(run.run_dir, run.trainer, run.params, points, progress=False)
    codes = codes_of(run.trainer, encoded)
    means = np.asarray(codes.codes, np.float64)
    used = active(means, codes.kl)
    factors, shares, score = [""] * means.shape[1], np.zeros(means.shape[1]), 0.0
    if codes.factors.size and used.any():
        found = mig(means, codes.factors)
        share = np.nan_to_num(ratio(found["mutual_information"], found["entropy"]))
        best, score = share.argmax(axis=1), found["score"]
        shares = np.where(used, share.max(axis=1), 0)
        shares[shares < KNOWS] = 0
        names = [name.replace("_", " ") for name in codes.names()]
        factors = [names[k] if s else "" for k, s in zip(best, shares, strict=True)]
    size = means.std(axis=0) if codes.kl is None else codes.kl
    return Latents(means, size, used, factors, shares, score)


def in_order(known: Latents) -> Int[np.ndarray, " row"]:
    """Latents from the largest to the smallest KL, those in use first."""
    return np.lexsort((-known.size, ~known.active))


def follows(
    reference: Latents, other: Latents, order: Int[np.ndarray, " row"]
) -> list[tuple[int, int]]:
    """For each row, a latent of the reference, that of another run which goes with it.

    Returns:
        Its index, -1 where none is left, and its sign, 0 where the two have nothing in common.
    """
    if other is reference:
        return [(int(j), 1) for j in order]
    used = {"usable_reference": reference.active, "usable_other": other.active}
    found = match(reference.codes, other.codes, **used)
    spare = iter(sorted(set(range(other.codes.shape[1])) - set(found.partner.tolist())))
    return [
        (int(found.partner[j]), int(found.sign[j]))
        if found.partner[j] >= 0
        else (next(spare, -1), 0)
        for j in order
    ]


def model_json(
    model: Model, program: int, known: Latents, pairs: Sequence[tuple[int, int]], images: int
) -> dict[str, Any]:
    """A model for the page's script.

    Args:
        program: the number of its decoder.
        pairs: as of `follows`.
        images: how many are on the page.
    """
    codes = known.codes
    mean, spread = codes.mean(axis=0), codes.std(axis=0)
    low, high = np.quantile(codes, [TAIL, 1 - TAIL], axis=0)
    start, end = range_of(known, model.run.variational)
    if model.run.model.codebook:
        values = np.asarray(model.run.params[CODEBOOK])
        start, end = values.min(axis=1) - 1e-3, values.max(axis=1) + 1e-3  # codes are rounded
        low, high = start, end
    numbers = {"size": known.size, "share": known.shares, "low": low, "high": high}
    numbers |= {"from": start, "to": end, "mean": mean, "spread": spread}
    latents = []
    for j in range(codes.shape[1]):
        bars, _ = np.histogram(codes[:, j], BARS, (start[j], end[j]))
        words = {"index": j, "factor": known.factors[j], "active": bool(known.active[j])}
        found = {name: round(float(of[j]), 6) for name, of in numbers.items()}
        latents.append(words | found | {"bars": rounded(bars / max(bars.max(), 1), 2)})
    rates = {"rate": model.rate, "distortion": model.distortion}
    return {
        "label": model.label,
        "program": program,
        "beta": model.beta,
        "latents": latents,
        "codes": rounded(codes[:images]),
        "follows": list(pairs),
        **{name: round(x, 3) for name, x in rates.items() if math.isfinite(x)},
    }


def range_of(known: Latents, variational: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where each slider begins and ends: 3 standard deviations, and as far as the codes reach."""
    mean, spread = known.codes.mean(axis=0), known.codes.std(axis=0)
    low, high = np.quantile(known.codes, [TAIL, 1 - TAIL], axis=0)
    centre, width = (0 * mean, 1) if variational else (mean, np.maximum(spread, 1e-6))
    start = np.minimum(centre - 3 * width, np.floor(4 * low) / 4)
    return start, np.maximum(centre + 3 * width, np.ceil(4 * high) / 4)


def plane(known: Latents, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Two rows to begin with: the first, and the next that knows something else."""
    latents = [j for j, _ in pairs]
    first, *others = (latents.index(j) for j in in_order(known).tolist() if j in latents)
    named = [known.factors[j] for j in latents]
    others = [row for row in others if named[row] != named[first]] or others or [first]
    return [first, others[0]]


def about(models: Sequence[Model], known: Latents) -> str:
    """What one sees, in a line."""
    run = models[0].run
    used = f"{int(known.active.sum())} of {run.config.latents} latents in use"
    if len(models) > 1:
        used = f"{run.config.latents} latents"
    return (
        f"{used}, network {run.config.network}, {int(run.state.step):,} steps. Move a latent: this "
        "page decodes by itself. Blue: where the codes of the data are."
    )


def program_of(run: Run, rates: Rates | None = None) -> Program:
    """Its decoder and the likelihood's mean, for one code.

    Args:
        rates: of a run for many β, which then is an argument.

    Raises:
        UserError: they use what a page cannot compute.
    """
    nowhere = jnp.zeros((1, run.config.latents))

    def at(params: Params, z: Codes, beta: Scalar) -> Images:
        return decode(run.model, rates.at(params, beta) if rates else params, z)

    params = weights(run.state) if rates else run.params
    own = {name: part for name, part in params.items() if name != "encoder"}
    try:
        return trace(at, own, nowhere, jnp.ones(()))
    except UserError as error:
        raise UserError(
            f"{run.run_dir}: {error}, which the decoder of --network {run.config.network} or "
            f"--likelihood {run.config.likelihood} wants. bvae traverse draws it as pictures."
        ) from None
