"""From codes to scores: which metrics, on which points, how often, against what."""

import hashlib
import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy.stats import t as student
from threadpoolctl import threadpool_limits

from bvae_jax.config import ScoreConfig
from bvae_jax.continuous import BINS
from bvae_jax.errors import MissingPackage, UserError, say, unknown, worded
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.base import CodesTest, FactorsTest, InvalidArrays, LatentKL
from bvae_jax.metrics.codes import Codes, Draw, draw
from bvae_jax.runtime import git_commit, versions
from bvae_jax.types import CodeMatrix, Factors, Score, key_for

PACKAGES = ("bvae_jax", "numpy", "scipy", "scikit-learn", "lightgbm", "jax")
"""Those that scores depend on."""
MEANING = {
    "codes_of_runs": "other runs to compare with (--udr-with)",
    "logvars": "logvars, the log-variances of the posterior",
}
"""What to call an array that is not there."""
PIXELS = "raw_pixels"
"""The baseline that has thousands of latents: only metrics with `pixels` are scored on it."""
Entry = dict[str, Any]
"""A metric's scores as JSON's types, with settings, n, seconds, versions; or why it has none."""


def metric_names(wanted: str, flag: str = "--metrics") -> tuple[str, ...]:
    """Names of `all`, `fast`, or a list with commas, in the registry's order.

    Args:
        flag: to speak of in the error.

    Raises:
        UserError: a name is not known, or there is none.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if not names:
        raise UserError(f"{flag}: got {wanted!r}, wanted all, fast, or names with commas.")
    groups = {"all": METRICS, "fast": [name for name, metric in METRICS.items() if metric.fast]}
    chosen = set()
    for name in names:
        if name not in groups and name not in METRICS:
            raise unknown("metric", name, [*groups, *METRICS])
        chosen |= set(groups.get(name, (name,)))
    return tuple(name for name in METRICS if name in chosen)


def source_of(name: str) -> dict[str, str]:
    """A digest of the file that a metric of the user's own is in, by which scores of an earlier
    version are known; nothing of the package's, which have its version."""
    function = inspect.unwrap(METRICS[name].function)
    if getattr(function, "__module__", "").startswith("bvae_jax."):
        return {}
    try:
        text = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):  # typed into an interpreter
        code = getattr(function, "__code__", None)
        text = repr(code and (code.co_code, code.co_consts, code.co_names))
    return {"source": hashlib.sha256(text.encode()).hexdigest()}


def score(
    codes: CodeMatrix,
    factors: Factors | CodeMatrix,
    *,
    logvars: CodeMatrix | None = None,
    kl: LatentKL | None = None,
    codes_test: CodesTest | None = None,
    factors_test: FactorsTest | CodesTest | None = None,
    factor_sizes: Sequence[int] | np.ndarray | None = None,
    factor_names: Sequence[str] | np.ndarray | None = None,
    metrics: ScoreConfig | str | Sequence[str] = "fast",
) -> dict[str, Entry]:
    """Score arrays by many metrics at once, as `bvae evaluate FILE.npz` does those of a file.

    What a reader of the scores should know of the arrays is said on stderr.

    Args:
        codes: [n, latent] of any float type, from NumPy or JAX.
        factors: [n, factor] class indices, and numbers where `ScoreConfig.continuous` says so.
        logvars: [n, latent] posterior log-variances, for the metrics of posteriors.
        kl: [latent] mean KL from the prior in nats; that of `logvars`, if None. Where there is one,
            `codes` are posterior means.
        codes_test: [m, latent] to test fitted predictors on; a part of the points is, if None.
        factors_test: [m, factor].
        factor_sizes: [factor] number of values of each.
        factor_names: [factor], by which `ScoreConfig.continuous` may call them; else their numbers.
        metrics: all, fast, names in a list or with commas, or all that a `ScoreConfig` says.

    Returns:
        name of the metric -> scores as JSON's types, or {"skipped": why}.

    Raises:
        UserError: a metric is not known, or the arrays do not fit each other.
    """
    given: dict[str, Any] = {
        "codes": codes,
        "factors": factors,
        "logvars": logvars,
        "kl": kl,
        "codes_test": codes_test,
        "factors_test": factors_test,
        "factor_sizes": factor_sizes,
        "factor_names": factor_names,
    }
    if (codes_test is None) != (factors_test is None):
        raise UserError("Got only one of codes_test and factors_test, wanted both or neither.")
    arrays: dict[str, Any] = {
        name: np.asarray(value) for name, value in given.items() if value is not None
    }
    config = ScoreConfig.of(metrics)
    names = metric_names(config.metrics)
    points = Codes(**arrays)
    if points.factors.ndim == 2:  # what it is else is said below
        columns = points.factors.shape[1]
        if factor_names is not None and len(factor_names) != columns:
            raise UserError(f"factor_names: got {len(factor_names)}, wanted {columns}, as factors.")
        remark(points.declared(config.continuous), names)
    return dict(score_all(points, config))


