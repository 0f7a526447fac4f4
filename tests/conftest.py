"""Strict JAX, two fake devices, caches that outlive a run, and one tiny model for many tests."""

import contextlib
import copy
import gc
import importlib.machinery
import importlib.util
import os
import sys
import types
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CACHE = REPOSITORY / ".cache"
# Set before JAX is imported, so that processes which tests start have them too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("BVAE_CACHE_DIR", str(CACHE / "data"))
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # no processes to score in

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Shapes and types of every call are checked, but in config.py, which checks its own values, and of
# estimators, which are made with any.
PACKAGE = REPOSITORY / "bvae_jax"
CHECKED = sorted(
    {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
)
if importlib.util.find_spec("beartype"):  # a GPU machine that nothing can be installed on has none
    install_import_hook(
        [f"bvae_jax.{name}" for name in CHECKED if name not in ("config", "sklearn")],
        "beartype.beartype",
    )

gc.set_threshold(200_000, 20, 100)  # tracing leaves little garbage: a twentieth of the time
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
if jax.default_backend() != "cpu":  # whose products of float32 numbers are else rounded
    jax.config.update("jax_default_matmul_precision", "float32")


def pytest_make_parametrize_id(val):
    """The name of a test is not a page long."""
    return f"of {len(val)}" if isinstance(val, str | bytes) and len(val) > 200 else None


two_devices = pytest.mark.skipif(jax.local_device_count() < 2, reason="it wants two devices")


@pytest.fixture(autouse=True, scope="session")
def messages_name_flags():
    """As on the command line, of which most tests of messages are."""
    from bvae_jax.errors import naming_flags

    with naming_flags():
        yield


@pytest.fixture(scope="module")
def tiny_network():
    """`--network tiny`, for runs that are about something else: it compiles in half the time."""
    from tiny import tiny

    from bvae_jax.networks import NETWORKS

    NETWORKS["tiny"] = tiny
    yield
    del NETWORKS["tiny"]


@pytest.fixture(scope="module")
def shared_trainers():
    """Runs that differ in what is traced share a trainer, as members of a sweep do: what they need
    is compiled once for all tests of a file. That a new process does the same, others test."""
    from bvae_jax.config import is_path
    from bvae_jax.runs import run, train, trainer
    from bvae_jax.runs.hyper import resolved

    known, original = trainer.Trainers(keep=6), trainer.Trainers.of

    def of(some, config):
        changes = is_path(resolved(config).dataset)  # whose files tests change
        return original(some if changes else known, config)

    def shared(config, *, progress=True):
        return changed(of(trainer.Trainers(), config), config=resolved(config))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainers, "of", of)
        for module in (run, train):
            patch.setattr(module, "Trainer", shared)
        yield


@pytest.fixture(autouse=True, scope="module")
def coarse_figures(request):
    """Figures of a third of the resolution, but where they are what is tested."""
    from bvae_jax.plots.style import STYLE

    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ != "test_plots":
            for name in ("figure.dpi", "savefig.dpi"):
                patch.setitem(STYLE, name, 100)
        yield


@pytest.fixture(autouse=True, scope="module")
def narrow_discriminator():
    """FactorVAE's, of 5 million parameters otherwise; that its layers are the paper's is tested."""
    from bvae_jax.objectives import factor_vae

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factor_vae, "UNITS", 50)
        yield


@contextlib.contextmanager
def registries_kept():
    """What is registered inside the block, by scripts too, is forgotten at its end."""
    from bvae_jax import config, registry

    kept = [known for known, _ in registry.REGISTRIES.values()]
    kept += [registry.PLUGINS, config.OWN_HYPERPARAMETERS]
    before = [copy.copy(one) for one in kept]
    try:
        yield
    finally:
        for one, content in zip(kept, before, strict=True):
            one.clear()
            one.update(content)
        for name in [name for name in sys.modules if name.startswith("bvae_plugin_")]:
            del sys.modules[name]


@pytest.fixture
def registries():
    """What a test registers is forgotten at its end."""
    with registries_kept():
        yield


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium, which every test that wants it opens its own page in."""
    import chromium

    if chromium.executable() is None:
        pytest.skip("no chromium: install it to open pages in a browser")
    opened = chromium.Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


class Wandb(types.ModuleType):
    """A stand-in for W&B. As there, `init` returns the run that is open, unless told otherwise.

    Attributes:
        runs: in the order in which they were opened: `options`, `logged` and `files` by artifact.
    """

    class Error(Exception):
        pass

    class Artifact:
        def __init__(self, name, type):
            self.name, self.type, self.paths = name, type, []

        def add_file(self, path):
            self.paths.append(Path(path))

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.runs = []

    def init(self, *, reinit="default", **options):
        active = [run for run in self.runs if not run.finished]
        if active and reinit != "create_new":
            return active[-1]
        run = types.SimpleNamespace(options=options, logged=[], files={}, finished=False)
        run.log = lambda values, step: run.logged.append((step, values))
        run.log_artifact = lambda made: run.files.update({made.name: made.paths})
        run.finish = lambda: setattr(run, "finished", True)
        self.runs.append(run)
        return run


@pytest.fixture
def wandb(monkeypatch):
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """A Hugging Face Hub on this machine, instead of the real one."""
    import hub_server

    with hub_server.serving(tmp_path_factory.mktemp("hub"), monkeypatch) as opened:
        yield opened


REAL_DATA = Path(os.environ.get("BVAE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


def real_data(name: str) -> Path:
    """A file of real data that is not part of the repository; skips where it is absent."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"no {name}: set BVAE_TEST_DATA to the directory that holds it")
    return path


@contextlib.contextmanager
def float64():
    """Double precision inside the block."""
    enable = getattr(jax, "enable_x64", None)
    if enable is None:
        enable = jax.experimental.enable_x64  # pyright: ignore
    with enable(True):
        yield


def changed(trainer, **attributes):
    """A copy of a trainer with other attributes, such as a function that a test watches."""
    other = copy.copy(trainer)
    for name, value in attributes.items():
        setattr(other, name, value)
    return other


def raw(leaf):
    """A leaf as a NumPy array; keys as their data."""
    is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_equal(a, b):
    """The same structure and the same bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(raw(x), raw(y)), a, b)


def assert_close(a, b, rtol=2e-5, atol=2e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(raw(x), raw(y), rtol, atol), a, b)
