"""Data flows one way: who may import whom."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bvae_jax"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
}
METRIC_HELPERS = {"metrics.importance", "metrics.matching", "metrics.trees"}
METRIC_FILES = {m for m in MODULES if m.startswith("metrics.")} - {
    *METRIC_HELPERS,
    "metrics.base",
    "metrics.__init__",
}
OBJECTIVE_FILES = {m for m in MODULES if m.startswith("objectives.")} - {
    "objectives.__init__",
    "objectives.base",
    "objectives.beta_vae",
    "objectives.vae",
}
NETWORK_FILES = {m for m in MODULES if m.startswith("networks.")} - {
    "networks.__init__",
    "networks.layers",
    "networks.strided",
}
LIKELIHOOD_FILES = {m for m in MODULES if m.startswith("likelihoods.")} - {
    "likelihoods.__init__",
    "likelihoods.base",
}
COMMANDS = (
    *("benchmark", "beta", "compare", "data", "evaluate", "lists", "score", "sweep", "train"),
    "traverse",
)
DRAWINGS = ("plots", "training_plots", "matrix_plots")
ORDER = (
    {"errors", "types", "parts", "comparison.__init__"},
    {"config", "elbo", "conv", "allocator", "interrupt", "progress", "data.base", "beta_units"}
    | {"compile_cache", "archive", "data.column", "data.grids", "data.records", "data.pictures"}
    | {"npz", "likelihoods.base", "schedules", "optimizers", "presets", "keys", "json_files"},
    {"networks.layers", "data.cache", "data.dsprites", "objectives.base", "metrics.base"}
    | {"data.shapes3d_scene", "data.xy_squares"}
    | {"decomposition", "data.augment", "data.writer", "data.splits", "data.files", "data.classes"}
    | {"points_file", "data.npz_factors"}
    | LIKELIHOOD_FILES,
    {"networks.strided", "likelihoods.__init__", "data.sources", "data.prepared", "data.cars3d"}
    | {"data.color_dsprites", "data.noisy_dsprites", "data.scream_dsprites"}
    | {"data.shapes3d_render"},
    {"data.drawing", "data.published", "data.tfds_offline", "data.tfds_features", "data.own"},
    {"data.variants", "data.feed", "data.tfds_writing", "data.tfds_downloads"}
    | {"data.folder", "data.npz_file"},
    {"data.tfds_directory"},
    {"data.tfds_builders"},
    {"data.tfds"},
    {"data.catalogue", "data.stored"},
    {"objectives.beta_vae", "objectives.vae", "vae", "data.__init__", "loggers", *NETWORK_FILES}
    | METRIC_HELPERS,
    {"networks.__init__", "traversal", "checkpoint", "rundir", "data.entries"}
    | {"benchmarks.__init__", "benchmarks.settings", "benchmarks.worker", "benchmarks.traces"}
    | {"benchmarks.numbers"}
    | METRIC_FILES
    | OBJECTIVE_FILES,
    {"objectives.__init__", "plots", "points", "metrics.__init__"},
    {"train", "hyper", "processes", "data_figures"},
    {"program", "score_plots", "scoring", "stacked", "grid"},
    {"figures", "score_figures", "checks", "encode", "held_out", "summary", "divided", "sweepdir"},
    {"representations", "sweep_plan", "lanes"},
    {"session"},
    {"training"},
    {"runner"},
    {"programs"},
    {"evaluation", "elbo_evaluation", "sweep_runner"},
    {"comparison.intervals"},
    {"comparison.base", "comparison.as_json", "comparison.matching"}
    | {"comparison.html_table", "comparison.drawing"},
    {"comparison.statistics", "comparison.report", "comparison.baselines", "comparison.evidence"}
    | {"comparison.crossing"},
    {"comparison.stability", "comparison.cells", "comparison.cautions", "comparison.reading"},
    {"comparison.latex", "comparison.suggestion", "sweeping"}
    | {f"comparison.{name}" for name in DRAWINGS},
    {"comparison.tables", "comparison.figures"},
    {"comparison.findings"},
    {"comparison.pages"},
    {"comparison.compare", "comparison.suggest"},
    {"benchmarks.architecture", "benchmarks.variants", "benchmarks.torch_peer"}
    | {"benchmarks.contenders"},
    {"benchmarks.tasks", "benchmarks.pool", "benchmarks.tables"},
    {"benchmarks.startup"},
    {"benchmarks.benchmark"},
    {"commands.parsing", "commands.entries", "commands.scores"},
    {"commands.settings"},
    {f"commands.{name}" for name in COMMANDS},
    {"commands.__init__", "__init__"},
    {"cli"},
)
LEVEL = {module: number for number, layer in enumerate(ORDER) for module in layer}
ONLY_IN = {
    "orbax": {"checkpoint"},
    "matplotlib": {"plots", "score_plots", "comparison.drawing"}
    | {f"comparison.{name}" for name in DRAWINGS},
    "tyro": {m for m in MODULES if m.startswith("commands.")},
    "sklearn": {m for m in MODULES if m.startswith("metrics.")} | {"representations"},
    "lightgbm": {"metrics.trees"},
    "tensorboardX": {"loggers"},
    "wandb": {"loggers"},
    "tqdm": {"progress"},
    "tensorflow_datasets": {m for m in MODULES if m.startswith("data.tfds_")},
    "h5py": {"data.grids"},
    "torch": {"benchmarks.torch_peer"},
}


def imports(module):
    """Names that a module imports, wherever in its text."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def internal(module):
    for name in imports(module):
        inner = name.removeprefix("bvae_jax.")
        if inner != name:
            yield from {inner, f"{inner}.__init__"} & set(MODULES)


def test_every_module_has_a_place():
    assert set(LEVEL) == set(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_from_below(module):
    for name in internal(module):
        assert name == module or LEVEL[name] < LEVEL[module], f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_heavy_packages_have_one_importer(module):
    for name in imports(module):
        owners = ONLY_IN.get(name.split(".")[0])
        assert owners is None or module in owners, f"{module} imports {name}"


def test_config_and_errors_import_no_jax():
    for module in ("config", "errors", "presets", "beta_units"):
        assert not [name for name in imports(module) if name.split(".")[0] in ("jax", "jaxtyping")]


@pytest.mark.parametrize("module", sorted(METRIC_FILES))
def test_metrics_know_nothing_of_the_package(module):
    inside = [name for name in imports(module) if name.startswith("bvae_jax")]
    assert not [n for n in inside if not n.startswith(("bvae_jax.metrics.", "bvae_jax.types"))]


def test_train_sees_no_config_no_data_and_no_path():
    forbidden = ("bvae_jax.config", "bvae_jax.data", "bvae_jax.rundir", "pathlib", "os")
    assert not [name for name in imports("train") if name.startswith(forbidden)]
