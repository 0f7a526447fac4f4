"""Commands that make runs, and those that take something from one."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bvae_jax import runtime
from bvae_jax.cli.flags import (
    PLUGIN,
    QUIET,
    Flag,
    Flags,
    command,
    group,
    of_dataclass,
    of_function,
    parse,
)
from bvae_jax.config import Config, TraversalSettings
from bvae_jax.errors import UserError, printable
from bvae_jax.presets import settle
from bvae_jax.runtime import fatal

SETTINGS: Flags = QUIET | {
    "preset": Flag(
        str,
        "Settings of a published experiment, which other flags then change: see bvae list presets.",
    ),
    "config": Flag(
        Path,
        "Settings of another run: its config.json, or a JSON file of some of the settings "
        "below, which other flags then change.",
    ),
    "hyper": Flag(
        tuple[str, ...],
        "NAME=VALUE ...: hyperparameters of the objective, those of your own without a flag too.",
    ),
    "compile_cache": Flag(
        str,
        "Directory that keeps compiled programs for the next start, or off. Not given: "
        "JAX_COMPILATION_CACHE_DIR, or the user's cache directory.",
    ),
}
"""What `bvae train` and `bvae sweep` share, beside the fields of `Config`."""


def train_flags() -> Flags:
    """Those of `bvae train`."""
    from bvae_jax.runs import train as runner

    flags = of_function(runner.train, "config", "progress") | SETTINGS
    flags["run_dir"] = Flag(
        Path,
        "Directory of the run. It must not exist, unless --resume or --overwrite is given.",
        required=True,
    )
    return flags | {"settings": group("settings", of_dataclass(Config))} | PLUGIN


OF_A_SESSION = ("figures", "tensorboard", "wandb")
"""Flags that a run does not keep: they are given again when one goes on with it."""


def train(argv: Sequence[str]) -> int:
    """Train a model; leaves checkpoints, metrics, a summary and figures in --run-dir."""
    given = parse(argv, "bvae train", train.__doc__, train_flags)
    from bvae_jax.runs import rundir
    from bvae_jax.runs import train as runner

    run_dir = given.pop("run_dir").expanduser()
    again = command(["bvae", "train", "--run-dir", run_dir, "--resume"], given, *OF_A_SESSION)
    stored = rundir.read_config(run_dir) if given.get("resume") else None
    if stored:
        rundir.check_parts(run_dir, stored)
    config = _config(given, stored)
    try:
        result = runner.train(config, run_dir, **given)
    except KeyboardInterrupt:
        result = None
    if result is None or int(result.state.step) == 0:
        begun = (run_dir / rundir.CONFIG).exists()
        print("Interrupted.", f"Go on with: {again}" if begun else "Nothing was begun.")
        return 130
    if result.summary is None:
        print(f"Interrupted at step {result.state.step}; all is kept. Go on with: {again}")
        return 0
    print(in_one_line(result.summary))
    print(f"{result.run_dir}: {', '.join(sorted(p.name for p in result.run_dir.glob('[a-z]*')))}")
    return 0


def _config(given: dict[str, Any], stored: Config | None, varied: Sequence[str] = ()) -> Config:
    """What was typed of `SETTINGS` and of the fields of `Config`, which are taken out of `given`.

    Args:
        stored: of what is resumed.
        varied: fields to which a sweep gives values.
    """
    from bvae_jax.runs import rundir
    from bvae_jax.runs.hyper import parse_hyper

    runtime.use_compile_cache(given.pop("compile_cache", None))
    given["progress"] = not given.pop("quiet", False)
    given.pop("plugin", None)
    preset, path = given.pop("preset", None), given.pop("config", None)
    typed = given.pop("settings") | parse_hyper(given.pop("hyper", ()))
    if path and (stored or preset):
        raise UserError(f"--config with {'--resume' if stored else '--preset'}: give one.")
    base = rundir.read_settings(path.expanduser()) if path else stored
    return settle(typed, preset, base, resumed=stored is not None, varied=varied)


def in_one_line(summary: dict[str, Any]) -> str:
    """A summary for people."""
    from bvae_jax.elbo import ACTIVE
    from bvae_jax.runs.trainer import NO_POSTERIOR

    numbers = [f"{name} {summary[name]:.2f}" for name in ("nll", "kl", "elbo") if name in summary]
    end = NO_POSTERIOR
    if "active_latents" in summary:
        end = f"active latents {summary['active_latents']} of {len(summary['kl_per_latent'])}"
        end += f" ({ACTIVE})" if "variance_per_latent" in summary else ""  # else an older run
    where = "({split}, {eval_images} images)".format(**summary)
    return "  ".join([f"step {summary['step']}", *numbers]) + f" {where}  {end}"


def sweep_flags() -> Flags:
    """Those of `bvae sweep`."""
    from bvae_jax.runs import sweep as sweeping
    from bvae_jax.runs import train as runner

    logging = of_function(runner.train)
    flags = of_function(sweeping.sweep, "config", "progress") | SETTINGS
    flags["sweep_dir"] = Flag(Path, "Directory of the sweep.", required=True)
    flags["betas"] = Flag(tuple[str, ...], "Values of beta, with spaces between them.")
    flags["seeds"] = Flag(
        int, "Number of seeds, counted from --seed: each combination is trained with each.", 1
    )
    flags["grid"] = Flag(
        tuple[str, ...],
        "Values of other fields or hyperparameters, as learning_rate=1e-4,5e-4 "
        "objective=beta_vae,beta_tcvae; where they may have commas of their own (schedules, only, "
        "exclude, correlate, augment, factor_keys, eval_metrics), with semicolons between them.",
    )
    flags["resume"] = Flag(
        bool,
        "Go on with the sweep in --sweep-dir: settings that are not given keep its own values. "
        "Values of --betas, --seeds and --grid may be added to.",
    )
    for name in ("tensorboard", "wandb"):
        flags[name] = flags[name]._replace(help=logging[name].help)
    flags["figures"] = flags["figures"]._replace(help="Draw each member's figures at its end.")
    return flags | {"settings": group("settings", of_dataclass(Config))} | PLUGIN


def sweep(argv: Sequence[str]) -> int:
    """Train a grid of models, and go on with those that are not done. Each leaves a run directory
    in SWEEP_DIR/members."""
    given = parse(argv, "bvae sweep", sweep.__doc__, sweep_flags)
    from bvae_jax.runs import grid, sweepdir
    from bvae_jax.runs import sweep as sweeping

    sweep_dir = given.pop("sweep_dir").expanduser()
    words = ["bvae", "sweep", "--sweep-dir", sweep_dir, "--resume"]
    again = command(words, given, "shard", "distributed", *OF_A_SESSION)
    stored = sweepdir.read_sweep(sweep_dir) if given.pop("resume", False) else None
    values = grid.parse_grid(given.pop("grid", ()))
    if "betas" in given:
        given["betas"] = grid.parse_grid([f"beta={','.join(given['betas'])}"])["beta"]
    if stored:
        renewed = {"betas": "beta", "seeds": "seed"}
        other = {field for name, field in renewed.items() if name in given}
        values = {n: v for n, v in stored.values.items() if n not in other} | values
    varied = [*values, *(["beta"] if "betas" in given else [])]
    config = _config(given, stored and stored.base, varied)
    try:
        result = sweeping.sweep(config, sweep_dir, grid=values, **given)
    except KeyboardInterrupt:
        begun = (sweep_dir / sweepdir.CONFIG).exists()
        print("Interrupted.", f"Go on with: {again}" if begun else "Nothing was begun.")
        return 130
    by_status = {
        kind: [name for name, status in result.statuses.items() if status == kind]
        for kind in ("done", "failed", "begun", "missing")
    }
    print(f"{len(by_status['done'])} of {len(result.statuses)} members are done.")
    if by_status["failed"]:
        print(f"Left out, for their numbers were not finite: {', '.join(by_status['failed'])}.")
    shard = given.get("shard")
    compare = f"bvae compare {shlex.quote(str(sweep_dir))}"
    if result.left(shard):
        print(f"Go on with: {again}")
    elif result.left():
        print(f"Part {shard} is done. When all parts are: {compare}")
    else:
        print(f"Compare them: {compare}")
    return 0


RUN = Flag(Path, "Directory of a run, or hf:USER/NAME.", positional=True, required=True)
LOADING = ("step", "beta", "dataset")
"""Flags that say which of a run's parameters are meant, and where its images are."""


