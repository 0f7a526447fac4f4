"""Data flows one way: which room may import which."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bvae_jax"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
}
ROOMS = (
    {"types", "errors", "config", "presets", "beta_units", "continuous"},
    {"files", "runtime"},
    {"elbo", "conv", "conv_triton", "likelihoods"},
    {"networks", "objectives", "vae", "data", "metrics", "plots"},
    {"step", "registry"},
    {"runs"},
    {"evaluation"},
    {"comparison"},
    {"explore", "export"},
    {"sklearn"},
    {"cli", "__init__"},
    {"__main__"},
)
"""Each room imports from those above it, and from itself."""
LEVEL = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
BESIDE = {"config": {"errors"}, "presets": {"errors", "config"}, "beta_units": {"errors"}} | {
    "continuous": {"errors"},
    "metrics": {"data"},
    "vae": {"networks"},
    "conv": {"conv_triton"},
    "conv_triton": {"conv"},
}
"""What a room may import of its own level."""
ABOVE = {
    ("runs.run", "evaluation"),
    ("runs.run", "evaluation.evaluate"),
    *((above, f"explore{part}") for above in ("runs.run", "runs.sweep", "comparison.compare")
      for part in ("", ".export", ".page")),
    *(("runs.run", f"export{part}") for part in ("", ".weights", ".formats", ".hub")),
}  # fmt: skip
"""Methods of Run, load and compare import when they are called what is built on them."""
ONLY_IN = {
    "orbax": ("runs.checkpoint",),
    "matplotlib": ("plots.",),
    "tyro": ("cli.",),
    "sklearn": ("metrics.", "evaluation.", "sklearn"),
    "lightgbm": ("metrics.trees",),
    "tensorboardX": ("runs.loggers",),
    "wandb": ("runs.loggers",),
    "tqdm": ("runtime",),
    "tensorflow_datasets": ("data.tfds",),
    "h5py": ("data.layouts",),
    "datasets": ("data.hf",),
    "huggingface_hub": ("export.hub", "export.card"),
    "safetensors": ("export.weights", "export.template."),
    "torch": ("export.template.", "export.formats"),
    "onnx": ("export.formats",),
    "onnxruntime": ("export.formats",),
}
"""Heavy packages, and how the names of their importers begin."""


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


def room(module):
    return module.split(".")[0]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_rooms_import_from_above(module):
    mine = room(module)
    for name in internal(module):
        other = room(name)
        allowed = other == mine or LEVEL[other] < LEVEL[mine] or other in BESIDE.get(mine, ())
        assert allowed or (module, name.removesuffix(".__init__")) in ABOVE, (
            f"{module} imports {name}"
        )


@pytest.mark.parametrize("module", sorted(MODULES))
def test_heavy_packages_have_one_importer(module):
    for name in imports(module):
        owners = ONLY_IN.get(name.split(".")[0])
        assert owners is None or module.startswith(owners), f"{module} imports {name}"


def test_config_and_errors_import_no_jax():
    for module in ("config", "errors", "presets", "beta_units"):
        assert not [name for name in imports(module) if name.split(".")[0] in ("jax", "jaxtyping")]


def test_step_sees_no_config_no_data_and_no_path():
    forbidden = ("bvae_jax.config", "bvae_jax.data", "bvae_jax.runs", "pathlib", "os")
    assert not [name for name in imports("step") if name.startswith(forbidden)]
