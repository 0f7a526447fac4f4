"""README.md and its neighbours: what they name is there, what they print runs."""

import ast
import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import readme_tables
import site_pages

from bvae_jax import Config, ScoreConfig, cli, run, score_file
from bvae_jax.cli import data as data_command
from bvae_jax.cli import parsing
from bvae_jax.data import DATASETS
from bvae_jax.data.catalogue import KNOWN
from bvae_jax.likelihoods import LIKELIHOODS
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.scoring import metric_names
from bvae_jax.networks import NETWORKS
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.presets import get_preset
from bvae_jax.runs.grid import parse_grid
from bvae_jax.runs.hyper import resolved

ROOT = Path(__file__).parents[1]
TEXTS = {
    name: (ROOT / name).read_text()
    for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md", "CHANGELOG.md")
}
README, CONTRIBUTING = TEXTS["README.md"], TEXTS["CONTRIBUTING.md"]
FENCE = re.compile(r'^```(\w*)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<!\S)--[a-z][\w-]*")
# Of scripts and other programs; every other flag is one of ours.
FOREIGN_FLAGS = {"--small", "--original", "--scale", "--dir", "--pictures"}


def fences(text: str, language: str) -> list[str]:
    """Blocks of a language."""
    return [body for found, _, body in FENCE.findall(text) if found == language]


def titled(text: str) -> dict[str, str]:
    """Name of a file -> the block that shows it."""
    return {title: body for _, title, body in FENCE.findall(text) if title}


def spans(text: str) -> list[str]:
    """What stands between backticks, outside blocks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def commands(text: str) -> Iterator[list[str]]:
    """Arguments of each `bvae` in a block of shell commands."""
    for block in fences(text, "sh"):
        block = re.sub(r"\$\([^)]*\)", "", block.replace("\\\n", " "))
        for line in block.splitlines():
            yield from in_line(line)


def in_line(line: str) -> Iterator[list[str]]:
    """Arguments of each `bvae` in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";")
    lexer.whitespace_split = True
    words = list(lexer)
    while "bvae" in words:
        words = words[words.index("bvae") + 1 :]
        end = words.index(";") if ";" in words else len(words)
        yield words[:end]
    for word in words:
        if word.startswith("bvae "):  # quoted
            yield shlex.split(word)[1:]


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_pictures_are_there(name):
    targets = [t for t in LINK.findall(FENCE.sub("", TEXTS[name])) if "://" not in t]
    for target in targets:
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
            assert anchor in map(site_pages.slug, titles), target


@pytest.mark.parametrize("name", TEXTS)
def test_named_files_and_make_targets_are_there(name):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for code in [*fences(TEXTS[name], "sh"), *spans(TEXTS[name])]:
        for target in re.findall(r"(?:^|\n)make ([\w-]+)", code):
            assert target in targets, target
        for path in re.findall(r"\b(?:experiments|tests|bvae_jax|docs)/[\w/]+\.\w+\b", code):
            assert (ROOT / path).exists() or path in titled(TEXTS[name]), path


def test_each_notebook_has_its_badge():
    files = sorted((ROOT / "notebooks").glob("*.ipynb"))
    badge = r"colab-badge\.svg\)\]\(https://colab\.research\.google\.com/github/bvae-jax/bvae_jax/blob/main/"
    assert sorted(re.findall(rf"{badge}(notebooks/\w+\.ipynb)\)", README)) == [
        f"notebooks/{file.name}" for file in files
    ]


def test_tables_are_those_of_the_registries():
    named = [name for _, name, _ in readme_tables.BLOCK.findall(README)]
    assert sorted(named) == sorted(readme_tables.TABLES)
    for old, new in zip(README.splitlines(), readme_tables.refreshed(README).splitlines(),
                        strict=False):  # fmt: skip
        assert old == new, "README.md is stale: call make docs"


def test_counts_in_prose():
    assert f"{len(METRICS)} disentanglement metrics" in README
    assert f"{len(OBJECTIVES)}: `bvae objectives`" in README
    assert f"{len(METRICS)}: `bvae score`" in README