def remark(points: Codes, metrics: Sequence[str]) -> None:
    """Say what a reader of the scores should know of the arrays.

    Raises:
        UserError: the arrays do not fit each other.
    """
    points.check()
    for sentence in points.remarks(metrics):
        say(f"note: {sentence}.")


def score_all(
    points: Codes,
    config: ScoreConfig,
    *,
    baselines: Mapping[str, Codes] = {},
    on_done: Callable[[], object] = lambda: None,
) -> Iterator[tuple[str, Entry]]:
    """Score metric after metric, and yield (name, entry) as each is done.

    Metrics that lack an array or a package that they need, or points, latents or factors, yield
    {"skipped": why, "versions": ...}. Linear algebra runs on one thread inside, so that scores do
    not depend on the number of cores.

    Args:
        baselines: other representations of the same points, by name, scored alike.
        on_done: called after each scoring.

    Raises:
        UserError: the arrays do not fit each other, or a metric is not known.
    """
    if points.factors.ndim != 2:
        raise InvalidArrays(f"factors: got shape {points.factors.shape}, wanted [n, factor].")
    points = points.declared(config.continuous)
    points.check()
    points = points.with_kl()

    def drawn(of: Codes, repeat: int = 0) -> Draw:
        key = key_for("scores", config.seed + repeat)
        return draw(of, config.train_points, config.test_points, key)

    draws = [drawn(points, repeat) for repeat in range(config.repeats)]
    others = {n: drawn(other.declared(config.continuous)) for n, other in baselines.items()}
    for name in metric_names(config.metrics):
        metric = METRICS[name]
        lacking = [need for need in metric.needs if need not in draws[0].for_metric(metric)]
        if lacking:
            why = "it needs " + " and ".join(MEANING.get(n, n) for n in lacking)
            yield name, {"skipped": worded(why), "versions": versions(PACKAGES)}
            continue
        try:
            with threadpool_limits(limits=1):
                entry = _entry(name, config, draws, others, on_done)
        except (InvalidArrays, MissingPackage) as error:  # not for this metric: the others go on
            entry = {"skipped": str(error), "versions": versions(PACKAGES)}
        if points.continuous and "factors" in metric.takes:
            form = "as numbers" if "numbers" in metric.takes else f"in {BINS} bins"
            entry["numbers"] = f"{points.continuous}: {form}"
        yield name, entry


def _entry(
    name: str,
    config: ScoreConfig,
    draws: Sequence[Draw],
    others: Mapping[str, Draw],
    on_done: Callable[[], object],
) -> Entry:
    metric = METRICS[name]
    numbers = (metric.headline, *metric.others)
    chosen = metric.settings | (dict(metric.compat) if config.compat else {})
    begin = time.perf_counter()
    scores = []
    for drawn in draws:
        scores.append(_score(name, drawn.for_metric(metric), chosen))
        on_done()
    arrays = draws[0].for_metric(metric)
    points = arrays["codes_of_runs"][0] if "codes_of_runs" in metric.takes else arrays["codes"]
    entry = scores[0] | {
        "settings": chosen,
        "n": len(points),
        "n_test": len(arrays["codes_test"]) if "codes_test" in metric.takes else 0,
        "seconds": (time.perf_counter() - begin) / len(draws),
        "versions": versions(PACKAGES),
        "git_commit": git_commit(),
    }
    if len(draws) > 1:
        if not metric.pool and len(arrays["codes"]) == len(draws[0].pool["codes"]):
            note = "all repeats saw the same points: intervals cover only what the metric draws"
            entry["notes"] = [*entry.get("notes", []), note]
        entry["repeats"] = {
            number: summarised([float(score[number]) for score in scores]) for number in numbers
        }
    if metric.null and config.permutations:
        entry["null"] = _null(name, arrays, chosen, config, scores[0][metric.headline])
    if others:
        entry["baselines"] = {}
    for other, drawn in others.items():
        theirs = drawn.for_metric(metric)
        if set(metric.needs) <= set(theirs) and (metric.pixels or other != PIXELS):
            try:
                score = _score(name, theirs, chosen)
            except InvalidArrays:  # a baseline that cannot be scored costs the run's score nothing
                continue
            kept = {number: score[number] for number in numbers}
            notes = [n for n in score.get("notes", ()) if n not in scores[0].get("notes", ())]
            kept |= {"notes": notes} if notes else {}
            entry["baselines"][other] = kept | {"n": len(theirs["codes"])}
        on_done()
    return jsonable(entry)