def _loading(*names: str) -> Flags:
    from bvae_jax.runs.run import load

    return {name: of_function(load)[name] for name in names or LOADING}


def traverse_flags() -> Flags:
    """Those of `bvae traverse`."""
    out = Flag(Path, "Directory for the pictures; RUN_DIR/figures if not given.")
    settings = group("traversal", of_dataclass(TraversalSettings))
    loading = _loading("step", "dataset", "beta")
    return {"run_dir": RUN} | loading | {"out": out, "traversal": settings}


def traverse(argv: Sequence[str]) -> int:
    """Draw latent traversals of a run again: of other latents, ranges and images, or pictures of
    your own."""
    given = parse(argv, "bvae traverse", traverse.__doc__, traverse_flags)
    settings = TraversalSettings(**given["traversal"])
    from bvae_jax.runs.run import load
    from bvae_jax.runs.traversals import draw_traversals

    options: Any = {name: given.get(name) for name in ("step", "dataset", "beta")}
    run = load(given["run_dir"], **options)
    out = given.get("out", run.run_dir / "figures").expanduser()
    for path in draw_traversals(out, run.trainer, run.params, settings):
        print(path)
    return 0


def explore_flags() -> Flags:
    """Those of `bvae explore`."""
    from bvae_jax.explore.export import explore

    flags = of_function(explore, "path")
    path = Flag(
        Path, "Directory of a run or of a sweep, or hf:USER/NAME.", positional=True, required=True
    )
    return {"path": path} | flags | {"out": flags["out"]._replace(aliases=("-o",))}


