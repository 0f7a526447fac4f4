"""The model card of a run: README.md of a repository on the Hugging Face Hub."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bvae_jax.comparison.base import DIRECTIONS, heading, name_of
from bvae_jax.config import OWN_FILES, Config
from bvae_jax.data import DATASETS
from bvae_jax.data.catalogue import KNOWN
from bvae_jax.data.variants import Split, parts_of
from bvae_jax.errors import printable
from bvae_jax.evaluation.evaluate import EVALUATION
from bvae_jax.export.formats import TEMPLATE
from bvae_jax.files import read_json
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.scoring import headline, numbers
from bvae_jax.objectives import get_objective
from bvae_jax.runs import rundir, sweepdir
from bvae_jax.runs.grid import SYMBOLS, symbol, text
from bvae_jax.runs.run import Run

HOME = "https://github.com/bvae-jax/bvae_jax"
TAGS = ("beta-vae", "variational-autoencoder", "disentanglement", "representation-learning", "jax")
FIGURES = {
    "traversal": "Latent traversals: an image and its reconstruction, then a row for each active "
    "latent, which is moved from low to high while the others stay.",
    "reconstructions": "Images, and below each what its code decodes to.",
    "samples": "Decoded draws of the prior N(0, I).",
    "loss_curves": "Training.",
    "rate_distortion": "Rate and distortion at each β.",
}
"""Name of a figure -> what it shows; in this order, those that are there."""
TRAINING = ("nll", "kl", "elbo")
NATS = "nats per image"


def model_card(run: Run, exported: Path, repository: str | None, licence: str | None) -> str:
    """The text of README.md, with its metadata.

    Args:
        run: finished.
        exported: the directory of what is pushed beside it.
        repository: USER/NAME, or None of one that is not on the Hub.
        licence: of the model; not spoken of if None.

    Raises:
        UserError: a file of the run is damaged.
    """
    from huggingface_hub import ModelCard, ModelCardData

    assert run.summary is not None
    title, scores = title_of(run.config), read_scores(run.run_dir, run.summary)
    data = ModelCardData(
        library_name="bvae_jax",
        license=licence,
        pipeline_tag="image-feature-extraction",
        tags=[
            *(TAGS if run.variational else TAGS[2:]),
            run.config.objective,
            run.config.dataset.partition(":")[0],
        ],
        model_name=repository.partition("/")[2] if repository else exported.name,
        eval_results=_results(run.config, scores),
    )
    sections = {
        "Use": _use(run, exported, repository),
        "The model": _model(run),
        "Data": _data(run),
        "Scores": _scores(run, scores),
        "Figures": _figures(exported),
        "Intended use and limits": _limits(run, licence),
        "Citation": _citation(run.config),
    }
    body = "".join(f"\n## {name}\n\n{part}\n" for name, part in sections.items() if part)
    first = (
        f"An encoder and a decoder of {_shape(run)} images with {run.config.latents} latents, "
        f"trained by [bvae_jax]({HOME})."
    )
    head = f"---\n{data.to_yaml()}\n---\n\n# {printable(title)}"
    return str(ModelCard(f"{head}\n\n{first}\n{body}"))


def title_of(config: Config) -> str:
    """As "β-VAE on dSprites (only orientation=0), β = 4"."""
    hyper = [f"{SYMBOLS.get(n, n)} = {text(config.value(n))}" for n in _hyper(config)[:1]]
    return ", ".join([f"{name_of(config.objective)} on {images_name(config)}", *hyper])


def images_name(config: Config) -> str:
    """The data set, and in brackets which part of it and how often, where not all alike."""
    parts = ", ".join(restrictions(config, "only", "exclude", "correlate"))
    return f"{data_name(config)} ({parts})" if parts else data_name(config)


def restrictions(config: Config, *names: str) -> list[str]:
    """Those of these fields that are set, as "only orientation=0"."""
    return [f"{name} {value}" for name in names if (value := getattr(config, name))]


def data_name(config: Config) -> str:
    """What a data set is called; of files of the user's own without their path."""
    kind, _, path = config.dataset.partition(":")
    if kind in OWN_FILES or path.startswith(("/", ".", "~")):
        return f"{Path(path).name} ({kind})"
    return name_of(config.dataset) if config.dataset in DATASETS else config.dataset


def read_scores(run_dir: Path, summary: Mapping[str, Any]) -> dict[str, tuple[float, int]]:
    """Score -> its value and on how many images or points, of the run's own parameters."""
    found = {name: (summary[name], summary["eval_images"]) for name in TRAINING if name in summary}
    path = run_dir / EVALUATION
    entries = read_json(path) if path.exists() else {}
    entries = {
        name: entry
        for name, entry in entries.items()
        if name in METRICS and entry["request"].get("params_sha256") == summary["params_sha256"]
    }
    values = numbers(entries)
    shown = {headline(name): entry for name, entry in entries.items()}
    return found | {n: (values[n], entry["n"]) for n, entry in shown.items() if n in values}


