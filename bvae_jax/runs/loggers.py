"""Where records of metrics go: JSON lines always, TensorBoard and Weights & Biases on request.

A record is a dict of `step`, `split` and named numbers. It holds no time: a resumed run writes
the same bytes as an uninterrupted one.
"""

import contextlib
import hashlib
import itertools
import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypedDict, runtime_checkable

import numpy as np

from bvae_jax.errors import MissingPackage, UserError, needs, say
from bvae_jax.files import misfit

Record = dict[str, Any]
METRICS = "metrics.jsonl"
SCORES = "scores"
"""The split of records that hold disentanglement scores."""
MOST = 10_000
"""Records of training batches that are read: more than a figure shows."""
_TRAINING = b'"split": "train"'


class Named(TypedDict):
    """What the reader of any record relies on."""

    step: int
    split: str


class Means(Named):
    """What the reader of a record of images relies on, nats per image."""

    nll: float


class VariationalMeans(Means):
    """The same of an objective with a posterior: an autoencoder has none."""

    kl: float
    elbo: float
    kl_per_latent: list[float]


@runtime_checkable
class Logger(Protocol):
    """Takes records in the order of their steps."""

    def log(self, record: Record) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """metrics.jsonl: each record is on disk when `log` returns.

    Args:
        path: the file; made if it is not there.
        last_step: what follows the last record of a step up to this one is dropped.

    Attributes:
        last_step: of the last record that was kept; 0 if there is none.
    """

    def __init__(self, path: Path, last_step: int):
        # Never through a link: what is dropped would be dropped elsewhere.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        self._file = os.fdopen(descriptor, "r+b")
        end, self.last_step = _end(self._file, last_step)
        self._file.truncate(end)
        self._file.seek(end)

    def log(self, record: Record) -> None:
        """Append a record.

        Raises:
            UserError: a number is not finite.
        """
        try:
            line = json.dumps(record, allow_nan=False)
        except ValueError:
            raise UserError(f"A record of step {record['step']} is not finite: {record}.") from None
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Scalars under run_dir/tensorboard, by tensorboardX."""

    def __init__(self, directory: Path, last_step: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(directory), purge_step=last_step + 1)

    def log(self, record: Record) -> None:
        for name, value in flat(record).items():
            self._writer.add_scalar(f"{record['split']}/{name}", value, record["step"])

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the W&B project: the same one whenever the run directory is the same.

    Args:
        group: the sweep whose member it is.
    """

    def __init__(
        self, project: str, run_dir: Path, config: dict[str, Any], group: str | None = None
    ):
        kind = [config[name] for name in ("objective", "network") if name in config]
        self._run = _wandb_run(project, run_dir, group, config=config, tags=kind)

    def log(self, record: Record) -> None:
        values = {f"{record['split']}/{name}": value for name, value in flat(record).items()}
        self._run.log(values, step=record["step"])

    def close(self) -> None:
        self._run.finish()


def _wandb_run(project: str, directory: Path, group: str | None, **options: Any) -> Any:
    """A run of its own for a directory, beside those that are open: by default W&B returns the one
    that this process opened before, also for another member that is trained at the same time."""
    import wandb  # pyright: ignore[reportMissingImports]

    return wandb.init(
        project=project,
        name=directory.name,
        id=hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:16],
        group=group,
        resume="allow",
        reinit="create_new",
        dir=str(directory),
        **options,
    )


def send_comparison(project: str, sweep_dir: Path, files: Sequence[Path]) -> None:
    """Give a sweep's group in a W&B project the files of its comparison, as an artifact.

    Where that cannot be, one line on stderr says so.
    """
    try:
        needs("wandb", "wandb", "the artifact of a sweep that was trained with --wandb")
        import wandb  # pyright: ignore[reportMissingImports]
    except MissingPackage as error:
        say(f"note: {error}")
        return
    group = sweep_dir.resolve().name
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{group}-comparison")
    try:
        run = _wandb_run(project, sweep_dir, group, job_type="compare")
        artifact = wandb.Artifact(name, type="comparison")
        for path in files:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
        run.finish()
    except (wandb.Error, OSError) as error:
        say(f"note: no artifact in W&B: {' '.join(str(error).split())}")


def check_installed(*, tensorboard: bool, wandb: str | None) -> None:
    """Raise what `open_loggers` would otherwise run into when the run has begun.

    Raises:
        UserError: a package is not installed.
    """
    if tensorboard:
        needs("tensorboardX", "tensorboard", "--tensorboard")
    if wandb:
        needs("wandb", "wandb", "--wandb")