def explore(argv: Sequence[str]) -> int:
    """Write a page on which one moves the latents of a run, or of a sweep's runs together: one HTML
    file that decodes by itself, for a browser without a network."""
    given = parse(argv, "bvae explore", explore.__doc__, explore_flags)
    from bvae_jax.explore.export import explore as run_explore

    file = run_explore(given.pop("path"), **given)
    print(f"{file} ({file.stat().st_size / 1e6:.1f} MB): open it in a browser.")
    return 0


# `bvae encode`, `bvae sample`, `bvae export` and `bvae push`: what leaves a run.


def _load(given: dict[str, Any], **options: Any) -> Any:
    """The run that is meant; of one for many β, which that is is said."""
    from bvae_jax.runs.run import load

    chosen: Any = {name: given.pop(name, None) for name in LOADING}
    return load(given.pop("run_dir"), **chosen, **options).told()


def _print_written(out: Path) -> None:
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else ()
    print(printable(f"{out}: {', '.join(names)}" if names else str(out)))


def encode_flags() -> Flags:
    """Those of `bvae encode`."""
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
    """Write the codes of images into a file: means and log-variances of q(z|x), in the order of
    their names or numbers. Pictures are cropped and resized as those of the run's training are."""
    given = parse(argv, "bvae encode", encode.__doc__, encode_flags)
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
    from bvae_jax.runs.codes import write_samples

    loading = _loading()

    flags = of_function(write_samples, "run")
    flags["n"] = flags["n"]._replace(aliases=("-n",))
    flags["out"] = flags["out"]._replace(required=True, aliases=("-o",))
    return {"run_dir": RUN} | flags | loading


def sample(argv: Sequence[str]) -> int:
    """Draw pictures from a run's prior, or from its aggregate posterior: a PNG each, a grid of all,
    and an .npz file of the same and of their z."""
    given = parse(argv, "bvae sample", sample.__doc__, sample_flags)
    from bvae_jax.runs.codes import write_samples

    run = _load(given, data=given.get("source") == "aggregate")
    arrays, grid, first, *others = write_samples(run, given.pop("out").expanduser(), **given)
    last = f" to {others[-1].name}" if others else ""
    for line in (grid, arrays, f"{first}{last}"):
        print(printable(str(line)))
    return 0


def export_flags() -> Flags:
    """Those of `bvae export`."""
    from bvae_jax.export.formats import export

    loading = _loading("step", "beta")

    flags = of_function(export, "run")
    flags["out"] = flags["out"]._replace(aliases=("-o",))
    return {"run_dir": RUN} | flags | loading


def export(argv: Sequence[str]) -> int:
    """Write a run's weights for other libraries: as safetensors, as PyTorch code, as ONNX or as an
    .npz file. All commands take a directory that it writes; of a file bvae_jax.load(FILE,
    data=False), bvae encode, sample and export."""
    given = parse(argv, "bvae export", export.__doc__, export_flags)
    _print_written(_load(given, data=False).export(**given))
    return 0


def push_flags() -> Flags:
    """Those of `bvae push`."""
    from bvae_jax.export.hub import push

    flags = of_function(push)
    flags["to"] = flags["to"]._replace(positional=True, required=True)
    flags["out"] = flags["out"]._replace(aliases=("-o",))
    return flags | {"run": RUN}


def push(argv: Sequence[str]) -> int:
    """Push a run to the Hugging Face Hub: weights, config, scores, figures, and a model card that
    is made from them. bvae_jax.load("hf:USER/NAME") and all commands take it from there."""
    given = parse(argv, "bvae push", push.__doc__, push_flags)
    from bvae_jax.export.hub import push as run_push

    made = run_push(given.pop("run"), given.pop("to"), **given)
    if given.get("out"):
        _print_written(Path(made))
    else:
        print(made)
    return 0