def _score(name: str, arrays: Mapping[str, Any], settings: Mapping[str, Any]) -> Score:
    metric = METRICS[name]
    given = {array: arrays[array] for array in metric.takes if array in arrays}
    found = metric.function(**given, **settings)
    for number in (metric.headline, *metric.others):
        if not isinstance(found, Mapping) or number not in found:
            got = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found)
            raise UserError(f"{name} returned {got}, wanted a dict with {number!r}.")
        if np.shape(found[number]) or not isinstance(np.asarray(found[number]).item(), int | float):
            raise UserError(f"{name} returned {number} = {found[number]!r}, wanted a number.")
    return dict(found)


def _null(
    name: str,
    arrays: Mapping[str, Any],
    chosen: Mapping[str, Any],
    config: ScoreConfig,
    actual: float,
) -> Entry:
    """What the headline is when factors are shuffled among the points: its floor at this n."""
    rng = np.random.default_rng(config.seed)
    found = []
    for _ in range(config.permutations):
        order = rng.permutation(len(arrays["factors"]))
        shuffled = {**arrays, "factors": arrays["factors"][order]}
        if (numbers := arrays.get("numbers")) is not None:
            shuffled["numbers"] = numbers._replace(values=numbers.values[order])
        found.append(_score(name, shuffled, chosen)[METRICS[name].headline])
    above = sum(value >= actual for value in found)
    return {
        "mean": float(np.mean(found)),
        "std": float(np.std(found, ddof=1)) if len(found) > 1 else 0.0,
        "p": (1 + above) / (1 + len(found)) if math.isfinite(actual) else math.nan,
        "permutations": len(found),
    }


def headlines(names: Iterable[str]) -> list[str]:
    """Those names of `numbers` that are headlines of metrics."""
    labels = {_label(name, metric.headline) for name, metric in METRICS.items()}
    return [name for name in names if name in labels]


def headline(name: str) -> str:
    """The name of a metric's headline among `numbers`."""
    return _label(name, METRICS[name].headline)


def _label(name: str, number: str) -> str:
    return name if number == "score" else f"{name}/{number}"


def numbers(entries: Mapping[str, Entry]) -> dict[str, float]:
    """The finite numbers of scores by name: `mig`, `dci/disentanglement`, ..."""
    found = {}
    for name, entry in entries.items():
        for number in (METRICS[name].headline, *METRICS[name].others):
            if math.isfinite(value := float(entry.get(number, math.nan))):
                found[_label(name, number)] = value
    return found


def quick_scores(codes: Codes, config: ScoreConfig) -> dict[str, float]:
    """`numbers` of `score_all`."""
    return numbers(dict(score_all(codes, config)))


def summarised(values: Sequence[float]) -> Entry:
    """Mean, standard deviation and 95 % interval of the mean (Student's t)."""
    array = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):  # of infinities
        mean, std = float(array.mean()), float(array.std(ddof=1))
    half = float(student.ppf(0.975, len(array) - 1)) * std / math.sqrt(len(array))
    return {
        "mean": mean,
        "std": std,
        "low": mean - half,
        "high": mean + half,
        "values": array.tolist(),
    }


def jsonable(value: Any, *, nan: str | None = "nan") -> Any:
    """JSON's types: records by field, arrays as lists, infinities as "inf" and "-inf".

    Args:
        nan: written for a number that is not known.
    """
    if hasattr(value, "_asdict"):
        return jsonable(value._asdict(), nan=nan)
    if isinstance(value, Mapping):
        return {str(name): jsonable(item, nan=nan) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, nan=nan) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return jsonable(np.asarray(value).tolist(), nan=nan)
    if isinstance(value, float) and not math.isfinite(value):
        return nan if math.isnan(value) else str(value)
    return value