@contextlib.contextmanager
def open_loggers(
    run_dir: Path,
    step: int,
    config: dict[str, Any],
    *,
    tensorboard: bool,
    wandb: str | None,
    group: str | None = None,
) -> Iterator[list[Logger]]:
    """The loggers of a run that goes on from `step`; closed at the end of the context.

    Args:
        config: told to W&B.
        tensorboard: log to run_dir/tensorboard too.
        wandb: log to this project of W&B too.
        group: of runs there: the sweep's name.
    """
    with contextlib.ExitStack() as stack:
        path = run_dir / METRICS
        metrics = JsonLines(path, step)
        stack.callback(metrics.close)
        if metrics.last_step != step:
            say(
                f"{path} ends at step {metrics.last_step} and the run goes on from step "
                f"{step}: the records between are lost."
            )
        loggers: list[Logger] = [metrics]
        if tensorboard:
            loggers.append(TensorBoard(run_dir / "tensorboard", step))
            stack.callback(loggers[-1].close)
        if wandb:
            loggers.append(WeightsAndBiases(wandb, run_dir, config, group))
            stack.callback(loggers[-1].close)
        yield loggers


def places(records: Sequence[Record]) -> list[float]:
    """Numbers of steps at which the numbers of one split's records belong.

    An evaluation is of the parameters after its step. A record of training is the mean over the
    steps since the one before, whose losses are of the parameters before each: from a to b - 1
    steps, (a + b - 1) / 2 on average.
    """
    steps = [record["step"] for record in records]
    if records and records[0]["split"] != "train":
        return [float(step) for step in steps]
    return [max(a + b - 1, 0) / 2 for a, b in itertools.pairwise([0, *steps])]


def curves(
    records: Sequence[Record], names: Iterable[str] = ("nll", "kl", "elbo")
) -> dict[str, dict[str, np.ndarray]]:
    """Name -> split -> [2, point], steps (see `places`) and values, of the splits that have it."""
    found: dict[str, dict[str, np.ndarray]] = {}
    splits = dict.fromkeys(record["split"] for record in records)
    for name in names:
        having = {s: [r for r in records if r["split"] == s and name in r] for s in splits}
        found[name] = {
            split: np.array([places(chosen), [r[name] for r in chosen]], np.float64)
            for split, chosen in having.items()
            if chosen
        }
    return found


def flat(record: Record) -> dict[str, float]:
    """The numbers of a record by name; `kl_per_latent` becomes `kl_per_latent/0`, ..."""
    numbers = {}
    for name, value in record.items():
        if isinstance(value, list):
            numbers |= {f"{name}/{i}": float(x) for i, x in enumerate(value)}
        elif name not in ("step", "split"):
            numbers[name] = float(value)
    return numbers


def read_records(path: Path, *, most: int = MOST) -> list[Record]:
    """The records of a metrics.jsonl, in order.

    A last line that is cut short is passed over in silence, for that is what a kill leaves. Other
    lines that hold no record are passed over too, and spoken of on stderr.

    Args:
        most: records of training batches; of more, every second, third, ... and the last.
    """
    records, bad, line = [], [], b""
    with path.open("rb") as file:
        left = sum(_TRAINING in line for line in file)
        every = max(1, -(-left // most))
        file.seek(0)
        for number, line in enumerate(file, 1):
            if _TRAINING in line:
                left -= 1
                if left % every:
                    continue
            record = _record(line)
            if record is None:
                bad.append(number)
            else:
                records.append(record)
    if bad and not line.endswith(b"\n"):
        bad.pop()
    if bad:
        say(f"{path}: lines {bad} hold no record and are left out.")
    return records


def _end(file: BinaryIO, last_step: int) -> tuple[int, int]:
    """Where the last record of a step up to `last_step` ends, and its step; 0, 0 without one.

    Looked for from the end, where it is: a file may have millions of lines.
    """
    if not os.fstat(file.fileno()).st_size:
        return 0, 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = text.rfind(b"\n") + 1
        while end:
            start = text.rfind(b"\n", 0, end - 1) + 1
            record = _record(text[start:end])
            if record and record["step"] <= last_step:
                return end, record["step"]
            end = start
    return 0, 0


def _record(line: bytes) -> Record | None:
    """What a line holds; None if it is damaged, or cut short."""
    try:
        record = json.loads(line)
        flat(record)
        posterior = {"kl", "elbo", "kl_per_latent"} & record.keys()
        images = VariationalMeans if posterior else Means
        shape = Named if record.get("split") == SCORES else images
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return record if line.endswith(b"\n") and not misfit(record, shape) else None