@pytest.fixture
def parsed(monkeypatch):
    """argv -> its arguments as the command parses them; nothing is done."""

    class Parsed(Exception):
        pass

    def stop(kind, argv, prog, **options):
        raise Parsed(parsing.parse(kind, argv, prog, **options))

    for name, module in list(sys.modules.items()):
        used = name.startswith("bvae_jax.cli.") and module is not parsing
        if used and getattr(module, "parse", None) is parsing.parse:
            monkeypatch.setattr(module, "parse", stop)

    def parse(argv):
        command, *rest = argv
        with pytest.raises(Parsed) as found:
            cli.COMMANDS[command](rest)
        return found.value.args[0]

    return parse


def test_commands_can_be_parsed(parsed):
    found = [*commands(README), *commands(CONTRIBUTING)]
    for argv in found:
        check_names(parsed(argv))
    assert len(found) > 30


def check_names(args):
    """Names that flags give are known, but for those that CONTRIBUTING.md makes."""
    config = getattr(args, "config", None)
    if isinstance(config, ScoreConfig) and config.metrics not in ("none", "mcc"):
        metric_names(config.metrics)
    if isinstance(config, Config):
        if config.objective != "free_bits":
            resolved(config)
        assert config.network in NETWORKS
        assert config.likelihood in LIKELIHOODS
        known = {*DATASETS, *(one.name for one in KNOWN), "discs", "folder", "npz"}
        assert {config.dataset, config.dataset.partition(":")[0]} & known
    if getattr(args, "preset", None):
        get_preset(args.preset)
    if getattr(args, "grid", ()):
        parse_grid(args.grid)


@pytest.mark.parametrize("name", TEXTS)
def test_commands_and_flags_in_prose_exist(name):
    """Of a command that is named, or of any."""
    nested = [("data", name) for name in data_command.COMMANDS]
    known: dict[tuple[str, ...], set[str]] = {
        command: {*FLAG.findall(site_pages.help_of([*command])), "--help"}
        for command in [*((name,) for name in cli.COMMANDS), *nested]
    }
    for span in spans(TEXTS[name]):
        words = tuple(span.split())
        if words[0] == "bvae":
            command = words[1:3] if words[1:3] in known else words[1:2]
            assert command in known or command in {("COMMAND",), ("data",)}, span
            assert {*FLAG.findall(span)} <= known.get(command, set()), span
        elif words[0].startswith("--"):
            assert {*FLAG.findall(span)} <= FOREIGN_FLAGS.union(*known.values()), span


@pytest.mark.parametrize("block", [*fences(README, "python")])
def test_python_compiles_and_imports_what_is_there(block):
    imports = [node for node in ast.parse(block).body if isinstance(node, ast.ImportFrom)]
    for node in imports:
        module = importlib.import_module(str(node.module))
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_every_page_of_the_site_stands_in_its_menu():
    pages = {*site_pages.readme_pages(README), *site_pages.api_pages(), "commands.md"}
    pages |= {*site_pages.FILES.values()}
    menu = (ROOT / "mkdocs.yml").read_text()
    assert sorted(re.findall(r"[\w/-]+\.md", menu)) == sorted(pages)
    for names in site_pages.MODULES.values():
        for name in names.split():
            assert (ROOT / "bvae_jax" / f"{name}.py").exists(), name


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    for line in (f"version: {project['version']}", f"license: {project['license']}"):
        assert f"\n{line}\n" in citation
    assert project["authors"][0]["name"] in citation


REGISTRIES = {"objectives": OBJECTIVES, "metrics": METRICS, "data": DATASETS}
QUICK = {"steps": 2, "batch_size": 4, "latents": 2, "network": "mlp", "eval_images": 4}


