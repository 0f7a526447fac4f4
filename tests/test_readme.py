"""README.md, the guide and their neighbours: what they name exists, what they show runs."""

import ast
import dataclasses
import importlib
import importlib.util
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import guide_tables
import numpy as np
import pytest
import site_pages
from PIL import Image

import benchmarks.__main__ as benchmarks
import bvae_jax as bvae
from bvae_jax import cli
from bvae_jax.cli import data as data_command
from bvae_jax.cli import flags as parsing
from bvae_jax.config import is_path
from bvae_jax.data import DATASETS
from bvae_jax.data.catalogue import KNOWN
from bvae_jax.likelihoods import LIKELIHOODS
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.scoring import metric_names
from bvae_jax.networks import NETWORKS
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.presets import get_preset
from bvae_jax.runs.grid import parse_grid
from bvae_jax.runs.hyper import parse_hyper, resolved

ROOT = Path(__file__).parents[1]
TEXTS = site_pages.texts()
GUIDE = {name: text for name, text in TEXTS.items() if name.startswith("docs/")}
README, CONTRIBUTING = TEXTS["README.md"], TEXTS["CONTRIBUTING.md"]
SHOWN = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING, **GUIDE}
"""Pages whose commands and Python are checked."""
NOW = [name for name in TEXTS if name != "CHANGELOG.md"]
"""Pages that name nothing that is gone."""
FENCE = re.compile(r'^```(\w*)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<!\S)--[a-z][\w-]*")
# Of scripts and other programs; every other flag is one of ours.
FOREIGN_FLAGS = {"--scale", "--dir", "--pictures", "--json"}
FOREIGN_FLAGS |= {f"--{field.name}" for field in dataclasses.fields(benchmarks.Settings)}
ADDED = {"free_bits", "linear_r2", "discs", "tilted"}
"""Names that CONTRIBUTING.md and the guide add."""


def fences(text: str, language: str) -> list[str]:
    """Blocks of a language."""
    return [body for found, _, body in FENCE.findall(text) if found == language]


def titled(text: str) -> dict[str, str]:
    """Name of a file -> the block that shows it."""
    return {title: body for _, title, body in FENCE.findall(text) if title}


def spans(text: str) -> list[str]:
    """What is between backticks, outside blocks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def commands(text: str) -> Iterator[list[str]]:
    """Arguments of each `bvae` in a block of shell commands."""
    for block in fences(text, "sh"):
        block = re.sub(r"\$\([^)]*\)", "", block.replace("\\\n", " "))
        for line in block.splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";")
            lexer.whitespace_split = True
            words = list(lexer)
            while "bvae" in words:
                words = words[words.index("bvae") + 1 :]
                end = words.index(";") if ";" in words else len(words)
                yield words[:end]


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_pictures_exist(name):
    targets = [t for t in LINK.findall(FENCE.sub("", TEXTS[name])) if "://" not in t]
    for target in targets:
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
            assert anchor in map(site_pages.slug, titles), target


@pytest.mark.parametrize("name", NOW)
def test_named_files_and_make_targets_exist(name):
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
    assert sorted(name for text in TEXTS.values() for _, name, _ in guide_tables.BLOCK.findall(text)
                  ) == sorted(guide_tables.TABLES)  # fmt: skip
    for name, text in GUIDE.items():
        assert guide_tables.refreshed(text) == text, f"{name} is stale: call make docs"


def test_counts_in_prose():
    assert f"with {len(METRICS)} disentanglement metrics" in README
    assert f"[Objectives](docs/objectives.md): {len(OBJECTIVES)}," in README
    assert f"[Metrics](docs/metrics.md): {len(METRICS)}," in README
    other = TEXTS["docs/other-libraries.md"]
    assert f"[{len(OBJECTIVES)}](objectives.md) | [{len(METRICS)}](metrics.md)" in other


KINDS = {"objectives": "objective", "metrics": "metric", "data": "dataset"}


@pytest.fixture
def added(registries):
    """Register what the file of a new entry in CONTRIBUTING.md defines last."""

    def add(package: str) -> str:
        file, body = next((Path(file), body) for file, body in titled(CONTRIBUTING).items()
                          if Path(file).parent.name == package)  # fmt: skip
        assert lines_of_code(body) <= 15
        values = {"__name__": file.stem}
        exec(body, values)
        bvae.register(**{KINDS[package]: {file.stem: [*values.values()][-1]}})  # pyright: ignore
        return file.stem

    return add


def lines_of_code(body: str) -> int:
    """Lines that are neither empty nor part of a docstring."""
    nodes = [node for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Expr)]
    docs = {n for node in nodes if isinstance(node.value, ast.Constant)
            for n in range(node.lineno, int(node.end_lineno or 0) + 1)}  # fmt: skip
    return sum(bool(line) and n not in docs for n, line in enumerate(body.splitlines(), 1))


@pytest.fixture
def parsed(monkeypatch, tmp_path, added):
    """argv -> its arguments as the command parses them; nothing is done. Names that CONTRIBUTING.md
    and the guide add are known."""
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        added(kind)
    np.savez("codes.npz", codes=np.zeros((3, 2)), factors=np.zeros((3, 2), int))
    for text in GUIDE.values():
        for name, body in titled(text).items():
            Path(name).write_text(body)

    class Parsed(Exception):
        pass

    def stop(*args):
        raise Parsed(parse_flags(*args))

    parse_flags = parsing.parse
    for name, module in list(sys.modules.items()):
        if name.startswith("bvae_jax.cli.") and getattr(module, "parse", None) is parse_flags:
            monkeypatch.setattr(module, "parse", stop)

    def parse(argv):
        command, *rest = argv
        with pytest.raises(Parsed) as found:
            cli.COMMANDS[command][0](rest)
        return found.value.args[0]

    return parse


def test_commands_can_be_parsed(parsed):
    found = [argv for text in SHOWN.values() for argv in commands(text)]
    for argv in found:
        check_names(parsed(argv))
    assert len(found) > 30


def test_benchmarks_can_be_parsed():
    command = re.compile(r'(?:python -m benchmarks|make benchmark ARGS=") ?(--[^"#\n]*)')
    blocks = [block for text in TEXTS.values() for block in fences(text, "sh")]
    found = command.findall("\n".join(blocks).replace("\\\n", " ").replace("$precision", "float32"))
    for arguments in found:
        if arguments.strip() != "--help":
            benchmarks.parse(shlex.split(arguments))
    assert len(found) > 3


def check_names(given):
    """Names that flags give are known."""
    score = given.get("score", {})
    if score.get("metrics") != "none":
        metric_names(score.get("metrics", "all"))
    if "settings" in given:
        config = bvae.Config(hyper=parse_hyper(given.get("hyper", ())), **given["settings"])
        resolved(config)
        assert config.network in NETWORKS
        assert config.likelihood in LIKELIHOODS
        known = {*DATASETS, *(one.name for one in KNOWN), "folder", "npz"}
        name = config.dataset
        assert is_path(name) or {name, name.partition(":")[0]} & known
    if "preset" in given:
        get_preset(given["preset"])
    parse_grid(given.get("grid", ()))


@pytest.fixture(scope="module")
def flags():
    """Command -> its flags."""
    names = [(name,) for name in (*cli.COMMANDS, "COMMAND")]
    names += [(), *(("data", name) for name in data_command.COMMANDS)]
    return {name: {*FLAG.findall(site_pages.help_of([*name])), "--help"} for name in names}


@pytest.mark.parametrize("name", NOW)
def test_commands_and_flags_in_prose_exist(name, flags):
    """Of a command that is named, or of any."""
    for span in spans(TEXTS[name]):
        words = tuple(span.split())
        if words[0] == "bvae":
            command = words[1:3] if words[1:3] in flags else words[1:2]
            command = () if command[0].startswith("--") else command
            assert command in flags, span
            assert {*FLAG.findall(span)} <= flags.get(command, set()), span
        elif words[0].startswith("--"):
            assert {*FLAG.findall(span)} <= FOREIGN_FLAGS.union(*flags.values()), span


@pytest.mark.parametrize("name", SHOWN)
def test_python_names_what_exists(name):
    """Imports, and attributes of the package."""
    for block in fences(SHOWN[name], "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    assert hasattr(module, alias.name) or importlib.util.find_spec(full), full
            if isinstance(node, ast.Attribute) and re.fullmatch(r"bvae[\w.]+", ast.unparse(node)):
                eval(ast.unparse(node), {"bvae": bvae})


def test_the_site_has_every_page_in_its_menu_and_what_pages_link_to():
    menu, pages = (ROOT / "mkdocs.yml").read_text(), site_pages.pages()
    assert sorted(re.findall(r"[\w/-]+\.md", menu)) == sorted(pages)
    assert f": {site_pages.LIVE}\n" in menu
    for name in map(site_pages.page_of, site_pages.texts()):
        for target in site_pages.LINK.findall(FENCE.sub("", pages[name])):
            copied = target.startswith(site_pages.COPIED) and (ROOT / target).exists()
            assert target in pages or copied or (ROOT / "docs" / target).exists(), (name, target)


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    for line in (f"version: {project['version']}", f"license: {project['license']}"):
        assert f"\n{line}\n" in citation
    assert project["authors"][0]["name"] in citation


QUICK = {"steps": 2, "batch_size": 4, "latents": 2, "network": "tiny", "eval_images": 4}


@pytest.mark.usefixtures("tiny_network")
def test_an_objective_is_added_as_contributing_says(added, tmp_path):
    config = bvae.Config(objective=added("objectives"), image_source="rendered", **QUICK)
    summary = bvae.train(config, tmp_path / "run", figures=False, progress=False).summary
    assert summary
    assert summary["step"] == 2
    floor = OBJECTIVES["free_bits"].hyper["capacity"]
    assert summary["loss"] >= summary["nll"] + floor - 1e-3


def test_a_metric_is_added_as_contributing_says(added):
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 9, (500, 3))
    noise = rng.normal(size=(500, 2))
    name = added("metrics")
    for known, wanted in ((factors, 1.0), (factors[:, :1], 1 / 3)):
        scores = bvae.score(np.hstack([noise, -known]), factors, metrics=name)
        assert scores[name]["score"] == pytest.approx(wanted, abs=0.1)


@pytest.mark.usefixtures("tiny_network")
def test_a_data_set_is_added_as_contributing_says(added, tmp_path):
    config = bvae.Config(dataset=added("data"), likelihood="continuous_bernoulli", **QUICK)
    run = bvae.train(config, tmp_path / "run", figures=False, progress=False)
    assert run.summary
    assert run.summary["step"] == 2
    assert run.dataset.size == 4 * 16 * 16


TINY = ROOT / "tests" / "tiny.py"
SMALLER = {
    "steps=3000": "steps=2, batch_size=4, network='tiny', image_source='rendered', eval_images=4",
    ', "runs/b4")\n': ', "runs/b4", figures=False)\n',
    'network="mlp", steps=100': 'network="tiny", steps=2',
}


@pytest.mark.once
@pytest.mark.usefixtures("shared_trainers")
@pytest.mark.parametrize(
    "name",
    ["README.md", *(f"docs/{n}.md" for n in ("python", "metrics", "choosing-beta", "sharing"))],
)
def test_python_runs(name, tmp_path, monkeypatch, registries, hub):
    """As it is, in its order, but smaller."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(TINY))
    for block in fences(SHOWN[name], "python"):
        for shown, smaller in SMALLER.items():
            block = block.replace(shown, smaller)
        exec(block, {"__name__": "shown"})


STEPS = "--steps 2 --batch-size 4 --network tiny --image-source rendered --eval-images 4 --quiet"
FLAGS = {
    "train": f"{STEPS} --no-figures",
    "sweep": f"{STEPS} --seeds 1",
    "evaluate": "--metrics mig,sap_r2 --num-points 300 --train-points 200 --test-points 90 --quiet",
}


@pytest.mark.once
@pytest.mark.usefixtures("shared_trainers")
@pytest.mark.parametrize("name", ["README.md", "docs/training.md"])
def test_commands_run(name, tmp_path, monkeypatch, capsys, registries):
    """As they are, in their order, but smaller; a resumed run keeps what it has."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(TINY))
    Image.new("L", (40, 30)).save("my.png")
    for argv in commands(SHOWN[name]):
        smaller = FLAGS.get(argv[0], "").split()
        if "--resume" in argv:
            smaller = ["--quiet", "--no-figures", "--steps", "3" if "--steps" in argv else "2"]
        elif argv[0] == "train" and Path(argv[argv.index("--run-dir") + 1]).exists():
            smaller += ["--overwrite"]
        assert cli.main([*argv, *smaller]) == 0, (argv, capsys.readouterr().err)