def seeds_of(run_dir: Path) -> list[Path]:
    """Finished members of a member's sweep that differ in nothing but the seed, itself as well."""
    sweep_dir = run_dir.parent.parent
    if run_dir.parent.name != sweepdir.MEMBERS or not (sweep_dir / sweepdir.CONFIG).is_file():
        return []
    members = {one.name: one for one in sweepdir.read_sweep(sweep_dir).members()}
    if run_dir.name not in members:
        return []
    wanted = members[run_dir.name].values | {"seed": None}
    alike = [one for one in members.values() if one.values | {"seed": None} == wanted]
    done = [one for one in alike if sweepdir.status(sweep_dir, one) == "done"]
    return [sweepdir.member_dir(sweep_dir, one) for one in done]


def _hyper(config: Config) -> list[str]:
    """Hyperparameters of the objective, β first."""
    return sorted(get_objective(config.objective).hyper, key=lambda name: name != "beta")


def _shape(run: Run) -> str:
    return "×".join(map(str, run.image_shape))


def _table(rows: Iterable[Sequence[str]]) -> str:
    """In Markdown; the first row is the head."""
    lines = [[printable(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {printable(line)}" for line in lines if line)


def _results(config: Config, scores: Mapping[str, tuple[float, int]]) -> Any:
    from huggingface_hub import EvalResult

    name, kind = images_name(config), data_name(config).replace(" ", "-")
    return [
        EvalResult(
            task_type="image-feature-extraction",
            dataset_type=kind,
            dataset_name=name,
            metric_type=score.replace("/", "_"),
            metric_name=f"{name_of(score)}{f', {NATS}' if score in TRAINING else ''}, n = {n}",
            metric_value=round(value, 4),
        )
        for score, (value, n) in scores.items()
    ]


def _use(run: Run, exported: Path, repository: str | None) -> str:
    height, width, channels, latents = *run.image_shape, run.config.latents
    address = f"hf:{repository}" if repository else "."
    extra = "[hub]" if repository else ""
    given, each = ("mean, logvar", " each") if run.variational else ("codes", "")
    where = "" if repository else ", in this directory"
    with_jax = f"""With `pip install 'bvae_jax{extra} @ git+{HOME}'`{where}:

```python
import bvae_jax

run = bvae_jax.load("{address}", data=False)
# images: [n, {height}, {width}, {channels}], floating point in [0, 1] or uint8
codes = run.encode(images).mean  # [n, {latents}]
pictures = run.decode(codes)  # [n, {height}, {width}, {channels}], pixels in [0, 1]
```"""
    if repository is None:
        return with_jax
    if (exported / TEMPLATE.name).is_file():
        return f"""{with_jax}

In PyTorch, with `pip install huggingface_hub safetensors torch`:

```python
import sys

from huggingface_hub import snapshot_download

directory = snapshot_download("{repository}")
sys.path.append(directory)
import {TEMPLATE.stem}

vae = {TEMPLATE.stem}.load(directory)
# images: [n, {channels}, {height}, {width}], float32 in [0, 1]
{given} = vae.encode(images)  # [n, {latents}]{each}
pictures = vae.decode({given.partition(",")[0]})  # pixels in [0, 1]
```"""
    return f"""{with_jax}

The weights alone, for PyTorch, with `pip install huggingface_hub safetensors torch`:

```python
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

tensors = load_file(hf_hub_download("{repository}", "model.safetensors"))
```

Kernels of convolutions are [height, width, in, out], of dense layers [in, out]."""


def _model(run: Run) -> str:
    config, summary = run.config, run.summary or {}
    objective = get_objective(config.objective)
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(run.params))
    # Runs of before counted by another rule.
    active = summary.get("active_latents") if "variance_per_latent" in summary else None
    rates = f"; for all β in {config.multi_rate} at once" if config.multi_rate else ""
    rows = [
        ("", ""),
        ("objective", f"{name_of(config.objective)}: {objective.formula} ({NATS})"),
        ("from", objective.reference),
        *((symbol(n), text(config.value(n))) for n in _hyper(config)),
        ("network", f"`{config.network}`, {count:,} parameters"),
        (
            "latents",
            f"{config.latents}"
            + (f", quantised to {config.levels} values each" if objective.codebook else "")
            + ("" if active is None else f", of which {active} active"),
        ),
        ("likelihood", f"`{config.likelihood}`"),
        (
            "training",
            f"{summary['step']:,} steps of {config.batch_size} images, {config.optimizer}, "
            f"learning rate {config.learning_rate:g}, seed {config.seed}{rates}",
        ),
        ("SHA-256 of the parameters", f"`{summary['params_sha256']}`"),
    ]
    return "\n\n".join(filter(None, [_table(rows), _unit(summary) if run.variational else ""]))


def _unit(summary: Mapping[str, Any]) -> str:
    """What β means."""
    if summary.get("beta") is None:
        return ""
    return (
        f"β = {summary['beta']:g} weighs its term in the formula, in which −log p(x|z) is summed "
        "over pixels and the KL over latents, both in nats per image. In units of Higgins et al. "
        f"(β times latents over pixels) it is beta_norm = {summary['beta_norm']:.3g}."
    )


def _data(run: Run) -> str:
    config = run.config
    found: dict[str, Any] = {**rundir.read_data(rundir.of_beta(run.run_dir)[0])}
    known = _known(config)
    lines = [f"{data_name(config)}, as {_shape(run)}"]
    restricted = restrictions(config, "only", "exclude", "correlate", "augment")
    lines += [f"restricted: {', '.join(restricted)}"] if restricted else []
    if {"images", *Split._fields} <= found.keys():
        lines.append(f"{found['images']:,} images: {parts_of(found)}")
    licence = (known and known.licence) or "not on record; ask whoever the images are from"
    lines.append(f"licence: {licence}")
    lines += [f"citation: {known.citation}"] if known and known.citation else []
    return _list(lines)


def _known(config: Config) -> Any:
    return next((one for one in (*DATASETS.values(), *KNOWN) if one.name == config.dataset), None)


def _scores(run: Run, scores: Mapping[str, tuple[float, int]]) -> str:
    others = [read_scores(path, read_json(path / rundir.SUMMARY))
              for path in seeds_of(run.run_dir)]  # fmt: skip
    better = {headline(name): metric.best for name, metric in METRICS.items()}
    rows = [["score", "this model", "n"]]
    for name, (value, n) in scores.items():
        side = DIRECTIONS.get(name) or better.get(name, "")
        row = [heading(name, side if side in ("high", "low") else ""), f"{value:.3f}", f"{n:,}"]
        alike = [of[name][0] for of in others if of.get(name, (0, 0))[1] == n]
        if len(alike) > 1:
            mean = math.fsum(alike) / len(alike)
            row.append(f"{mean:.3f} ({min(alike):.3f} to {max(alike):.3f}; {len(alike)} seeds)")
        rows.append(row)
    width = max(map(len, rows))
    rows[0] += ["mean over seeds (lowest to highest)"] * (width - 3)
    rows = [[*row, *[""] * (width - len(row))] for row in rows]
    split = (run.summary or {}).get("split", "holdout")
    in_nats = [name_of(name) for name in TRAINING if name in scores]
    words = [f"{', '.join(in_nats)}: {NATS}, of n images of the split {split}."]
    if len(scores) > len(TRAINING):
        words.append(
            "The others: disentanglement metrics, with n points whose factors are known. One "
            "training tells little: different seeds differ by more than the digits that are shown."
        )
    return "\n\n".join([_table(rows), " ".join(words)])


def _figures(exported: Path) -> str:
    there = {n: words for n, words in FIGURES.items() if (exported / f"figures/{n}.png").is_file()}
    return "\n\n".join(f"![{n}](figures/{n}.png)\n\n*{words}*" for n, words in there.items())


def _limits(run: Run, licence: str | None) -> str:
    lines = [
        "For research on representations: codes of images, traversals, comparisons with other "
        "models. It was not made or tested for decisions about people.",
        f"It knows {images_name(run.config)} only. Images must have its size and look; codes of "
        "others mean nothing, and nothing warns of that.",
        "Nothing told it which factors there are. A latent need not be one factor, and another "
        "seed may order, mirror or mix them.",
        "Decoded images are means, so they are smoother than images of the data.",
        f"Licence of the model: {licence or 'none is stated'}. Terms of the data's licence may "
        "hold for what was learned from them.",
    ]
    warnings = (run.summary or {}).get("warnings", {})
    return _list([*lines, *(f"Warning: {line}" for line in warnings.values())])


def _citation(config: Config) -> str:
    known, objective = _known(config), get_objective(config.objective)
    ours = f"The bvae_jax authors: bvae_jax, the laboratory for beta-VAEs in JAX, {HOME}"
    return _list([objective.reference, known.citation if known else "", ours])