@pytest.fixture
def added(monkeypatch, tmp_path):
    """Do what CONTRIBUTING.md says: write the file of a new entry, and its line in the registry."""

    def add(package: str) -> str:
        blocks = {Path(file): body for file, body in titled(CONTRIBUTING).items()}
        file, body = next((f, b) for f, b in blocks.items()
                          if f.parent.name == package and f.stem != "__init__")  # fmt: skip
        path = tmp_path / file.name
        path.write_text(body)
        name = f"bvae_jax.{package}.{file.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        line = blocks[Path("bvae_jax") / package / "__init__.py"]
        entry = eval("{" + line + "}", {file.stem: module})
        monkeypatch.setattr(f"bvae_jax.{package}.{file.stem}", module, raising=False)
        for key, value in entry.items():
            monkeypatch.setitem(REGISTRIES[package], key, value)
        assert lines_of_code(body) <= 15
        return next(iter(entry))

    return add


def lines_of_code(body: str) -> int:
    """Lines that are neither empty nor part of a docstring."""
    nodes = [node for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Expr)]
    docs = {n for node in nodes if isinstance(node.value, ast.Constant)
            for n in range(node.lineno, int(node.end_lineno or 0) + 1)}  # fmt: skip
    return sum(bool(line) and n not in docs for n, line in enumerate(body.splitlines(), 1))


def test_an_objective_is_added_as_contributing_says(added, tmp_path):
    config = Config(objective=added("objectives"), image_source="rendered", **QUICK)
    result = run(config, tmp_path / "run", figures=False, progress=False)
    assert result.summary
    assert result.summary["step"] == 2
    floor = OBJECTIVES["free_bits"].hyper["capacity"]
    assert result.summary["loss"] >= result.summary["nll"] + floor - 1e-3


def test_a_metric_is_added_as_contributing_says(added, tmp_path):
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 9, (500, 3))
    noise = rng.normal(size=(500, 2))
    config = ScoreConfig(metrics=added("metrics"))
    for known, wanted in ((factors, 1.0), (factors[:, :1], 1 / 3)):
        np.savez(tmp_path / "codes.npz", codes=np.hstack([noise, -known]), factors=factors)
        entry = score_file(tmp_path / "codes.npz", config, progress=False)["mcc"]
        assert entry["score"] == pytest.approx(wanted, abs=0.1)


def test_a_data_set_is_added_as_contributing_says(added, tmp_path):
    config = Config(dataset=added("data"), likelihood="continuous_bernoulli", **QUICK)
    result = run(config, tmp_path / "run", figures=False, progress=False)
    assert result.summary
    assert result.summary["step"] == 2
    assert result.program.dataset.size == 4 * 16 * 16


SMALLER = {
    "train": ("--steps 2 --batch-size 4 --network burgess --image-source rendered --eval-images 4 "
              "--quiet --no-figures"),
    "evaluate": "--metrics mig,sap_r2 --num-points 300 --train-points 200 --test-points 90 --quiet",
    "score": "--quiet",
}  # fmt: skip


@pytest.mark.once
def test_the_commands_of_train_and_score_run(tmp_path, monkeypatch, capsys):
    """As they stand, in their order, but smaller; a resumed run keeps what it has."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {"codes": rng.normal(size=(900, 4)), "factors": rng.integers(0, 4, (900, 3))}
    np.savez("codes.npz", **arrays)
    found = site_pages.sections(README)
    for argv in [*commands(found["Train"]), *commands(found["Score"])]:
        smaller = SMALLER.get(argv[0], "").split()
        if "--resume" in argv:
            argv = [*argv, "--steps", "3" if "--steps" in argv else "2"]
            smaller = ["--quiet", "--no-figures"]
        if argv[:3] == ["train", "--run-dir", "runs/x"] and (tmp_path / "runs/x").exists():
            smaller += [] if "--resume" in argv else ["--overwrite"]
        if argv[0] == "score":
            argv = [*argv, "--metrics", "fast"]
        assert cli.main([*argv, *smaller]) == 0, (argv, capsys.readouterr().err)
    assert (tmp_path / "scores.json").exists()
    block = next(block for block in fences(found["Train"], "python") if "encode(" in block)
    values = {}
    exec(block, values)
    assert values["pictures"].shape == values["images"].shape == (2, 64, 64, 1)
